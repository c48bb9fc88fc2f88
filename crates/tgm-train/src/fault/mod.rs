//! When a step's loss or gradient is not finite, and does not become so again: everything that the step was computed from
//! is written down, so that it can be computed again (`tgm replay`) and looked at, without the run and without its videos.
//!
//! ```text
//! step-00000123/
//!   fault.json          losses, the gradient's and the weights' norms per parameter, clips, names of the random streams
//!   batch.safetensors   per micro-batch i: i.tubelets, i.visible, i.targets, i.texts
//!   clip-0.png …        the first clips and what was visible of them
//!   checkpoint/         weights, moments and configuration before the step
//! ```

mod number;
mod replay;

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use candle_core::Tensor;
use serde::{Deserialize, Serialize};
use tgm_ops::{Gradients, Params};

use crate::batch::{ClipNote, GlobalBatch};
use crate::checkpoint::{self, Snapshot};
use crate::pictures;
use crate::step::Losses;

pub use replay::{Replay, replay};

const REPORT: &str = "fault.json";
const BATCH: &str = "batch.safetensors";
const CHECKPOINT: &str = "checkpoint";
/// Clips that are drawn.
const PICTURES: usize = 8;
/// What every clip's draws are named after, besides seed, epoch and number (`tgm_data::loader`, `guidance`).
const PURPOSES: [&str; 6] = ["sampling", "crop", "flip", "caption", "replace", "mask"];

/// `fault.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Fault {
    /// The step, counted from 1 as in the metrics.
    pub step: u64,
    /// The program's version.
    pub version: String,
    /// The numbers of the step.
    pub measured: Measured,
    /// The clips, in order.
    pub clips: Vec<ClipNote>,
    /// The random streams that the clips and masks were drawn from.
    pub streams: Vec<String>,
}

/// What a step comes to: equal numbers mean the same step.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Measured {
    /// The joint loss.
    #[serde(with = "number")]
    pub loss: f64,
    /// Reconstruction.
    #[serde(with = "number")]
    pub mae: f64,
    /// The contrastive loss; `NaN` without.
    #[serde(with = "number")]
    pub contrastive: f64,
    /// The gradient's norm.
    #[serde(with = "number")]
    pub grad_norm: f64,
    /// Per parameter.
    pub parameters: BTreeMap<String, ParameterNorms>,
}

/// Euclidean norms of one parameter.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct ParameterNorms {
    /// Its values before the step.
    #[serde(with = "number")]
    pub weight: f64,
    /// Its values that are not finite.
    pub weight_faults: usize,
    /// Its gradient.
    #[serde(with = "number")]
    pub gradient: f64,
    /// Values of its gradient that are not finite.
    pub gradient_faults: usize,
}

impl Measured {
    /// The numbers of one step.
    ///
    /// # Errors
    /// When a parameter cannot be read.
    pub fn new(losses: &Losses, weight: f64, params: &Params, grads: &Gradients) -> Result<Self> {
        let mut parameters = BTreeMap::new();
        for (name, gradient) in grads.iter() {
            let values = match params.get(name) {
                Some(var) => var.flatten_all()?.to_vec1::<f32>()?,
                None => Vec::new(),
            };
            let norms = ParameterNorms {
                weight: norm(&values),
                weight_faults: faults(&values),
                gradient: norm(gradient),
                gradient_faults: faults(gradient),
            };
            parameters.insert(name.to_string(), norms);
        }
        Ok(Self {
            loss: losses.total(weight),
            mae: losses.mae,
            contrastive: losses.contrastive.map_or(f64::NAN, |c| c.loss),
            grad_norm: grads.norm(),
            parameters,
        })
    }

    /// Whether two steps came to the same numbers, but for the last digit, which JSON may lose; `NaN` equals itself here.
    pub fn same(&self, other: &Self) -> bool {
        let of = |m: &Self| {
            let mut numbers = vec![m.loss, m.mae, m.contrastive, m.grad_norm];
            numbers.extend(m.parameters.values().flat_map(|p| [p.weight, p.gradient]));
            numbers
        };
        let equal = |(a, b): (&f64, &f64)| {
            a == b || a.is_nan() && b.is_nan() || (a - b).abs() <= 4.0 * f64::EPSILON * a.abs()
        };
        self.parameters.keys().eq(other.parameters.keys()) && of(self).iter().zip(&of(other)).all(equal)
    }
}

fn norm(values: &[f32]) -> f64 {
    values.iter().map(|&v| f64::from(v) * f64::from(v)).sum::<f64>().sqrt()
}

