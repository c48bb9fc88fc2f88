//! `tgm bench localise`: do cues and masks find what matters?

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use candle_core::Device;
use rayon::prelude::*;
use tgm_clip::{ClipModel, Frames, ScoreOptions};
use tgm_data::loader::{ClipConfig, EvalLoader, LoaderConfig, MotionSource, Sample};
use tgm_data::manifest::Manifest;
use tgm_data::synth::{Setting, Truth, WorldConfig, read_truth};
use tgm_masking::{Cues, Mask, MotionField, ScoreMap};
use tgm_random::Streams;
use tgm_train::config::TextConfig;
use tgm_train::guidance::load_clip;
use tgm_train::model_io::ONE_VIEW;
use tgm_train::progress::Progress;
use tgm_train::run_data::{chosen, subset};
use tgm_video::{Crop, Sampling, TubeletShape};

use super::record::{Record, Row};
use crate::demo;
use crate::localise::{Cue, Method, Tubelets, frame_difference_energy, mean, share_masked, share_under};

/// How much of what matters each masking hides: the named objects of held-out synthetic scenes, or the frame-difference
/// energy of your own clips.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  tgm bench localise --json localise.json       240 synthetic scenes: text, motion, random
  tgm bench localise --data clips.csv           how much of what changes lies under motion-guided masks")]
pub(in crate::commands) struct Args {
    /// Real clips instead of synthetic scenes; no captions needed.
    #[arg(long, value_name = "MANIFEST")]
    data: Option<PathBuf>,
    /// With --data: only this split.
    #[arg(long, requires = "data")]
    split: Option<String>,
    /// With --data: source frames from one of a clip's 16 frames to the next.
    #[arg(long, requires = "data", default_value_t = 2)]
    stride: usize,
    /// Synthetic scenes, at least 4.
    #[arg(long, default_value_t = 240, conflicts_with = "data")]
    scenes: u32,
    /// Seed of the scenes. The built-in CLIP was trained on seed 7001.
    #[arg(long, default_value_t = 7002)]
    seed: u64,
    /// Side of a patch of the synthetic scenes, which are 64 pixels wide.
    #[arg(long, default_value_t = 8, conflicts_with = "data", value_parser = clap::value_parser!(u32).range(4..=32))]
    patch: u32,
    /// The CLIP: `builtin`, a folder, or `hub:OWNER/NAME@REVISION`.
    #[arg(long, default_value = "builtin", conflicts_with = "data")]
    model: String,
    /// Write the rows to a file.
    #[arg(long, value_name = "FILE", value_parser = crate::commands::result_file)]
    json: Option<PathBuf>,
}

pub(super) fn run(args: Args) -> Result<()> {
    let rows = match &args.data {
        Some(manifest) => energy_rows(manifest, &args)?,
        None => object_rows(&args)?,
    };
    Record::new(rows).write(args.json.as_deref())
}

/// A held-out scene: its clip with the motion of both sources, and what is in it.
struct Scene {
    sample: Sample,
    codec: MotionField,
    blocks: MotionField,
    captions: Vec<String>,
    setting: Setting,
    object: Tubelets,
    /// Without what the named object hides of it.
    distractor: Option<Tubelets>,
}

/// The ratios of the table with what text must reach: 80 %, and 2.4 × chance.
const RATIOS: [f64; 2] = [0.6, 0.25];

/// What one method makes of one scene.
struct Found {
    setting: Setting,
    /// Shares of the named object's tubelets under the mask, one for each of [`RATIOS`].
    covered: [f64; 2],
    /// The same of the distractor, if there is one.
    distractor: Option<[f64; 2]>,
    /// Whether the cue is stronger on the named object than on the distractor: 0 or 1, or the mean over captions.
    prefers_object: Option<f64>,
}

