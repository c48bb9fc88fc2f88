//! The loss that both recipes minimise: mean cross-entropy of an affine layer on standardised features.

use super::Probe;
use super::standardise::Affine;
use crate::scores::softmax;
use crate::{Error, Features, Result, dense};
use rayon::prelude::*;

/// Clips handled together, so that a class's coefficients are fetched from memory once for all of them.
pub(crate) const TILE: usize = 16;

/// Train clips, with labels counted among the classes that occur.
pub(crate) struct Problem<'a> {
    pub(crate) features: &'a Features,
    /// The labels that occur, ascending.
    pub(crate) present: Vec<u32>,
    /// Index into `present`, for every clip.
    targets: Vec<usize>,
}

impl<'a> Problem<'a> {
    /// # Errors
    /// [`Error::OneClass`] unless at least two classes occur.
    pub(crate) fn new(features: &'a Features) -> Result<Self> {
        let mut present = features.labels().to_vec();
        present.sort_unstable();
        present.dedup();
        if let [label] = present[..] {
            return Err(Error::OneClass { label });
        }
        let target = |label: &u32| present.partition_point(|other| other < label);
        let targets = features.labels().iter().map(target).collect();
        Ok(Self { features, present, targets })
    }

    /// Number of parameters: coefficients `[present, dim]`, then intercepts `[present]`.
    pub(crate) fn parameters(&self) -> usize {
        self.present.len() * (self.features.dim() + 1)
    }

    /// The classifier with these parameters.
    pub(crate) fn probe(&self, standardise: Affine, parameters: Vec<f64>) -> Probe {
        let (dim, classes) = (self.features.dim(), self.features.classes());
        Probe { dim, classes, present: self.present.clone(), row_norm: None, standardise, parameters }
    }

    /// Mean cross-entropy over `rows`, and its gradient with respect to the parameters.
    ///
    /// The rows are cut into parts by their number alone and the parts are added in order: the result is the
    /// same for any number of threads.
    pub(crate) fn loss_and_gradient(
        &self,
        rows: &[usize],
        standardise: &Affine,
        parameters: &[f64],
    ) -> (f64, Vec<f64>) {
        const MOST_PARTS: usize = 16; // each holds a gradient
        let part = rows.len().div_ceil(MOST_PARTS).max(4 * TILE);
        let parts: Vec<_> =
            rows.par_chunks(part).map(|rows| self.summed(rows, standardise, parameters)).collect();
        let scale = 1.0 / rows.len() as f64;
        let mut gradient = vec![0.0; parameters.len()];
        let mut loss = 0.0;
        for (part_loss, part_gradient) in parts {
            loss += scale * part_loss;
            dense::add_scaled(&mut gradient, scale, &part_gradient);
        }
        (loss, gradient)
    }

    fn summed(&self, rows: &[usize], standardise: &Affine, parameters: &[f64]) -> (f64, Vec<f64>) {
        let mut gradient = vec![0.0; parameters.len()];
        let mut loss = 0.0;
        for rows in rows.chunks(TILE) {
            let tile = Tile::new(rows.iter().map(|&row| self.features.row(row)), standardise);
            let mut errors = tile.logits(parameters);
            for (row, errors) in rows.iter().zip(errors.chunks_mut(self.present.len())) {
                let target = self.targets[*row];
                let logit = errors[target];
                loss += softmax(errors) - logit;
                errors[target] -= 1.0;
            }
            tile.add_gradient(&errors, &mut gradient);
        }
        (loss, gradient)
    }
}

/// A few standardised clips.
pub(crate) struct Tile {
    dim: usize,
    data: Vec<f64>,
}

