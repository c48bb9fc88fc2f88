//! The masked video-text contrastive loss.
//!
//! The tokens that the masked autoencoder's encoder made of the *visible* tubelets are averaged, projected, and compared
//! with frozen text embeddings of the clips' captions (arXiv 2408.00759, the unified framework). With one micro-batch the
//! encoder runs once for both losses, and the contrastive term costs next to nothing; with several the encoder runs once more, without gradients
//! (`tgm_train::step`), which is 14 to 26 % more arithmetic for a ViT-B.
//!
//! The paper says "InfoNCE" and no more; what it leaves open is decided thus, and [`ContrastiveConfig`] says which
//! decisions can be changed: one linear map on the video side only (the text tower is frozen), the mean of the
//! video→text and text→video directions, a learnable temperature as in CLIP.
//!
//! ```
//! use candle_core::{DType, Device, Tensor};
//! use tgm_contrastive::{ContrastiveConfig, ContrastiveHead};
//! use tgm_ops::Params;
//! use tgm_random::Streams;
//!
//! let mut params = Params::new(Streams::new(0), &Device::Cpu);
//! let head = ContrastiveHead::new(8, 4, &ContrastiveConfig::default(), &mut params)?;
//! let tokens = Tensor::zeros((2, 5, 8), DType::F32, &Device::Cpu)?; // [B, Nv, D] from the encoder
//! let texts = Tensor::new(&[[1f32, 0., 0., 0.], [0., 1., 0., 0.]], &Device::Cpu)?; // [B, E] from CLIP
//! let out = head.loss(&head.pool(&tokens)?, &texts, &["a cat", "a dog"])?;
//! assert!((out.relative - 1.0).abs() < 1e-6); // clips that tell nothing: the loss is ln 2
//! # Ok::<(), tgm_contrastive::ContrastiveError>(())
//! ```
#![deny(missing_docs)]

use candle_core::{D, DType, Tensor, Var};
use serde::{Deserialize, Serialize};
use tgm_ops::{Init, ParamError, Params, Pooling, linear, log_softmax};
use thiserror::Error;

// Their types are in the signatures here, and parameters are made of named streams.
pub use candle_core;
pub use tgm_ops;
pub use tgm_ops::tgm_random;

/// What can go wrong with the contrastive head.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ContrastiveError {
    /// A contrast needs at least two clips.
    #[error("a contrastive loss over a batch of {0} has nothing to contrast: use a batch of 2 or more")]
    BatchTooSmall(usize),
    /// Videos, texts and captions of a batch differ in number, or an embedding has another width.
    #[error("{videos:?} videos against {texts:?} text embeddings and {captions} captions")]
    Shape {
        /// Shape of the pooled video tokens, `[B, D]`.
        videos: Vec<usize>,
        /// Shape of the text embeddings, `[B, E]`.
        texts: Vec<usize>,
        /// Number of captions.
        captions: usize,
    },
    /// A setting is out of range.
    #[error("contrastive config: {0}")]
    Config(String),
    /// The head's parameters cannot be defined.
    #[error(transparent)]
    Params(#[from] ParamError),
    /// candle refused a tensor operation.
    #[error(transparent)]
    Candle(#[from] candle_core::Error),
}

/// The decisions that the paper leaves open.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ContrastiveConfig {
    /// The initial temperature τ; logits are cosines divided by it. CLIP: 0.07. The paper does not say.
    pub temperature: f64,
    /// The largest factor 1/τ that training may reach. CLIP: 100.
    pub max_scale: f64,
    /// Learn the temperature. CLIP: yes. The paper does not say.
    pub learn_temperature: bool,
    /// Do not count clips with the identical caption as each other's negatives. The paper does not say; with captions from
    /// a small vocabulary, or several clips of one video, they would be false negatives.
    pub mask_identical_captions: bool,
    /// How a clip's tokens become one vector: `mean` or `max`. The paper does not say.
    pub pooling: Pooling,
}

