//! `tgm bench mask`: masks drawn per second.

use std::hint::black_box;
use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use candle_core::DType;
use serde::Serialize;
use tgm_masking::{
    Cues, Grid, Mask, Masking, MotionBoxConfig, MotionField, MotionWarpConfig, ScoreMap, Select, TextConfig,
};
use tgm_ops::gradcheck::randn;
use tgm_random::Streams;
use tgm_train::progress::Progress;

use super::options::Options;
use super::program::Program;
use super::python::MASKS;
use super::record::{Record, Row, shown};
use super::scratch::Scratch;
use super::turns::{Done, Warm};
use crate::commands::median;

/// Masks per second of every strategy, on one thread, for clips of 8×14×14 tubelets.
///
/// Scores and motion are at hand: `bench score` and `data bench` measure what they cost. With --peers NumPy draws random, tube and
/// top-k masks as VideoMAE's loader does, clip by clip, and PyTorch as MAE does, a whole batch at once, in turn with ours.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  tgm bench mask
  tgm bench mask --peers --json mask.json")]
pub(in crate::commands) struct Args {
    /// Clips in a turn.
    #[arg(long, default_value_t = 1024, value_parser = crate::commands::at_least_one)]
    clips: usize,
    #[command(flatten)]
    options: Options,
}

/// The peers, as `benches/peers/mask.py` knows them.
const PEERS: [&str; 2] = ["numpy", "torch"];
const UNIT: &str = "masks/s";

/// The work of a peer.
#[derive(Serialize)]
struct Spec<'a> {
    strategy: &'a str,
    clips: usize,
    slots: usize,
    cells: usize,
    /// Tubelets hidden in each slot.
    hidden: usize,
    /// One clip's, `[slots, cells]`.
    scores: &'a [f32],
}

/// What guides the masks of a clip.
struct Guides {
    grid: Grid,
    scores: ScoreMap,
    motion: MotionField,
}

impl Guides {
    fn random() -> Result<Self> {
        let grid = Grid::new(8, 14, 14)?;
        let scores = randn("scores", &[grid.len()], DType::F32)?.to_vec1()?;
        let vectors = randn("motion", &[grid.len(), 2], DType::F32)?.to_vec2::<f32>()?;
        let vectors = vectors.iter().map(|vector| [vector[0], vector[1]]).collect();
        Ok(Self { grid, scores: ScoreMap::new(grid, scores)?, motion: MotionField::new(grid, vectors)? })
    }

    fn mask(&self, masking: &Masking, clip: usize) -> Result<Mask> {
        let cues = Cues { scores: Some(&self.scores), motion: Some(&self.motion) };
        Ok(masking.mask(&self.grid, &cues, &mut Streams::new(0).stream("mask", 0, clip as u64))?)
    }

    /// What the peers must agree on: see `benches/peers/mask.py`.
    fn value(&self, masking: &Masking) -> Result<f64> {
        let mask = self.mask(masking, 0)?;
        let count = mask.masked().len() as f64;
        let sum: f64 = mask.masked().iter().map(|&index| f64::from(index)).sum();
        Ok(if masking.needs_scores() { sum / count } else { count })
    }

    /// Seconds that the masks of so many clips take.
    fn turn(&self, masking: &Masking, clips: usize) -> Result<f64> {
        let start = Instant::now();
        for clip in 0..clips {
            black_box(self.mask(masking, clip)?);
        }
        Ok(start.elapsed().as_secs_f64())
    }
}

