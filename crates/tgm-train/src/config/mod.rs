//! The configuration of a run: one TOML document, every key with a default and a reason.
//!
//! Where the paper is silent the doc comment of the key says so and names the source of the default.

mod docs;
mod evaluation;
mod explain;
mod load;
mod resolve;

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use tgm_clip::ScoreOptions;
use tgm_contrastive::ContrastiveConfig;
use tgm_data::loader::{ClipConfig, LoaderConfig};
use tgm_mae::TransformerConfig;
use tgm_masking::Masking;
use tgm_ops::{Compute, Keep};

pub use evaluation::{
    EvalConfig, ProtocolName, Readout, Recipe, evaluation_from_text, is_evaluation, load_evaluation,
};
pub use explain::{explain, keys, overview};
pub use load::{ConfigError, NAMED, NAMED_EVALUATIONS, differences, flat, from_text, load, named, title};
pub use resolve::{Length, Plan, model};
pub use tgm_ops::Precision;

/// Everything that decides what a run computes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The seed of every random draw: initial weights, order, crops, captions, masks.
    pub seed: u64,
    /// Which videos.
    pub data: DataConfig,
    /// From a video to a clip (`tgm_data::loader::ClipConfig`).
    pub clip: ClipConfig,
    /// How clips are loaded (`tgm_data::loader::LoaderConfig`); changes no result.
    pub loader: LoaderConfig,
    /// The sizes of encoder and decoder.
    pub model: ModelConfig,
    /// Which tubelets are hidden (`tgm_masking::Masking`).
    pub masking: Masking,
    /// The CLIP that scores patches and embeds captions.
    pub text: TextConfig,
    /// The contrastive term of the loss.
    pub contrastive: JointConfig,
    /// Batch, precision, optimiser.
    pub train: TrainConfig,
    /// Learning rate over time.
    pub schedule: ScheduleConfig,
    /// What is written, and how often; changes no result.
    pub output: OutputConfig,
}

impl Default for Config {
    /// The paper's: ViT-B, 16 frames of 224×224, text-guided masking of 60 %, joint loss, VideoMAE's optimiser.
    fn default() -> Self {
        Self {
            seed: 0,
            data: DataConfig::default(),
            clip: ClipConfig::default(),
            loader: LoaderConfig::default(),
            model: ModelConfig::default(),
            masking: Masking::default(),
            text: TextConfig::default(),
            contrastive: JointConfig::default(),
            train: TrainConfig::default(),
            schedule: ScheduleConfig::default(),
            output: OutputConfig::default(),
        }
    }
}

/// Which videos.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DataConfig {
    /// The manifest: CSV or JSON Lines with a column `path`; or a folder of videos, or tar shards. Set by `--data`.
    pub manifest: Option<PathBuf>,
    /// Accept absolute paths in the manifest, and paths that leave its folder. Set by `--allow-outside`.
    pub allow_outside: bool,
    /// The split to train on. A manifest without the column `split` is used whole.
    pub train_split: String,
    /// The split that probes score; needs labels.
    pub test_split: String,
    /// The columns with classes that probes score; those that a manifest lacks are left out.
    pub labels: Vec<String>,
}

impl Default for DataConfig {
    fn default() -> Self {
        Self {
            manifest: None,
            allow_outside: false,
            train_split: "train".into(),
            test_split: "test".into(),
            labels: vec!["label".into()],
        }
    }
}

/// The sizes of encoder and decoder. Frames, image size and tubelet follow from `clip`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ModelConfig {
    /// `micro`, `small`, `base`, `large` or `huge`. Default: `base`, the paper's.
    pub preset: String,
    /// Another encoder than the preset's.
    pub encoder: Option<TransformerConfig>,
    /// Another decoder than the preset's.
    pub decoder: Option<TransformerConfig>,
    /// Standardise the target per tubelet and channel. The paper does not say; VideoMAE does. Without, `clip.normalization` must
    /// be ImageNet's.
    pub normalize_target: bool,
    /// Weights to begin with: a run, one of its checkpoints, a Hugging Face VideoMAE folder, or an original .pth file, of this model's
    /// size. A decoder that is not there or does not fit is drawn. Default: none, all weights are drawn.
    pub init: Option<PathBuf>,
}

impl Default for ModelConfig {
    fn default() -> Self {
        Self { preset: "base".into(), encoder: None, decoder: None, normalize_target: true, init: None }
    }
}

/// The CLIP that scores patches and embeds captions. It is frozen.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TextConfig {
    /// `builtin` (a tiny CLIP that knows the synthetic world only), a folder in Hugging Face layout, or
    /// `hub:OWNER/NAME@REVISION`. Default: ViT-B/32, the paper's.
    pub model: String,
    /// Patch features and grid of the score maps.
    pub scores: ScoreOptions,
    /// What CLIP looks at while training. Maps of a cache are always of whole frames. Default: `crop`, the paper's likely
    /// reading.
    pub view: TextView,
    /// A folder that `tgm score` has filled for these videos and captions: maps are read from it, through the same crop as
    /// the pixels, and CLIP's image tower rests. Default: none.
    pub cache: Option<PathBuf>,
}

impl Default for TextConfig {
    fn default() -> Self {
        Self {
            model: tgm_clip::ModelSource::vit_b32().to_string(),
            scores: ScoreOptions::default(),
            view: TextView::default(),
            cache: None,
        }
    }
}

