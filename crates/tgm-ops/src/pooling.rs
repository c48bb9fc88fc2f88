//! From a clip's tokens to one vector.

use candle_core::{Result, Tensor, bail};
use serde::{Deserialize, Serialize};

/// How a set of tokens becomes one vector.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Pooling {
    /// The mean over the tokens.
    #[default]
    Mean,
    /// The largest value of each channel; where several tokens have it, each takes the gradient.
    Max,
}

impl Pooling {
    /// Tokens `[B, N, D]` to `[B, D]`.
    ///
    /// # Errors
    /// When the input is no batch of tokens, or has none.
    pub fn apply(self, tokens: &Tensor) -> Result<Tensor> {
        if tokens.dims3()?.1 == 0 {
            bail!("pooling: {:?} are batches of no tokens", tokens.shape());
        }
        match self {
            Self::Mean => tokens.mean(1),
            Self::Max => tokens.max(1),
        }
    }
}

#[cfg(test)]
mod tests {
    use candle_core::{Device, Var};

    use super::*;

    #[test]
    fn each_channel_is_pooled_by_itself_and_the_maximum_passes_its_gradient_to_where_it_was() {
        let tokens =
            Var::new(&[[[1.0_f32, -4.0], [3.0, -2.0]], [[5.0, 0.0], [0.0, 7.0]]], &Device::Cpu).unwrap();
        let pooled = |pooling: Pooling| pooling.apply(&tokens).unwrap();
        assert_eq!(pooled(Pooling::Mean).to_vec2::<f32>().unwrap(), [[2.0, -3.0], [2.5, 3.5]]);
        assert_eq!(pooled(Pooling::Max).to_vec2::<f32>().unwrap(), [[3.0, -2.0], [5.0, 7.0]]);
        let gradients = pooled(Pooling::Max).sum_all().unwrap().backward().unwrap();
        let gradient = gradients.get(&tokens).unwrap().to_vec3::<f32>().unwrap();
        assert_eq!(gradient, [[[0.0, 0.0], [1.0, 1.0]], [[1.0, 0.0], [0.0, 1.0]]]);
        assert!(Pooling::Max.apply(&tokens.flatten_all().unwrap()).is_err());
    }
}
