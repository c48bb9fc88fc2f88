//! Training batches without end.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use rand::RngExt;
use tgm_random::Streams;

use super::config::{ClipConfig, LoaderConfig};
use super::maker::{Maker, patiently};
use super::order::Permutation;
use super::pool::OrderedPool;
use super::sample::{Batch, Sample, Skip};
use super::{LoaderError, Subset};

/// Yields the batches of a training run from any step on.
///
/// Clip `i` of step `s` is number `p = s * batch + i` of the run, so of epoch `p / rows`, in which a
/// random permutation of its own orders the rows. Sampling, crop, flip, caption and replacement draw from streams named
/// by epoch and number within the epoch. A batch therefore depends on seed, data, clip configuration, batch size
/// and step only: not on the number of workers, nor on the steps before.
///
/// That ends where [`ClipConfig::max_seconds`] strikes: whether a video takes too long depends on the machine and what else
/// it does. A clip that took too long is made once more; if that takes too long again, another video replaces it.
pub struct TrainLoader {
    pool: OrderedPool<Outcome>,
    batches: Batches,
    /// The number of the next batch among those that this loader makes.
    next: u64,
    /// Rows that were drawn, each as often as it was.
    drawn: usize,
    /// The rows that were tried, and those of them that are bad.
    tried: HashSet<u32>,
    bad: HashSet<u32>,
    reasons: HashMap<String, (u64, String)>,
    max_bad_share: f64,
    failed: bool,
}

/// Which batches a [`TrainLoader`] makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Batches {
    /// Clips of each.
    pub size: usize,
    /// The first one, from 0 on, of those that this loader makes.
    pub start: u64,
    /// Clips of each video that is drawn, of its own sampling, crop and flip, one behind the other (repeated augmentation,
    /// Hoffer et al. 2020). An epoch is that many times as long.
    pub repeats: usize,
    /// Several loaders share a run's batches: this one makes those whose number in the run, divided by `parts`, leaves `part`.
    pub part: u64,
    /// See [`Self::part`].
    pub parts: u64,
}

impl Batches {
    /// All batches of a run, of this size.
    #[must_use]
    pub fn of(size: usize) -> Self {
        Self { size, start: 0, repeats: 1, part: 0, parts: 1 }
    }

    /// The same from this one on.
    #[must_use]
    pub fn starting_at(self, start: u64) -> Self {
        Self { start, ..self }
    }

    /// Where in the run the clip is that this loader makes as number `made`, its own batches before [`Self::start`] included.
    fn position(&self, made: u64) -> u64 {
        let size = self.size as u64;
        self.number(made / size) * size + made % size
    }

    /// The number in the run of a batch that this loader makes.
    fn number(&self, made: u64) -> u64 {
        made * self.parts + self.part
    }

    fn check(&self) -> Result<(), LoaderError> {
        let wrong = |key, value: String, allowed: &str| {
            Err(LoaderError::BadConfig { key, value, allowed: allowed.to_owned() })
        };
        match self {
            Self { repeats: 0, .. } => wrong("repeats", "0".into(), "at least 1"),
            Self { size: 0, .. } => wrong("batch", "0".into(), "at least 1"),
            Self { part, parts, .. } if part >= parts => {
                wrong("part", part.to_string(), "less than the number of parts")
            }
            _ => Ok(()),
        }
    }
}

/// A share of bad videos says little before this many were drawn.
const DRAWN_ENOUGH: usize = 64;

/// What became of one clip: none if all candidates were bad.
struct Outcome {
    sample: Option<Sample>,
    skipped: Vec<Skip>,
}

/// How a [`TrainLoader`] has fared so far.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct LoaderStats {
    /// How long the consumer has waited for data.
    pub waited: Duration,
    /// Videos that were tried, each counted once.
    pub tried: u64,
    /// Of them, bad ones.
    pub bad: u64,
}

impl TrainLoader {
    /// Starts the workers on the batch of `start_step`.
    ///
    /// # Errors
    /// [`LoaderError`] for an impossible configuration.
    pub fn new(
        data: &Subset,
        clips: &ClipConfig,
        loader: &LoaderConfig,
        batch: usize,
        streams: Streams,
        start_step: u64,
    ) -> Result<Self, LoaderError> {
        Self::with_batches(data, clips, loader, Batches::of(batch).starting_at(start_step), streams)
    }

    /// As [`Self::new`], with some of the batches, or several clips of each video.
    ///
    /// # Errors
    /// [`LoaderError`] for an impossible configuration.
    pub fn with_batches(
        data: &Subset,
        clips: &ClipConfig,
        loader: &LoaderConfig,
        batches: Batches,
        streams: Streams,
    ) -> Result<Self, LoaderError> {
        batches.check()?;
        let Batches { size: batch, start, .. } = batches;
        let maker = Maker::new(data, clips, loader)?;
        let workers = loader.threads();
        let window = loader.prefetch.saturating_mul(batch).max(workers);
        let max_replacements = loader.max_replacements;
        let repeats = batches.repeats as u64;
        let make = move |made| outcome(&maker, &streams, batches.position(made), repeats, max_replacements);
        Ok(Self {
            pool: OrderedPool::new(workers, window, start * batch as u64, u64::MAX, make)
                .map_err(LoaderError::Threads)?,
            batches,
            next: start,
            drawn: 0,
            tried: HashSet::new(),
            bad: HashSet::new(),
            reasons: HashMap::new(),
            max_bad_share: loader.max_bad_share,
            failed: false,
        })
    }

