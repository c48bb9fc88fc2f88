//! Finding a model from whatever path a user gives: a run, one of its checkpoints, a Hugging Face folder, a `.pth`.

use std::path::Path;

use anyhow::{Context, Result};
use candle_core::Device;
use tgm_data::loader::{ClipConfig, TestViews};
use tgm_mae::{Checkpoint, Encoder, MaeConfig};
use tgm_ops::Params;
use tgm_random::Streams;
use tgm_video::{Sampling, TubeletShape};

use crate::checkpoint::{RUN, newest};
use crate::config::{self, Config};
use crate::run_dir::RunDir;

/// Opens a checkpoint; of a run, the newest.
///
/// # Errors
/// When there is none.
pub fn open(path: &Path) -> Result<Checkpoint> {
    let path = match RunDir::open(path) {
        Ok(run) => newest(&run.checkpoints())?
            .with_context(|| format!("{}: this run has no checkpoint yet", path.display()))?,
        Err(_) => path.to_path_buf(),
    };
    Ok(Checkpoint::open(&path, None)?)
}

/// How clips are made for a model: as in its training run, or, for a model from elsewhere, of its size and 4 frames apart.
///
/// # Errors
/// When the run's configuration cannot be read.
pub fn clip_config(checkpoint: &Checkpoint) -> Result<ClipConfig> {
    let file = checkpoint.path.join(RUN);
    if file.is_file() {
        let text =
            std::fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
        let run: Config = config::from_text(&file.display().to_string(), &text, &[])?;
        return Ok(run.clip);
    }
    let model = &checkpoint.config;
    anyhow::ensure!(
        model.image_size[0] == model.image_size[1] && model.patch[0] == model.patch[1] && model.channels == 3,
        "{}: clips are loaded square and in RGB, this model takes {:?} with {} channels",
        checkpoint.path.display(),
        model.image_size,
        model.channels
    );
    Ok(ClipConfig {
        sampling: Sampling::Dense { frames: model.frames, stride: 4 },
        size: model.image_size[0] as u32,
        tubelet: TubeletShape { frames: model.tubelet, patch: model.patch[0] },
        ..ClipConfig::default()
    })
}

/// One clip per video from the middle: what the periodic and final probes use.
pub const ONE_VIEW: TestViews = TestViews { views: 1, crops: 1 };

/// The encoder of a checkpoint.
///
/// # Errors
/// When its weights do not fit.
pub fn encoder(checkpoint: &Checkpoint) -> Result<Encoder> {
    Ok(encoder_with_params(checkpoint)?.0)
}

/// The encoder of a checkpoint, and its parameters by name.
///
/// # Errors
/// When its weights do not fit.
pub fn encoder_with_params(checkpoint: &Checkpoint) -> Result<(Encoder, Params)> {
    let (encoder, params) = random_encoder(&checkpoint.config, 0)?;
    params.load(&checkpoint.path.display().to_string(), &checkpoint.encoder_weights())?;
    Ok((encoder, params))
}

/// An encoder that has learnt nothing, to compare with.
///
/// # Errors
/// When the config is invalid.
pub fn random_encoder(config: &MaeConfig, seed: u64) -> Result<(Encoder, Params)> {
    let mut params = Params::new(Streams::new(seed), &Device::Cpu);
    Ok((Encoder::new(config, &mut params)?, params))
}
