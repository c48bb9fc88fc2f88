//! The field's linear probe: batch normalisation without affine parameters, then a linear layer, trained by SGD.
//!
//! MAE's `main_linprobe.py` with the optimiser of AdaptFormer's video probe: momentum 0.9, no weight decay, learning
//! rate = base × batch / 256, linear warm-up from 0 and a half cosine to 0, both per step; weights drawn with standard
//! deviation 0.01, biases 0; the last incomplete batch of an epoch is dropped. Features are cached, so there is no
//! augmentation. At test time the running statistics of the batch normalisation are used.

use super::Probe;
use super::schedule::warm_cosine;
use super::select::{Selection, select};
use super::softmax::Problem;
use super::standardise::Moments;
use crate::error::first_invalid;
use crate::{Error, Features, Result};
use rand::Rng;
use rand::seq::SliceRandom;
use serde::{Deserialize, Serialize};
use tgm_random::{Streams, normal};

/// Settings of the recipe.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Learning rates per 256 clips; several are compared on held-out train clips.
    /// Default 0.01, 0.03, 0.1, 0.3, 1 around the published 0.1.
    pub base_lr: Vec<f64>,
    /// Share of each class's train clips held out for that comparison. Default 0.2.
    pub held_out: f64,
    /// Clips per step; a smaller train set is one batch. Default 256 (the papers use 1,024 and more).
    pub batch: usize,
    /// Passes over train. Default 90.
    pub epochs: usize,
    /// Epochs of linear warm-up, below `epochs`. Default 10.
    pub warmup_epochs: usize,
    /// Momentum, at least 0 and below 1. Default 0.9.
    pub momentum: f64,
    /// Weight decay on weights and biases, as in PyTorch. Default 0.
    pub weight_decay: f64,
    /// Standard deviation of the initial weights. Default 0.01.
    pub init_std: f64,
    /// Added to the variance in batch normalisation. Default 10⁻⁶.
    pub norm_eps: f64,
    /// Weight of the newest batch in the running statistics. Default 0.1.
    pub norm_momentum: f64,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            base_lr: vec![0.01, 0.03, 0.1, 0.3, 1.0],
            held_out: 0.2,
            batch: 256,
            epochs: 90,
            warmup_epochs: 10,
            momentum: 0.9,
            weight_decay: 0.0,
            init_std: 0.01,
            norm_eps: 1e-6,
            norm_momentum: 0.1,
        }
    }
}

impl Settings {
    fn check(&self) -> Result<()> {
        let not_negative = |value: f64| value >= 0.0 && value.is_finite();
        let checks = [
            (
                "batch",
                self.batch as f64,
                self.batch >= 2,
                "must be at least 2: batch normalisation needs a spread",
            ),
            ("epochs", self.epochs as f64, self.epochs >= 1, "must be positive"),
            (
                "warmup_epochs",
                self.warmup_epochs as f64,
                self.warmup_epochs < self.epochs,
                "must be below epochs",
            ),
            (
                "momentum",
                self.momentum,
                (0.0..1.0).contains(&self.momentum),
                "must lie between 0 and below 1",
            ),
            ("weight_decay", self.weight_decay, not_negative(self.weight_decay), "must not be negative"),
            ("init_std", self.init_std, not_negative(self.init_std), "must not be negative"),
            ("norm_eps", self.norm_eps, self.norm_eps > 0.0 && self.norm_eps.is_finite(), "must be positive"),
            (
                "norm_momentum",
                self.norm_momentum,
                self.norm_momentum > 0.0 && self.norm_momentum <= 1.0,
                "must lie above 0 and up to 1",
            ),
        ];
        first_invalid(checks)
    }
}

/// What was done, for the record.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    /// The settings asked for.
    pub settings: Settings,
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

/// Chooses the base learning rate on held-out train clips, then trains on all of train.
///
/// # Errors
/// [`Error::OneClass`], [`Error::NoHoldout`], [`Error::Setting`] for values out of range, [`Error::Diverged`] if the
/// weights overflow at every learning rate.
pub fn fit(train: &Features, settings: &Settings, streams: &Streams) -> Result<(Probe, Report)> {
    settings.check()?;
    let problem = Problem::new(train)?;
    let (base_lr, selection) =
        select("base_lr", &settings.base_lr, settings.held_out, train, streams, |base_lr, rows| {
            Ok(descend(&problem, rows, base_lr, settings, streams)?.probe)
        })?;
    let rows: Vec<usize> = (0..train.clips()).collect();
    let end = descend(&problem, &rows, base_lr, settings, streams)?;
    let report = Report {
        settings: settings.clone(),
        seed: streams.seed(),
        selection,
        base_lr,
        peak_lr: end.peak_lr,
        batch_used: end.batch,
        steps: end.steps,
        train_loss: end.train_loss,
    };
    Ok((end.probe, report))
}

struct Descent {
    probe: Probe,
    peak_lr: f64,
    batch: usize,
    steps: usize,
    train_loss: f64,
}

/// Trains on the given rows. Every learning rate starts from the same weights and sees the same batches.
fn descend(
    problem: &Problem<'_>,
    rows: &[usize],
    base_lr: f64,
    settings: &Settings,
    streams: &Streams,
) -> Result<Descent> {
    let batch = settings.batch.min(rows.len());
    let batches = rows.len() / batch;
    let peak_lr = base_lr * batch as f64 / 256.0;

    let mut parameters = initial(problem, settings.init_std, &mut streams.stream("probe-init", 0, 0));
    let mut velocity = vec![0.0; parameters.len()];
    let mut running = Moments::standard_normal(problem.features.dim());
    let mut train_loss = 0.0;
    for epoch in 0..settings.epochs {
        let mut order = rows.to_vec();
        order.shuffle(&mut streams.stream("probe-batches", epoch as u64, 0));
        train_loss = 0.0;
        for (index, rows) in order.chunks_exact(batch).enumerate() {
            let moments = Moments::of(problem.features, rows);
            let normalise = moments.to_batch_norm(settings.norm_eps);
            let (loss, gradient) = problem.loss_and_gradient(rows, &normalise, &parameters);
            running.follow(&moments, rows.len(), settings.norm_momentum);
            train_loss += loss / batches as f64;

            let lr = peak_lr
                * warm_cosine(
                    epoch as f64 + index as f64 / batches as f64,
                    settings.warmup_epochs,
                    settings.epochs,
                );
            for ((parameter, velocity), gradient) in parameters.iter_mut().zip(&mut velocity).zip(gradient) {
                *velocity = settings.momentum * *velocity + gradient + settings.weight_decay * *parameter;
                *parameter -= lr * *velocity;
            }
        }
        // Beyond the root of the largest number, products with features could overflow.
        let tame = |value: &f64| value.abs() < f64::MAX.sqrt();
        if !(train_loss.is_finite() && parameters.iter().all(tame)) {
            return Err(Error::Diverged { base_lr, epoch });
        }
    }
    let probe = problem.probe(running.to_batch_norm(settings.norm_eps), parameters);
    Ok(Descent { probe, peak_lr, batch, steps: settings.epochs * batches, train_loss })
}

/// Normal coefficients, zero intercepts.
fn initial(problem: &Problem<'_>, std: f64, rng: &mut impl Rng) -> Vec<f64> {
    let coefficients = problem.present.len() * problem.features.dim();
    let mut parameters: Vec<f64> = (0..coefficients).map(|_| std * normal(rng)).collect();
    parameters.resize(problem.parameters(), 0.0);
    parameters
}
