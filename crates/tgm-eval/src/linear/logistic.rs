//! Multinomial logistic regression with an L2 penalty: the same objective as scikit-learn's `LogisticRegression`.
//!
//! Minimises mean cross-entropy + ‖W‖² / (2·C·clips) over features standardised with the statistics of the clips
//! trained on; intercepts are not penalised. With two classes this stays the symmetric softmax form, which equals
//! scikit-learn's binary form at 2·C.

use super::select::{Selection, check_candidates, select};
use super::softmax::Problem;
use super::standardise::Moments;
use super::{Probe, lbfgs};
use crate::{Error, Features, Result, dense};
use serde::{Deserialize, Serialize};
use tgm_random::Streams;

/// Settings of the recipe.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Inverse strengths of the penalty; several are compared on held-out train clips. Default 10⁻⁴, 10⁻³, … 10².
    pub c: Vec<f64>,
    /// Share of each class's train clips held out for that comparison. Default 0.2.
    pub held_out: f64,
    /// The optimum is reached when no component of the gradient exceeds this. Default 10⁻⁶.
    pub tolerance: f64,
    /// Limit on L-BFGS iterations. Default 1,000.
    pub max_iterations: usize,
}

impl Default for Settings {
    fn default() -> Self {
        let c = vec![1e-4, 1e-3, 1e-2, 1e-1, 1.0, 1e1, 1e2];
        Self { c, held_out: 0.2, tolerance: 1e-6, max_iterations: 1000 }
    }
}

impl Settings {
    pub(crate) fn check(&self) -> Result<()> {
        if self.tolerance.is_nan() || self.tolerance < 0.0 {
            return Err(Error::setting("tolerance", self.tolerance, "must not be negative"));
        }
        if self.max_iterations == 0 {
            return Err(Error::setting("max_iterations", 0, "must be positive"));
        }
        check_candidates("c", &self.c, self.held_out)
    }
}

/// What was done, for the record.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    /// The settings asked for.
    pub settings: Settings,
    /// The seed that the held-out clips were drawn with.
    pub seed: u64,
    /// How `c` was chosen, `None` if only one value was given.
    pub selection: Option<Selection>,
    /// The value of C used for the final training on all of train.
    pub c: f64,
    /// L-BFGS iterations of the final training.
    pub iterations: usize,
    /// Largest absolute component of the gradient at the end.
    pub gradient: f64,
    /// Whether that is within the tolerance. If not, allow more iterations.
    pub converged: bool,
    /// The objective at the end: mean cross-entropy in nats plus penalty.
    pub objective: f64,
}

/// Chooses C on held-out train clips, then trains on all of train.
///
/// # Errors
/// [`Error::OneClass`], [`Error::NoHoldout`], or [`Error::Setting`] for values out of range.
pub fn fit(train: &Features, settings: &Settings, streams: &Streams) -> Result<(Probe, Report)> {
    settings.check()?;
    let problem = Problem::new(train)?;
    let (c, selection) = select("c", &settings.c, settings.held_out, train, streams, |c, rows| {
        Ok(solve(&problem, rows, c, settings).0)
    })?;
    let rows: Vec<usize> = (0..train.clips()).collect();
    let (probe, end) = solve(&problem, &rows, c, settings);
    let report = Report {
        settings: settings.clone(),
        seed: streams.seed(),
        selection,
        c,
        iterations: end.iterations,
        gradient: end.gradient,
        converged: end.gradient <= settings.tolerance,
        objective: end.value,
    };
    Ok((probe, report))
}

fn solve(problem: &Problem<'_>, rows: &[usize], c: f64, settings: &Settings) -> (Probe, lbfgs::Minimum) {
    let standardise = Moments::of(problem.features, rows).to_unit_variance();
    let penalty = 1.0 / (c * rows.len() as f64);
    let penalised = problem.present.len() * problem.features.dim();
    let objective = |parameters: &[f64]| {
        let (loss, mut gradient) = problem.loss_and_gradient(rows, &standardise, parameters);
        let coefficients = &parameters[..penalised];
        dense::add_scaled(&mut gradient[..penalised], penalty, coefficients);
        (loss + 0.5 * penalty * dense::dot(coefficients, coefficients), gradient)
    };
    let start = vec![0.0; problem.parameters()];
    let end = lbfgs::minimise(start, settings.tolerance, settings.max_iterations, objective);
    (problem.probe(standardise, end.x.clone()), end)
}
