//! `tgm data bench`.

use std::path::PathBuf;
use std::time::Instant;

use anyhow::Result;
use serde::Serialize;
use tgm_data::loader::{ClipConfig, LoaderConfig, TrainLoader};
use tgm_random::Streams;
use tgm_train::config::ConfigError;
use tgm_train::progress::Progress;
use tgm_train::trainer::subset;
use tgm_video::Sampling;

use super::ManifestArgs;
use crate::cpu_time;

/// How many training clips a core makes in a second, and how many cores a consumer needs.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  tgm data bench clips.csv
  tgm data bench clips.csv --consumer 300          cores that feed a GPU of 300 clips/s
  tgm data bench clips.csv --frames 16 --stride 2 --size 112 --workers 4")]
pub(in crate::commands) struct Args {
    #[command(flatten)]
    data: ManifestArgs,
    /// The split to read.
    #[arg(long, default_value = "train")]
    split: String,
    /// Frames in a clip.
    #[arg(long, default_value_t = 16)]
    frames: usize,
    /// Source frames from one frame of a clip to the next.
    #[arg(long, default_value_t = 4)]
    stride: usize,
    /// Width and height of a clip.
    #[arg(long, default_value_t = 224)]
    size: u32,
    /// Threads that decode; 0 for one per core.
    #[arg(long, default_value_t = 0)]
    workers: usize,
    /// Clips to make.
    #[arg(long, default_value_t = 200)]
    clips: usize,
    /// Clips per second that a consumer takes.
    #[arg(long, value_name = "CLIPS/S")]
    consumer: Option<f64>,
    /// Write the numbers to a file.
    #[arg(long, value_name = "FILE", value_parser = crate::commands::result_file)]
    json: Option<PathBuf>,
}

#[derive(Serialize)]
struct Numbers {
    clips: usize,
    bad: u64,
    workers: usize,
    clips_per_second: f64,
    cpu_ms_per_clip: f64,
    clips_per_second_and_core: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    cores_needed: Option<f64>,
}

/// Clips that are made before the clock starts.
const WARM_UP: usize = 8;

pub(super) fn run(args: Args) -> Result<()> {
    if args.clips == 0 {
        return Err(ConfigError("--clips must be at least 1".into()).into());
    }
    let data = subset(&args.data.load()?, &args.split)?;
    let config = ClipConfig {
        sampling: Sampling::Dense { frames: args.frames, stride: args.stride },
        size: args.size,
        ..ClipConfig::default()
    };
    let loader = LoaderConfig { workers: args.workers, max_bad_share: 1.0, ..LoaderConfig::default() };
    let mut loader = TrainLoader::new(&data, &config, &loader, 1, Streams::new(0), 0)?;
    for _ in 0..WARM_UP {
        loader.next_batch()?;
    }
    let progress = Progress::new("clips", args.clips as u64);
    let begun = (Instant::now(), cpu_time::process());
    for clip in 0..args.clips {
        loader.next_batch()?;
        progress.set(clip as u64 + 1);
    }
    let cpu = cpu_time::process().saturating_sub(begun.1).as_secs_f64();
    let wall = begun.0.elapsed().as_secs_f64();
    progress.finish();
    let clips = args.clips as f64;
    let workers = match args.workers {
        0 => std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
        workers => workers,
    };
    let per_core = clips / cpu;
    let numbers = Numbers {
        clips: args.clips,
        bad: loader.stats().bad,
        workers,
        clips_per_second: clips / wall,
        cpu_ms_per_clip: 1e3 * cpu / clips,
        clips_per_second_and_core: per_core,
        cores_needed: args.consumer.map(|consumer| consumer / per_core),
    };
    println!("{:.1} clips/s with {workers} workers", numbers.clips_per_second);
    println!("{:.1} CPU ms a clip: {per_core:.1} clips/s a core", numbers.cpu_ms_per_clip);
    if let (Some(consumer), Some(cores)) = (args.consumer, numbers.cores_needed) {
        println!("{consumer} clips/s need {cores:.1} cores");
    }
    if numbers.bad > 0 {
        println!("{} bad videos were passed over; `tgm data check` names them", numbers.bad);
    }
    super::super::write_json(args.json.as_deref(), &numbers)
}
