//! The encoder with a classification head.

use candle_core::Tensor;
use tgm_ops::{Compute, Init, Params};

use crate::block::{Dense, Norm};
use crate::{DropPath, Encoder, MaeConfig, MaeError};

/// A fine-tuned model: clip in, class scores out.
#[derive(Clone, Debug)]
pub struct Classifier {
    encoder: Encoder,
    /// With mean pooling, its layer norm; without, the first token is classified, as `transformers` does.
    pooled_norm: Option<Norm>,
    head: Dense,
}

impl Classifier {
    /// Defines the parameters of encoder and head. A config without `final_norm` pools by the mean.
    ///
    /// # Errors
    /// When the config is invalid.
    pub fn new(config: &MaeConfig, classes: usize, params: &mut Params) -> Result<Self, MaeError> {
        let encoder = Encoder::new(config, params)?;
        let dim = config.encoder.dim;
        params.scope("classifier", |params| {
            let pooled_norm = match config.final_norm {
                true => None,
                false => Some(params.scope("norm", |p| Norm::new(dim, config.head_norm_eps, p))?),
            };
            // VideoMAE's `modeling_finetune.py`: timm's truncated normal, whose cuts are at ±2 and so nowhere, times `init_scale` 0.001.
            // (That of `modeling_pretrain.py` is cut at one deviation.)
            let init = Init::TruncatedNormal { std: 0.02 * 0.001, cut: 2.0 * 0.001 };
            let head = params
                .scope("head", |p| Dense::with_init(dim, classes, true, init, Init::Constant(0.0), p))?;
            Ok(Self { encoder, pooled_norm, head })
        })
    }

    /// The same classifier, with the same parameters, whose encoder computes otherwise; the head stays in f32.
    #[must_use]
    pub fn with_compute(mut self, compute: Compute) -> Self {
        self.encoder = self.encoder.with_compute(compute);
        self
    }

    /// Class scores `[B, classes]` of clips `[B, N, P]`.
    ///
    /// # Errors
    /// When the shapes do not fit.
    pub fn forward(&self, tubelets: &Tensor) -> Result<Tensor, MaeError> {
        self.classify(&self.encoder.forward_all(tubelets)?)
    }

    /// As [`Classifier::forward`], with branches of the encoder left out as drawn: for fine-tuning.
    ///
    /// # Errors
    /// When the shapes do not fit.
    pub fn forward_dropping(&self, tubelets: &Tensor, drop: &DropPath) -> Result<Tensor, MaeError> {
        self.classify(&self.encoder.forward_dropping(tubelets, drop)?)
    }

    /// What the head makes class scores of: a vector `[B, D]` for each of the clips `[B, N, P]`.
    ///
    /// # Errors
    /// When the shapes do not fit.
    pub fn features(&self, tubelets: &Tensor) -> Result<Tensor, MaeError> {
        self.pool(&self.encoder.forward_all(tubelets)?)
    }

    fn classify(&self, tokens: &Tensor) -> Result<Tensor, MaeError> {
        Ok(self.head.forward(&self.pool(tokens)?, Compute::default())?)
    }

    fn pool(&self, tokens: &Tensor) -> Result<Tensor, MaeError> {
        Ok(match &self.pooled_norm {
            Some(norm) => norm.forward(&tokens.mean(1)?)?,
            None => tokens.narrow(1, 0, 1)?.squeeze(1)?,
        })
    }
}
