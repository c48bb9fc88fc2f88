//! A trained linear classifier: what it knows, what it answers, and its way into files.

use super::adamw::normalise_rows;
use super::softmax;
use super::standardise::Affine;
use crate::scores::softmax as to_probabilities;
use crate::{Error, Features, Result, Scores};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

/// A trained linear classifier.
///
/// Logits are `coefficients · (x − mean) · scale + intercept`, where `x` is a row of features, brought to mean 0 and
/// variance 1 first if there is a [`row_norm`](Self::row_norm). Classes without a train clip have no logit; their
/// probability is 0.
///
/// It can be written and read by serde. (serde_json reads numbers to the last bit only with its feature `float_roundtrip`.)
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Stored")]
pub struct Probe {
    pub(super) dim: usize,
    pub(super) classes: usize,
    /// The classes that have train clips, ascending.
    pub(super) present: Vec<u32>,
    /// Added to the variance of every row, which is brought to mean 0 and variance 1 first; `None` leaves rows as they are.
    pub(super) row_norm: Option<f64>,
    pub(super) standardise: Affine,
    /// `[present, dim]` coefficients, then `[present]` intercepts.
    pub(super) parameters: Vec<f64>,
}

/// A probe as it is read, before it is checked.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Stored {
    dim: usize,
    classes: usize,
    present: Vec<u32>,
    row_norm: Option<f64>,
    standardise: Affine,
    parameters: Vec<f64>,
}

impl TryFrom<Stored> for Probe {
    type Error = Error;

    fn try_from(stored: Stored) -> Result<Self> {
        let Stored { dim, classes, present, row_norm, standardise, parameters } = stored;
        for (missing, count) in [("columns", dim), ("classes", present.len())] {
            if count == 0 {
                return Err(Error::Empty { what: "probe", missing });
            }
        }
        for (what, expected, got) in [
            ("mean of the probe", dim, standardise.mean.len()),
            ("scale of the probe", dim, standardise.scale.len()),
            (
                "parameters of the probe",
                dim.saturating_add(1).saturating_mul(present.len()),
                parameters.len(),
            ),
        ] {
            if expected != got {
                return Err(Error::Length { what, expected, got });
            }
        }
        let below = present.last().is_some_and(|&label| (label as usize) < classes);
        if !(below && present.is_sorted_by(|a, b| a < b)) {
            let allowed = "must be ascending, and below the number of classes";
            return Err(Error::setting("present", format!("{present:?}"), allowed));
        }
        if let Some(eps) = row_norm.filter(|eps| !(*eps > 0.0 && eps.is_finite())) {
            return Err(Error::setting("row_norm", eps, "must be positive"));
        }
        Ok(Self { dim, classes, present, row_norm, standardise, parameters })
    }
}

impl Probe {
    /// Length of the feature vectors that it takes.
    pub fn dim(&self) -> usize {
        self.dim
    }

    /// Number of classes, those without a train clip counted.
    pub fn classes(&self) -> usize {
        self.classes
    }

    /// The classes that have train clips, ascending.
    pub fn present(&self) -> &[u32] {
        &self.present
    }

    /// `[present, dim]`, for standardised features.
    pub fn coefficients(&self) -> &[f64] {
        &self.parameters[..self.present.len() * self.dim]
    }

    /// `[present]`.
    pub fn intercepts(&self) -> &[f64] {
        &self.parameters[self.present.len() * self.dim..]
    }

    /// What is subtracted from each column, `[dim]`.
    pub fn mean(&self) -> &[f64] {
        &self.standardise.mean
    }

    /// What the difference to the mean is multiplied with, `[dim]`.
    pub fn scale(&self) -> &[f64] {
        &self.standardise.scale
    }

    /// If every row is brought to mean 0 and variance 1 before all else: what is added to its variance.
    pub fn row_norm(&self) -> Option<f64> {
        self.row_norm
    }

