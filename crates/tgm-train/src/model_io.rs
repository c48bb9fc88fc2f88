//! Finding a model from whatever path a user gives: a run, one of its checkpoints, a Hugging Face folder, a `.pth`.

use std::path::Path;

use anyhow::{Context, Result};
use candle_core::Device;
use tgm_data::loader::{ClipConfig, TestViews};
use tgm_mae::{Checkpoint, Encoder, MaeConfig};
use tgm_ops::Params;
use tgm_random::Streams;
use tgm_video::{Sampling, TubeletShape};

use crate::checkpoint::{self, RUN, newest};
use crate::config::{self, Config, ConfigError};
use crate::run_dir::RunDir;

/// Opens a checkpoint; of a run, the newest.
///
/// # Errors
/// When there is none, or a run's is damaged.
pub fn open(path: &Path) -> Result<Checkpoint> {
    let path = match RunDir::open(path) {
        // Compares its files with their checksums.
        Ok(run) => newest(&run.checkpoints())?
            .with_context(|| format!("{}: this run has no checkpoint yet", path.display()))?,
        Err(_) => {
            if checkpoint::is_of_a_run(path) {
                checkpoint::check(path)?;
            }
            path.to_path_buf()
        }
    };
    Ok(Checkpoint::open(&path, None)?)
}

/// How clips are made for a model: as in its training run, or, for a model from elsewhere, of its size and 4 frames apart (Kinetics; published
/// models of Something-Something want 2). Another `stride` than that may be asked for.
///
/// # Errors
/// When the run's configuration cannot be read, or its clips have no stride.
pub fn clip_config(checkpoint: &Checkpoint, stride: Option<usize>) -> Result<ClipConfig> {
    let mut clip = own_clip_config(checkpoint)?;
    if let Some(asked) = stride {
        match &mut clip.sampling {
            Sampling::Dense { stride, .. } | Sampling::DenseWindow { stride, .. } => *stride = asked,
            _ => {
                let message = "--stride: the frames of this model's clips are spread over the whole video";
                return Err(ConfigError(message.into()).into());
            }
        }
    }
    Ok(clip)
}

fn own_clip_config(checkpoint: &Checkpoint) -> Result<ClipConfig> {
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

/// An encoder that has learnt nothing, to compare with.
///
/// # Errors
/// When the config is invalid.
pub fn random_encoder(config: &MaeConfig, seed: u64) -> Result<(Encoder, Params)> {
    let mut params = Params::new(Streams::new(seed), &Device::Cpu);
    Ok((Encoder::new(config, &mut params)?, params))
}
