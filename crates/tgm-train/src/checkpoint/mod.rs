//! Checkpoints of a run: everything that resuming needs, and a model that others can load.
//!
//! ```text
//! step-00000200/
//!   config.json, model.safetensors   the masked autoencoder, as `tgm-mae` reads it
//!   contrastive.safetensors          the head, with the joint loss
//!   optimizer.safetensors            the moments
//!   state.json                       step, sizes of all files
//!   run.toml                         the run's configuration
//! ```
//!
//! Every random draw has a name that contains the step or the clip, so no generator's state is stored.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use candle_core::{Device, Tensor};
use serde::{Deserialize, Serialize};
use tgm_contrastive::ContrastiveHead;
use tgm_mae::{Checkpoint, CheckpointKind, KeyLayout, MaeConfig};
use tgm_ops::{AdamW, Params};

use crate::config::Config;

const CONTRASTIVE: &str = "contrastive.safetensors";
const OPTIMIZER: &str = "optimizer.safetensors";
const STATE: &str = "state.json";
/// The configuration of the run, within a checkpoint.
pub const RUN: &str = "run.toml";

/// What a checkpoint says about itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct State {
    /// Optimiser steps taken.
    step: u64,
    /// The program's version.
    version: String,
    /// Size of every other file in bytes: a file that was cut off is noticed.
    files: BTreeMap<String, u64>,
}

/// Writes a checkpoint. It appears under its name only when it is complete.
///
/// # Errors
/// When it cannot be written; earlier checkpoints are untouched.
pub fn save(
    folder: &Path,
    step: u64,
    config: &Config,
    model: &MaeConfig,
    params: &Params,
    optimizer: &AdamW,
) -> Result<PathBuf> {
    let place = folder.join(format!("step-{step:08}"));
    let beside = folder.join(format!("step-{step:08}.tmp"));
    let result = write(&beside, step, config, model, params, optimizer)
        .and_then(|()| publish(&beside, &place))
        .with_context(|| format!("cannot write the checkpoint {}", place.display()));
    if result.is_err() {
        // What could not be completed only takes room.
        let _ = fs::remove_dir_all(&beside);
    }
    result.map(|()| place)
}

fn write(
    folder: &Path,
    step: u64,
    config: &Config,
    model: &MaeConfig,
    params: &Params,
    optimizer: &AdamW,
) -> Result<()> {
    if folder.exists() {
        fs::remove_dir_all(folder)?;
    }
    fs::create_dir_all(folder)?;
    let (head, mae): (BTreeMap<_, _>, BTreeMap<_, _>) =
        params.snapshot()?.into_iter().partition(|(name, _)| name.starts_with(ContrastiveHead::PREFIX));
    Checkpoint::save_folder(folder, model, CheckpointKind::Pretraining, KeyLayout::Native, &mae)?;
    if !head.is_empty() {
        save_tensors(&folder.join(CONTRASTIVE), head)?;
    }
    save_tensors(&folder.join(OPTIMIZER), optimizer.state()?)?;
    fs::write(folder.join(RUN), config.to_toml()?)?;
    let mut files = BTreeMap::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        fs::File::open(entry.path())?.sync_all()?;
        files.insert(entry.file_name().to_string_lossy().into_owned(), entry.metadata()?.len());
    }
    let state = State { step, version: env!("CARGO_PKG_VERSION").into(), files };
    crate::run_dir::write_atomically(&folder.join(STATE), serde_json::to_string_pretty(&state)?.as_bytes())
}

fn publish(beside: &Path, place: &Path) -> Result<()> {
    if place.exists() {
        fs::remove_dir_all(place)?;
    }
    fs::rename(beside, place)?;
    if let Some(folder) = place.parent() {
        fs::File::open(folder)?.sync_all()?;
    }
    Ok(())
}

fn save_tensors(path: &Path, tensors: BTreeMap<String, Tensor>) -> Result<()> {
    let tensors: HashMap<String, Tensor> = tensors.into_iter().collect();
    candle_core::safetensors::save(&tensors, path).with_context(|| path.display().to_string())
}

/// Puts a checkpoint back into parameters and optimiser, and returns its step.
///
/// # Errors
/// When a file is missing, cut off, or of another model.
pub fn restore(folder: &Path, params: &Params, optimizer: &mut AdamW) -> Result<u64> {
    let state = check(folder)?;
    let mut weights = Checkpoint::open(folder, None)?.weights().clone();
    if folder.join(CONTRASTIVE).exists() {
        weights.extend(load_tensors(&folder.join(CONTRASTIVE))?);
    }
    params.load(&folder.display().to_string(), &weights)?;
    let moments = folder.join(OPTIMIZER);
    optimizer.load_state(&moments.display().to_string(), &load_tensors(&moments)?, state.step)?;
    Ok(state.step)
}

/// Reads a checkpoint's state and compares the sizes of its files.
fn check(folder: &Path) -> Result<State> {
    let path = folder.join(STATE);
    let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let state: State = serde_json::from_str(&text).with_context(|| path.display().to_string())?;
    for (name, &expected) in &state.files {
        let file = folder.join(name);
        let found = fs::metadata(&file).with_context(|| format!("cannot read {}", file.display()))?.len();
        if found != expected {
            bail!("{}: damaged, {found} bytes instead of {expected}", file.display());
        }
    }
    Ok(state)
}

fn load_tensors(path: &Path) -> Result<BTreeMap<String, Tensor>> {
    let tensors =
        candle_core::safetensors::load(path, &Device::Cpu).with_context(|| path.display().to_string())?;
    Ok(tensors.into_iter().collect())
}

/// The complete checkpoints in a folder, oldest first.
///
/// # Errors
/// When the folder cannot be read.
pub fn list(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?;
    let mut found: Vec<PathBuf> =
        entries.filter_map(|e| Some(e.ok()?.path())).filter(|p| is_checkpoint(p)).collect();
    found.sort();
    Ok(found)
}

fn is_checkpoint(path: &Path) -> bool {
    let name = path.file_name().and_then(|n| n.to_str()).unwrap_or_default();
    name.strip_prefix("step-").is_some_and(|n| n.chars().all(|c| c.is_ascii_digit()))
        && path.join(STATE).is_file()
}

/// The newest checkpoint that is whole. Damaged ones are named in a warning and passed over.
///
/// # Errors
/// When there is none.
pub fn newest(folder: &Path) -> Result<PathBuf> {
    for candidate in list(folder)?.into_iter().rev() {
        match check(&candidate) {
            Ok(_) => return Ok(candidate),
            Err(error) => tracing::warn!("passing over a checkpoint: {error:#}"),
        }
    }
    bail!(
        "{}: no checkpoint to resume from; start again without --resume in another folder",
        folder.display()
    )
}

/// Deletes the oldest checkpoints beyond `keep`.
///
/// # Errors
/// When a folder cannot be deleted.
pub fn prune(folder: &Path, keep: usize) -> Result<()> {
    let all = list(folder)?;
    for old in &all[..all.len().saturating_sub(keep.max(1))] {
        fs::remove_dir_all(old)
            .with_context(|| format!("cannot delete the old checkpoint {}", old.display()))?;
    }
    Ok(())
}
