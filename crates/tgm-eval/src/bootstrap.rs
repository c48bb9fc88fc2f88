//! How sure a mean over clips is: percentile bootstrap intervals (Efron 1979).
//!
//! The clips are what was drawn at random, so clips are resampled. Two models evaluated on the same clips are
//! compared by [`difference`], which resamples *pairs*: most of the spread is common to both and cancels.

use crate::{Error, Result};
use rand::{Rng, RngExt};
use serde::{Deserialize, Serialize};

/// Settings of the interval.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Number of resamples. Default 10,000.
    pub resamples: usize,
    /// Confidence level, between 0 and 1. Default 0.95.
    pub level: f64,
}

impl Default for Settings {
    fn default() -> Self {
        Self { resamples: 10_000, level: 0.95 }
    }
}

/// A mean with its confidence interval.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Interval {
    /// The mean of the values themselves.
    pub mean: f64,
    /// Lower end.
    pub low: f64,
    /// Upper end.
    pub high: f64,
}

impl Interval {
    /// As the interval of a share of right answers among so many clips. Where all or none are right every resample is alike, and the bootstrap
    /// would be certain: the other end is then the exact one of Clopper and Pearson (1934).
    #[must_use]
    pub fn of_share(self, clips: usize, level: f64) -> Self {
        // The share at which an answer of this kind to all clips has the probability of the tail.
        let certain = ((1.0 - level) / 2.0).powf(1.0 / clips as f64);
        match self {
            Self { low, .. } if low >= 1.0 => Self { low: certain, ..self },
            Self { high, .. } if high <= 0.0 => Self { high: 1.0 - certain, ..self },
            between => between,
        }
    }

    /// Whether 0 lies outside: for a [`difference`], whether the two are told apart.
    pub fn excludes_zero(&self) -> bool {
        self.low > 0.0 || self.high < 0.0
    }
}

/// The interval of the mean of one value per clip, such as [`crate::metrics::top_k_hits`].
///
/// With several seeds, give each clip its mean over the seeds.
///
/// # Errors
/// [`Error::Empty`] without values, [`Error::NonFinite`] for NaN or infinity, [`Error::Setting`] for no resamples
/// or a level outside (0, 1).
pub fn mean(values: &[f64], settings: Settings, rng: &mut impl Rng) -> Result<Interval> {
    let Settings { resamples, level } = settings;
    check(values, resamples, level)?;
    let count = values.len();
    let means = (0..resamples)
        .map(|_| (0..count).map(|_| values[rng.random_range(0..count)]).sum::<f64>() / count as f64)
        .collect();
    Ok(percentile(values.iter().sum::<f64>() / count as f64, means, level))
}

/// The interval of the mean over several runs that were scored on the same clips, `[runs][clips]`.
///
/// Another training would have had other seeds and another test set other clips, so runs and clips are both resampled. With a
/// few seeds the interval is coarse, and of one alone it tells nothing about seeds. Give differences between paired runs to
/// compare two methods.
///
/// # Errors
/// [`Error::Length`] when the runs differ in clips, else as [`mean`].
pub fn over_runs(runs: &[Vec<f64>], settings: Settings, rng: &mut impl Rng) -> Result<Interval> {
    let Settings { resamples, level } = settings;
    let clips = runs.first().map_or(0, Vec::len);
    if let Some(other) = runs.iter().find(|run| run.len() != clips) {
        return Err(Error::Length { what: "over_runs", expected: clips, got: other.len() });
    }
    let all = runs.concat();
    check(&all, resamples, level)?;
    let mut weights = vec![0.0; clips];
    let means = (0..resamples)
        .map(|_| {
            weights.fill(0.0);
            (0..clips).for_each(|_| weights[rng.random_range(0..clips)] += 1.0);
            let drawn = (0..runs.len()).map(|_| &runs[rng.random_range(0..runs.len())]);
            let sum: f64 = drawn.map(|run| run.iter().zip(&weights).map(|(x, w)| x * w).sum::<f64>()).sum();
            sum / all.len() as f64
        })
        .collect();
    Ok(percentile(all.iter().sum::<f64>() / all.len() as f64, means, level))
}

