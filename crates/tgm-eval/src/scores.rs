//! How much each protocol believes in each class: the output of every protocol, the input of every metric.

use crate::{Error, Result};

/// Class scores of a set of clips, row-major `[clips, classes]`, all finite.
///
/// The protocols of this crate give probabilities (each row sums to 1), so that the scores of several views of a
/// clip can be averaged. Ties are resolved in favour of the lower class index, everywhere.
#[derive(Clone, Debug, PartialEq)]
pub struct Scores {
    classes: usize,
    data: Vec<f64>,
}

impl Scores {
    /// Takes `data` `[clips, classes]`.
    ///
    /// # Errors
    /// [`Error::Empty`] without clips or classes, [`Error::Length`] if `data` is not a whole number of rows,
    /// [`Error::NonFinite`] if a score is NaN or infinite.
    pub fn new(classes: usize, data: Vec<f64>) -> Result<Self> {
        for (missing, count) in [("classes", classes), ("rows", data.len())] {
            if count == 0 {
                return Err(Error::Empty { what: "scores", missing });
            }
        }
        if !data.len().is_multiple_of(classes) {
            let expected = data.len().next_multiple_of(classes);
            return Err(Error::Length { what: "scores", expected, got: data.len() });
        }
        if let Some(index) = data.iter().position(|score| !score.is_finite()) {
            return Err(Error::NonFinite { what: "scores", index, value: data[index] });
        }
        Ok(Self { classes, data })
    }

    /// Number of clips, at least 1.
    pub fn clips(&self) -> usize {
        self.data.len() / self.classes
    }

    /// Number of classes, at least 1.
    pub fn classes(&self) -> usize {
        self.classes
    }

    /// The scores of one clip, `[classes]`.
    ///
    /// # Panics
    /// If `clip` is not below [`Self::clips`].
    pub fn row(&self, clip: usize) -> &[f64] {
        &self.data[clip * self.classes..][..self.classes]
    }

    /// The scores of all clips in order.
    pub fn rows(&self) -> impl ExactSizeIterator<Item = &[f64]> {
        self.data.chunks_exact(self.classes)
    }

    /// The best class of every clip.
    pub fn predictions(&self) -> Vec<u32> {
        self.rows().map(argmax).collect()
    }

    /// How many classes are placed before `label` for this clip: 0 when it is the prediction.
    ///
    /// # Panics
    /// If `clip` is not below [`Self::clips`] or `label` not below [`Self::classes`].
    pub fn rank(&self, clip: usize, label: u32) -> usize {
        let row = self.row(clip);
        let label = label as usize;
        let own = row[label];
        row.iter()
            .enumerate()
            .filter(|&(class, &score)| score > own || (score == own && class < label))
            .count()
    }
}

/// The index of the largest value, the first of equals.
fn argmax(row: &[f64]) -> u32 {
    let mut best = 0;
    for (class, score) in row.iter().enumerate() {
        if *score > row[best] {
            best = class;
        }
    }
    best as u32
}

/// Replaces logits by probabilities and returns the logarithm of their normaliser.
pub(crate) fn softmax(logits: &mut [f64]) -> f64 {
    let max = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let mut sum = 0.0;
    for value in logits.iter_mut() {
        *value = (*value - max).exp();
        sum += *value;
    }
    for value in logits.iter_mut() {
        *value /= sum;
    }
    max + sum.ln()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_scores_go_to_the_lower_class() {
        let scores = Scores::new(4, vec![0.1, 0.4, 0.4, 0.1]).unwrap();
        assert_eq!(scores.predictions(), [1]);
        assert_eq!([0, 1, 2, 3].map(|label| scores.rank(0, label)), [2, 0, 1, 3]);
    }

    #[test]
    fn scores_that_are_not_numbers_are_refused() {
        assert!(matches!(Scores::new(2, vec![0.0, f64::NAN]), Err(Error::NonFinite { index: 1, .. })));
    }

    #[test]
    fn half_a_row_is_refused() {
        assert!(matches!(Scores::new(2, vec![0.0; 3]), Err(Error::Length { expected: 4, got: 3, .. })));
    }

    #[test]
    fn softmax_survives_large_logits() {
        let mut logits = [1000.0, 1000.0, -1000.0];
        assert_eq!(softmax(&mut logits), 1000.0 + 2f64.ln());
        assert_eq!(logits, [0.5, 0.5, 0.0]);
    }
}