impl Tile {
    pub(crate) fn new<'a>(rows: impl ExactSizeIterator<Item = &'a [f32]>, standardise: &Affine) -> Self {
        let dim = standardise.mean.len();
        let mut data = Vec::with_capacity(rows.len() * dim);
        for row in rows {
            let columns = row.iter().zip(&standardise.mean).zip(&standardise.scale);
            data.extend(columns.map(|((&x, mean), scale)| (f64::from(x) - mean) * scale));
        }
        Self { dim, data }
    }

    /// `[clips, outputs]` of the layer with these parameters.
    pub(crate) fn logits(&self, parameters: &[f64]) -> Vec<f64> {
        let outputs = parameters.len() / (self.dim + 1);
        let (coefficients, intercepts) = parameters.split_at(outputs * self.dim);
        let mut logits = vec![0.0; self.data.len() / self.dim * outputs];
        for (output, coefficients) in coefficients.chunks_exact(self.dim).enumerate() {
            for (clip, x) in self.data.chunks_exact(self.dim).enumerate() {
                logits[clip * outputs + output] = dense::dot(x, coefficients) + intercepts[output];
            }
        }
        logits
    }

    /// Adds the gradient of the parameters, given that of the logits, `[clips, outputs]`.
    fn add_gradient(&self, errors: &[f64], gradient: &mut [f64]) {
        let outputs = gradient.len() / (self.dim + 1);
        let (coefficients, intercepts) = gradient.split_at_mut(outputs * self.dim);
        for (output, coefficients) in coefficients.chunks_exact_mut(self.dim).enumerate() {
            for (clip, x) in self.data.chunks_exact(self.dim).enumerate() {
                let error = errors[clip * outputs + output];
                dense::add_scaled(coefficients, error, x);
                intercepts[output] += error;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::standardise::Moments;
    use super::*;
    use rand::RngExt;

    fn random(clips: usize, dim: usize, classes: u32) -> Features {
        let mut rng = tgm_random::Streams::new(9).stream("test", 0, 0);
        let data = (0..clips * dim).map(|_| rng.random_range(-2.0..2.0)).collect();
        let labels = (0..clips as u32).map(|i| i % classes).collect();
        let ids = (0..clips).map(|i| i.to_string()).collect();
        Features::new(dim, classes as usize, data, labels, ids).unwrap()
    }

    #[test]
    fn the_gradient_is_that_of_the_loss() {
        let features = random(150, 5, 3); // several parts and a partial tile
        let problem = Problem::new(&features).unwrap();
        let rows: Vec<usize> = (0..150).filter(|row| row % 7 != 0).collect();
        let standardise = Moments::of(&features, &rows).to_unit_variance();
        let at: Vec<f64> = (0..problem.parameters()).map(|i| (i as f64).sin()).collect();
        let (_, gradient) = problem.loss_and_gradient(&rows, &standardise, &at);
        for i in 0..at.len() {
            let loss = |step: f64| {
                let mut moved = at.clone();
                moved[i] += step;
                problem.loss_and_gradient(&rows, &standardise, &moved).0
            };
            let numeric = (loss(1e-5) - loss(-1e-5)) / 2e-5;
            assert!((numeric - gradient[i]).abs() < 1e-9, "parameter {i}: {numeric} {}", gradient[i]);
        }
    }

    #[test]
    fn without_parameters_the_loss_is_the_logarithm_of_the_number_of_classes() {
        let features = random(30, 4, 3);
        let problem = Problem::new(&features).unwrap();
        let rows: Vec<usize> = (0..30).collect();
        let standardise = Moments::of(&features, &rows).to_unit_variance();
        let (loss, _) = problem.loss_and_gradient(&rows, &standardise, &vec![0.0; problem.parameters()]);
        assert!((loss - 3f64.ln()).abs() < 1e-12);
    }

    #[test]
    fn the_sum_does_not_depend_on_the_number_of_threads() {
        let features = random(1000, 7, 4);
        let problem = Problem::new(&features).unwrap();
        let rows: Vec<usize> = (0..1000).collect();
        let standardise = Moments::of(&features, &rows).to_unit_variance();
        let at: Vec<f64> = (0..problem.parameters()).map(|i| (i as f64).cos()).collect();
        let with = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| problem.loss_and_gradient(&rows, &standardise, &at))
        };
        assert_eq!(with(1), with(5));
    }
}