fn check(values: &[f64], resamples: usize, level: f64) -> Result<()> {
    if values.is_empty() {
        return Err(Error::Empty { what: "bootstrap", missing: "rows" });
    }
    if let Some(index) = values.iter().position(|value| !value.is_finite()) {
        return Err(Error::NonFinite { what: "bootstrap", index, value: values[index] });
    }
    if resamples == 0 {
        return Err(Error::setting("resamples", resamples, "at least one is needed"));
    }
    if !(level > 0.0 && level < 1.0) {
        return Err(Error::setting("level", level, "must lie between 0 and 1"));
    }
    Ok(())
}

fn percentile(mean: f64, mut means: Vec<f64>, level: f64) -> Interval {
    means.sort_unstable_by(f64::total_cmp);
    let tail = (1.0 - level) / 2.0;
    Interval { mean, low: quantile(&means, tail), high: quantile(&means, 1.0 - tail) }
}

/// The interval of the mean of `a − b`, both evaluated on the same clips in the same order.
///
/// # Errors
/// [`Error::Length`] if the two differ in length, else as [`mean`].
pub fn difference(a: &[f64], b: &[f64], settings: Settings, rng: &mut impl Rng) -> Result<Interval> {
    if a.len() != b.len() {
        return Err(Error::Length { what: "difference", expected: a.len(), got: b.len() });
    }
    let differences: Vec<f64> = a.iter().zip(b).map(|(a, b)| a - b).collect();
    mean(&differences, settings, rng)
}

/// The quantile of sorted values, linear between neighbours (numpy's default).
fn quantile(sorted: &[f64], q: f64) -> f64 {
    let at = q * (sorted.len() - 1) as f64;
    let (low, high) = (sorted[at.floor() as usize], sorted[at.ceil() as usize]);
    low + (high - low) * at.fract()
}

#[cfg(test)]
mod tests {
    use super::*;
    use tgm_random::Streams;

    fn rng(seed: u64) -> tgm_random::Stream {
        Streams::new(seed).stream("bootstrap", 0, 0)
    }

    /// `right` ones and `wrong` zeros.
    fn hits(right: usize, wrong: usize) -> Vec<f64> {
        [vec![1.0; right], vec![0.0; wrong]].concat()
    }

    /// Of 0/1 values the resampled mean is binomial, so the true quantile is known.
    fn binomial_quantile(n: i32, p: f64, q: f64) -> f64 {
        let mut probability = (1.0 - p).powi(n);
        let mut cumulative = probability;
        let mut k = 0;
        while cumulative < q {
            probability *= f64::from(n - k) / f64::from(k + 1) * p / (1.0 - p);
            k += 1;
            cumulative += probability;
        }
        f64::from(k) / f64::from(n)
    }

    #[test]
    fn the_interval_of_an_accuracy_has_the_quantiles_of_the_binomial() {
        let interval = mean(&hits(38, 12), Settings::default(), &mut rng(1)).unwrap();
        assert_eq!(interval.mean, 0.76);
        let step = 0.02 + 1e-9; // one clip of 50: a sampled quantile may fall one step aside
        assert!((interval.low - binomial_quantile(50, 0.76, 0.025)).abs() <= step, "{interval:?}");
        assert!((interval.high - binomial_quantile(50, 0.76, 0.975)).abs() <= step, "{interval:?}");
    }

    /// 0 of 12 right was reported as 0.000 – 0.000.
    #[test]
    fn all_right_or_all_wrong_is_not_certainty() {
        let of = |right, wrong| {
            let interval = mean(&hits(right, wrong), Settings::default(), &mut rng(1)).unwrap();
            interval.of_share(right + wrong, 0.95)
        };
        // R: binom.test(0, 12) and binom.test(240, 240).
        assert!((of(0, 12).high - 0.2646).abs() < 1e-4 && of(0, 12).low == 0.0);
        assert!((of(240, 0).low - 0.9847).abs() < 1e-4 && of(240, 0).high == 1.0);
        let between = mean(&hits(38, 12), Settings::default(), &mut rng(1)).unwrap();
        assert_eq!(of(38, 12), between);
    }