fn object_rows(args: &Args) -> Result<Vec<Row>> {
    ensure!(args.scenes >= 4, "--scenes {}: at least 4, one for each setting", args.scenes);
    let clip = load_clip(&TextConfig { model: args.model.clone(), ..TextConfig::default() }, &Device::Cpu)?;
    let scenes = scenes(args)?;
    let grid = scenes[0].sample.grid;
    println!(
        "{} scenes of {grid} tubelets; share of the named object's tubelets under the mask, and of the distractor's\n\
         {:<25}{:>18}{:>18}{:>18}{:>18}{:>18}{:>9}\n{:<25}{}",
        scenes.len(),
        "",
        "all",
        "still background",
        "moving background",
        "with a distractor",
        "the distractor's",
        "prefers",
        "",
        format!("{:>9}{:>9}", "0.6", "0.25").repeat(5) + &format!("{:>9}", "object"),
    );
    let mut rows = Vec::new();
    for method in Method::TEXT.iter().chain(&Method::WITHOUT_TEXT) {
        let found = scenes
            .par_iter()
            .enumerate()
            .map(|(number, scene)| scene.find(method, &clip, args.seed, number as u64))
            .collect::<Result<Vec<_>>>()?;
        rows.extend(summarise(method, &found, grid.cells()));
    }
    Ok(rows)
}

/// Renders the scenes, all four settings in turn, and reads their clips.
fn scenes(args: &Args) -> Result<Vec<Scene>> {
    let folder = std::env::temp_dir().join(format!("tgm-localise-{}", std::process::id()));
    let world = WorldConfig {
        seed: args.seed,
        train: 0,
        test: args.scenes,
        settings: vec![Setting::Static, Setting::Moving, Setting::Distractor, Setting::MovingDistractor],
        ..WorldConfig::default()
    };
    let read = demo::render(&folder, &world)
        .and_then(|manifest| read_scenes(&folder, &manifest, args.patch as usize));
    // Whatever happened: nothing is left behind.
    let _ = std::fs::remove_dir_all(&folder);
    read
}

fn read_scenes(folder: &std::path::Path, manifest: &std::path::Path, patch: usize) -> Result<Vec<Scene>> {
    let truth = read_truth(folder)?;
    let manifest = Arc::new(Manifest::load(manifest)?);
    let data = subset(&manifest, "test")?;
    let config = |motion| ClipConfig {
        sampling: Sampling::Dense { frames: 8, stride: 2 },
        crop: Crop::Center,
        size: WorldConfig::default().size,
        tubelet: TubeletShape { frames: 2, patch },
        motion,
        ..ClipConfig::default()
    };
    let loader = |motion| EvalLoader::new(&data, &config(motion), &LoaderConfig::default(), ONE_VIEW);
    let (codec, blocks) = (loader(MotionSource::Codec)?, loader(MotionSource::Blocks)?);
    codec
        .zip(blocks)
        .zip(&truth)
        .map(|((codec, blocks), truth)| {
            let captions = |row: u32| manifest.row(row as usize).captions().map(str::to_owned).collect();
            let only = |mut views: Vec<Sample>| views.pop().context("a scene without a clip");
            Scene::new(only(codec?)?, only(blocks?)?, truth, captions)
        })
        .collect()
}

impl Scene {
    fn new(
        sample: Sample,
        other: Sample,
        truth: &Truth,
        captions: impl Fn(u32) -> Vec<String>,
    ) -> Result<Self> {
        let motion = |sample: &Sample| sample.motion.clone().context("a clip without motion field");
        let object = Tubelets::of_object(&sample, &truth.object_boxes);
        let distractor = truth
            .distractor
            .map(|_| Tubelets::of_object(&sample, &truth.distractor_boxes).without(&object))
            .filter(|hidden| hidden.count() > 0);
        Ok(Self {
            codec: motion(&sample)?,
            blocks: motion(&other)?,
            captions: captions(sample.row),
            setting: truth.setting,
            object,
            distractor,
            sample,
        })
    }

    fn find(&self, method: &Method, clip: &ClipModel, seed: u64, number: u64) -> Result<Found> {
        match method.cue {
            Cue::Nothing => self.found(method, &Cues::default(), None, seed, number),
            Cue::Codec => self.by_motion(method, &self.codec, seed, number),
            Cue::Blocks => self.by_motion(method, &self.blocks, seed, number),
            Cue::Text(features) => {
                let captions: Vec<&str> = self.captions.iter().map(String::as_str).collect();
                let texts = clip.embed_text(&captions)?.embeddings;
                let options = ScoreOptions { features, ..ScoreOptions::default() };
                let (grid, pixels) = (self.sample.grid, &self.sample.clip);
                let frames = Frames::new(pixels.data(), pixels.height(), pixels.width())?;
                let all = clip.score_each(frames, &texts, (grid.rows(), grid.cols()), &options)?;
                let each = all.iter().map(|scores| {
                    let scores = ScoreMap::from_frames(grid, pixels.frames() / grid.slots(), scores)?;
                    let value = |i: usize| f64::from(scores.values()[i]);
                    self.found(method, &Cues::from_scores(&scores), Some(&value), seed, number)
                });
                Ok(average(self.setting, &each.collect::<Result<Vec<_>>>()?))
            }
        }
    }

