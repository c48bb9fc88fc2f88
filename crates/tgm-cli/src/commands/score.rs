//! `tgm score`.

use std::path::PathBuf;

use anyhow::Result;
use candle_core::Device;
use clap::ValueEnum;
use tgm_clip::{Resample, ScoreOptions};
use tgm_train::config::{ConfigError, TextConfig};
use tgm_train::guidance::load_clip;
use tgm_train::run_data::{chosen, load_manifest};
use tgm_train::score_cache::{Filled, Rules, fill};

use super::patch_features::FeaturesName;
use super::read::ReadArgs;

/// Score every video's patches against its captions once, for training to read: CLIP then rests while you train.
///
/// May be interrupted and called again: what is there is kept, what is damaged is made again.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  tgm score --data clips.csv --out scores                        CLIP ViT-B/32, every second frame
  tgm score --data clips.csv --out scores --model clip-vit-base-patch16/ --features value --every 4
  tgm pretrain --config tgm-base --data clips.csv --set text.cache=scores")]
pub(super) struct Args {
    /// The videos, with the column `caption` (and `caption_2`, …).
    #[arg(long, value_name = "MANIFEST")]
    data: PathBuf,
    /// Accept absolute paths in the manifest, and paths that leave its folder.
    #[arg(long)]
    allow_outside: bool,
    /// The folder of the cache; one of the same model and options is continued.
    #[arg(long, value_name = "CACHE")]
    out: PathBuf,
    /// Only this split. Default: all rows.
    #[arg(long)]
    split: Option<String>,
    /// The CLIP: a folder, `hub:OWNER/NAME@REVISION`, or `builtin` (knows the synthetic world only). Default: ViT-B/32.
    #[arg(long)]
    model: Option<String>,
    /// Which features of CLIP stand for a patch.
    #[arg(long, default_value = "plain")]
    features: FeaturesName,
    /// How CLIP's patches become the grid of a map.
    #[arg(long, default_value = "map")]
    resample: Grid,
    /// With --resample positions: rows and columns of a map.
    #[arg(long, value_name = "N")]
    grid: Option<usize>,
    /// Score every how many-th frame; between them scores are interpolated.
    #[arg(long, default_value_t = 2, value_name = "N")]
    every: usize,
    #[command(flatten)]
    read: ReadArgs,
    /// Write the counts to a file.
    #[arg(long, value_name = "FILE", value_parser = crate::commands::result_file)]
    json: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Grid {
    /// Frames at CLIP's own size; the maps are interpolated.
    Map,
    /// Larger frames with one patch for each cell; CLIP's position embedding is interpolated.
    Positions,
}

pub(super) fn run(args: Args) -> Result<()> {
    let rules = args.rules()?;
    let mut text = TextConfig::default();
    if let Some(model) = &args.model {
        text.model.clone_from(model);
    }
    let manifest = load_manifest(&args.data, args.allow_outside)?;
    manifest.require("caption")?;
    let data = chosen(&manifest, args.split.as_deref())?;
    let clip = load_clip(&text, &Device::Cpu)?;
    let filled = fill(&data, &clip, &rules, &args.out)?;
    print(&filled);
    super::write_json(args.json.as_deref(), &filled)
}

impl Args {
    fn rules(&self) -> Result<Rules, ConfigError> {
        if self.every == 0 {
            return Err(ConfigError("--every 0: at least 1, every frame".into()));
        }
        let options = ScoreOptions {
            features: self.features.into(),
            resample: match self.resample {
                Grid::Map => Resample::Map,
                Grid::Positions => Resample::Positions,
            },
        };
        let default = Rules { every: self.every, options, read: self.read.options(), ..Rules::default() };
        match (self.grid, options.resample) {
            (None, _) => Ok(default),
            (Some(0), _) => Err(ConfigError("--grid 0: at least 1".into())),
            (Some(grid), Resample::Positions) => Ok(Rules { grid, ..default }),
            (Some(_), Resample::Map) => Err(ConfigError(
                "--grid goes with --resample positions: otherwise maps have CLIP's own grid, which holds all there is"
                    .into(),
            )),
        }
    }
}

fn print(filled: &Filled) {
    let Filled { videos, maps, kept, frames, seconds, .. } = filled;
    println!(
        "{videos} videos, {maps} maps, {frames} frames scored in {seconds:.1} s ({:.1} frames/s); {kept} maps were there",
        *frames as f64 / seconds.max(1e-9)
    );
    for (count, what) in [
        (filled.bad.len(), "videos could not be read"),
        (filled.without_caption, "rows have no caption"),
        (filled.truncated, "captions were longer than CLIP takes and lost their end"),
        (filled.damaged_shards, "damaged shards were made again"),
    ] {
        if count > 0 {
            println!("{count} {what}");
        }
    }
}
