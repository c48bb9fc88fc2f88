//! `tgm bench step`: pretraining steps and feature extraction per second.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use candle_core::{DType, Device, Tensor};
use clap::ValueEnum;
use tgm_contrastive::{ContrastiveConfig, ContrastiveHead};
use tgm_mae::{Checkpoint, CheckpointKind, KeyLayout, MaeConfig, VideoMae};
use tgm_masking::{Cues, Grid, Masking};
use tgm_ops::Params;
use tgm_ops::gradcheck::randn;
use tgm_random::Streams;

use super::python;
use super::record::{Record, Row};
use super::turns::{Kind, Measured, Spec, ensure_agreement, in_turn, write_spec};
use super::worker::TEXT_DIM;

/// Clips per second of a pretraining step (forward, backward, AdamW) and of feature extraction, with random weights.
///
/// With --peers PyTorch with `transformers` does the same work on the same weights, clips and masks, in turn with ours, after
/// both have computed the same loss. PyTorch runs eagerly and compiled, with autocast for bf16, and with fused AdamW.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  tgm bench step --peers --json step.json
  tgm bench step --size small --precision bf16 --work step-0.9 --rounds 9")]
pub(in crate::commands) struct Args {
    /// Model sizes.
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = [Size::Small, Size::Base])]
    size: Vec<Size>,
    /// Precisions.
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = [Precision::F32, Precision::Bf16])]
    precision: Vec<Precision>,
    /// Kinds of work.
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = [Work::Tube, Work::Joint, Work::Features])]
    work: Vec<Work>,
    /// Clips of a step.
    #[arg(long, default_value_t = 4)]
    batch: usize,
    /// Threads of each program. Default: all.
    #[arg(long)]
    threads: Option<usize>,
    /// Timed units of work of each program; the median counts.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Measure PyTorch, too.
    #[arg(long)]
    peers: bool,
    /// Write the rows to a file.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
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
pub(super) enum Precision {
    F32,
    Bf16,
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

impl Precision {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::Bf16 => "bf16",
        }
    }

    /// How far two programs' results may be apart, relatively.
    pub(super) const fn tolerance(self) -> f64 {
        match self {
            Self::F32 => 1e-4,
            Self::Bf16 => 2e-2,
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

    fn row(self, size: Size, precision: Precision, batch: usize) -> String {
        let (size, precision) = (size.name(), precision.name());
        match self {
            Self::Tube => format!("step/{size}/{precision}/tube-0.9/b{batch}"),
            Self::Joint => format!("step/{size}/{precision}/joint-0.6/b{batch}"),
            Self::Features => format!("features/{size}/{precision}/b1"),
        }
    }
}

pub(super) fn run(args: Args) -> Result<()> {
    let python = if args.peers { Some(python::interpreter()?) } else { None };
    let folder = Scratch::new("step")?;
    let threads = threads(args.threads);
    println!("{}", header(&["clips/s"]));
    let mut rows = Vec::new();
    for &size in &args.size {
        for &work in &args.work {
            let clips = if work == Work::Features { 1 } else { args.batch };
            write_input(folder.path(), size, work, clips)?;
            for &precision in &args.precision {
                let spec = Spec {
                    work: if work == Work::Features { Kind::Features } else { Kind::Step },
                    model: folder.path().join("model").display().to_string(),
                    input: folder.path().join("input.safetensors").display().to_string(),
                    precision: precision.name().into(),
                    threads,
                    contrastive: work == Work::Joint,
                };
                let name = work.row(size, precision, args.batch);
                let measured = measure(folder.path(), &name, &spec, python.as_deref(), args.rounds)?;
                ensure_agreement(&measured, precision.tolerance()).with_context(|| name.clone())?;
                let row = row(name, "clips/s", clips as f64, &measured);
                println!("{}", line(&row));
                rows.push(row);
            }
        }
    }
    Record::new(rows).write(args.json.as_deref())
}

/// Random weights in Hugging Face's layout, and clips, masks and texts.
fn write_input(folder: &Path, size: Size, work: Work, clips: usize) -> Result<()> {
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
    let tensors = HashMap::from([
        (
            "pixel_values",
            randn("clips", &[clips, config.frames, config.channels, height, width], DType::F32)?,
        ),
        ("bool_masked_pos", masks(&config, &work.masking(), clips)?),
        ("texts", randn("texts", &[clips, TEXT_DIM], DType::F32)?),
        ("head.projection", head("contrastive.projection.weight")?),
        ("head.log_scale", head("contrastive.log_scale")?),
    ]);
    let path = folder.join("input.safetensors");
    candle_core::safetensors::save(&tensors, &path)
        .with_context(|| format!("cannot write {}", path.display()))
}

/// Masks `[B, N]`, 1 where hidden.
fn masks(config: &MaeConfig, masking: &Masking, clips: usize) -> Result<Tensor> {
    let [slots, rows, cols] = config.grid();
    let grid = Grid::new(slots, rows, cols)?;
    let mut flags = vec![0u8; clips * grid.len()];
    for (clip, flags) in flags.chunks_exact_mut(grid.len()).enumerate() {
        let mut stream = Streams::new(0).stream("mask", 0, clip as u64);
        for &hidden in masking.mask(&grid, &Cues::default(), &mut stream)?.masked() {
            flags[hidden as usize] = 1;
        }
    }
    Ok(Tensor::from_vec(flags, (clips, grid.len()), &Device::Cpu)?)
}

/// Ours, and PyTorch eager and compiled.
pub(super) fn measure(
    folder: &Path,
    name: &str,
    spec: &Spec,
    python: Option<&Path>,
    rounds: usize,
) -> Result<Vec<Measured>> {
    let file = write_spec(folder, "spec", spec)?;
    let mut ours = Command::new(std::env::current_exe().context("cannot find this program")?);
    ours.args(["bench", "worker"]).arg(&file);
    for pool in ["RAYON_NUM_THREADS", "CANDLE_NUM_THREADS"] {
        ours.env(pool, spec.threads.to_string());
    }
    let mut commands = vec![("ours".to_owned(), ours)];
    if let Some(python) = python {
        commands.push(("pytorch-eager".into(), python::worker(python, &file, &[])?));
        commands.push(("pytorch-compile".into(), python::worker(python, &file, &["--compile"])?));
    }
    in_turn(name, commands, rounds)
}

/// A row of rates: `units` of work per measured second.
pub(super) fn row(name: String, unit: &str, units: f64, measured: &[Measured]) -> Row {
    let rate = |m: &Measured| units / m.seconds;
    let (ours, peers) = (&measured[0], &measured[1..]);
    let best = peers.iter().max_by(|a, b| rate(a).total_cmp(&rate(b)));
    Row {
        name,
        unit: unit.into(),
        ours: rate(ours),
        peers: peers.iter().map(|m| (m.name.clone(), rate(m))).collect(),
        ratio: best.map(|best| rate(ours) / rate(best)),
        ours_peak_mb: Some(ours.peak_mb),
        peer_peak_mb: best.map(|best| best.peak_mb),
        ..Row::default()
    }
}

pub(super) fn header(units: &[&str]) -> String {
    format!(
        "{:<32}{:>9}{:>9}{:>9}{:>8}{:>10}{:>10}   ({})",
        "",
        "ours",
        "eager",
        "compile",
        "ratio",
        "ours MB",
        "peer MB",
        units.join(", ")
    )
}

pub(super) fn line(row: &Row) -> String {
    let number = |value: Option<f64>, digits| value.map_or("–".into(), |v| format!("{v:.digits$}"));
    format!(
        "{:<32}{:>9.2}{:>9}{:>9}{:>8}{:>10}{:>10}",
        row.name,
        row.ours,
        number(row.peers.get("pytorch-eager").copied(), 2),
        number(row.peers.get("pytorch-compile").copied(), 2),
        number(row.ratio, 2),
        number(row.ours_peak_mb, 0),
        number(row.peer_peak_mb, 0),
    )
}

pub(super) fn threads(wanted: Option<usize>) -> usize {
    wanted.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, std::num::NonZero::get))
}

/// A folder that is gone when the bench ends.
pub(super) struct Scratch(PathBuf);

impl Scratch {
    pub(super) fn new(name: &str) -> Result<Self> {
        let path = std::env::temp_dir().join(format!("tgm-bench-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).with_context(|| format!("cannot make {}", path.display()))?;
        Ok(Self(path))
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
