//! The linear probe of the fine-tuning code with its encoder frozen: layer norm, then a linear layer, trained by AdamW.
//!
//! SIGMA's `linear_probing_ssv2.sh` trains `fc_norm` and `head` of VideoMAE's classifier with AdamW (0.9, 0.999), learning
//! rate = base × batch / 256, weight decay 0.05 on the matrix alone, 30 epochs, linear warm-up from 0, then a half
//! cosine to 0. Features are cached, so there is none of its augmentation. Weights are drawn with standard deviation
//! 2·10⁻⁵ as VideoMAE's head, biases 0, the norm's weight 1; the last incomplete batch of an epoch is dropped.

use super::Probe;
use super::descent::{self, Learner, Plan, Recipe};
use super::select::check_candidates;
use super::softmax::Problem;
use super::standardise::Affine;
use crate::error::first_invalid;
use crate::{Features, Result};
use serde::{Deserialize, Serialize};
use std::ops::Range;
use tgm_random::{Streams, normal};

/// Settings of the recipe.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Learning rates per 256 clips; several are compared on held-out train clips.
    /// Default 10⁻³, 3·10⁻³, 10⁻², 3·10⁻², 10⁻¹ from the published 10⁻³ upwards: cached features allow more.
    pub base_lr: Vec<f64>,
    /// Share of each class's train clips held out for that comparison. Default 0.2.
    pub held_out: f64,
    /// Clips per step; a smaller train set is one batch. Default 256 (SIGMA: 384).
    pub batch: usize,
    /// Passes over train. Default 30.
    pub epochs: usize,
    /// Epochs of linear warm-up, below `epochs`. Default 5.
    pub warmup_epochs: usize,
    /// Decoupled weight decay on the linear layer's matrix. Default 0.05.
    pub weight_decay: f64,
    /// Decay of the first moment. Default 0.9.
    pub beta1: f64,
    /// Decay of the second moment. Default 0.999.
    pub beta2: f64,
    /// Standard deviation of the initial weights. Default 2·10⁻⁵.
    pub init_std: f64,
    /// Added to the variance in the layer norm. Default 10⁻⁶.
    pub norm_eps: f64,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            base_lr: vec![1e-3, 3e-3, 1e-2, 3e-2, 1e-1],
            held_out: 0.2,
            batch: 256,
            epochs: 30,
            warmup_epochs: 5,
            weight_decay: 0.05,
            beta1: 0.9,
            beta2: 0.999,
            init_std: 2e-5,
            norm_eps: 1e-6,
        }
    }
}

