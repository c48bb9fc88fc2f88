//! `tgm features`.

use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};
use candle_core::Device;
use serde::Serialize;
use tgm_data::loader::{ClipConfig, EvalLoader, LoaderConfig, MotionSource, Subset, TestViews};
use tgm_eval::Readout;
use tgm_eval::pass::encode;
use tgm_eval::store::{About, Digest, Entry, Writer};
use tgm_ops::Params;
use tgm_ops::Pooling;
use tgm_train::model_io;
use tgm_train::progress::Progress;
use tgm_train::run_data::{chosen, load_manifest};

use crate::evaluation::data::rows_digest;

/// Encode every video of a manifest and write the features as one safetensors file.
///
/// A run that was interrupted goes on where it stopped when it is started again with the same arguments.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  tgm features --checkpoint runs/demo --data clips.csv --out features.safetensors
  tgm features --checkpoint videomae-base/ --data clips.csv --split test --views 5 --crops 3 --out test.safetensors

From Python:
  from safetensors.numpy import load_file
  f = load_file(\"features.safetensors\"); x, y = f[\"features\"].mean(1), f[\"labels\"]")]
pub(super) struct Args {
    /// A run, one of its checkpoints, a Hugging Face VideoMAE folder, or an original .pth file.
    #[arg(long, value_name = "PATH")]
    checkpoint: PathBuf,
    /// The manifest; labels are optional.
    #[arg(long, value_name = "MANIFEST")]
    data: PathBuf,
    /// Accept absolute paths in the manifest, and paths that leave its folder.
    #[arg(long)]
    allow_outside: bool,
    /// The file to write.
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// Only this split; by default all rows.
    #[arg(long, value_name = "NAME")]
    split: Option<String>,
    /// Frames of the video from one frame of a clip to the next; by default as in the model's training run, or 4 for a model from elsewhere.
    #[arg(long, value_name = "N", value_parser = crate::commands::at_least_one)]
    stride: Option<usize>,
    /// Clips in time per video.
    #[arg(long, default_value_t = 1)]
    views: usize,
    /// Crops of each clip: 1 (centre) or 3 (along the long side).
    #[arg(long, default_value_t = 1)]
    crops: usize,
    /// Threads that decode; 0 for one per core.
    #[arg(long, default_value_t = 0)]
    workers: usize,
    /// Write what was done to a file.
    #[arg(long, value_name = "FILE", value_parser = crate::commands::result_file)]
    json: Option<PathBuf>,
}

/// Videos after which the journal is brought to the disk.
const FLUSH_EVERY: usize = 64;

#[derive(Debug, Serialize)]
struct Output<'a> {
    out: &'a Path,
    videos: usize,
    resumed_at: usize,
    views: usize,
    dim: usize,
    clips_per_second: f64,
}

pub(super) fn run(args: Args) -> Result<()> {
    let checkpoint = model_io::open(&args.checkpoint)?;
    let manifest = load_manifest(&args.data, args.allow_outside)?;
    let data = chosen(&manifest, args.split.as_deref())?;
    let clip = ClipConfig { motion: MotionSource::None, ..model_io::clip_config(&checkpoint, args.stride)? };
    let views = TestViews { views: args.views, crops: args.crops };
    let (encoder, params) = checkpoint.encoder_with_params(&Device::Cpu)?;
    ensure!(
        params.all_finite()?,
        "{}: not all of its weights are numbers: features of it would be none; take an earlier checkpoint",
        args.checkpoint.display()
    );
    let mut rows = Digest::default();
    rows_digest(&data, &mut rows);
    let about = About {
        encoder: digest_of(&params)?,
        data: rows.text(),
        clip: serde_json::to_string(&clip)?,
        views: (views.views, views.crops),
        dim: checkpoint.config.encoder.dim,
        version: About::VERSION,
    };
    // Before a file is begun that no other call could go on with.
    views.validate()?;
    ensure!(!args.out.is_dir(), "{}: is a folder; --out names the file to write", args.out.display());
    let journal = tgm_eval::store::journal(&args.out);
    ensure!(
        journal.exists() || !args.out.exists(),
        "{}: is there already; delete it, or choose another file with --out",
        args.out.display()
    );
    let mut writer = Writer::open(&args.out, about)?;
    let (resumed_at, total) = (writer.done(), data.rows().len());
    let progress = Progress::new("features", total as u64);
    if resumed_at > 0 {
        progress.line(&format!("going on after {resumed_at} of {total} videos"));
    }
    let started = std::time::Instant::now();
    if resumed_at < total {
        let rest = Subset::new(manifest.clone(), data.rows()[resumed_at..].to_vec())?;
        let loader = LoaderConfig { workers: args.workers, ..LoaderConfig::default() };
        let clips = EvalLoader::new(&rest, &clip, &loader, views)?;
        encode(&[&encoder], Readout::Pooled(Pooling::Mean), clips, |video| {
            writer.push(&video?.features[0])?;
            progress.set(writer.done() as u64);
            if writer.done().is_multiple_of(FLUSH_EVERY) { writer.flush() } else { Ok(()) }
        })?;
    }
    progress.finish();
    writer.finish(&entries(&data), manifest.classes().names())?;
    let clips = ((total - resumed_at) * views.views * views.crops) as f64;
    println!(
        "{}  {total} videos × {} views × {}",
        args.out.display(),
        views.views * views.crops,
        checkpoint.config.encoder.dim
    );
    let output = Output {
        out: &args.out,
        videos: total,
        resumed_at,
        views: views.views * views.crops,
        dim: checkpoint.config.encoder.dim,
        clips_per_second: clips / started.elapsed().as_secs_f64(),
    };
    super::write_json(args.json.as_deref(), &output)
}

fn entries(data: &Subset) -> Vec<Entry> {
    let entry = |&row: &u32| {
        let found = data.manifest().row(row as usize);
        let split = found.split().unwrap_or_default().to_owned();
        Entry { row, path: found.path().to_owned(), split, label: found.label() }
    };
    data.rows().iter().map(entry).collect()
}

fn digest_of(params: &Params) -> Result<String> {
    let mut digest = Digest::default();
    params.iter().try_for_each(|(name, var)| digest.tensor(name, var))?;
    Ok(digest.text())
}