    /// Class probabilities of every clip.
    ///
    /// # Errors
    /// [`Error::Mismatch`] if the features are not of the kind that the probe was trained on.
    pub fn classify(&self, test: &Features) -> Result<Scores> {
        for (what, train, test) in
            [("the feature size", self.dim, test.dim()), ("classes", self.classes, test.classes())]
        {
            if train != test {
                return Err(Error::Mismatch { what, train, test });
            }
        }
        self.probabilities(test.data())
    }

    /// The best class of every row of `features`, `[clips, dim]`, which need no labels.
    ///
    /// # Errors
    /// As [`Self::probabilities`].
    pub fn predict(&self, features: &[f32]) -> Result<Vec<u32>> {
        Ok(self.probabilities(features)?.predictions())
    }

    /// Class probabilities `[clips, classes]` of every row of `features`, `[clips, dim]`, which need no labels.
    ///
    /// # Errors
    /// [`Error::Empty`] without rows, [`Error::Length`] for half a row, [`Error::NonFiniteFeature`] for NaN or infinity.
    pub fn probabilities(&self, features: &[f32]) -> Result<Scores> {
        if features.is_empty() {
            return Err(Error::Empty { what: "features", missing: "rows" });
        }
        if !features.len().is_multiple_of(self.dim) {
            let expected = features.len().next_multiple_of(self.dim);
            return Err(Error::Length { what: "features", expected, got: features.len() });
        }
        if let Some(at) = features.iter().position(|value| !value.is_finite()) {
            let id = format!("number {}", at / self.dim);
            return Err(Error::NonFiniteFeature { id, column: at % self.dim, value: features[at] });
        }
        let normed = self.row_norm.map(|eps| normalise_rows(features, self.dim, eps));
        let features = normed.as_deref().unwrap_or(features);
        let tiles = features.par_chunks(softmax::TILE * self.dim).flat_map_iter(|tile| self.of_tile(tile));
        Scores::new(self.classes, tiles.collect())
    }