    #[test]
    fn more_clips_and_less_confidence_narrow_the_interval() {
        let width = |values: &[f64], level| {
            let settings = Settings { level, ..Settings::default() };
            let interval = mean(values, settings, &mut rng(2)).unwrap();
            interval.high - interval.low
        };
        let few = width(&hits(30, 20), 0.95);
        let many = width(&hits(480, 320), 0.95);
        assert!((few / many - 4.0).abs() < 0.5, "16 times the clips: a quarter of the width, {few} {many}");
        assert!(width(&hits(30, 20), 0.5) < few / 2.0);
    }

    #[test]
    fn pairs_tell_apart_what_separate_intervals_cannot() {
        let a = hits(60, 40);
        let b = hits(52, 48);
        let interval = difference(&a, &b, Settings::default(), &mut rng(3)).unwrap();
        assert!((interval.mean - 0.08).abs() < 1e-12);
        assert!(interval.excludes_zero(), "{interval:?}");
        let separate = |values: &[f64]| mean(values, Settings::default(), &mut rng(3)).unwrap();
        assert!(separate(&a).low < separate(&b).high, "the separate intervals overlap");
    }

    #[test]
    fn equal_models_do_not_differ() {
        let a = hits(3, 4);
        let interval = difference(&a, &a, Settings::default(), &mut rng(4)).unwrap();
        assert_eq!(interval, Interval { mean: 0.0, low: 0.0, high: 0.0 });
        assert!(!interval.excludes_zero());
    }

    #[test]
    fn the_same_seed_gives_the_same_interval_and_another_seed_another() {
        let values: Vec<f64> = (0..50).map(|i| f64::from(i).sin()).collect();
        let interval = |seed| mean(&values, Settings::default(), &mut rng(seed)).unwrap();
        assert_eq!(interval(5), interval(5));
        assert_ne!(interval(5), interval(6));
    }

    #[test]
    fn senseless_input_is_refused() {
        let settings = Settings::default();
        assert!(matches!(mean(&[], settings, &mut rng(0)), Err(Error::Empty { .. })));
        assert!(matches!(mean(&[f64::NAN], settings, &mut rng(0)), Err(Error::NonFinite { .. })));
        assert!(matches!(difference(&[1.0], &[], settings, &mut rng(0)), Err(Error::Length { .. })));
        for level in [0.0, 1.0, f64::NAN] {
            let bad = Settings { level, ..settings };
            assert!(matches!(mean(&[1.0], bad, &mut rng(0)), Err(Error::Setting { name: "level", .. })));
        }
        let none = Settings { resamples: 0, ..settings };
        assert!(matches!(mean(&[1.0], none, &mut rng(0)), Err(Error::Setting { name: "resamples", .. })));
    }

    #[test]
    fn quantiles_lie_between_neighbours() {
        assert_eq!(quantile(&[0.0, 10.0], 0.25), 2.5);
        assert_eq!(quantile(&[7.0], 0.975), 7.0);
    }

    #[test]
    fn one_run_has_the_interval_of_its_clips_and_runs_that_disagree_a_wider_one() {
        let settings = Settings { resamples: 4000, ..Settings::default() };
        let alone = mean(&hits(60, 40), settings, &mut rng(1)).unwrap();
        let one = over_runs(&[hits(60, 40)], settings, &mut rng(2)).unwrap();
        assert_eq!(one.mean, alone.mean);
        assert!((one.low - alone.low).abs() < 0.015 && (one.high - alone.high).abs() < 0.015);

        let runs = [hits(40, 60), hits(60, 40), hits(80, 20)];
        let wide = over_runs(&runs, settings, &mut rng(3)).unwrap();
        assert!((wide.mean - 0.6).abs() < 1e-12);
        assert!(wide.low < alone.low - 0.03 && wide.high > alone.high + 0.03, "{wide:?}");
    }

    #[test]
    fn runs_on_other_clips_cannot_be_averaged() {
        let error = over_runs(&[hits(2, 2), hits(2, 1)], Settings::default(), &mut rng(0)).unwrap_err();
        assert!(matches!(error, Error::Length { expected: 4, got: 3, .. }));
    }
}
