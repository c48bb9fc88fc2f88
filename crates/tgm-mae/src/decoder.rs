//! The decoder: from encoded visible tubelets to the pixels of hidden ones.

use candle_core::Tensor;
use tgm_ops::{Compute, Init, Params, gather_tokens};

use crate::block::{Block, Dense, Norm, stack};
use crate::position::sinusoid_table;
use crate::{MaeConfig, MaeError, TokenSplit};

/// A small transformer over visible tokens and mask tokens.
#[derive(Clone, Debug)]
pub struct Decoder {
    projection: Dense,
    mask_token: Tensor,
    positions: Tensor,
    blocks: Vec<Block>,
    norm: Norm,
    head: Dense,
    compute: Compute,
}

impl Decoder {
    /// Defines the parameters `projection.weight`, `mask_token` and `decoder.…`.
    ///
    /// # Errors
    /// When the config is invalid or a name is taken.
    pub fn new(config: &MaeConfig, params: &mut Params) -> Result<Self, MaeError> {
        config.validate()?;
        let dim = config.decoder.dim;
        let projection = params.scope("projection", |p| Dense::new(config.encoder.dim, dim, false, p))?;
        let mask_token = params.define("mask_token", dim, Init::TruncatedNormal { std: 0.02, cut: 0.02 })?;
        params.scope("decoder", |params| {
            Ok(Self {
                projection,
                mask_token,
                positions: sinusoid_table(config.tokens(), dim, params.device())?,
                blocks: stack(&config.decoder, config.layer_norm_eps, config.qv_bias, params)?,
                norm: params.scope("norm", |p| Norm::new(dim, config.head_norm_eps, p))?,
                head: params.scope("head", |p| Dense::new(dim, config.tubelet_len(), true, p))?,
                compute: Compute::default(),
            })
        })
    }

    /// The same decoder, with the same parameters, computing otherwise. Initially: in f32, keeping all activations.
    #[must_use]
    pub fn with_compute(mut self, compute: Compute) -> Self {
        self.compute = compute;
        self
    }

    /// From `encoded` `[B, Nv, D]` to the predicted pixels of the split's targets, `[B, Nt, P]`.
    ///
    /// # Errors
    /// When the shapes do not fit.
    pub fn forward(&self, encoded: &Tensor, split: &TokenSplit) -> Result<Tensor, MaeError> {
        Ok(self.head.forward(&self.decode(encoded, split)?, self.compute)?)
    }

    /// The mean squared error of [`Self::forward`] against `target` `[B, Nt, P]`, a scalar, in less memory: see
    /// [`tgm_ops::linear_mse`]. The target is asked for when all but the head has been computed.
    ///
    /// # Errors
    /// When the shapes do not fit, and those of `target`.
    pub fn error(
        &self,
        encoded: &Tensor,
        split: &TokenSplit,
        target: impl FnOnce() -> candle_core::Result<Tensor>,
    ) -> Result<Tensor, MaeError> {
        let masked = self.decode(encoded, split)?;
        Ok(self.head.error(&masked, target()?, self.compute)?)
    }

    /// What the head makes pixels of: `[B, Nt, D]` for the split's targets.
    ///
    /// Mask tokens stand behind the visible ones; the clip's order is not restored, positions tell it.
    fn decode(&self, encoded: &Tensor, split: &TokenSplit) -> Result<Tensor, MaeError> {
        let (found, positions) = (split.tubelets(), self.positions.dims()[0]);
        if found != positions {
            return Err(MaeError::Input(format!(
                "a split of clips of {found} tubelets, and this decoder is for clips of {positions}"
            )));
        }
        let visible = (self.projection.forward(encoded, self.compute)?
            + gather_tokens(&self.positions, split.visible())?)?;
        let masked = gather_tokens(&self.positions, split.targets())?.broadcast_add(&self.mask_token)?;
        let targets = masked.dims()[1];
        let mut x = Tensor::cat(&[&visible, &masked], 1)?;
        for (i, block) in self.blocks.iter().enumerate() {
            let last = i + 1 == self.blocks.len();
            // What the last block would make of the visible tokens, nobody reads.
            let tail = if last { targets } else { x.dims()[1] };
            x = block.forward_tail(&x, tail, self.compute)?;
        }
        let masked = x.narrow(1, x.dims()[1] - targets, targets)?;
        Ok(self.norm.forward(&masked)?)
    }
}