    fn by_motion(&self, method: &Method, motion: &MotionField, seed: u64, number: u64) -> Result<Found> {
        let local = motion.without_global_motion();
        let seen = if method.without_camera() { &local } else { motion };
        let speed = |i: usize| f64::from(seen.magnitude(i));
        let value: Option<&dyn Fn(usize) -> f64> = if method.follows_cue() { Some(&speed) } else { None };
        self.found(method, &Cues::from_motion(motion), value, seed, number)
    }

    fn found(
        &self,
        method: &Method,
        cues: &Cues<'_>,
        value: Option<&dyn Fn(usize) -> f64>,
        seed: u64,
        number: u64,
    ) -> Result<Found> {
        let mut covered = [0.0; 2];
        let mut distractor = self.distractor.as_ref().map(|_| [0.0; 2]);
        for (i, ratio) in RATIOS.into_iter().enumerate() {
            let mask = draw(method, ratio, &self.sample, cues, seed, number)?;
            covered[i] = share_masked(&self.object, &mask).context("a scene without its object")?;
            if let Some((shares, tubelets)) = distractor.as_mut().zip(self.distractor.as_ref()) {
                shares[i] = share_masked(tubelets, &mask).context("a distractor without tubelets")?;
            }
        }
        let prefers = |(value, other): (&dyn Fn(usize) -> f64, &Tubelets)| {
            f64::from(u8::from(self.object.mean_of(value) > other.mean_of(value)))
        };
        let prefers_object = value.zip(self.distractor.as_ref()).map(prefers);
        Ok(Found { setting: self.setting, covered, distractor, prefers_object })
    }
}

fn draw(
    method: &Method,
    ratio: f64,
    sample: &Sample,
    cues: &Cues<'_>,
    seed: u64,
    number: u64,
) -> Result<Mask> {
    let mut stream = Streams::new(seed).stream("mask", 0, number);
    Ok(method.masking(ratio).mask(&sample.grid, cues, &mut stream)?)
}

/// The mean over a scene's captions.
fn average(setting: Setting, each: &[Found]) -> Found {
    let preferences: Vec<f64> = each.iter().filter_map(|found| found.prefers_object).collect();
    let distractors: Vec<[f64; 2]> = each.iter().filter_map(|found| found.distractor).collect();
    let of = |shares: &[[f64; 2]]| [0, 1].map(|i| mean(shares.iter().map(|shares| shares[i])));
    Found {
        setting,
        covered: of(&each.iter().map(|found| found.covered).collect::<Vec<_>>()),
        distractor: (!distractors.is_empty()).then(|| of(&distractors)),
        prefers_object: (!preferences.is_empty()).then(|| mean(preferences)),
    }
}

