//! The encoder: patch embedding, positions, blocks.

use candle_core::Tensor;
use tgm_ops::{Compute, Init, Params, gather_tokens};

use crate::block::{Block, Dense, Norm, stack};
use crate::position::sinusoid_table;
use crate::{DropPath, MaeConfig, MaeError};

/// A vision transformer over tubelets.
#[derive(Clone, Debug)]
pub struct Encoder {
    embed: Dense,
    positions: Tensor,
    blocks: Vec<Block>,
    norm: Option<Norm>,
    compute: Compute,
}

impl Encoder {
    /// Defines the encoder's parameters under `encoder.`.
    ///
    /// # Errors
    /// When the config is invalid or a name is taken.
    pub fn new(config: &MaeConfig, params: &mut Params) -> Result<Self, MaeError> {
        config.validate()?;
        let (dim, len) = (config.encoder.dim, config.tubelet_len());
        params.scope("encoder", |params| {
            // VideoMAE embeds with a 3-D convolution at PyTorch's default initialisation: uniform in ±1/√fan-in.
            let init = Init::Uniform { bound: (len as f64).sqrt().recip() };
            Ok(Self {
                embed: params.scope("embed", |p| Dense::with_init(len, dim, true, init, init, p))?,
                positions: sinusoid_table(config.tokens(), dim, params.device())?,
                blocks: stack(&config.encoder, config.layer_norm_eps, config.qv_bias, params)?,
                norm: match config.final_norm {
                    true => Some(params.scope("norm", |p| Norm::new(dim, config.layer_norm_eps, p))?),
                    false => None,
                },
                compute: Compute::default(),
            })
        })
    }

    /// The same encoder, with the same parameters, computing otherwise. Initially: in f32, keeping all activations.
    #[must_use]
    pub fn with_compute(mut self, compute: Compute) -> Self {
        self.compute = compute;
        self
    }

    /// The same encoder without a backward pass: nothing is kept beyond the layer that is computed.
    #[must_use]
    pub fn for_inference(&self) -> Self {
        self.clone().with_compute(Compute::inference(self.compute.precision))
    }

    /// Encodes the tubelets `visible` (`[B, Nv]`, `u32`) of `tubelets` `[B, N, P]`: `[B, Nv, D]`.
    ///
    /// Tubelets are selected *before* the embedding, so hidden ones cost nothing.
    ///
    /// # Errors
    /// When the shapes do not fit.
    pub fn forward(&self, tubelets: &Tensor, visible: &Tensor) -> Result<Tensor, MaeError> {
        self.check(tubelets)?;
        let embedded = self.embed.forward(&gather_tokens(tubelets, visible)?, self.compute)?;
        self.blocks_forward((embedded + gather_tokens(&self.positions, visible)?)?)
    }

    /// Encodes all tubelets `[B, N, P]`: `[B, N, D]`. For feature extraction and classification.
    ///
    /// # Errors
    /// When the shapes do not fit.
    pub fn forward_all(&self, tubelets: &Tensor) -> Result<Tensor, MaeError> {
        self.blocks_forward(self.embed_all(tubelets)?)
    }

    /// As [`Encoder::forward_all`], with branches left out as drawn.
    ///
    /// # Errors
    /// When the shapes do not fit, or the draw is for another number of blocks.
    pub fn forward_dropping(&self, tubelets: &Tensor, drop: &DropPath) -> Result<Tensor, MaeError> {
        let (drawn, depth) = (drop.factors.len(), self.blocks.len());
        if drawn != depth {
            return Err(MaeError::Input(format!(
                "drop path was drawn for {drawn} blocks, this encoder has {depth}: draw it for its depth"
            )));
        }
        let mut x = self.embed_all(tubelets)?;
        for (block, factors) in self.blocks.iter().zip(&drop.factors) {
            x = block.forward_dropping(&x, factors, self.compute)?;
        }
        Ok(match &self.norm {
            Some(norm) => norm.forward(&x)?,
            None => x,
        })
    }

    fn embed_all(&self, tubelets: &Tensor) -> Result<Tensor, MaeError> {
        self.check(tubelets)?;
        Ok(self.embed.forward(tubelets, self.compute)?.broadcast_add(&self.positions)?)
    }

    /// Refuses clips of another number of tubelets than there are positions for.
    fn check(&self, tubelets: &Tensor) -> Result<(), MaeError> {
        let positions = self.positions.dims()[0];
        match tubelets.dims() {
            &[_, found, _] if found == positions => Ok(()),
            found => Err(MaeError::Input(format!(
                "clips of tubelets {found:?}: this model takes [B, {positions}, P], as tubelets_from_pixels makes them"
            ))),
        }
    }

    fn blocks_forward(&self, mut x: Tensor) -> Result<Tensor, MaeError> {
        for block in &self.blocks {
            x = block.forward(&x, self.compute)?;
        }
        Ok(match &self.norm {
            Some(norm) => norm.forward(&x)?,
            None => x,
        })
    }
}
