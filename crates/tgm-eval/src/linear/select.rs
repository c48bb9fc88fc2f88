//! Choosing one setting on clips held out of train.

use super::{Probe, holdout};
use crate::{Error, Features, Result};
use rayon::prelude::*;
use serde::Serialize;
use std::cmp::Ordering;
use tgm_random::Streams;

/// How the value of a swept setting was chosen.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Selection {
    /// Clips trained on during the comparison.
    pub fit_clips: usize,
    /// Clips compared on.
    pub held_out_clips: usize,
    /// Every value tried, in the order given.
    pub trials: Vec<Trial>,
}

/// One value of the swept setting.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Trial {
    /// The value.
    pub value: f64,
    /// How well it did, `None` if training diverged.
    pub held_out: Option<HeldOut>,
}

/// How well a probe does on the held-out clips.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct HeldOut {
    /// Top-1 accuracy.
    pub top1: f64,
    /// Mean cross-entropy, in nats.
    pub loss: f64,
}

impl HeldOut {
    fn of(probe: &Probe, features: &Features, rows: &[usize]) -> Result<Self> {
        let held: Vec<f32> = rows.iter().flat_map(|&row| features.row(row)).copied().collect();
        let scores = probe.probabilities(&held)?;
        let (mut hits, mut loss) = (0, 0.0);
        for (clip, &row) in rows.iter().enumerate() {
            let label = features.labels()[row];
            hits += usize::from(scores.rank(clip, label) == 0);
            loss -= scores.row(clip)[label as usize].max(f64::MIN_POSITIVE).ln();
        }
        let count = rows.len() as f64;
        Ok(Self { top1: hits as f64 / count, loss: loss / count })
    }

    /// Accuracy decides; with few clips it often ties, then the loss does.
    fn better(&self, other: &Self) -> bool {
        self.top1.total_cmp(&other.top1).then(other.loss.total_cmp(&self.loss)) == Ordering::Greater
    }
}

/// Refuses what nothing can be chosen from.
pub(super) fn check_candidates(setting: &'static str, candidates: &[f64], held_out: f64) -> Result<()> {
    if let Some(value) = candidates.iter().find(|value| !(**value > 0.0 && value.is_finite())) {
        return Err(Error::setting(setting, value, "must be positive"));
    }
    match candidates {
        [] => Err(Error::setting(setting, "[]", "at least one value is needed")),
        [_, _, ..] if !(held_out > 0.0 && held_out < 1.0) => {
            Err(Error::setting("held_out", held_out, "must lie between 0 and 1"))
        }
        _ => Ok(()),
    }
}

/// The best of `candidates`: the one given if there is one, else by training on a part of train with `fit`.
///
/// Equally good values: the one given first. The recipe's own check has been through [`check_candidates`].
pub(super) fn select(
    setting: &'static str,
    candidates: &[f64],
    held_out: f64,
    train: &Features,
    streams: &Streams,
    fit: impl Fn(f64, &[usize]) -> Result<Probe> + Sync,
) -> Result<(f64, Option<Selection>)> {
    if let [only] = candidates {
        return Ok((*only, None));
    }
    let split = holdout::split(train, held_out, streams);
    if split.held.is_empty() {
        return Err(Error::NoHoldout { setting, candidates: candidates.len() });
    }
    let attempts: Vec<Result<HeldOut>> = candidates
        .par_iter()
        .map(|&value| HeldOut::of(&fit(value, &split.fit)?, train, &split.held))
        .collect();

    let mut trials = Vec::with_capacity(candidates.len());
    let mut best: Option<(f64, HeldOut)> = None;
    let mut diverged = None;
    for (&value, attempt) in candidates.iter().zip(attempts) {
        let held_out = match attempt {
            Ok(result) => {
                if best.is_none_or(|(_, best)| result.better(&best)) {
                    best = Some((value, result));
                }
                Some(result)
            }
            Err(error @ Error::Diverged { .. }) => {
                diverged = Some(error);
                None
            }
            Err(error) => return Err(error),
        };
        trials.push(Trial { value, held_out });
    }
    match (best, diverged) {
        (Some((value, _)), _) => {
            let (fit_clips, held_out_clips) = (split.fit.len(), split.held.len());
            Ok((value, Some(Selection { fit_clips, held_out_clips, trials })))
        }
        (None, error) => Err(error.expect("with at least one candidate, no best means that all diverged")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accuracy_decides_before_the_loss() {
        let held = |top1, loss| HeldOut { top1, loss };
        assert!(held(0.6, 2.0).better(&held(0.5, 1.0)));
        assert!(held(0.5, 1.0).better(&held(0.5, 2.0)));
        assert!(!held(0.5, 1.0).better(&held(0.5, 1.0)), "equal: the first stays");
    }
}