/// Every strategy, and whether the peers draw such masks.
fn strategies() -> [(&'static str, Masking, bool); 6] {
    let text = TextConfig::default();
    [
        ("random-0.9", Masking::Random { ratio: 0.9 }, true),
        ("tube-0.9", Masking::Tube { ratio: 0.9 }, true),
        ("motion-box", Masking::MotionBox(MotionBoxConfig::default()), false),
        ("motion-warp", Masking::MotionWarp(MotionWarpConfig::default()), false),
        ("text-0.6", Masking::Text(text.clone()), true),
        ("text-sampled-0.6", Masking::Text(TextConfig { select: Select::Sample, ..text }), false),
    ]
}

pub(super) fn run(args: &Args) -> Result<()> {
    Record::new(rows(args)?).write(args.options.json.as_deref())
}

/// Measures every strategy and prints its row.
pub(super) fn rows(args: &Args) -> Result<Vec<Row>> {
    let python = args.options.peers.then(|| MASKS.interpreter()).transpose()?;
    let guides = Guides::random()?;
    println!("{:<40}{:>12}{:>12}{:>12}{:>8}   ({UNIT})", "", "ours", PEERS[0], PEERS[1], "ratio");
    strategies()
        .iter()
        .map(|(name, masking, has_peers)| {
            let python = python.as_deref().filter(|_| *has_peers);
            let row = measure(args, &guides, name, masking, python)?;
            println!("{}", line(&row));
            Ok(row)
        })
        .collect()
}

fn measure(
    args: &Args,
    guides: &Guides,
    name: &str,
    masking: &Masking,
    python: Option<&Path>,
) -> Result<Row> {
    let name = format!("mask/{name}/8x14x14");
    let folder = Scratch::new("mask")?;
    let mut peers = match python {
        Some(python) => start_peers(args, guides, masking, python, folder.path())?,
        None => Vec::new(),
    };
    let rounds = args.options.rounds;
    let progress = Progress::new(&name, rounds.into());
    let mut ours = Vec::new();
    let mut theirs = vec![Vec::new(); peers.len()];
    // Once before the clock counts, as the peers do.
    guides.turn(masking, args.clips)?;
    for round in 0..rounds {
        ours.push(guides.turn(masking, args.clips)?);
        for (peer, seconds) in peers.iter_mut().zip(&mut theirs) {
            seconds.push(peer.turn::<Done>()?.seconds);
        }
        progress.set(u64::from(round) + 1);
    }
    progress.finish();
    let rate = |seconds| median(seconds).map(|seconds| args.clips as f64 / seconds).context("no rounds");
    let names = peers.iter().map(|peer| peer.name().to_owned());
    let peers = names.zip(theirs).map(|(name, seconds)| Ok((name, rate(seconds)?))).collect::<Result<_>>()?;
    Ok(Row::compared(name, UNIT, rate(ours)?, peers))
}

/// Starts the peers, each warm, after all have drawn the same masks where those are not random.
fn start_peers(
    args: &Args,
    guides: &Guides,
    masking: &Masking,
    python: &Path,
    folder: &Path,
) -> Result<Vec<Program>> {
    let grid = guides.grid;
    let spec = Spec {
        strategy: masking.name(),
        clips: args.clips,
        slots: grid.slots(),
        cells: grid.cells(),
        hidden: masking.masked_per_slot(&grid)?,
        scores: guides.scores.values(),
    };
    let file = folder.join("spec.json");
    std::fs::write(&file, serde_json::to_string(&spec)?)
        .with_context(|| format!("cannot write {}", file.display()))?;
    let ours = guides.value(masking)?;
    PEERS
        .into_iter()
        .map(|name| {
            let mut peer = Program::start(name, MASKS.command(python, &file, &[name])?)?;
            let Warm { value } = peer.line()?;
            let value = value.unwrap_or(f64::NAN);
            ensure!(
                (value - ours).abs() <= 1e-9 * ours.abs(),
                "{name} draws other {} masks: {value} where ours has {ours}",
                masking.name()
            );
            Ok(peer)
        })
        .collect()
}

fn line(row: &Row) -> String {
    let [numpy, torch] = PEERS.map(|peer| shown(row.peers.get(peer).copied(), 0));
    format!("{:<40}{:>12.0}{numpy:>12}{torch:>12}{:>8}", row.name, row.ours, shown(row.ratio, 2))
}