impl Default for ContrastiveConfig {
    fn default() -> Self {
        Self {
            temperature: 0.07,
            max_scale: 100.0,
            learn_temperature: true,
            mask_identical_captions: true,
            pooling: Pooling::Mean,
        }
    }
}

/// The projection of the video side, and the temperature.
#[derive(Clone, Debug)]
pub struct ContrastiveHead {
    config: ContrastiveConfig,
    /// `[E, D]`.
    projection: Tensor,
    /// ln(1/τ), a scalar; a variable when it is learnt.
    log_scale: Tensor,
}

/// What the loss of one batch gives.
#[derive(Clone, Debug)]
pub struct Contrast {
    /// The loss, a scalar: the mean of both directions.
    pub loss: Tensor,
    /// The loss divided by that of guessing: 1 is guessing, 0 is perfect, whatever the batch. Guessing costs ln B, or less
    /// where pairs with identical captions are left out: the mean over clips of ln(captions that stay). A batch of one
    /// caption leaves nothing to tell apart, and counts as guessed: 1.
    pub relative: f64,
    /// Share of clips whose own caption is the best match among those that stay; 0 in a batch of one caption, where a match
    /// would say nothing.
    pub top1: f64,
    /// The factor 1/τ in force.
    pub scale: f64,
}

impl ContrastiveHead {
    /// The prefix of the head's parameter names, behind that of the scope the head was defined in.
    pub const PREFIX: &'static str = "contrastive.";

    /// A head from encoder width `dim` to text embeddings of width `text_dim`.
    ///
    /// # Errors
    /// [`ContrastiveError::Config`] when the temperature is not positive or beyond the largest scale.
    pub fn new(
        dim: usize,
        text_dim: usize,
        config: &ContrastiveConfig,
        params: &mut Params,
    ) -> Result<Self, ContrastiveError> {
        let scale = config.temperature.recip();
        if !(scale.is_finite() && scale > 0.0 && scale <= config.max_scale) {
            let (temperature, max) = (config.temperature, config.max_scale);
            return Err(ContrastiveError::Config(format!(
                "temperature {temperature} must be positive and at least 1/{max}, the inverse of max_scale"
            )));
        }
        params.scope("contrastive", |params| {
            let projection = params.define("projection.weight", (text_dim, dim), Init::XavierUniform)?;
            let log_scale = if config.learn_temperature {
                params.define("log_scale", (), Init::Constant(scale.ln()))?
            } else {
                Tensor::new(scale.ln() as f32, params.device())?
            };
            Ok(Self { config: *config, projection, log_scale })
        })
    }

    /// Encoded tokens `[B, N, D]`, in training the visible ones, to a vector per clip, `[B, D]`.
    ///
    /// # Errors
    /// When the input is no batch of tokens.
    pub fn pool(&self, tokens: &Tensor) -> Result<Tensor, ContrastiveError> {
        Ok(self.config.pooling.apply(tokens)?)
    }

    /// How tokens become one vector.
    pub fn pooling(&self) -> Pooling {
        self.config.pooling
    }

    /// Clips in the space of the texts: `[B, D]` to unit vectors `[B, E]`.
    ///
    /// # Errors
    /// When the width is not the head's.
    pub fn embed(&self, pooled: &Tensor) -> Result<Tensor, ContrastiveError> {
        unit(&linear(pooled, &self.projection, None)?)
    }

