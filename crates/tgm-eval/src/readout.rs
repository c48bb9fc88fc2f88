//! Which feature vector a frozen encoder's tokens become.

use candle_core::{Result, Tensor};
use tgm_ops::Pooling;

/// How the tokens of a clip, `[S·P, D]` for `S` temporal slots of `P` places, become one vector.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Readout {
    /// One token's worth, `[D]`: what linear probes of the field stand on.
    Pooled(Pooling),
    /// Every token less the mean over time of its place, `[S·P·D]`. What stands still falls out, and where and when something
    /// moves stays in, which a mean over all tokens loses. Long: for small models and sets.
    Motion,
}

impl Readout {
    /// Tokens `[B, S·P, D]`, slot after slot, to one vector per clip.
    ///
    /// # Errors
    /// When the input is no batch of tokens, has none, or does not divide into `slots`.
    pub fn apply(self, tokens: &Tensor, slots: usize) -> Result<Tensor> {
        let (batch, count, dim) = tokens.dims3()?;
        match self {
            Self::Pooled(pooling) => pooling.apply(tokens),
            Self::Motion => {
                let slots = slots.max(1);
                let by_slot = tokens.reshape((batch, slots, count / slots, dim))?;
                by_slot.broadcast_sub(&by_slot.mean_keepdim(1)?)?.reshape((batch, count * dim))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;

    /// Two slots of two places, one channel.
    fn tokens(values: [f32; 4]) -> Tensor {
        Tensor::from_slice(&values, (1, 4, 1), &Device::Cpu).unwrap()
    }

    fn motion(values: [f32; 4]) -> Vec<f32> {
        Readout::Motion.apply(&tokens(values), 2).unwrap().flatten_all().unwrap().to_vec1().unwrap()
    }

    #[test]
    fn what_stands_still_leaves_nothing_whatever_it_is() {
        assert_eq!(motion([5.0, -3.0, 5.0, -3.0]), [0.0; 4]);
    }

    #[test]
    fn what_moves_is_told_by_place_and_time_where_the_mean_token_is_the_same() {
        let (leaves, comes) = ([1.0, 0.0, 0.0, 0.0], [0.0, 0.0, 1.0, 0.0]);
        assert_eq!(motion(leaves), [0.5, 0.0, -0.5, 0.0]);
        assert_eq!(motion(comes), [-0.5, 0.0, 0.5, 0.0]);
        let mean = |values| {
            let pooled = Readout::Pooled(Pooling::Mean).apply(&tokens(values), 2).unwrap();
            pooled.to_vec2::<f32>().unwrap()
        };
        assert_eq!(mean(leaves), mean(comes));
    }

    #[test]
    fn tokens_that_do_not_divide_into_slots_are_an_error() {
        assert!(Readout::Motion.apply(&tokens([0.0; 4]), 3).is_err());
    }
}
