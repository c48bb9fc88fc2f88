//! `tgm viz`.

use std::borrow::Cow;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use candle_core::Device;
use clap::ValueEnum;
use tgm_clip::{PatchFeatures, ScoreOptions};
use tgm_data::loader::{ClipConfig, EvalLoader, LoaderConfig, MotionSource, Subset};
use tgm_data::manifest::{Manifest, ManifestOptions, Record, write_manifest};
use tgm_train::checkpoint::RUN;
use tgm_train::config::{self, Config, ConfigError, TextConfig, TextView};
use tgm_train::guidance::load_clip;
use tgm_train::model_io::{self, ONE_VIEW};
use tgm_train::progress::Progress;
use tgm_train::run_data::{chosen, load_manifest};
use tgm_video::{Crop, Sampling, TubeletShape};

use super::patch_features::FeaturesName;
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
    /// Reconstruct with this model: a run, a checkpoint, or what `import` reads. Clips are then made as for it, and a run's own
    /// masking, scores and view of CLIP are drawn first.
    #[arg(long, value_name = "PATH")]
    checkpoint: Option<PathBuf>,
    /// Reconstruct with the hidden tubelets' own brightness and contrast, too; labelled as such.
    #[arg(long, requires = "checkpoint")]
    oracle: bool,
    /// The CLIP: a folder, `hub:OWNER/NAME@REVISION`, or `builtin`. Default: the checkpoint's, or ViT-B/32.
    #[arg(long)]
    model: Option<String>,
    /// Features of CLIP, one score map for each; the first guides the mask. Default: the run's, and then the others of
    /// plain,value,surgery.
    #[arg(long, value_delimiter = ',')]
    features: Vec<FeaturesName>,
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

pub(super) fn run(args: Args) -> Result<()> {
    let model = args.checkpoint.as_deref().map(|path| Model::open(path, args.oracle)).transpose()?;
    let data = args.clips()?;
    let captioned =
        data.rows().iter().any(|&row| data.manifest().row(row as usize).captions().next().is_some());
    let run = args.run()?;
    let text = args.text(run.as_ref());
    let clip = if captioned { Some(load_clip(&text, &Device::Cpu)?) } else { None };
    let scores = args.scores(text.scores);
    // The maps of a cache are of whole frames.
    let view = if text.cache.is_some() { TextView::Frame } else { text.view };
    let scene = Scene {
        clip: clip.as_ref(),
        scores: &scores,
        view,
        own: run.as_ref().map(|run| &run.masking),
        ratio: args.ratio,
        model: model.as_ref(),
        seed: args.seed,
    };
    let config = ClipConfig {
        motion: MotionSource::Auto,
        whole_frames: view == TextView::Frame,
        ..model.as_ref().map_or_else(|| args.clip_config(), |model| model.clip().clone())
    };
    let progress = Progress::new("viz", data.rows().len() as u64);
    let mut views = Vec::with_capacity(data.rows().len());
    for samples in EvalLoader::new(&data, &config, &LoaderConfig::default(), ONE_VIEW)? {
        for sample in samples? {
            let source = match sample.motion_source {
                MotionSource::Codec => "from the codec's vectors",
                _ => "by block matching: the clip has no vectors of a codec",
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

impl Args {
    /// The clips, from the manifest or as a manifest of the files given.
    fn clips(&self) -> Result<Subset> {
        let Some(manifest) = &self.data else { return self.videos() };
        let manifest = load_manifest(manifest, self.allow_outside)?;
        let all = chosen(&manifest, self.split.as_deref())?;
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
        if let Some(absent) = self.videos.iter().find(|video| !video.is_file()) {
            bail!("{}: no such file", absent.display());
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
        Ok(Subset::all(&Arc::new(manifest?)))
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

    /// The configuration of the run that the checkpoint is of, if it is of one.
    fn run(&self) -> Result<Option<Config>> {
        let Some(path) = &self.checkpoint else { return Ok(None) };
        let file = model_io::open(path)?.path.join(RUN);
        let Ok(text) = std::fs::read_to_string(&file) else { return Ok(None) };
        Ok(Some(config::from_text(&file.display().to_string(), &text, &[])?))
    }

    /// The CLIP that is asked for, or that the run used, and what it computes.
    fn text(&self, run: Option<&Config>) -> TextConfig {
        let own = run.map_or_else(TextConfig::default, |run| run.text.clone());
        TextConfig { model: self.model.clone().unwrap_or(own.model), ..own }
    }

    /// What is asked for, or the run's features and then the others.
    fn scores(&self, run: ScoreOptions) -> Vec<ScoreOptions> {
        let mut features: Vec<PatchFeatures> = self.features.iter().map(|&name| name.into()).collect();
        if features.is_empty() {
            let all = FeaturesName::value_variants().iter().map(|&name| name.into());
            features = std::iter::once(run.features).chain(all.filter(|f| *f != run.features)).collect();
        }
        features.into_iter().map(|features| ScoreOptions { features, ..run }).collect()
    }
}
