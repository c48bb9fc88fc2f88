//! Stochastic depth: branches of blocks that are left out at random in fine-tuning.

use rand::{Rng, RngExt};

use crate::MaeError;

/// One draw for a batch: per block and branch, 0 or 1/(1 − rate) for each sample (Huang et al. 2016; timm's `DropPath`).
///
/// The rate grows linearly from 0 in the first block to the given one in the last, as in VideoMAE.
#[derive(Clone, Debug)]
pub struct DropPath {
    pub(crate) factors: Vec<[Vec<f32>; 2]>,
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
        let mut branch = |rate: f64| -> Vec<f32> {
            let kept = (1.0 - rate).recip() as f32;
            (0..batch).map(|_| if rng.random_bool(rate) { 0.0 } else { kept }).collect()
        };
        let factors = (0..depth).map(|block| {
            let rate = rate * block as f64 / (depth.max(2) - 1) as f64;
            [branch(rate), branch(rate)]
        });
        Ok(Some(Self { factors: factors.collect() }))
    }

    /// The draw of `len` samples from `start` on: a micro-batch sees its part of the batch's.
    ///
    /// # Errors
    /// [`MaeError::Input`] when there are not so many.
    pub fn narrow(&self, start: usize, len: usize) -> Result<Self, MaeError> {
        let part = |factors: &Vec<f32>| {
            let part = start.checked_add(len).and_then(|end| factors.get(start..end)).map(<[f32]>::to_vec);
            part.ok_or_else(|| {
                MaeError::Input(format!("samples {start}.. ({len}) of a draw for {}", factors.len()))
            })
        };
        let factors = self.factors.iter().map(|[attention, mlp]| Ok([part(attention)?, part(mlp)?]));
        Ok(Self { factors: factors.collect::<Result<_, MaeError>>()? })
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
            for values in factors {
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

    #[test]
    fn a_micro_batch_has_its_part_of_the_draw() {
        let mut stream = Streams::new(3).stream("drop-path", 0, 0);
        let drawn = DropPath::draw(0.5, 3, 8, &mut stream).unwrap().unwrap();
        let part = drawn.narrow(2, 4).unwrap();
        for (all, part) in drawn.factors.iter().zip(&part.factors) {
            assert_eq!([&all[0][2..6], &all[1][2..6]], [&part[0][..], &part[1][..]]);
        }
        assert!(drawn.narrow(6, 4).is_err() && drawn.narrow(usize::MAX, 4).is_err());
    }
}
