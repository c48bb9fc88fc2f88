//! The masked autoencoder for pretraining: the whole method in one sitting.

use candle_core::Tensor;
use tgm_ops::{Compute, Params, TargetSpec, mse, variance};

use crate::{Decoder, Encoder, MaeConfig, MaeError, TokenSplit};

/// Encoder, decoder and target.
#[derive(Clone, Debug)]
pub struct VideoMae {
    encoder: Encoder,
    decoder: Decoder,
    target: TargetSpec,
}

/// What one forward pass gives.
#[derive(Clone, Debug)]
pub struct Reconstruction {
    /// Encoded visible tubelets `[B, Nv, D]`, after the encoder's last norm.
    pub encoded: Tensor,
    /// Predicted targets `[B, Nt, P]`.
    pub prediction: Tensor,
    /// The targets `[B, Nt, P]`.
    pub target: Tensor,
    /// Mean squared error, a scalar.
    pub loss: Tensor,
}

/// What training needs of a forward pass.
#[derive(Clone, Debug)]
pub struct MaskedLoss {
    /// Encoded visible tubelets `[B, Nv, D]`, after the encoder's last norm.
    pub encoded: Tensor,
    /// Mean squared error, a scalar.
    pub loss: Tensor,
    /// The same for a model that always answers the mean.
    pub of_mean: f64,
}

impl VideoMae {
    /// Defines all parameters of the model.
    ///
    /// # Errors
    /// When the config is invalid.
    pub fn new(config: &MaeConfig, params: &mut Params) -> Result<Self, MaeError> {
        let encoder = Encoder::new(config, params)?;
        Ok(Self { encoder, decoder: Decoder::new(config, params)?, target: config.target() })
    }

    /// The same model, with the same parameters, computing otherwise. Initially: in f32, keeping all activations.
    #[must_use]
    pub fn with_compute(self, compute: Compute) -> Self {
        let (encoder, decoder) = (self.encoder.with_compute(compute), self.decoder.with_compute(compute));
        Self { encoder, decoder, ..self }
    }

    /// The encoder alone.
    pub fn encoder(&self) -> &Encoder {
        &self.encoder
    }

    /// Hides, encodes, reconstructs and compares. `tubelets` is `[B, N, P]`, channel-normalised.
    ///
    /// # Errors
    /// When the shapes do not fit, or the split is of clips with another number of tubelets.
    pub fn forward(&self, tubelets: &Tensor, split: &TokenSplit) -> Result<Reconstruction, MaeError> {
        split.check(tubelets)?;
        let encoded = self.encoder.forward(tubelets, split.visible())?;
        let prediction = self.decoder.forward(&encoded, split)?;
        let target = self.target.target_at(tubelets, split.targets())?;
        let loss = mse(&prediction, &target)?;
        Ok(Reconstruction { encoded, prediction, target, loss })
    }

    /// The loss of [`Self::forward`] without prediction and target, which are the largest tensors of a step.
    ///
    /// # Errors
    /// When the shapes do not fit, or the split is of clips with another number of tubelets.
    pub fn loss(&self, tubelets: &Tensor, split: &TokenSplit) -> Result<MaskedLoss, MaeError> {
        split.check(tubelets)?;
        let encoded = self.encoder.forward(tubelets, split.visible())?;
        let mut of_mean = 0.0;
        let loss = self.decoder.error(&encoded, split, || {
            let target = self.target.target_at(tubelets, split.targets())?;
            of_mean = variance(&target)?;
            Ok(target)
        })?;
        Ok(MaskedLoss { encoded, loss, of_mean })
    }

    /// What copying costs, to compare a model with: the mean squared error between the target of each tubelet
    /// of `split.targets()` and that of another one, `sources` `[B, Nt]` of `u32`. No gradient flows.
    ///
    /// # Errors
    /// When the shapes do not fit, or the split is of clips with another number of tubelets.
    pub fn copy_loss(
        &self,
        tubelets: &Tensor,
        split: &TokenSplit,
        sources: &Tensor,
    ) -> Result<Tensor, MaeError> {
        split.check(tubelets)?;
        let of = |indices: &Tensor| self.target.target_at(tubelets, indices);
        Ok(mse(&of(sources)?, &of(split.targets())?)?)
    }
}
