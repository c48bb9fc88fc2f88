//! From a checkpoint to a model that computes.
//!
//! Weights must be whole, whichever part of them is wanted: a file with a key too many or too few is not what its config
//! says, and nobody knows in what else.

use candle_core::Device;
use tgm_ops::Params;
use tgm_random::Streams;

use crate::{Checkpoint, CheckpointKind, Classifier, Encoder, MaeError, VideoMae};

impl Checkpoint {
    /// Fills a model's parameters. Every parameter must be there, and every key of the file used.
    ///
    /// # Errors
    /// [`ParamError::Mismatch`](tgm_ops::ParamError::Mismatch), with the names as the file has them.
    pub fn fill(&self, params: &Params) -> Result<(), MaeError> {
        let name = self.path.display().to_string();
        params.load(&name, self.weights()).map_err(|e| self.in_file_names(e))
    }

    /// The encoder, whatever stands behind it: for features, [`Encoder::forward_all`] and then
    /// [`Pooling`](tgm_ops::Pooling).
    ///
    /// # Errors
    /// As [`Self::check`].
    pub fn encoder(&self, device: &Device) -> Result<Encoder, MaeError> {
        Ok(self.encoder_with_params(device)?.0)
    }

    /// As [`Self::encoder`], with its parameters by name.
    ///
    /// # Errors
    /// As [`Self::check`].
    pub fn encoder_with_params(&self, device: &Device) -> Result<(Encoder, Params), MaeError> {
        self.check()?;
        let mut params = no_params(device);
        let encoder = Encoder::new(&self.config, &mut params)?;
        let name = self.path.display().to_string();
        params.load(&name, &self.encoder_weights()).map_err(|e| self.in_file_names(e))?;
        Ok((encoder, params))
    }

    /// Encoder and decoder.
    ///
    /// # Errors
    /// [`MaeError::Lacks`] when there is no decoder; as [`Self::check`].
    pub fn model(&self, device: &Device) -> Result<VideoMae, MaeError> {
        Ok(self.model_with_params(device)?.0)
    }

    /// As [`Self::model`], with its parameters by name: to train it further.
    ///
    /// # Errors
    /// As [`Self::model`].
    pub fn model_with_params(&self, device: &Device) -> Result<(VideoMae, Params), MaeError> {
        if self.kind != CheckpointKind::Pretraining {
            return Err(self.lacks("decoder", "pretraining"));
        }
        self.check()?;
        let mut params = no_params(device);
        let model = VideoMae::new(&self.config, &mut params)?;
        self.fill(&params)?;
        Ok((model, params))
    }

    /// Encoder and classification head.
    ///
    /// # Errors
    /// [`MaeError::Lacks`] when there is no head; as [`Self::check`].
    pub fn classifier(&self, device: &Device) -> Result<Classifier, MaeError> {
        let CheckpointKind::Classification { classes } = self.kind else {
            return Err(self.lacks("classification head", "fine-tuned"));
        };
        self.check()?;
        let mut params = no_params(device);
        let classifier = Classifier::new(&self.config, classes, &mut params)?;
        self.fill(&params)?;
        Ok(classifier)
    }

    fn lacks(&self, part: &'static str, wanted: &'static str) -> MaeError {
        MaeError::Lacks { path: self.path.clone(), holds: self.kind, part, wanted }
    }
}

/// Every initial value is overwritten, so the seed does not matter.
fn no_params(device: &Device) -> Params {
    Params::new(Streams::new(0), device)
}
