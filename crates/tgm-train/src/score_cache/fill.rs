//! Filling the score cache: decode, score, write.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use candle_core::{Device, Tensor};
use rayon::prelude::*;
use serde::Serialize;
use tgm_clip::cache::{CacheKey, CacheSpec, Maps, ScoreCache};
use tgm_clip::{ClipModel, Frames, Resample, ScoreOptions};
use tgm_data::loader::{RowError, Subset};
use tgm_data::manifest::Row;
use tgm_video::{Frame, ReadOptions};

use super::{key, model_name};
use crate::config::Config;
use crate::guidance::load_clip;
use crate::progress::Progress;
use crate::row_video::RowVideo;
use crate::run_data::training_data;

/// Which frames are scored, and how finely.
#[derive(Clone, Debug)]
pub struct Rules {
    /// Every how many-th frame of a video; between them scores are interpolated.
    pub every: usize,
    /// Rows and columns of the maps of [`Resample::Positions`]. Those of [`Resample::Map`] have CLIP's own grid, which
    /// holds all there is.
    pub grid: usize,
    /// What CLIP computes.
    pub options: ScoreOptions,
    /// How videos are read.
    pub read: ReadOptions,
}

impl Default for Rules {
    /// Every second frame, plain features; 14×14 is the grid of a ViT-B at 224 pixels.
    fn default() -> Self {
        Self { every: 2, grid: 14, options: ScoreOptions::default(), read: ReadOptions::default() }
    }
}

impl Rules {
    /// Rows and columns of a map.
    pub(crate) fn side(&self, clip: &ClipModel) -> usize {
        match self.options.resample {
            Resample::Map => clip.image_size() / clip.patch_size(),
            Resample::Positions => self.grid,
        }
    }
}

/// Which frames are scored, in a cache's words.
fn frames(every: usize) -> String {
    if every == 1 { "every one".into() } else { format!("one of {every}") }
}

/// The reverse.
pub(super) fn every(frames: &str) -> usize {
    frames.strip_prefix("one of ").and_then(|every| every.parse().ok()).unwrap_or(1)
}

/// What a call of [`fill`] did.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Filled {
    /// Videos (rows) that were scored now.
    pub videos: usize,
    /// Maps that were made now: one for each video and caption.
    pub maps: usize,
    /// Maps that were there already.
    pub kept: usize,
    /// Frames that CLIP looked at.
    pub frames: usize,
    /// Captions that were longer than CLIP takes, and lost their end.
    pub truncated: usize,
    /// Rows without a caption, for which there is nothing to score.
    pub without_caption: usize,
    /// Videos that could not be read, with the reason.
    pub bad: Vec<String>,
    /// Shards that were found damaged and were made again.
    pub damaged_shards: usize,
    /// How long it took.
    pub seconds: f64,
}

/// An interruption costs at most this much work, and what is being scored.
const FLUSH_AFTER: Duration = Duration::from_secs(120);

/// Frames that are decoded before CLIP sees them, as many as go through it at once: of 1920×1080 they take 95 MiB a thread.
const FRAMES_AT_ONCE: usize = 16;

/// Scores what is not yet in the cache, all captions of a video in one pass. May be interrupted and called again.
///
/// # Errors
/// When the cache was made otherwise, is being written by another process, or the disk is full; when CLIP fails; when every
/// video that was tried is bad. Single bad videos are counted and left out.
pub fn fill(data: &Subset, clip: &ClipModel, rules: &Rules, folder: &Path) -> Result<Filled> {
    let start = Instant::now();
    let side = rules.side(clip);
    let frames = frames(rules.every);
    let spec = CacheSpec::new(&model_name(clip), rules.options, (side, side), &frames);
    let mut cache = ScoreCache::open_or_create(folder, &spec)?;
    let mut filled = Filled { damaged_shards: cache.damaged().len(), ..Filled::default() };
    let todo = missing(data, &cache, &mut filled);
    let progress = Progress::new("score", todo.len() as u64);
    filled.bad.iter().for_each(|reason| progress.line(&format!("skipped: {reason}")));
    let mut flushed = Instant::now();
    // As many at once as there are threads: what is scored is written before more is begun.
    let at_once = rayon::current_num_threads().max(1);
    for (done, rows) in todo.chunks(at_once).enumerate() {
        let scored: Vec<_> = rows.par_iter().map(|todo| todo.score(clip, rules, side)).collect();
        for (todo, scored) in rows.iter().zip(scored) {
            match scored {
                Ok(scored) => {
                    filled.videos += 1;
                    filled.frames += scored.frames;
                    filled.truncated += scored.truncated;
                    for (key, maps) in scored.maps {
                        filled.maps += 1;
                        cache.insert(key, maps)?;
                    }
                }
                Err(Failure::Bad(reason)) => {
                    progress.line(&format!("skipped: {reason}"));
                    filled.bad.push(reason);
                }
                Err(Failure::Fatal(error)) => {
                    // What was scored so far is not to be scored again.
                    cache.flush()?;
                    return Err(error.context(todo.row.path().to_owned()));
                }
            }
        }
        if flushed.elapsed() > FLUSH_AFTER {
            cache.flush()?;
            flushed = Instant::now();
        }
        progress.set(((done + 1) * at_once).min(todo.len()) as u64);
    }
    cache.finish()?;
    progress.finish();
    if filled.videos == 0 && !filled.bad.is_empty() && filled.kept == 0 {
        bail!("none of the {} videos can be scored; the first: {}", filled.bad.len(), filled.bad[0]);
    }
    filled.seconds = start.elapsed().as_secs_f64();
    Ok(filled)
}

