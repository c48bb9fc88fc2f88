//! Checkpoints of a run: everything that resuming needs, and a model that others can load.
//!
//! ```text
//! step-00000200/
//!   config.json, model.safetensors   the masked autoencoder, as `tgm-mae` reads it
//!   contrastive.safetensors          the head, with the joint loss
//!   optimizer.safetensors            the moments
//!   run.toml                         the run's configuration
//!   state.json                       step, score, data, version; size and checksum of every other file
//! latest -> step-00000200
//! best -> step-00000100
//! ```
//!
//! A checkpoint is written beside its place, synced, and renamed: it is there as a whole or not at all. Whatever is named
//! `….tmp` was left by a process that was killed, and is swept away by the next one. Whatever is named `….damaged` was passed
//! over by a run that went on from an earlier checkpoint, and is left for a person to look at. Every random draw has a name
//! that contains the step or the clip, so no generator's state is stored.

mod shelf;
mod state;

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use candle_core::{Device, Tensor};
use tgm_contrastive::ContrastiveHead;
use tgm_mae::{Checkpoint, CheckpointKind, KeyLayout, MaeConfig};
use tgm_ops::{AdamW, Params};

use crate::config::Config;

pub use shelf::{Keep, list, newest, of_step, prune, set_aside_after, sweep};
pub use state::{Average, DataPrint, Position, Score, State, check, is_of_a_run, read};

/// The contrastive head, within a checkpoint.
pub const CONTRASTIVE: &str = "contrastive.safetensors";
const OPTIMIZER: &str = "optimizer.safetensors";
/// The configuration of the run, within a checkpoint.
pub const RUN: &str = "run.toml";

/// What goes into a checkpoint.
#[derive(Clone, Copy, Debug)]
pub struct Snapshot<'a> {
    /// The run's configuration.
    pub config: &'a Config,
    /// The model's sizes.
    pub model: &'a MaeConfig,
    /// All parameters.
    pub params: &'a Params,
    /// The moments.
    pub optimizer: &'a AdamW,
    /// Where the run stands.
    pub position: &'a Position,
    /// How good the model is, if known; one that is not finite is not stored.
    pub score: Option<&'a Score>,
    /// The data.
    pub data: &'a DataPrint,
}

/// Writes a checkpoint into `folder`, which must exist, and points `latest` at it.
///
/// # Errors
/// When it cannot be written; earlier checkpoints are untouched.
pub fn save(folder: &Path, snapshot: &Snapshot<'_>) -> Result<PathBuf> {
    let place = of_step(folder, snapshot.position.step);
    let beside = place.with_extension("tmp");
    let result = write(&beside, snapshot)
        .and_then(|()| publish(folder, &beside, &place))
        .with_context(|| format!("cannot write the checkpoint {}", place.display()));
    if result.is_err() {
        // What could not be completed only takes room.
        let _ = fs::remove_dir_all(&beside);
    }
    result.map(|()| place)
}

/// Writes all files of a checkpoint into a new folder, whose parent must exist: when somebody deleted the run's folder, it
/// must not come back as a folder without a run in it.
///
/// # Errors
/// When a file cannot be written.
pub fn write(folder: &Path, snapshot: &Snapshot<'_>) -> Result<()> {
    if folder.exists() {
        fs::remove_dir_all(folder)?;
    }
    fs::create_dir(folder).with_context(|| format!("cannot make the folder {}", folder.display()))?;
    let (head, mae): (BTreeMap<_, _>, BTreeMap<_, _>) = snapshot
        .params
        .snapshot()?
        .into_iter()
        .partition(|(name, _)| name.starts_with(ContrastiveHead::PREFIX));
    Checkpoint::save_folder(folder, snapshot.model, CheckpointKind::Pretraining, KeyLayout::Native, &mae)?;
    if !head.is_empty() {
        save_tensors(&folder.join(CONTRASTIVE), head)?;
    }
    save_tensors(&folder.join(OPTIMIZER), snapshot.optimizer.state()?)?;
    let run = folder.join(RUN);
    fs::write(&run, snapshot.config.to_toml()?).with_context(|| format!("cannot write {}", run.display()))?;
    let state = State {
        position: snapshot.position.clone(),
        score: snapshot.score.filter(|score| score.is_finite()).cloned(),
        data: snapshot.data.clone(),
        version: env!("CARGO_PKG_VERSION").into(),
        files: state::seal(folder)?,
    };
    state::write(folder, &state)?;
    sync_folder(folder)
}