/// What CLIP looks at while training.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TextView {
    /// The picture that the encoder gets. What it says about a patch of background depends on what else is in the crop, so
    /// that a cache hides the same of what the caption names, and other background.
    #[default]
    Crop,
    /// The whole frame, whose map is seen through the crop: what a cache holds, so that a cache changes the speed and
    /// nothing else. (Frames are handed over at `clip.size`: with clips smaller than CLIP's pictures a cache sees more.)
    Frame,
}

/// The contrastive term of the loss.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct JointConfig {
    /// Whether there is one. Set by `--contrastive on|off`.
    pub enabled: bool,
    /// Its weight beside the reconstruction. The paper: 1.
    pub weight: f64,
    /// Temperature and negatives.
    pub head: ContrastiveConfig,
}

impl Default for JointConfig {
    fn default() -> Self {
        Self { enabled: true, weight: 1.0, head: ContrastiveConfig::default() }
    }
}

/// Batch, precision, optimiser.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TrainConfig {
    /// Clips per optimiser step, over all micro-batches. The paper does not say; VideoMAE: 1024 to 2048.
    pub batch: usize,
    /// Clips that are in the model at once; divides `batch`; 0 for all. The others of a batch wait in memory as bytes, 2.3 MiB
    /// for 16 frames of 224×224. Gradients, the contrastive ones included, are the same for every value.
    pub micro_batch: usize,
    /// `f32`, or `bf16` for matrix products and stored activations, which then take half the memory. `bf16` is also faster on AMD's
    /// processors with AVX512-BF16; on others it multiplies as f32, and without AVX2 it is f32.
    pub precision: Precision,
    /// Keep only the inputs of the blocks and compute each block again in the backward pass: a third less speed, a fraction
    /// of the memory for activations, the same gradients to the bit.
    pub recompute: bool,
    /// First and second moment decay of AdamW. VideoMAE: 0.9 and 0.95.
    pub betas: [f64; 2],
    /// Decoupled weight decay of matrices. VideoMAE: 0.05.
    pub weight_decay: f64,
    /// Largest norm of the gradient; 0 for no limit. VideoMAE: none.
    pub clip_norm: f64,
    /// A step whose loss or gradient is not finite is skipped and counted; after more of them in a row than this, the run
    /// stops and leaves what `tgm replay` needs.
    pub max_skipped: u64,
}

impl Default for TrainConfig {
    fn default() -> Self {
        Self {
            batch: 1024,
            micro_batch: 0,
            precision: Precision::F32,
            recompute: false,
            betas: [0.9, 0.95],
            weight_decay: 0.05,
            clip_norm: 0.0,
            max_skipped: 3,
        }
    }
}

impl TrainConfig {
    /// How the model computes.
    pub fn compute(&self) -> Compute {
        let keep = if self.recompute { Keep::Inputs } else { Keep::Activations };
        Compute { precision: self.precision, keep }
    }
}

/// The unit of the schedule's lengths.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Unit {
    /// Passes over the training split.
    Epochs,
    /// Optimiser steps.
    Steps,
}

/// Learning rate over time: a linear warm-up from 0, then half a cosine.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ScheduleConfig {
    /// What `length` and `warmup` count.
    pub unit: Unit,
    /// The whole schedule. The paper: 200 epochs.
    pub length: f64,
    /// Its rising part. VideoMAE: 40 of 800 epochs.
    pub warmup: f64,
    /// The peak at a batch of 256; scaled by batch / 256. VideoMAE and the paper: 1.5e-4.
    pub base_lr: f64,
    /// The end at a batch of 256; scaled likewise. VideoMAE: 1e-5.
    pub min_lr: f64,
    /// Stop after this many steps, wherever the schedule is; 0 for its end. Set by `--steps`.
    pub stop_at: u64,
}

impl Default for ScheduleConfig {
    fn default() -> Self {
        Self { unit: Unit::Epochs, length: 200.0, warmup: 10.0, base_lr: 1.5e-4, min_lr: 1e-5, stop_at: 0 }
    }
}

/// What is written, and how often.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct OutputConfig {
    /// A log line after this many steps.
    pub log_every: u64,
    /// A checkpoint after this many steps; 0 for the end only.
    pub checkpoint_every: u64,
    /// How many of the newest checkpoints are kept.
    pub keep: usize,
    /// Besides, how many of the best are kept: by the periodic probe, or without one by the masked loss.
    pub keep_best: usize,
    /// Pictures of masks and reconstructions after this many steps; 0 for the end only.
    pub pictures_every: u64,
    /// How many clips are pictured; 0 for none.
    pub pictures: usize,
    /// A kNN probe (and a checkpoint) after this many steps and at the end, beside chance and a randomly initialised encoder;
    /// needs labels and both splits. 0 for none on the way.
    pub probe_every: u64,
    /// Write event files for TensorBoard.
    pub tensorboard: bool,
}

impl Default for OutputConfig {
    fn default() -> Self {
        Self {
            log_every: 20,
            checkpoint_every: 500,
            keep: 2,
            keep_best: 1,
            pictures_every: 0,
            pictures: 4,
            probe_every: 0,
            tensorboard: true,
        }
    }
}
