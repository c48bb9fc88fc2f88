//! Training by passes over shuffled batches: what [`sgd`](super::sgd) and [`adamw`](super::adamw) share.

use super::Probe;
use super::schedule::warm_cosine;
use super::select::{Selection, select};
use super::softmax::Problem;
use crate::{Error, Result};
use rand::seq::SliceRandom;
use serde::Serialize;
use tgm_random::Streams;

/// Clips per step that a base learning rate is meant for.
const LR_BATCH: f64 = 256.0;

/// What was done, for the record.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report<S> {
    /// The settings asked for.
    pub settings: S,
    /// The seed of held-out clips, initial weights and batches.
    pub seed: u64,
    /// How `base_lr` was chosen, `None` if only one value was given.
    pub selection: Option<Selection>,
    /// The base learning rate used for the final training on all of train.
    pub base_lr: f64,
    /// The peak learning rate: base × batch / 256.
    pub peak_lr: f64,
    /// Clips per step, after limiting to the train set.
    pub batch_used: usize,
    /// Steps of the final training.
    pub steps: usize,
    /// Mean cross-entropy in nats over the last epoch.
    pub train_loss: f64,
}

/// The settings that every recipe has.
#[derive(Clone, Copy)]
pub(super) struct Plan<'a> {
    pub base_lr: &'a [f64],
    pub held_out: f64,
    pub batch: usize,
    pub epochs: usize,
    pub warmup_epochs: usize,
}

/// A recipe: its settings, and how it learns.
pub(super) trait Recipe: Clone + Sync {
    fn plan(&self) -> Plan<'_>;

    /// A learner before its first step: the same one for every learning rate.
    fn learner<'a>(&'a self, problem: &'a Problem<'a>, streams: &Streams) -> impl Learner + 'a;
}

/// Parameters and the state of their optimiser.
pub(super) trait Learner {
    /// Learns from a batch; the mean loss of its rows before that.
    fn step(&mut self, rows: &[usize], lr: f64) -> f64;

    fn parameters(&self) -> &[f64];

    fn probe(self) -> Probe;
}

/// Chooses the base learning rate on held-out train clips, then trains on all of train.
pub(super) fn fit<S: Recipe>(
    problem: &Problem<'_>,
    recipe: &S,
    streams: &Streams,
) -> Result<(Probe, Report<S>)> {
    let plan = recipe.plan();
    let (base_lr, selection) =
        select("base_lr", plan.base_lr, plan.held_out, problem.features, streams, |base_lr, rows| {
            Ok(descend(problem, recipe, base_lr, rows, streams)?.0)
        })?;
    let rows: Vec<usize> = (0..problem.features.clips()).collect();
    let (probe, train_loss) = descend(problem, recipe, base_lr, &rows, streams)?;
    let batch = plan.batch.min(rows.len());
    let report = Report {
        settings: recipe.clone(),
        seed: streams.seed(),
        selection,
        base_lr,
        peak_lr: peak(base_lr, batch),
        batch_used: batch,
        steps: plan.epochs * (rows.len() / batch),
        train_loss,
    };
    Ok((probe, report))
}

/// Trains on the given rows; the probe and the loss of the last epoch. Every learning rate sees the same batches.
fn descend(
    problem: &Problem<'_>,
    recipe: &impl Recipe,
    base_lr: f64,
    rows: &[usize],
    streams: &Streams,
) -> Result<(Probe, f64)> {
    let Plan { batch, epochs, warmup_epochs, .. } = recipe.plan();
    let batch = batch.min(rows.len());
    let batches = rows.len() / batch;
    let peak_lr = peak(base_lr, batch);
    let mut learner = recipe.learner(problem, streams);
    let mut train_loss = 0.0;
    for epoch in 0..epochs {
        let mut order = rows.to_vec();
        order.shuffle(&mut streams.stream("probe-batches", epoch as u64, 0));
        train_loss = 0.0;
        for (index, rows) in order.chunks_exact(batch).enumerate() {
            let now = epoch as f64 + index as f64 / batches as f64;
            let lr = peak_lr * warm_cosine(now, warmup_epochs, epochs);
            train_loss += learner.step(rows, lr) / batches as f64;
        }
        // Beyond the root of the largest number, products with features could overflow.
        let tame = |value: &f64| value.abs() < f64::MAX.sqrt();
        if !(train_loss.is_finite() && learner.parameters().iter().all(tame)) {
            return Err(Error::Diverged { base_lr, epoch });
        }
    }
    Ok((learner.probe(), train_loss))
}

fn peak(base_lr: f64, batch: usize) -> f64 {
    base_lr * batch as f64 / LR_BATCH
}
