//! Accuracy in its usual forms, and the numbers that any accuracy must be compared with.

use crate::{Error, Result, Scores};
use serde::Serialize;

/// How often each class was answered for each class.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Confusion {
    /// `counts[label][prediction]`.
    counts: Vec<Vec<u64>>,
}

impl Confusion {
    /// Counts the predictions of `scores` against the true labels.
    ///
    /// # Errors
    /// [`Error::Length`] or [`Error::Label`] if the labels do not fit the scores.
    pub fn new(scores: &Scores, labels: &[u32]) -> Result<Self> {
        check(scores, labels)?;
        let mut counts = vec![vec![0; scores.classes()]; scores.classes()];
        for (prediction, &label) in scores.predictions().into_iter().zip(labels) {
            counts[label as usize][prediction as usize] += 1;
        }
        Ok(Self { counts })
    }

    /// `[classes][classes]`: rows are true labels, columns predictions.
    pub fn counts(&self) -> &[Vec<u64>] {
        &self.counts
    }

    /// Share of right answers (top-1).
    pub fn accuracy(&self) -> f64 {
        let right: u64 = self.counts.iter().enumerate().map(|(class, row)| row[class]).sum();
        let all: u64 = self.counts.iter().flatten().sum();
        right as f64 / all as f64
    }

    /// Share of right answers among the clips of each class, `None` for a class without clips.
    pub fn per_class(&self) -> Vec<Option<f64>> {
        let accuracy = |(class, row): (usize, &Vec<u64>)| {
            let clips: u64 = row.iter().sum();
            (clips > 0).then(|| row[class] as f64 / clips as f64)
        };
        self.counts.iter().enumerate().map(accuracy).collect()
    }

    /// Mean of [`Self::per_class`] over the classes that have clips (also called balanced accuracy).
    pub fn mean_class_accuracy(&self) -> f64 {
        let present: Vec<f64> = self.per_class().into_iter().flatten().collect();
        present.iter().sum::<f64>() / present.len() as f64
    }
}

/// For every clip 1 if its label is among the `k` best classes, else 0.
///
/// The mean of it is the top-k accuracy; [`crate::bootstrap`] gives that mean its interval.
///
/// # Errors
/// [`Error::Length`] or [`Error::Label`] if the labels do not fit the scores; [`Error::Setting`] unless
/// 1 ≤ `k` ≤ classes.
pub fn top_k_hits(scores: &Scores, labels: &[u32], k: usize) -> Result<Vec<f64>> {
    check(scores, labels)?;
    if !(1..=scores.classes()).contains(&k) {
        return Err(Error::setting("k of top-k", k, "must lie between 1 and the number of classes"));
    }
    let hit = |(clip, &label): (usize, &u32)| f64::from(u8::from(scores.rank(clip, label) < k));
    Ok(labels.iter().enumerate().map(hit).collect())
}

/// Share of clips whose label is among the `k` best classes.
///
/// # Errors
/// As [`top_k_hits`].
pub fn top_k_accuracy(scores: &Scores, labels: &[u32], k: usize) -> Result<f64> {
    let hits = top_k_hits(scores, labels, k)?;
    Ok(hits.iter().sum::<f64>() / hits.len() as f64)
}

/// Accuracy of guessing at random: 1 / classes.
pub fn chance(classes: usize) -> f64 {
    1.0 / classes as f64
}

/// Share of the test clips that have the label most frequent in train: the accuracy of always giving that answer.
///
/// Among equally frequent labels the lowest is taken. 0 if either set is empty.
pub fn majority_share(train: &[u32], test: &[u32]) -> f64 {
    let mut sorted = train.to_vec();
    sorted.sort_unstable();
    let (mut majority, mut clips) = (None, 0);
    for run in sorted.chunk_by(|a, b| a == b) {
        if run.len() > clips {
            (majority, clips) = (Some(run[0]), run.len());
        }
    }
    let hits = test.iter().filter(|&&label| Some(label) == majority).count();
    hits as f64 / test.len().max(1) as f64
}

fn check(scores: &Scores, labels: &[u32]) -> Result<()> {
    if labels.len() != scores.clips() {
        return Err(Error::Length { what: "labels", expected: scores.clips(), got: labels.len() });
    }
    let classes = scores.classes();
    match labels.iter().position(|&label| label as usize >= classes) {
        Some(clip) => Err(Error::Label { id: format!("number {clip}"), label: labels[clip], classes }),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Scores that predict `classes` with certainty.
    fn answers(classes: usize, predictions: &[usize]) -> Scores {
        let row = |&p: &usize| (0..classes).map(move |c| f64::from(u8::from(c == p)));
        Scores::new(classes, predictions.iter().flat_map(row).collect()).unwrap()
    }

    #[test]
    fn a_class_without_clips_has_no_accuracy_and_does_not_lower_the_mean() {
        let confusion = Confusion::new(&answers(3, &[0, 2, 2, 2, 2]), &[0, 0, 0, 0, 2]).unwrap();
        assert_eq!(confusion.counts(), [[1, 0, 3], [0, 0, 0], [0, 0, 1]]);
        assert_eq!(confusion.per_class(), [Some(0.25), None, Some(1.0)]);
        assert_eq!(confusion.mean_class_accuracy(), 0.625);
        assert_eq!(confusion.accuracy(), 0.4);
    }

    #[test]
    fn top_k_of_all_classes_is_one_and_beyond_is_refused() {
        let scores = answers(3, &[0, 1]);
        assert_eq!(top_k_accuracy(&scores, &[2, 2], 3).unwrap(), 1.0);
        assert!(matches!(top_k_accuracy(&scores, &[2, 2], 4), Err(Error::Setting { .. })));
        assert!(matches!(top_k_accuracy(&scores, &[2, 2], 0), Err(Error::Setting { .. })));
    }

    #[test]
    fn labels_that_do_not_fit_the_scores_are_refused() {
        let scores = answers(3, &[0, 1]);
        assert!(matches!(Confusion::new(&scores, &[0]), Err(Error::Length { expected: 2, got: 1, .. })));
        assert!(matches!(Confusion::new(&scores, &[0, 3]), Err(Error::Label { label: 3, .. })));
    }

    #[test]
    fn the_majority_class_is_that_of_train_scored_on_test() {
        assert_eq!(majority_share(&[2, 1, 1], &[2, 2, 1, 0]), 0.25);
        assert_eq!(majority_share(&[2, 1], &[2, 2, 1, 0]), 0.25, "the lower of equally frequent labels");
        assert_eq!(majority_share(&[], &[0]), 0.0);
    }

    #[test]
    fn chance_is_one_over_classes() {
        assert_eq!(chance(10), 0.1);
    }
}