fn faults(values: &[f32]) -> usize {
    values.iter().filter(|v| !v.is_finite()).count()
}

/// Writes down a step that was computed from `batch` with the weights of `before`; returns the folder.
///
/// # Errors
/// When something cannot be written.
pub fn write(
    folder: &Path,
    batch: &GlobalBatch,
    losses: &Losses,
    grads: &Gradients,
    before: &Snapshot<'_>,
) -> Result<PathBuf> {
    let place = folder.join(format!("step-{:08}", before.position.step + 1));
    let written = write_into(&place, batch, losses, grads, before);
    if written.is_err() {
        // Half of it only takes room.
        let _ = fs::remove_dir_all(&place);
    }
    written.map(|()| place)
}

fn write_into(
    place: &Path,
    batch: &GlobalBatch,
    losses: &Losses,
    grads: &Gradients,
    before: &Snapshot<'_>,
) -> Result<()> {
    fs::create_dir_all(place).with_context(|| format!("cannot make the folder {}", place.display()))?;
    let fault = Fault {
        step: before.position.step + 1,
        version: env!("CARGO_PKG_VERSION").into(),
        measured: Measured::new(losses, before.config.contrastive.weight, before.params, grads)?,
        clips: batch.clips.clone(),
        streams: streams(before.config.seed, &batch.clips),
    };
    checkpoint::write(&place.join(CHECKPOINT), before)?;
    let tensors = place.join(BATCH);
    candle_core::safetensors::save(&tensors_of(batch), &tensors)
        .with_context(|| format!("cannot write {}", tensors.display()))?;
    draw(place, batch, before)?;
    let text = serde_json::to_string_pretty(&fault)?;
    crate::run_dir::write_atomically(&place.join(REPORT), text.as_bytes())
}

fn tensors_of(batch: &GlobalBatch) -> HashMap<String, Tensor> {
    let mut tensors = HashMap::new();
    for (i, micro) in batch.micro.iter().enumerate() {
        tensors.insert(format!("{i}.tubelets"), micro.tubelets.clone());
        tensors.insert(format!("{i}.visible"), micro.split.visible().clone());
        tensors.insert(format!("{i}.targets"), micro.split.targets().clone());
        if let Some(texts) = &micro.texts {
            tensors.insert(format!("{i}.texts"), texts.clone());
        }
    }
    tensors
}

fn draw(folder: &Path, batch: &GlobalBatch, before: &Snapshot<'_>) -> Result<()> {
    let mut masks = batch.masks.iter();
    let mut drawn = 0;
    for micro in &batch.micro {
        let clips = micro.captions.len().min(PICTURES - drawn);
        for (clip, mask) in masks.by_ref().take(micro.captions.len()).take(clips).enumerate() {
            let tubelets = micro.tubelets.get(clip)?.flatten_all()?.to_vec1::<f32>()?;
            let path = folder.join(format!("clip-{drawn}.png"));
            pictures::write_masked(&path, &tubelets, mask, &before.config.clip)?;
            drawn += 1;
        }
        if drawn == PICTURES {
            break;
        }
    }
    Ok(())
}

/// `purpose(seed, epoch, number)`, as `tgm_random::Streams` takes them.
fn streams(seed: u64, clips: &[ClipNote]) -> Vec<String> {
    let of_epoch = clips.iter().map(|clip| format!("shuffle(seed {seed}, epoch {}, 0)", clip.epoch));
    let mut names: Vec<String> = of_epoch.collect();
    names.dedup();
    for clip in clips {
        let (epoch, number) = (clip.epoch, clip.number);
        let name = |purpose| format!("{purpose}(seed {seed}, epoch {epoch}, sample {number})");
        names.extend(PURPOSES.iter().map(name));
    }
    names
}

/// Spoils the gradient of the steps (counted from 0) that the variable `TGM_SPOIL_GRADIENT` lists. For tests: only there in
/// builds with debug assertions.
///
/// # Errors
/// When candle fails.
pub fn inject(step: u64, grads: &mut Gradients) -> Result<()> {
    if !cfg!(debug_assertions) {
        return Ok(());
    }
    let listed = std::env::var("TGM_SPOIL_GRADIENT").unwrap_or_default();
    if listed.split(',').any(|entry| entry.parse() == Ok(step)) {
        let Some((name, values)) = grads.iter().next().map(|(n, v)| (n.to_string(), v.len())) else {
            return Ok(());
        };
        let spoilt = Tensor::full(f32::NAN, values, &candle_core::Device::Cpu)?;
        grads.add_one(&name, &spoilt, 1.0)?;
    }
    Ok(())
}