/// Adds to a checkpoint how good it is, unless that is not finite.
///
/// # Errors
/// When its state cannot be read or written.
pub fn rate(place: &Path, score: Score) -> Result<()> {
    if !score.is_finite() {
        return Ok(());
    }
    state::write(place, &State { score: Some(score), ..read(place)? })
}

fn publish(folder: &Path, beside: &Path, place: &Path) -> Result<()> {
    if place.exists() {
        shelf::discard(place)?;
    }
    fs::rename(beside, place)?;
    sync_folder(folder)?;
    shelf::point(folder, "latest", place);
    Ok(())
}

fn sync_folder(folder: &Path) -> Result<()> {
    File::open(folder)
        .and_then(|file| file.sync_all())
        .with_context(|| format!("cannot write {}", folder.display()))
}

fn save_tensors(path: &Path, tensors: BTreeMap<String, Tensor>) -> Result<()> {
    let tensors: HashMap<String, Tensor> = tensors.into_iter().collect();
    candle_core::safetensors::save(&tensors, path).with_context(|| path.display().to_string())
}

/// Puts a checkpoint back into parameters and optimiser, and returns what it says about itself.
///
/// # Errors
/// When a file is missing, damaged, or of another model.
pub fn restore(folder: &Path, params: &Params, optimizer: &mut AdamW) -> Result<State> {
    let state = check(folder)?;
    let mut weights = Checkpoint::open(folder, None)?.weights().clone();
    if folder.join(CONTRASTIVE).exists() {
        weights.extend(load_tensors(&folder.join(CONTRASTIVE))?);
    }
    params.load(&folder.display().to_string(), &weights)?;
    let moments = folder.join(OPTIMIZER);
    let updates = state.position.updates();
    optimizer.load_state(&moments.display().to_string(), &load_tensors(&moments)?, updates)?;
    Ok(state)
}

/// The tensors of a safetensors file by name.
///
/// # Errors
/// When it cannot be read.
pub fn load_tensors(path: &Path) -> Result<BTreeMap<String, Tensor>> {
    let tensors =
        candle_core::safetensors::load(path, &Device::Cpu).with_context(|| path.display().to_string())?;
    Ok(tensors.into_iter().collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use tgm_mae::{TransformerConfig, VideoMae};
    use tgm_ops::AdamWConfig;
    use tgm_random::Streams;

    /// Saves a tiny model with this score, and returns where.
    fn saved(folder: &Path, value: f64) -> PathBuf {
        let model = MaeConfig {
            encoder: TransformerConfig::new(8, 1, 2),
            decoder: TransformerConfig::new(8, 1, 2),
            ..MaeConfig::micro()
        };
        let mut params = Params::new(Streams::new(0), &Device::Cpu);
        VideoMae::new(&model, &mut params).unwrap();
        let score = Score { name: "-masked loss".into(), value };
        let snapshot = Snapshot {
            config: &Config::default(),
            model: &model,
            params: &params,
            optimizer: &AdamW::new(&params, AdamWConfig::default()),
            position: &Position { step: 1, ..Position::default() },
            score: Some(&score),
            data: &DataPrint { rows: 1, crc32: 0 },
        };
        save(folder, &snapshot).unwrap()
    }

    /// Where every masked tubelet was flat the masked loss was infinite: it was written as `null`, and not read back.
    #[test]
    fn a_score_that_is_not_finite_leaves_a_checkpoint_that_can_be_opened() {
        let dir = tempfile::tempdir().unwrap();
        for value in [f64::NEG_INFINITY, f64::NAN] {
            let place = saved(dir.path(), value);
            assert_eq!(read(&place).unwrap().score, None);
            rate(&place, Score { name: "knn".into(), value }).unwrap();
            assert_eq!(newest(dir.path()).unwrap(), Some(place));
        }
    }

    #[test]
    fn a_rating_that_is_not_finite_leaves_the_score_that_is_there() {
        let dir = tempfile::tempdir().unwrap();
        let place = saved(dir.path(), -0.5);
        rate(&place, Score { name: "knn".into(), value: f64::NAN }).unwrap();
        assert_eq!(read(&place).unwrap().score.unwrap().value, -0.5);
        rate(&place, Score { name: "knn".into(), value: 0.25 }).unwrap();
        assert_eq!(read(&place).unwrap().score.unwrap().value, 0.25);
    }
}