impl Settings {
    pub(crate) fn check(&self) -> Result<()> {
        check_candidates("base_lr", &self.base_lr, self.held_out)?;
        let decay = |beta: f64| (0.0..1.0).contains(&beta);
        let finite = |value: f64| value >= 0.0 && value.is_finite();
        let checks = [
            ("batch", self.batch as f64, self.batch >= 1, "must be positive"),
            ("epochs", self.epochs as f64, self.epochs >= 1, "must be positive"),
            (
                "warmup_epochs",
                self.warmup_epochs as f64,
                self.warmup_epochs < self.epochs,
                "must be below epochs",
            ),
            ("weight_decay", self.weight_decay, finite(self.weight_decay), "must not be negative"),
            ("init_std", self.init_std, finite(self.init_std), "must not be negative"),
            ("beta1", self.beta1, decay(self.beta1), "must lie between 0 and below 1"),
            ("beta2", self.beta2, decay(self.beta2), "must lie between 0 and below 1"),
            ("norm_eps", self.norm_eps, self.norm_eps > 0.0 && self.norm_eps.is_finite(), "must be positive"),
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
    let data = normalise_rows(train.data(), train.dim(), settings.norm_eps);
    let (labels, ids) = (train.labels().to_vec(), train.ids().to_vec());
    let normed = Features::new(train.dim(), train.classes(), data, labels, ids)?;
    let (probe, report) = descent::fit(&Problem::new(&normed)?, settings, streams)?;
    Ok((Probe { row_norm: Some(settings.norm_eps), ..probe }, report))
}

/// Every row of `[clips, dim]` at mean 0 and variance 1: a layer norm before its weight and bias.
pub(super) fn normalise_rows(data: &[f32], dim: usize, eps: f64) -> Vec<f32> {
    let mut normed = Vec::with_capacity(data.len());
    for row in data.chunks_exact(dim) {
        let mean = row.iter().map(|&x| f64::from(x)).sum::<f64>() / dim as f64;
        let variance = row.iter().map(|&x| (f64::from(x) - mean).powi(2)).sum::<f64>() / dim as f64;
        let scale = (variance + eps).sqrt().recip();
        normed.extend(row.iter().map(|&x| ((f64::from(x) - mean) * scale) as f32));
    }
    normed
}

/// The layer norm's weight and bias, and the linear layer on them, one behind the other.
struct Layout {
    dim: usize,
    outputs: usize,
}

impl Layout {
    fn len(&self) -> usize {
        2 * self.dim + self.outputs * (self.dim + 1)
    }

    /// Where the linear layer's matrix lies.
    fn matrix(&self) -> Range<usize> {
        2 * self.dim..2 * self.dim + self.outputs * self.dim
    }

    /// Norm and linear layer as one affine map of the normalised row.
    fn folded(&self, parameters: &[f64]) -> Vec<f64> {
        let (weight, rest) = parameters.split_at(self.dim);
        let (bias, rest) = rest.split_at(self.dim);
        let (matrix, intercepts) = rest.split_at(self.outputs * self.dim);
        let mut folded: Vec<f64> = matrix
            .chunks_exact(self.dim)
            .flat_map(|row| row.iter().zip(weight).map(|(w, g)| w * g))
            .collect();
        let intercept = |(row, own): (&[f64], &f64)| own + crate::dense::dot(row, bias);
        folded.extend(matrix.chunks_exact(self.dim).zip(intercepts).map(intercept));
        folded
    }

    /// The gradient of the parameters from that of the folded map.
    fn unfolded(&self, parameters: &[f64], folded: &[f64]) -> Vec<f64> {
        let (weight, bias) = (&parameters[..self.dim], &parameters[self.dim..2 * self.dim]);
        let matrix = &parameters[2 * self.dim..];
        let (slopes, intercepts) = folded.split_at(self.outputs * self.dim);
        let mut gradient = vec![0.0; self.len()];
        for (output, &error) in intercepts.iter().enumerate() {
            for column in 0..self.dim {
                let (at, slope) = (output * self.dim + column, slopes[output * self.dim + column]);
                gradient[column] += slope * matrix[at];
                gradient[self.dim + column] += error * matrix[at];
                gradient[2 * self.dim + at] = slope * weight[column] + error * bias[column];
            }
            gradient[2 * self.dim + self.outputs * self.dim + output] = error;
        }
        gradient
    }
}

impl Recipe for Settings {
    fn plan(&self) -> Plan<'_> {
        let Self { base_lr, held_out, batch, epochs, warmup_epochs, .. } = self;
        Plan { base_lr, held_out: *held_out, batch: *batch, epochs: *epochs, warmup_epochs: *warmup_epochs }
    }

    fn learner<'a>(&'a self, problem: &'a Problem<'a>, streams: &Streams) -> impl Learner + 'a {
        let layout = Layout { dim: problem.features.dim(), outputs: problem.present.len() };
        let mut parameters = vec![1.0; layout.dim];
        parameters.resize(2 * layout.dim, 0.0);
        let mut stream = streams.stream("probe-init", 0, 0);
        parameters.extend((0..layout.outputs * layout.dim).map(|_| self.init_std * normal(&mut stream)));
        parameters.resize(layout.len(), 0.0);
        Adam {
            settings: self,
            problem,
            identity: Affine { mean: vec![0.0; layout.dim], scale: vec![1.0; layout.dim] },
            first: vec![0.0; layout.len()],
            second: vec![0.0; layout.len()],
            step: 0,
            parameters,
            layout,
        }
    }
}

