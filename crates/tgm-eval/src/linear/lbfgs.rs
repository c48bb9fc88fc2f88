//! L-BFGS: minimises a smooth convex function from its gradients.
//!
//! Nocedal & Wright, *Numerical Optimization*, algorithms 7.4 and 7.5, with the bisecting weak-Wolfe line search of
//! Lewis & Overton (2013), which needs no interpolation and cannot stall on a convex function.

use crate::dense::{add_scaled, dot};
use std::collections::VecDeque;

/// Pairs of steps and gradient changes remembered.
const MEMORY: usize = 10;

/// Where the search ended.
#[derive(Clone, Debug)]
pub(crate) struct Minimum {
    pub(crate) x: Vec<f64>,
    pub(crate) value: f64,
    /// Largest absolute component of the gradient.
    pub(crate) gradient: f64,
    pub(crate) iterations: usize,
}

struct Point {
    x: Vec<f64>,
    value: f64,
    gradient: Vec<f64>,
}

impl Point {
    fn at(x: Vec<f64>, function: &impl Fn(&[f64]) -> (f64, Vec<f64>)) -> Self {
        let (value, gradient) = function(&x);
        Self { x, value, gradient }
    }
}

/// Follows `function` (value and gradient) downhill from `start` until no component of the gradient exceeds
/// `tolerance`, `max_iterations` are done, or rounding allows no further descent.
pub(crate) fn minimise(
    start: Vec<f64>,
    tolerance: f64,
    max_iterations: usize,
    function: impl Fn(&[f64]) -> (f64, Vec<f64>),
) -> Minimum {
    let mut history: VecDeque<Pair> = VecDeque::with_capacity(MEMORY);
    let mut here = Point::at(start, &function);
    let mut iterations = 0;
    while iterations < max_iterations && largest(&here.gradient) > tolerance {
        let direction = descent(&here.gradient, &history);
        let Some(next) = line_search(&here, &direction, &function) else { break };
        if history.len() == MEMORY {
            history.pop_front();
        }
        history.extend(Pair::between(&here, &next));
        here = next;
        iterations += 1;
    }
    Minimum { gradient: largest(&here.gradient), x: here.x, value: here.value, iterations }
}

/// A step and what it did to the gradient: one sample of the curvature.
struct Pair {
    step: Vec<f64>,
    change: Vec<f64>,
    inverse_curvature: f64,
}

impl Pair {
    /// `None` if rounding hides the curvature.
    fn between(from: &Point, to: &Point) -> Option<Self> {
        let step = subtract(&to.x, &from.x);
        let change = subtract(&to.gradient, &from.gradient);
        let curvature = dot(&step, &change);
        (curvature > 0.0).then(|| Self { step, change, inverse_curvature: 1.0 / curvature })
    }
}

/// Minus the gradient times the estimated inverse Hessian (the two-loop recursion).
fn descent(gradient: &[f64], history: &VecDeque<Pair>) -> Vec<f64> {
    let mut direction: Vec<f64> = gradient.iter().map(|g| -g).collect();
    let mut factors = Vec::with_capacity(history.len());
    for pair in history.iter().rev() {
        let factor = pair.inverse_curvature * dot(&pair.step, &direction);
        add_scaled(&mut direction, -factor, &pair.change);
        factors.push(factor);
    }
    let scale = match history.back() {
        Some(pair) => 1.0 / (pair.inverse_curvature * dot(&pair.change, &pair.change)),
        None => 1.0 / dot(gradient, gradient).sqrt(),
    };
    direction.iter_mut().for_each(|d| *d *= scale);
    for (pair, factor) in history.iter().zip(factors.into_iter().rev()) {
        let correction = pair.inverse_curvature * dot(&pair.change, &direction);
        add_scaled(&mut direction, factor - correction, &pair.step);
    }
    direction
}

/// A step that lowers the value enough and flattens the slope enough; `None` if there is none within rounding.
fn line_search(
    from: &Point,
    direction: &[f64],
    function: &impl Fn(&[f64]) -> (f64, Vec<f64>),
) -> Option<Point> {
    const SUFFICIENT_DECREASE: f64 = 1e-4;
    const CURVATURE: f64 = 0.9;
    const TRIALS: usize = 40;
    let slope = dot(&from.gradient, direction);
    let (mut low, mut high, mut length) = (0.0, f64::INFINITY, 1.0);
    for _ in 0..TRIALS {
        let mut x = from.x.clone();
        add_scaled(&mut x, length, direction);
        let to = Point::at(x, function);
        let enough = from.value + SUFFICIENT_DECREASE * length * slope;
        if to.value.is_nan() || to.value > enough {
            high = length;
        } else if dot(&to.gradient, direction) < CURVATURE * slope {
            low = length;
        } else {
            return Some(to);
        }
        length = if high.is_finite() { 0.5 * (low + high) } else { 2.0 * low };
    }
    None
}

fn subtract(a: &[f64], b: &[f64]) -> Vec<f64> {
    a.iter().zip(b).map(|(a, b)| a - b).collect()
}

fn largest(gradient: &[f64]) -> f64 {
    gradient.iter().fold(0.0, |largest, g| g.abs().max(largest))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Σ i²(x_i − i)² for i = 1…: condition number n².
    fn bowl(x: &[f64]) -> (f64, Vec<f64>) {
        let terms = x.iter().zip(1..).map(|(x, i)| (x - f64::from(i), f64::from(i * i)));
        let value = terms.clone().map(|(d, w)| w * d * d).sum();
        (value, terms.map(|(d, w)| 2.0 * w * d).collect())
    }

    /// SciPy's L-BFGS-B with the same memory needs 437 iterations.
    #[test]
    fn the_bottom_of_an_ill_conditioned_bowl_is_found() {
        let minimum = minimise(vec![0.0; 50], 1e-9, 500, bowl);
        assert!(minimum.gradient <= 1e-9, "{minimum:?}");
        for (x, i) in minimum.x.iter().zip(1..) {
            assert!((x - f64::from(i)).abs() < 1e-9);
        }
    }

    #[test]
    fn a_curved_valley_is_followed() {
        let rosenbrock = |x: &[f64]| {
            let (a, b) = (1.0 - x[0], x[1] - x[0] * x[0]);
            (a * a + 100.0 * b * b, vec![-2.0 * a - 400.0 * x[0] * b, 200.0 * b])
        };
        let minimum = minimise(vec![-1.2, 1.0], 1e-9, 200, rosenbrock);
        assert!(minimum.gradient <= 1e-9, "{minimum:?}");
        assert!((minimum.x[0] - 1.0).abs() < 1e-6 && (minimum.x[1] - 1.0).abs() < 1e-6);
    }

    #[test]
    fn it_stops_at_the_minimum_and_at_the_limit() {
        assert_eq!(minimise(vec![1.0, 2.0], 1e-9, 100, bowl).iterations, 0);
        assert_eq!(minimise(vec![0.0; 50], 0.0, 3, bowl).iterations, 3);
    }

    #[test]
    fn an_unreachable_tolerance_ends_where_rounding_does() {
        let minimum = minimise(vec![0.3; 5], 0.0, 100_000, |x| {
            let value: f64 = x.iter().map(|x| x.cosh()).sum();
            (value, x.iter().map(|x| x.sinh()).collect())
        });
        assert!(minimum.gradient < 1e-6 && minimum.iterations < 1000, "{minimum:?}");
    }
}