    /// The next batch.
    ///
    /// # Errors
    /// [`LoaderError`] when too many videos are bad or a worker failed; from then on [`LoaderError::Stopped`]: what is made already
    /// are clips of another batch.
    pub fn next_batch(&mut self) -> Result<Batch, LoaderError> {
        if self.failed {
            return Err(LoaderError::Stopped { step: self.batches.number(self.next) });
        }
        let batch = self.gather();
        self.failed = batch.is_err();
        batch
    }

    /// Takes the clips of the next batch from the workers.
    fn gather(&mut self) -> Result<Batch, LoaderError> {
        let mut batch = Batch {
            step: self.batches.number(self.next),
            samples: Vec::with_capacity(self.batches.size),
            skipped: Vec::new(),
        };
        for _ in 0..self.batches.size {
            let Outcome { sample, skipped } = self.pool.next().ok_or(LoaderError::Dead)??;
            let Some(sample) = sample else {
                let reasons = worst(&count(skipped.iter()));
                return Err(LoaderError::NoReplacement { tried: skipped.len(), reasons });
            };
            self.drawn += 1 + skipped.len();
            self.tried.insert(sample.row);
            self.tried.extend(skipped.iter().map(|skip| skip.row));
            batch.samples.push(sample);
            batch.skipped.extend(skipped);
        }
        // A video is bad once, however often it was drawn.
        let new = batch.skipped.iter().filter(|skip| self.bad.insert(skip.row));
        for (reason, (times, path)) in count(new) {
            self.reasons.entry(reason).or_insert((0, path)).0 += times;
        }
        let (tried, bad) = (self.tried.len(), self.bad.len());
        if self.drawn >= DRAWN_ENOUGH && bad as f64 > self.max_bad_share * tried as f64 {
            return Err(LoaderError::TooManyBad {
                bad: bad as u64,
                tried: tried as u64,
                limit: self.max_bad_share,
                reasons: worst(&self.reasons),
            });
        }
        self.next += 1;
        Ok(batch)
    }

    /// How the loader has fared since it started.
    pub fn stats(&self) -> LoaderStats {
        LoaderStats { waited: self.pool.waited(), tried: self.tried.len() as u64, bad: self.bad.len() as u64 }
    }
}

impl fmt::Debug for TrainLoader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TrainLoader")
            .field("batches", &self.batches)
            .field("next", &self.next)
            .field("stats", &self.stats())
            .field("failed", &self.failed)
            .finish_non_exhaustive()
    }
}

impl Iterator for TrainLoader {
    type Item = Result<Batch, LoaderError>;

    /// Never ends but after an error.
    fn next(&mut self) -> Option<Self::Item> {
        (!self.failed).then(|| self.next_batch())
    }
}

/// Makes the clip at a position of the run, of its own row or of one that stands in for it.
fn outcome(
    maker: &Arc<Maker>,
    streams: &Streams,
    position: u64,
    repeats: u64,
    max_replacements: u32,
) -> Outcome {
    let rows = maker.data.rows();
    let length = rows.len() as u64 * repeats;
    let (epoch, number) = (position / length, position % length);
    let order = Permutation::new(rows.len() as u64, &mut streams.stream("shuffle", epoch, 0));
    let own = order.at(number / repeats);
    let mut others = streams.stream("replace", epoch, number);
    let mut skipped = Vec::new();
    let mut candidate = own as usize;
    for _ in 0..=max_replacements {
        let row = maker.data.manifest().row(rows[candidate] as usize);
        panic_if_asked(row.path());
        match patiently(|| maker.train(row, streams, epoch, number)) {
            Ok(sample) => return Outcome { sample: Some(sample), skipped },
            Err(error) => {
                skipped.push(Skip {
                    row: rows[candidate],
                    path: row.path().to_owned(),
                    reason: error.to_string(),
                });
            }
        }
        candidate = others.random_range(0..rows.len());
    }
    Outcome { sample: None, skipped }
}

/// Panics at the video that the variable `TGM_PANIC_AT` names. For tests of what a defect of the program does to a run: only
/// there in builds with debug assertions.
fn panic_if_asked(path: &str) {
    if cfg!(debug_assertions) && std::env::var_os("TGM_PANIC_AT").is_some_and(|asked| asked == path) {
        panic!("asked to panic at {path}");
    }
}

/// How often each reason occurs, and an example. Reasons are compared without the file that they begin with.
fn count<'a>(skipped: impl Iterator<Item = &'a Skip>) -> HashMap<String, (u64, String)> {
    let mut reasons = HashMap::new();
    for skip in skipped {
        let (before, after) = skip.reason.split_once(&skip.path).unwrap_or(("", &skip.reason));
        let reason = if after.is_empty() { before } else { after };
        let entry = reasons.entry(reason.trim_start_matches(": ").to_owned());
        entry.or_insert((0, skip.path.clone())).0 += 1;
    }
    reasons
}

/// The three most frequent reasons.
fn worst(reasons: &HashMap<String, (u64, String)>) -> String {
    let mut reasons: Vec<_> = reasons.iter().collect();
    reasons.sort_by_key(|(reason, (times, _))| (std::cmp::Reverse(*times), (*reason).clone()));
    let show = |(reason, (times, path)): &(&String, &(u64, String))| format!("{times} × {reason}, as {path}");
    reasons.iter().take(3).map(show).collect::<Vec<_>>().join("; ")
}