    /// Class probabilities of a few clips, `[clips, classes]`.
    fn of_tile(&self, rows: &[f32]) -> Vec<f64> {
        let logits =
            softmax::Tile::new(rows.chunks_exact(self.dim), &self.standardise).logits(&self.parameters);
        let mut scores = vec![0.0; rows.len() / self.dim * self.classes];
        for (scores, logits) in scores.chunks_mut(self.classes).zip(logits.chunks(self.present.len())) {
            let mut probabilities = logits.to_vec();
            to_probabilities(&mut probabilities);
            for (&class, probability) in self.present.iter().zip(probabilities) {
                scores[class as usize] = probability;
            }
        }
        scores
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::linear::{adamw, logistic};
    use rand::RngExt;
    use serde_json::json;
    use tgm_random::Streams;

    fn clips(set: &str, count: usize) -> Features {
        let mut rng = Streams::new(3).stream(set, 0, 0);
        let labels: Vec<u32> = (0..count as u32).map(|clip| [0, 2][clip as usize % 2]).collect();
        let value = |label: u32, column: u32| f32::from(u8::from(label == column));
        let data = labels.iter().flat_map(|&label| (0..3).map(move |column| value(label, column)));
        let data = data.map(|value| value + rng.random_range(-0.8..0.8f32)).collect();
        Features::numbered(set, 3, 4, data, labels).unwrap()
    }

    /// One that takes rows as they are, and one that normalises them.
    fn probes() -> [Probe; 2] {
        let (train, streams) = (clips("train", 40), Streams::new(1));
        let one = logistic::Settings { c: vec![1.0], ..Default::default() };
        let other = adamw::Settings { base_lr: vec![0.1], ..Default::default() };
        [logistic::fit(&train, &one, &streams).unwrap().0, adamw::fit(&train, &other, &streams).unwrap().0]
    }

    #[test]
    fn clips_without_labels_get_the_answers_of_those_with_labels() {
        let test = clips("test", 37);
        for probe in probes() {
            let scores = probe.classify(&test).unwrap();
            assert_eq!(probe.probabilities(test.data()).unwrap(), scores);
            assert_eq!(probe.predict(test.data()).unwrap(), scores.predictions());
            assert_eq!(probe.predict(test.row(5)).unwrap(), scores.predictions()[5..6], "alone");
        }
    }

    #[test]
    fn what_a_probe_says_of_itself_is_enough_to_compute_its_answers() {
        let test = clips("test", 5);
        let [logistic, by_rows] = probes();
        assert_eq!((logistic.row_norm(), by_rows.row_norm()), (None, Some(1e-6)));
        for probe in [logistic, by_rows] {
            for (clip, scores) in probe.classify(&test).unwrap().rows().enumerate() {
                let row = match probe.row_norm() {
                    Some(eps) => normalise_rows(test.row(clip), probe.dim(), eps),
                    None => test.row(clip).to_vec(),
                };
                let logit = |(coefficients, intercept): (&[f64], &f64)| {
                    let columns = row.iter().zip(probe.mean()).zip(probe.scale()).zip(coefficients);
                    columns.map(|(((&x, mean), scale), c)| (f64::from(x) - mean) * scale * c).sum::<f64>()
                        + intercept
                };
                let mut logits: Vec<f64> =
                    probe.coefficients().chunks(probe.dim()).zip(probe.intercepts()).map(logit).collect();
                to_probabilities(&mut logits);
                assert_eq!((probe.present(), scores[1], scores[3]), (&[0, 2][..], 0.0, 0.0));
                assert!((logits[0] - scores[0]).abs() < 1e-12 && (logits[1] - scores[2]).abs() < 1e-12);
            }
        }
    }

    #[test]
    fn a_probe_that_was_written_and_read_gives_the_same_answers() {
        let test = clips("test", 37);
        for probe in probes() {
            let read: Probe = serde_json::from_str(&serde_json::to_string(&probe).unwrap()).unwrap();
            assert_eq!((read.present(), read.row_norm()), (probe.present(), probe.row_norm()));
            let (ours, its) = (probe.classify(&test).unwrap(), read.classify(&test).unwrap());
            let pairs = ours.rows().flatten().zip(its.rows().flatten());
            assert!(pairs.into_iter().all(|(a, b)| (a - b).abs() < 1e-12));
        }
    }

    #[test]
    fn a_probe_that_cannot_be_is_not_read() {
        let written = serde_json::to_value(&probes()[0]).unwrap();
        for (key, value, part) in [
            ("dim", json!(2), "mean of the probe"),
            ("dim", json!(0), "no columns"),
            ("classes", json!(2), "`present` is [0, 2]"),
            ("present", json!([2, 0]), "must be ascending"),
            ("present", json!([]), "no classes"),
            ("parameters", json!([0.0, 1.0]), "parameters of the probe"),
            ("row_norm", json!(-1.0), "row_norm"),
        ] {
            let mut changed = written.clone();
            changed[key] = value;
            let error = serde_json::from_value::<Probe>(changed).unwrap_err().to_string();
            assert!(error.contains(part), "{key}: {error}");
        }
    }

    #[test]
    fn features_that_are_no_rows_or_no_numbers_are_refused() {
        let [probe, _] = probes();
        assert!(matches!(probe.predict(&[]), Err(Error::Empty { missing: "rows", .. })));
        assert!(matches!(probe.predict(&[0.0; 4]), Err(Error::Length { expected: 6, got: 4, .. })));
        let error = probe.predict(&[0.0, 0.0, 0.0, 0.0, f32::NAN, 0.0]).unwrap_err();
        assert!(
            matches!(&error, Error::NonFiniteFeature { id, column: 1, .. } if id == "number 1"),
            "{error}"
        );
    }
}
