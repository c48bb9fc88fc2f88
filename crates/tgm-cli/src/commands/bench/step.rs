//! `tgm bench step`: pretraining steps and feature extraction per second.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use anyhow::{Context, Result};
use candle_core::{DType, Device, Tensor};
use clap::ValueEnum;
use tgm_contrastive::{ContrastiveConfig, ContrastiveHead};
use tgm_mae::{Checkpoint, CheckpointKind, KeyLayout, MaeConfig, VideoMae};
use tgm_masking::{Cues, Grid, Masking};
use tgm_ops::gradcheck::randn;
use tgm_ops::{Params, Precision};
use tgm_random::Streams;

use super::options::{Options, Threads, fast_precisions, precision};
use super::python::MODELS;
use super::rates::{self, Bench, header};
use super::record::{Record, Row};
use super::scratch::Scratch;
use super::turns::{Kind, Spec};
use super::worker::TEXT_DIM;

/// Clips per second of a pretraining step (forward, backward, AdamW) and of feature extraction, with random weights.
///
/// With --peers PyTorch with `transformers` does the same work on the same weights, clips and masks, in turn with ours, after
/// both have computed the same loss. PyTorch runs eagerly and compiled, with autocast for bf16, and with fused AdamW.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  tgm bench step --peers --json step.json
  tgm bench step --size small --precision bf16 --work step-0.9 --rounds 9
  tgm bench step --size base --work step-0.9 --recompute --peers")]
