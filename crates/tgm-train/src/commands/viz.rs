//! `tgm viz`.

use std::borrow::Cow;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result};
use candle_core::Device;
use clap::ValueEnum;
use tgm_clip::{PatchFeatures, ScoreOptions};
use tgm_data::loader::{ClipConfig, EvalLoader, LoaderConfig, MotionSource, Subset};
use tgm_data::manifest::{Manifest, ManifestOptions, Record, write_manifest};
use tgm_video::{Crop, Sampling, TubeletShape, probe};

use crate::checkpoint::RUN;
use crate::config::{self, ConfigError, TextConfig};
use crate::guidance::load_clip;
use crate::model_io::{self, ONE_VIEW};
use crate::progress::Progress;
use crate::run_data::{load_manifest, subset};
use crate::viz::{Model, Scene, View, write};

/// Look at what guides the masks: frames, match with the caption, motion, every strategy's mask, reconstructions.
///
/// Writes PNG files and one page, index.html, that needs no network.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  tgm viz pour.mp4 cut.mp4 --caption 'a hand pours water' --caption 'a knife cuts bread' --out viz
  tgm viz --data clips.csv --split test --count 8 --out viz --model clip-vit-base-patch16/
  tgm viz --data clips.csv --checkpoint runs/demo --oracle --out viz")]
pub(super) struct Args {
    /// Video files.
    #[arg(required_unless_present = "data", conflicts_with = "data")]
    videos: Vec<PathBuf>,
    /// The videos' captions in the same order, or one for all.
    #[arg(long, value_name = "TEXT", conflicts_with = "data")]
    caption: Vec<String>,
    /// Clips of a manifest instead.
    #[arg(long, value_name = "MANIFEST")]
    data: Option<PathBuf>,
    /// Accept absolute paths in the manifest, and paths that leave its folder.
    #[arg(long)]
    allow_outside: bool,
    /// With --data: only this split.
    #[arg(long, requires = "data")]
    split: Option<String>,
    /// With --data: how many clips, evenly chosen.
    #[arg(long, requires = "data", default_value_t = 4, value_name = "N")]
    count: usize,
    /// The folder to write.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Reconstruct with this model: a run, a checkpoint, or what `import` reads. Clips are then made as for it.
    #[arg(long, value_name = "PATH")]
    checkpoint: Option<PathBuf>,
    /// Reconstruct with the hidden tubelets' own brightness and contrast, too; labelled as such.
    #[arg(long, requires = "checkpoint")]
    oracle: bool,
    /// The CLIP: a folder, `hub:OWNER/NAME@REVISION`, or `builtin`. Default: the checkpoint's, or ViT-B/32.
    #[arg(long)]
    model: Option<String>,
    /// Features of CLIP, one score map for each; the first guides the mask.
    #[arg(long, value_delimiter = ',', default_value = "plain,value,surgery")]
    features: Vec<Features>,
    /// A mask ratio for all strategies instead of their own.
    #[arg(long)]
    ratio: Option<f64>,
    /// Frames of a clip.
    #[arg(long, default_value_t = 16, conflicts_with = "checkpoint", value_name = "N")]
    frames: usize,
    /// Source frames from one frame of a clip to the next.
    #[arg(long, default_value_t = 4, conflicts_with = "checkpoint", value_name = "N")]
    stride: usize,
    /// Width and height of a clip in pixels.
    #[arg(long, default_value_t = 224, conflicts_with = "checkpoint", value_name = "PIXELS")]
    size: u32,
    /// Width and height of a tubelet in pixels.
    #[arg(long, default_value_t = 16, conflicts_with = "checkpoint", value_name = "PIXELS")]
    patch: usize,
    /// Seed of the masks.
    #[arg(long, default_value_t = 0)]
    seed: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Features {
    /// The last block's patch tokens, projected.
    Plain,
    /// The value path of the last block (MaskCLIP).
    Value,
    /// CLIP Surgery.
    Surgery,
}

pub(super) fn run(args: Args) -> Result<()> {
    let model = args.checkpoint.as_deref().map(|path| Model::open(path, args.oracle)).transpose()?;
    let data = args.clips()?;
    let captioned =
        data.rows().iter().any(|&row| data.manifest().row(row as usize).captions().next().is_some());
    let clip = if captioned { Some(load_clip(&args.text()?, &Device::Cpu)?) } else { None };
    let scores: Vec<ScoreOptions> = args.features.iter().map(|f| f.options()).collect();
    let scene = Scene {
        clip: clip.as_ref(),
        scores: &scores,
        ratio: args.ratio,
        model: model.as_ref(),
        seed: args.seed,
    };
    let config = ClipConfig {
        motion: MotionSource::Auto,
        ..model.as_ref().map_or_else(|| args.clip_config(), |model| model.clip().clone())
    };
    let progress = Progress::new("viz", data.rows().len() as u64);
    let mut views = Vec::with_capacity(data.rows().len());
    for samples in EvalLoader::new(&data, &config, &LoaderConfig::default(), ONE_VIEW)? {
        for sample in samples? {
            let file = data.manifest().row(sample.row as usize).video();
            let from_codec = probe(file).is_ok_and(|probe| probe.has_codec_motion);
            let source = if from_codec {
                "from the codec's vectors"
            } else {
                "by block matching: the codec has no vectors"
            };
            views.push(View {
                title: title(&sample.path),
                caption: sample.caption.clone(),
                panels: scene.panels(&sample, source).with_context(|| sample.path.clone())?,
            });
        }
        progress.set(views.len() as u64);
    }
    progress.finish();
    println!("{}", write(&args.out, &views)?.display());
    Ok(())
}

/// A path is told by its end.
fn title(path: &str) -> String {
    Path::new(path).file_name().map_or_else(|| path.to_owned(), |name| name.to_string_lossy().into_owned())
}

impl Features {
    fn options(self) -> ScoreOptions {
        let features = match self {
            Self::Plain => PatchFeatures::Plain,
            Self::Value => PatchFeatures::Value,
            Self::Surgery => PatchFeatures::Surgery,
        };
        ScoreOptions { features, ..ScoreOptions::default() }
    }
}

impl Args {
    /// The clips, from the manifest or as a manifest of the files given.
    fn clips(&self) -> Result<Subset> {
        let Some(manifest) = &self.data else { return self.videos() };
        let manifest = load_manifest(manifest, self.allow_outside)?;
        let all = match &self.split {
            Some(split) => subset(&manifest, split)?,
            None => Subset::new(manifest.clone(), (0..manifest.len() as u32).collect())?,
        };
        let (rows, count) = (all.rows(), self.count.clamp(1, all.rows().len()));
        let chosen = (0..count).map(|i| rows[i * rows.len() / count]).collect();
        Ok(Subset::new(manifest.clone(), chosen)?)
    }