    /// The symmetric InfoNCE of a batch.
    ///
    /// `pooled` is `[B, D]` (see [`Self::pool`]); `texts` is `[B, E]`, frozen, of any length; `captions` are the texts
    /// themselves, to recognise identical ones.
    ///
    /// # Errors
    /// [`ContrastiveError::BatchTooSmall`] or [`ContrastiveError::Shape`].
    pub fn loss<S: AsRef<str>>(
        &self,
        pooled: &Tensor,
        texts: &Tensor,
        captions: &[S],
    ) -> Result<Contrast, ContrastiveError> {
        let batch = captions.len();
        if pooled.rank() != 2
            || pooled.dims()[0] != batch
            || texts.dims() != [batch, self.projection.dims()[0]]
        {
            let (videos, texts) = (pooled.dims().to_vec(), texts.dims().to_vec());
            return Err(ContrastiveError::Shape { videos, texts, captions: batch });
        }
        if batch < 2 {
            return Err(ContrastiveError::BatchTooSmall(batch));
        }
        let texts = unit(&texts.detach().to_dtype(DType::F32)?)?;
        let scale = self.log_scale.exp()?;
        let similarity = self.embed(pooled)?.matmul(&texts.t()?)?;
        let logits = similarity.broadcast_mul(&scale)?;
        let bias = self.false_negatives(captions);
        let guessing = loss_of_guessing(batch, bias.as_deref());
        let logits = match bias {
            Some(bias) => (logits + Tensor::from_vec(bias, (batch, batch), texts.device())?)?,
            None => logits,
        };
        let own = Tensor::eye(batch, DType::F32, texts.device())?;
        let direction = |logits: &Tensor| (log_softmax(logits)? * &own)?.sum_all()? / -(batch as f64);
        let loss = ((direction(&logits)? + direction(&logits.t()?.contiguous()?)?)? * 0.5)?;
        let best = logits.argmax(D::Minus1)?.to_vec1::<u32>()?;
        let hits = best.iter().enumerate().filter(|(i, best)| *i == **best as usize).count();
        let (relative, top1) = if guessing > 0.0 {
            (f64::from(loss.to_scalar::<f32>()?) / guessing, hits as f64 / batch as f64)
        } else {
            (1.0, 0.0)
        };
        Ok(Contrast { relative, top1, scale: f64::from(scale.to_scalar::<f32>()?), loss })
    }

    /// What is added to the logits `[B, B]` of pairs with identical captions, or nothing when there are none.
    fn false_negatives<S: AsRef<str>>(&self, captions: &[S]) -> Option<Vec<f32>> {
        /// Far below any logit, yet finite: a row of infinities would become NaN.
        const EXCLUDED: f32 = -1e9;
        if !self.config.mask_identical_captions {
            return None;
        }
        let batch = captions.len();
        let same = |i: usize, j: usize| i != j && captions[i].as_ref() == captions[j].as_ref();
        let bias: Vec<f32> =
            (0..batch * batch).map(|x| if same(x / batch, x % batch) { EXCLUDED } else { 0.0 }).collect();
        bias.iter().any(|&b| b != 0.0).then_some(bias)
    }

    /// Keeps 1/τ within `max_scale`; to be called after every optimiser step, as CLIP does. (Clamping in the loss instead
    /// would leave a temperature beyond the bound without gradient, hence stuck.)
    ///
    /// # Errors
    /// When the variable cannot be written.
    pub fn constrain(&self) -> Result<(), ContrastiveError> {
        let bound = self.config.max_scale.ln() as f32;
        if self.log_scale.is_variable() && self.log_scale.to_scalar::<f32>()? > bound {
            // The variable itself: only what is none yet would be copied.
            let var = Var::from_tensor(&self.log_scale)?;
            var.set(&Tensor::new(bound, var.device())?)?;
        }
        Ok(())
    }
}

/// The loss of a head to which all captions that stay for a clip are alike, given what [`ContrastiveHead::false_negatives`]
/// leaves out. That is symmetric, so that both directions of the loss have as many. 0 when the batch has one caption only.
fn loss_of_guessing(batch: usize, bias: Option<&[f32]>) -> f64 {
    let Some(bias) = bias else { return (batch as f64).ln() };
    let staying = |clip: &[f32]| clip.iter().filter(|&&bias| bias == 0.0).count() as f64;
    bias.chunks(batch).map(|clip| staying(clip).ln()).sum::<f64>() / batch as f64
}

/// Rows of unit length.
fn unit(x: &Tensor) -> Result<Tensor, ContrastiveError> {
    // Inside the root, so that a zero row has a finite gradient.
    let length = (x.sqr()?.sum_keepdim(D::Minus1)? + 1e-12)?.sqrt()?;
    Ok(x.broadcast_div(&length)?)
}