/// Some of the shares, by name, and whether they are the named object's.
type Group = (&'static str, bool, fn(&Found) -> Option<[f64; 2]>);

/// A method's line of the table, and its rows.
fn summarise(method: &Method, found: &[Found], cells: usize) -> Vec<Row> {
    let groups: [Group; 5] = [
        ("all", true, |found| Some(found.covered)),
        ("still", true, |found| (!found.setting.background_moves()).then_some(found.covered)),
        ("moving", true, |found| found.setting.background_moves().then_some(found.covered)),
        ("beside-distractor", true, |found| found.distractor.map(|_| found.covered)),
        ("distractor", false, |found| found.distractor),
    ];
    let mut rows = Vec::new();
    let mut line = format!("{:<25}", method.name);
    for (group, of_object, shares) in groups {
        for (i, ratio) in RATIOS.into_iter().enumerate() {
            let here = found.iter().filter_map(shares).map(|shares| shares[i]);
            let (ours, chance) = (mean(here), (ratio * cells as f64).floor() / cells as f64);
            line += &format!("{ours:>9.3}");
            let whose = if of_object { "the named object's" } else { "the distractor's" };
            rows.push(Row {
                name: format!("localise/{}/{group}/{ratio}", method.name),
                unit: format!("share of {whose} tubelets"),
                ours,
                peers: BTreeMap::from([("chance".into(), chance)]),
                ratio: Some(ours / chance),
                bar: (of_object && method.is_best_match()).then_some(if ratio > 0.5 {
                    0.8
                } else {
                    2.4 * chance
                }),
                ..Row::default()
            });
        }
    }
    let preferences: Vec<f64> = found.iter().filter_map(|found| found.prefers_object).collect();
    if !preferences.is_empty() {
        let ours = mean(preferences.iter().copied());
        line += &format!("{ours:>9.3}");
        rows.push(Row {
            name: format!("localise/{}/prefers-object", method.name),
            unit: "share of scenes with a distractor".into(),
            ours,
            peers: BTreeMap::from([("chance".into(), 0.5)]),
            ratio: Some(2.0 * ours),
            bar: method.is_best_match().then_some(0.9),
            ..Row::default()
        });
    }
    println!("{line}");
    rows
}

/// The ratios of real clips with what motion-guided rectangles must reach.
const ENERGY_BARS: [(f64, f64); 2] = [(0.75, 0.9), (0.25, 0.55)];

fn energy_rows(manifest: &std::path::Path, args: &Args) -> Result<Vec<Row>> {
    let manifest = Arc::new(Manifest::load(manifest)?);
    let data = chosen(&manifest, args.split.as_deref())?;
    let config = |motion| ClipConfig {
        sampling: Sampling::Dense { frames: 16, stride: args.stride },
        crop: Crop::Center,
        motion,
        ..ClipConfig::default()
    };
    let loader = |motion| EvalLoader::new(&data, &config(motion), &LoaderConfig::default(), ONE_VIEW);
    let (auto, blocks) = (loader(MotionSource::Auto)?, loader(MotionSource::Blocks)?);
    let progress = Progress::new("clips", data.rows().len() as u64);
    let mut shares = vec![[Vec::new(), Vec::new()]; Method::WITHOUT_TEXT.len()];
    let mut without_vectors = 0;
    for (number, (auto, blocks)) in (0u64..).zip(auto.zip(blocks)) {
        for (sample, other) in auto?.iter().zip(&blocks?) {
            let energy = frame_difference_energy(sample);
            let matched = sample.motion_source != MotionSource::Codec;
            without_vectors += usize::from(matched);
            for (method, shares) in Method::WITHOUT_TEXT.iter().zip(&mut shares) {
                // Not the codec's, but block matching in its place.
                if matched && method.cue == Cue::Codec {
                    continue;
                }
                let motion = if method.cue == Cue::Blocks { &other.motion } else { &sample.motion };
                let cues = Cues { scores: None, motion: motion.as_ref() };
                for ((ratio, _), shares) in ENERGY_BARS.into_iter().zip(shares) {
                    let mask = draw(method, ratio, sample, &cues, args.seed, number)?;
                    shares.extend(share_under(&energy, &mask));
                }
            }
        }
        progress.set(number + 1);
    }
    progress.finish();
    if without_vectors > 0 {
        println!("{without_vectors} clips have no motion vectors of a codec and are not in its lines");
    }
    println!(
        "{} clips; share of the frame-difference energy under the mask\n{:<25}{:>9}{:>9}",
        shares.iter().map(|[first, _]| first.len()).max().unwrap_or(0),
        "",
        ENERGY_BARS[0].0,
        ENERGY_BARS[1].0
    );
    let mut rows = Vec::new();
    for (method, shares) in Method::WITHOUT_TEXT.iter().zip(shares) {
        if shares[0].is_empty() {
            continue;
        }
        let [first, second] = shares.each_ref().map(|all| mean(all.iter().copied()));
        println!("{:<25}{first:>9.3}{second:>9.3}", method.name);
        rows.extend([first, second].into_iter().zip(ENERGY_BARS).map(|(ours, (ratio, bar))| Row {
            name: format!("energy/{}/{ratio}", method.name),
            unit: "share of the frame-difference energy".into(),
            ours,
            peers: BTreeMap::from([("chance".into(), ratio)]),
            ratio: Some(ours / ratio),
            bar: method.follows_cue().then_some(bar),
            ..Row::default()
        }));
    }
    Ok(rows)
}