struct Adam<'a> {
    settings: &'a Settings,
    problem: &'a Problem<'a>,
    layout: Layout,
    /// The rows are normalised already.
    identity: Affine,
    parameters: Vec<f64>,
    first: Vec<f64>,
    second: Vec<f64>,
    step: i32,
}

impl Learner for Adam<'_> {
    fn step(&mut self, rows: &[usize], lr: f64) -> f64 {
        let Settings { beta1, beta2, weight_decay, .. } = *self.settings;
        let folded = self.layout.folded(&self.parameters);
        let (loss, folded) = self.problem.loss_and_gradient(rows, &self.identity, &folded);
        let gradient = self.layout.unfolded(&self.parameters, &folded);
        self.step += 1;
        let (corrected1, corrected2) = (1.0 - beta1.powi(self.step), 1.0 - beta2.powi(self.step));
        let decayed = self.layout.matrix();
        for (i, g) in gradient.into_iter().enumerate() {
            let (first, second) = (&mut self.first[i], &mut self.second[i]);
            *first = beta1 * *first + (1.0 - beta1) * g;
            *second = beta2 * *second + (1.0 - beta2) * g * g;
            if decayed.contains(&i) {
                self.parameters[i] *= 1.0 - lr * weight_decay;
            }
            let denominator = (*second / corrected2).sqrt() + 1e-8;
            self.parameters[i] -= lr * (*first / corrected1) / denominator;
        }
        loss
    }

    fn parameters(&self) -> &[f64] {
        &self.parameters
    }

    fn probe(self) -> Probe {
        self.problem.probe(self.identity, self.layout.folded(&self.parameters))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::RngExt;

    #[test]
    fn the_gradient_of_norm_and_layer_is_that_of_the_loss() {
        let mut rng = Streams::new(4).stream("test", 0, 0);
        let data = (0..40 * 3).map(|_| rng.random_range(-2.0..2.0)).collect();
        let ids = (0..40).map(|i| i.to_string()).collect();
        let features = Features::new(3, 2, data, (0..40).map(|i| i % 2).collect(), ids).unwrap();
        let problem = Problem::new(&features).unwrap();
        let layout = Layout { dim: 3, outputs: 2 };
        let identity = Affine { mean: vec![0.0; 3], scale: vec![1.0; 3] };
        let rows: Vec<usize> = (0..40).collect();
        let parameters: Vec<f64> = (0..layout.len()).map(|_| rng.random_range(-1.0..1.0)).collect();
        let loss =
            |parameters: &[f64]| problem.loss_and_gradient(&rows, &identity, &layout.folded(parameters)).0;
        let folded = problem.loss_and_gradient(&rows, &identity, &layout.folded(&parameters)).1;
        for (i, gradient) in layout.unfolded(&parameters, &folded).into_iter().enumerate() {
            let moved = |by: f64| {
                let mut moved = parameters.clone();
                moved[i] += by;
                loss(&moved)
            };
            let numeric = (moved(1e-5) - moved(-1e-5)) / 2e-5;
            assert!((gradient - numeric).abs() < 1e-7, "parameter {i}: {gradient} is not {numeric}");
        }
    }

    #[test]
    fn rows_become_mean_zero_and_variance_one() {
        let normed = normalise_rows(&[1.0, 3.0, 5.0, 5.0], 2, 1e-6);
        assert!((normed[0] + 1.0).abs() < 1e-5 && (normed[1] - 1.0).abs() < 1e-5);
        assert_eq!(normed[2..], [0.0, 0.0], "a constant row");
    }
}
