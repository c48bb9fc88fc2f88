//! Stochastic depth: branches of blocks that are left out at random in fine-tuning.

use candle_core::{Device, Tensor};
use rand::{Rng, RngExt};

use crate::MaeError;

/// One draw for a batch: per block and branch, 0 or 1/(1 − rate) for each sample (Huang et al. 2016; timm's `DropPath`).
///
/// The rate grows linearly from 0 in the first block to the given one in the last, as in VideoMAE.
#[derive(Clone, Debug)]
pub struct DropPath {
    pub(crate) factors: Vec<[Tensor; 2]>,
}

impl DropPath {
    /// Draws for `batch` samples and `depth` blocks; nothing for a rate of 0.
    ///
    /// # Errors
    /// [`MaeError::Input`] unless 0 ≤ `rate` < 1.
    pub fn draw(rate: f64, depth: usize, batch: usize, rng: &mut impl Rng) -> Result<Option<Self>, MaeError> {
        if !(0.0..1.0).contains(&rate) {
            return Err(MaeError::Input(format!("drop path {rate} must lie between 0 and below 1")));
        }
        if rate == 0.0 {
            return Ok(None);
        }
        let mut branch = |rate: f64| -> Result<Tensor, MaeError> {
            let kept = (1.0 - rate).recip() as f32;
            let draw = |_| if rng.random_bool(rate) { 0.0 } else { kept };
            let factors: Vec<f32> = (0..batch).map(draw).collect();
            Ok(Tensor::from_vec(factors, (batch, 1, 1), &Device::Cpu)?)
        };
        let factors = (0..depth)
            .map(|block| {
                let rate = rate * block as f64 / (depth.max(2) - 1) as f64;
                Ok([branch(rate)?, branch(rate)?])
            })
            .collect::<Result<_, MaeError>>()?;
        Ok(Some(Self { factors }))
    }

    /// The draw of `len` samples from `start` on: a micro-batch sees its part of the batch's.
    ///
    /// # Errors
    /// When there are not so many.
    pub fn narrow(&self, start: usize, len: usize) -> Result<Self, MaeError> {
        let part = |[a, b]: &[Tensor; 2]| -> Result<[Tensor; 2], MaeError> {
            Ok([a.narrow(0, start, len)?, b.narrow(0, start, len)?])
        };
        Ok(Self { factors: self.factors.iter().map(part).collect::<Result<_, _>>()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tgm_random::Streams;

    #[test]
    fn the_rate_grows_with_depth_and_what_is_kept_makes_up_for_what_is_not() {
        let mut stream = Streams::new(3).stream("drop-path", 0, 0);
        let drawn = DropPath::draw(0.4, 5, 4000, &mut stream).unwrap().unwrap();
        for (block, factors) in drawn.factors.iter().enumerate() {
            for factors in factors {
                let values = factors.flatten_all().unwrap().to_vec1::<f32>().unwrap();
                let dropped = values.iter().filter(|v| **v == 0.0).count() as f64 / 4000.0;
                assert!((dropped - 0.1 * block as f64).abs() < 0.03, "block {block}: {dropped}");
                assert!((values.iter().sum::<f32>() / 4000.0 - 1.0).abs() < 0.05);
            }
        }
    }

    #[test]
    fn no_rate_is_no_draw_and_one_is_refused() {
        let mut stream = Streams::new(3).stream("drop-path", 0, 0);
        assert!(DropPath::draw(0.0, 5, 4, &mut stream).unwrap().is_none());
        assert!(DropPath::draw(1.0, 5, 4, &mut stream).is_err());
    }
}