/// Fills a cache for the clips that a configuration trains on, with its CLIP and its options, every frame: for the demo,
/// or any run whose videos are few.
///
/// # Errors
/// As [`fill`].
pub fn fill_for(config: &Config, folder: &Path) -> Result<Filled> {
    let clip = load_clip(&config.text, &Device::Cpu)?;
    let rules = Rules {
        every: 1,
        options: config.text.scores,
        read: ReadOptions { motion_vectors: false, ..config.clip.read_options() },
        ..Rules::default()
    };
    fill(&training_data(config)?, &clip, &rules, folder)
}

/// A row with the captions that have no map yet.
struct Todo<'a> {
    row: Row<'a>,
    captions: Vec<&'a str>,
    keys: Vec<CacheKey>,
}

struct Scored {
    maps: Vec<(CacheKey, Maps)>,
    frames: usize,
    truncated: usize,
}

/// Why a video was not scored.
enum Failure {
    /// The video's fault.
    Bad(String),
    /// No video would do.
    Fatal(anyhow::Error),
}

impl<E: Into<anyhow::Error>> From<E> for Failure {
    fn from(error: E) -> Self {
        Self::Fatal(error.into())
    }
}

fn missing<'a>(data: &'a Subset, cache: &ScoreCache, filled: &mut Filled) -> Vec<Todo<'a>> {
    let mut all = Vec::new();
    for &number in data.rows() {
        let row = data.manifest().row(number as usize);
        let mut todo = Todo { row, captions: Vec::new(), keys: Vec::new() };
        filled.without_caption += usize::from(row.captions().next().is_none());
        for caption in row.captions() {
            match key(&row, caption) {
                Ok(key) if cache.contains(&key) => filled.kept += 1,
                Ok(key) if todo.keys.contains(&key) => {}
                Ok(key) => {
                    todo.captions.push(caption);
                    todo.keys.push(key);
                }
                Err(error) => {
                    filled.bad.push(error.to_string());
                    break;
                }
            }
        }
        if !todo.keys.is_empty() {
            all.push(todo);
        }
    }
    all
}

impl Todo<'_> {
    fn score(&self, clip: &ClipModel, rules: &Rules, side: usize) -> Result<Scored, Failure> {
        let embedded = clip.embed_text(&self.captions)?;
        let score = |frames: Vec<Frame>| self.score_frames(clip, &embedded.embeddings, rules, side, frames);
        let Found { times, scores } =
            RowVideo::read(&self.row, &rules.read, |video| self.look(video, rules.every, &score))
                .map_err(|error| Failure::Bad(error.to_string()))??;
        let maps = self.keys.iter().zip(&scores).map(|(key, scores)| {
            let maps = Maps::new(times.clone(), (side, side), scores).context("score maps")?;
            Ok((key.clone(), maps))
        });
        let maps = maps.collect::<Result<_>>().map_err(Failure::Fatal)?;
        Ok(Scored { maps, frames: times.len(), truncated: embedded.truncated })
    }

    /// Scores every `every`-th frame. The outer errors are those of reading, the inner ones those of `score`.
    fn look(
        &self,
        video: &mut RowVideo,
        every: usize,
        score: &dyn Fn(Vec<Frame>) -> Result<Found, Failure>,
    ) -> Result<Result<Found, Failure>, RowError> {
        let mut all = Found { times: Vec::new(), scores: vec![Vec::new(); self.captions.len()] };
        let numbers: Vec<usize> = video.frames.clone().step_by(every.max(1)).collect();
        for numbers in numbers.chunks(FRAMES_AT_ONCE) {
            match score(video.reader.read(numbers)?) {
                Ok(found) => all.add(found),
                Err(failure) => return Ok(Err(failure)),
            }
        }
        Ok(Ok(all))
    }

    fn score_frames(
        &self,
        clip: &ClipModel,
        texts: &Tensor,
        rules: &Rules,
        side: usize,
        frames: Vec<Frame>,
    ) -> Result<Found, Failure> {
        let (width, height) = frames.first().map_or((0, 0), |frame| (frame.width, frame.height));
        if let Some(other) = frames.iter().find(|frame| (frame.width, frame.height) != (width, height)) {
            let (file, number) = (self.row.video(), other.number);
            return Err(Failure::Bad(format!("{}: frame {number} has another size", file.name().display())));
        }
        let times = frames.iter().map(|frame| frame.seconds).collect();
        let bytes: Vec<u8> = frames.iter().flat_map(|frame| frame.rgb.iter().copied()).collect();
        drop(frames);
        let frames = Frames::new(&bytes, height as usize, width as usize)?;
        Ok(Found { times, scores: clip.score_each(frames, texts, (side, side), &rules.options)? })
    }
}

/// What CLIP says of some frames.
struct Found {
    times: Vec<f64>,
    /// For each caption.
    scores: Vec<Vec<f32>>,
}

impl Found {
    fn add(&mut self, more: Self) {
        self.times.extend(more.times);
        self.scores.iter_mut().zip(more.scores).for_each(|(all, more)| all.extend(more));
    }
}
