//! `tgm data synth`.

use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::ValueEnum;
use tgm_data::synth::{CaptionKind, Setting, WorldConfig};
use tgm_train::config::ConfigError;

use crate::demo;

/// Render a synthetic captioned world: real MP4 files, captions, labels, and the boxes of the objects.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  tgm data synth world                                   600 clips in three settings
  tgm data synth world --train 2000 --test 400 --seed 7 --setting moving
  tgm data synth world --config world.toml               every setting from a file; an interrupted call may be repeated")]
pub(in crate::commands) struct Args {
    /// Folder to write to.
    out: PathBuf,
    /// A file with the keys of a world (as `world.toml` in a rendered one).
    #[arg(long, conflicts_with_all = ["train", "test", "size", "seed", "setting", "captions", "caption_noise"])]
    config: Option<PathBuf>,
    /// Clips to train on.
    #[arg(long)]
    train: Option<u32>,
    /// Clips to test on.
    #[arg(long)]
    test: Option<u32>,
    /// Width and height in pixels.
    #[arg(long)]
    size: Option<u32>,
    /// Seed of every draw.
    #[arg(long)]
    seed: Option<u64>,
    /// What besides the named object moves; may be repeated.
    #[arg(long)]
    setting: Vec<SettingName>,
    /// What the captions tell.
    #[arg(long)]
    captions: Option<CaptionName>,
    /// Share of captions that describe another object, 0 to 1.
    #[arg(long)]
    caption_noise: Option<f64>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum SettingName {
    Static,
    Moving,
    Distractor,
    MovingDistractor,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum CaptionName {
    /// The object, its look, the scene: as a captioner of single frames would.
    Frame,
    /// The motion, too: supervision.
    Motion,
}

pub(super) fn run(args: Args) -> Result<()> {
    let world = args.world()?;
    let manifest = demo::render(&args.out, &world)?;
    println!("{}", manifest.display());
    Ok(())
}

impl Args {
    fn world(&self) -> Result<WorldConfig> {
        if let Some(file) = &self.config {
            let text =
                std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
            let world: WorldConfig = toml::from_str(&text)
                .map_err(|e| ConfigError(format!("{}: {}", file.display(), e.message())))?;
            return Ok(world);
        }
        let default = WorldConfig::default();
        let settings = self.setting.iter().map(|s| match s {
            SettingName::Static => Setting::Static,
            SettingName::Moving => Setting::Moving,
            SettingName::Distractor => Setting::Distractor,
            SettingName::MovingDistractor => Setting::MovingDistractor,
        });
        Ok(WorldConfig {
            train: self.train.unwrap_or(default.train),
            test: self.test.unwrap_or(default.test),
            size: self.size.unwrap_or(default.size),
            seed: self.seed.unwrap_or(default.seed),
            settings: if self.setting.is_empty() { default.settings.clone() } else { settings.collect() },
            captions: match self.captions {
                Some(CaptionName::Motion) => CaptionKind::Motion,
                Some(CaptionName::Frame) => CaptionKind::Frame,
                None => default.captions,
            },
            caption_noise: self.caption_noise.unwrap_or(default.caption_noise),
            ..default
        })
    }
}