    fn videos(&self) -> Result<Subset> {
        let (videos, captions) = (self.videos.len(), self.caption.len());
        if captions > 1 && captions != videos {
            let message =
                format!("{captions} captions for {videos} videos: give one for each, or one for all");
            return Err(ConfigError(message).into());
        }
        let absolute =
            self.videos.iter().map(std::path::absolute).collect::<std::io::Result<Vec<PathBuf>>>()?;
        let caption =
            |i: usize| self.caption.get(i).or(self.caption.first()).map(|text| Cow::from(text.as_str()));
        let records = absolute.iter().enumerate().map(|(i, path)| {
            Ok(Record {
                path: path.to_string_lossy(),
                captions: caption(i).into_iter().collect(),
                ..Record::default()
            })
        });
        let file = std::env::temp_dir().join(format!("tgm-viz-{}.jsonl", std::process::id()));
        let options = ManifestOptions { allow_outside: true, ..ManifestOptions::default() };
        let manifest = write_manifest(&file, records).and_then(|()| Manifest::load_with(&file, &options));
        // It has been read, or never will be.
        let _ = std::fs::remove_file(&file);
        Ok(Subset::new(Arc::new(manifest?), (0..videos as u32).collect())?)
    }

    fn clip_config(&self) -> ClipConfig {
        ClipConfig {
            sampling: Sampling::Dense { frames: self.frames, stride: self.stride },
            crop: Crop::Center,
            size: self.size,
            tubelet: TubeletShape { patch: self.patch, ..TubeletShape::default() },
            ..ClipConfig::default()
        }
    }

    /// The CLIP that is asked for, or that the checkpoint's run used.
    fn text(&self) -> Result<TextConfig> {
        if let Some(model) = &self.model {
            return Ok(TextConfig { model: model.clone(), ..TextConfig::default() });
        }
        let Some(path) = &self.checkpoint else { return Ok(TextConfig::default()) };
        let file = model_io::open(path)?.path.join(RUN);
        let Ok(text) = std::fs::read_to_string(&file) else { return Ok(TextConfig::default()) };
        Ok(config::from_text(&file.display().to_string(), &text, &[])?.text)
    }
}