pub(in crate::commands) struct Args {
    /// Model sizes.
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = [Size::Small, Size::Base])]
    size: Vec<Size>,
    /// Precisions. Default: those that the processor has fast instructions for.
    #[arg(long, value_parser = precision(), value_delimiter = ',', default_values_t = fast_precisions())]
    precision: Vec<Precision>,
    /// Kinds of work.
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = [Work::Tube, Work::Joint, Work::Features])]
    work: Vec<Work>,
    /// Clips of a step.
    #[arg(long, default_value_t = 4)]
    batch: usize,
    /// Ours computes activations again in the backward pass instead of keeping them.
    #[arg(long)]
    recompute: bool,
    #[command(flatten)]
    threads: Threads,
    #[command(flatten)]
    options: Options,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Size {
    /// 8 frames of 64².
    Micro,
    /// ViT-S, 16 frames of 224².
    Small,
    /// ViT-B, 16 frames of 224².
    Base,
    /// ViT-L, 16 frames of 224².
    Large,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Work {
    /// VideoMAE's: tube masking at 0.9.
    #[value(name = "step-0.9")]
    Tube,
    /// TGM's: ratio 0.6 and the contrastive loss.
    #[value(name = "joint-0.6")]
    Joint,
    /// The encoder on all tubelets of one clip.
    Features,
}

impl Size {
    fn config(self) -> MaeConfig {
        match self {
            Self::Micro => MaeConfig::micro(),
            Self::Small => MaeConfig::small(),
            Self::Base => MaeConfig::base(),
            Self::Large => MaeConfig::large(),
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Micro => "micro",
            Self::Small => "vit-s",
            Self::Base => "vit-b",
            Self::Large => "vit-l",
        }
    }
}

impl Work {
    fn masking(self) -> Masking {
        match self {
            Self::Tube => Masking::Tube { ratio: 0.9 },
            // Which tubelets are hidden changes nothing of the work.
            Self::Joint | Self::Features => Masking::Random { ratio: 0.6 },
        }
    }

    fn row(self, size: Size, precision: Precision, args: &Args) -> String {
        let (size, batch) = (size.name(), args.batch);
        let how = if args.recompute { "/recompute" } else { "" };
        match self {
            Self::Tube => format!("step/{size}/{precision}/tube-0.9/b{batch}{how}"),
            Self::Joint => format!("step/{size}/{precision}/joint-0.6/b{batch}{how}"),
            Self::Features => format!("features/{size}/{precision}/b1"),
        }
    }

    /// Operations for a clip of which `hidden` tubelets are masked; a backward pass costs twice its forward pass.
    fn flops(self, config: &MaeConfig, hidden: usize) -> f64 {
        let tokens = config.tokens();
        match self {
            Self::Tube | Self::Joint => 3.0 * config.forward_flops(tokens - hidden, hidden) as f64,
            Self::Features => config.encoder_flops(tokens) as f64,
        }
    }
}

pub(super) fn run(args: &Args) -> Result<()> {
    Record::new(rows(args)?).write(args.options.json.as_deref())
}

/// Measures every row and prints it.
pub(super) fn rows(args: &Args) -> Result<Vec<Row>> {
    let options = &args.options;
    let python = options.peers.then(|| MODELS.interpreter()).transpose()?;
    let folder = Scratch::new("step")?;
    let bench = Bench { folder: folder.path(), python: python.as_deref(), rounds: options.rounds };
    println!("{}", header("clips/s"));
    let mut rows = Vec::new();
    for &size in &args.size {
        for &work in &args.work {
            let clips = if work == Work::Features { 1 } else { args.batch };
            let hidden = write_input(folder.path(), size, work, clips)?;
            let turn =
                rates::Work { unit: "clips/s", count: clips, flops: work.flops(&size.config(), hidden) };
            for &precision in &args.precision {
                let spec = Spec {
                    work: if work == Work::Features { Kind::Features } else { Kind::Step },
                    model: folder.path().join("model").display().to_string(),
                    input: folder.path().join("input.safetensors").display().to_string(),
                    precision,
                    threads: args.threads.count(),
                    contrastive: work == Work::Joint,
                    recompute: args.recompute,
                };
                rows.push(bench.row(work.row(size, precision, args), &turn, &spec)?);
            }
        }
    }
    Ok(rows)
}

/// Random weights in Hugging Face's layout, and clips, masks and texts. Returns how many tubelets of a clip are masked.
fn write_input(folder: &Path, size: Size, work: Work, clips: usize) -> Result<usize> {
    // transformers has no other epsilon in the last norm.
    let config = MaeConfig { head_norm_eps: 1e-5, ..size.config() };
    let mut params = Params::new(Streams::new(0), &Device::Cpu);
    VideoMae::new(&config, &mut params)?;
    let weights: BTreeMap<String, Tensor> =
        params.iter().map(|(name, var)| (name.to_string(), var.as_tensor().clone())).collect();
    let model = folder.join("model");
    std::fs::create_dir_all(&model).with_context(|| format!("cannot make {}", model.display()))?;
    let (kind, layout) = (CheckpointKind::Pretraining, KeyLayout::HuggingFaceLegacy);
    Checkpoint::save_folder(&model, &config, kind, layout, &weights)?;
    ContrastiveHead::new(config.encoder.dim, TEXT_DIM, &ContrastiveConfig::default(), &mut params)?;
    let head =
        |name: &str| params.get(name).map(|var| var.as_tensor().clone()).context("no contrastive head");
    let [height, width] = config.image_size;
    let (masks, hidden) = masks(&config, &work.masking(), clips)?;
    let tensors = HashMap::from([
        (
            "pixel_values",
            randn("clips", &[clips, config.frames, config.channels, height, width], DType::F32)?,
        ),
        ("bool_masked_pos", masks),
        ("texts", randn("texts", &[clips, TEXT_DIM], DType::F32)?),
        ("head.projection", head("contrastive.projection.weight")?),
        ("head.log_scale", head("contrastive.log_scale")?),
    ]);
    let path = folder.join("input.safetensors");
    candle_core::safetensors::save(&tensors, &path)
        .with_context(|| format!("cannot write {}", path.display()))?;
    Ok(hidden)
}

/// Masks `[B, N]`, 1 where hidden, and how many of each are.
fn masks(config: &MaeConfig, masking: &Masking, clips: usize) -> Result<(Tensor, usize)> {
    let [slots, rows, cols] = config.grid();
    let grid = Grid::new(slots, rows, cols)?;
    let mut flags = vec![0u8; clips * grid.len()];
    for (clip, flags) in flags.chunks_exact_mut(grid.len()).enumerate() {
        let mut stream = Streams::new(0).stream("mask", 0, clip as u64);
        for &hidden in masking.mask(&grid, &Cues::default(), &mut stream)?.masked() {
            flags[hidden as usize] = 1;
        }
    }
    let hidden = flags.iter().filter(|&&flag| flag == 1).count() / clips.max(1);
    Ok((Tensor::from_vec(flags, (clips, grid.len()), &Device::Cpu)?, hidden))
}
