//! Several views of a clip become one answer: their class probabilities are averaged.
//!
//! VideoMAE tests Kinetics with 5 × 3 views and Something-Something with 2 × 3, and averages the softmax of each.
//! Views are brought together by identity, which is the full path and row, never by file stem: data sets
//! have equal names in different folders, and merging those mixes classes in silence.

use std::collections::HashMap;

use serde::Serialize;

use crate::{Error, Result, Scores, metrics};

/// Class scores with the identity and the label of every row; a row per view, or per clip.
#[derive(Clone, Debug, PartialEq)]
pub struct Answers {
    /// Probabilities `[rows, classes]`.
    pub scores: Scores,
    /// The identity of every row; views of one clip share it.
    pub ids: Vec<String>,
    /// The true class of every row.
    pub labels: Vec<u32>,
}

/// The accuracy of one view alone.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct ViewAccuracy {
    /// Which view of its clip, in the order of the rows.
    pub view: usize,
    /// Clips that have this view.
    pub clips: usize,
    /// Its top-1 accuracy.
    pub top1: f64,
}

impl Answers {
    /// Takes scores with an identity and a label for each row.
    ///
    /// # Errors
    /// [`Error::Length`] when they differ in number; [`Error::ViewLabels`] when rows of one identity have different labels.
    pub fn new(scores: Scores, ids: Vec<String>, labels: Vec<u32>) -> Result<Self> {
        for (what, got) in [("identities", ids.len()), ("labels", labels.len())] {
            if got != scores.clips() {
                return Err(Error::Length { what, expected: scores.clips(), got });
            }
        }
        let mut known = HashMap::new();
        for (id, &label) in ids.iter().zip(&labels) {
            let &mut first = known.entry(id.as_str()).or_insert(label);
            if first != label {
                return Err(Error::ViewLabels { id: id.clone(), labels: [first, label] });
            }
        }
        Ok(Self { scores, ids, labels })
    }

    /// One row per identity, in order of first appearance, with the mean of its rows' scores.
    ///
    /// # Errors
    /// Those of [`Scores::new`].
    pub fn merged(&self) -> Result<Self> {
        let classes = self.scores.classes();
        let mut place: HashMap<&str, usize> = HashMap::new();
        let (mut sums, mut counts) = (Vec::new(), Vec::new());
        let (mut ids, mut labels) = (Vec::new(), Vec::new());
        for ((id, &label), row) in self.ids.iter().zip(&self.labels).zip(self.scores.rows()) {
            let at = *place.entry(id).or_insert_with(|| {
                ids.push(id.clone());
                labels.push(label);
                counts.push(0.0);
                sums.resize(sums.len() + classes, 0.0);
                ids.len() - 1
            });
            counts[at] += 1.0;
            sums[at * classes..][..classes].iter_mut().zip(row).for_each(|(sum, score)| *sum += score);
        }
        for (row, count) in sums.chunks_exact_mut(classes).zip(&counts) {
            row.iter_mut().for_each(|sum| *sum /= count);
        }
        Ok(Self { scores: Scores::new(classes, sums)?, ids, labels })
    }

    /// Top-1 accuracy of the first, second, … view of every clip.
    ///
    /// # Errors
    /// [`Error::Label`] when a label is not below the number of classes.
    pub fn per_view(&self) -> Result<Vec<ViewAccuracy>> {
        let hits = metrics::top_k_hits(&self.scores, &self.labels, 1)?;
        let mut seen: HashMap<&str, usize> = HashMap::new();
        let mut views: Vec<(usize, f64)> = Vec::new();
        for (id, hit) in self.ids.iter().zip(hits) {
            let view = seen.entry(id).or_insert(0);
            if *view == views.len() {
                views.push((0, 0.0));
            }
            views[*view].0 += 1;
            views[*view].1 += hit;
            *view += 1;
        }
        let accuracy = |(view, (clips, hits)): (usize, (usize, f64))| ViewAccuracy {
            view,
            clips,
            top1: hits / clips as f64,
        };
        Ok(views.into_iter().enumerate().map(accuracy).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answers(rows: &[(&str, u32, [f64; 2])]) -> Answers {
        let scores = Scores::new(2, rows.iter().flat_map(|row| row.2).collect()).unwrap();
        let ids = rows.iter().map(|row| row.0.to_owned()).collect();
        Answers::new(scores, ids, rows.iter().map(|row| row.1).collect()).unwrap()
    }

    #[test]
    fn probabilities_are_averaged_not_votes() {
        let merged = answers(&[("a", 1, [0.6, 0.4]), ("a", 1, [0.6, 0.4]), ("a", 1, [0.0, 1.0])]).merged();
        let merged = merged.unwrap();
        assert_eq!(merged.ids, ["a"]);
        assert_eq!(merged.scores.predictions(), [1], "two of three views say 0, the third is surer");
        assert!((merged.scores.row(0)[1] - 0.6).abs() < 1e-12);
    }

    #[test]
    fn same_stem_in_two_folders_stays_two_clips() {
        let merged = answers(&[("x/1.mp4", 0, [1.0, 0.0]), ("y/1.mp4", 1, [0.0, 1.0])]).merged().unwrap();
        assert_eq!(merged.ids, ["x/1.mp4", "y/1.mp4"]);
        assert_eq!(merged.scores.predictions(), [0, 1]);
    }

    #[test]
    fn views_may_come_in_any_order() {
        let rows = [("a", 0, [0.9, 0.1]), ("b", 1, [0.4, 0.6]), ("a", 0, [0.7, 0.3]), ("b", 1, [0.2, 0.8])];
        let merged = answers(&rows).merged().unwrap();
        assert_eq!(merged.ids, ["a", "b"]);
        assert!(
            (merged.scores.row(0)[0] - 0.8).abs() < 1e-12 && (merged.scores.row(1)[1] - 0.7).abs() < 1e-12
        );
    }

    #[test]
    fn each_view_has_its_own_accuracy() {
        let rows = [("a", 0, [0.9, 0.1]), ("a", 0, [0.1, 0.9]), ("b", 1, [0.4, 0.6]), ("b", 1, [0.2, 0.8])];
        let views: Vec<f64> = answers(&rows).per_view().unwrap().iter().map(|view| view.top1).collect();
        assert_eq!(views, [1.0, 0.5]);
    }

    #[test]
    fn one_view_is_left_as_it_is() {
        let single = answers(&[("b", 1, [0.25, 0.75]), ("a", 0, [0.5, 0.5])]);
        assert_eq!(single.merged().unwrap(), single);
    }

    #[test]
    fn views_of_one_clip_with_two_labels_are_refused() {
        let scores = Scores::new(2, vec![0.5; 4]).unwrap();
        let error = Answers::new(scores, vec!["a".into(), "a".into()], vec![0, 1]).unwrap_err();
        assert!(matches!(error, Error::ViewLabels { labels: [0, 1], .. }), "{error}");
    }
}
