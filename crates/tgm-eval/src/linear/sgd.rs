//! The field's linear probe: batch normalisation without affine parameters, then a linear layer, trained by SGD.
//!
//! MAE's `main_linprobe.py` with the optimiser of AdaptFormer's video probe: momentum 0.9, no weight decay, learning
//! rate = base × batch / 256, linear warm-up from 0 and a half cosine to 0, both per step; weights drawn with standard
//! deviation 0.01, biases 0; the last incomplete batch of an epoch is dropped. Features are cached, so there is no
//! augmentation. At test time the running statistics of the batch normalisation are used.

use super::Probe;
use super::descent::{self, Learner, Plan, Recipe};
use super::select::check_candidates;
use super::softmax::Problem;
use super::standardise::Moments;
use crate::error::first_invalid;
use crate::{Features, Result};
use rand::Rng;
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
    pub(crate) fn check(&self) -> Result<()> {
        check_candidates("base_lr", &self.base_lr, self.held_out)?;
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
pub type Report = descent::Report<Settings>;

/// Chooses the base learning rate on held-out train clips, then trains on all of train.
///
/// # Errors
/// [`OneClass`](crate::Error::OneClass), [`NoHoldout`](crate::Error::NoHoldout), [`Setting`](crate::Error::Setting) for
/// values out of range, [`Diverged`](crate::Error::Diverged) if the weights overflow at every learning rate.
pub fn fit(train: &Features, settings: &Settings, streams: &Streams) -> Result<(Probe, Report)> {
    settings.check()?;
    descent::fit(&Problem::new(train)?, settings, streams)
}

impl Recipe for Settings {
    fn plan(&self) -> Plan<'_> {
        let Self { base_lr, held_out, batch, epochs, warmup_epochs, .. } = self;
        Plan { base_lr, held_out: *held_out, batch: *batch, epochs: *epochs, warmup_epochs: *warmup_epochs }
    }

    fn learner<'a>(&'a self, problem: &'a Problem<'a>, streams: &Streams) -> impl Learner + 'a {
        let parameters = initial(problem, self.init_std, &mut streams.stream("probe-init", 0, 0));
        Sgd {
            settings: self,
            problem,
            velocity: vec![0.0; parameters.len()],
            running: Moments::standard_normal(problem.features.dim()),
            parameters,
        }
    }
}

struct Sgd<'a> {
    settings: &'a Settings,
    problem: &'a Problem<'a>,
    parameters: Vec<f64>,
    velocity: Vec<f64>,
    /// The statistics of the batch normalisation for test clips.
    running: Moments,
}

impl Learner for Sgd<'_> {
    fn step(&mut self, rows: &[usize], lr: f64) -> f64 {
        let Settings { momentum, weight_decay, norm_eps, norm_momentum, .. } = *self.settings;
        let moments = Moments::of(self.problem.features, rows);
        let normalise = moments.to_batch_norm(norm_eps);
        let (loss, gradient) = self.problem.loss_and_gradient(rows, &normalise, &self.parameters);
        self.running.follow(&moments, rows.len(), norm_momentum);
        for ((parameter, velocity), gradient) in
            self.parameters.iter_mut().zip(&mut self.velocity).zip(gradient)
        {
            *velocity = momentum * *velocity + gradient + weight_decay * *parameter;
            *parameter -= lr * *velocity;
        }
        loss
    }

    fn parameters(&self) -> &[f64] {
        &self.parameters
    }

    fn probe(self) -> Probe {
        self.problem.probe(self.running.to_batch_norm(self.settings.norm_eps), self.parameters)
    }
}

/// Normal coefficients, zero intercepts.
fn initial(problem: &Problem<'_>, std: f64, rng: &mut impl Rng) -> Vec<f64> {
    let coefficients = problem.present.len() * problem.features.dim();
    let mut parameters: Vec<f64> = (0..coefficients).map(|_| std * normal(rng)).collect();
    parameters.resize(problem.parameters(), 0.0);
    parameters
}
