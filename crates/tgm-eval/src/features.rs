//! One feature vector per clip, with its label and identity: the input of every protocol.

use crate::{Error, Result};
use std::collections::HashSet;

/// Features of a set of clips, checked when made: never empty, always finite, every label below `classes`.
///
/// `data` is row-major `[clips, dim]`. The identity should be the clip's full path: file stems repeat.
#[derive(Clone, Debug, PartialEq)]
pub struct Features {
    dim: usize,
    classes: usize,
    data: Vec<f32>,
    labels: Vec<u32>,
    ids: Vec<String>,
}

impl Features {
    /// Takes `data` `[clips, dim]` with one label and one identity per clip.
    ///
    /// # Errors
    /// [`Error::Empty`], [`Error::Length`], [`Error::NonFiniteFeature`] or [`Error::Label`].
    pub fn new(
        dim: usize,
        classes: usize,
        data: Vec<f32>,
        labels: Vec<u32>,
        ids: Vec<String>,
    ) -> Result<Self> {
        for (missing, count) in [("columns", dim), ("classes", classes), ("rows", ids.len())] {
            if count == 0 {
                return Err(Error::Empty { what: "features", missing });
            }
        }
        let clips = ids.len();
        if labels.len() != clips {
            return Err(Error::Length { what: "labels", expected: clips, got: labels.len() });
        }
        // A product that overflows is no length either.
        let expected = clips.saturating_mul(dim);
        if data.len() != expected {
            return Err(Error::Length { what: "features", expected, got: data.len() });
        }
        if let Some(at) = data.iter().position(|value| !value.is_finite()) {
            let id = ids[at / dim].clone();
            return Err(Error::NonFiniteFeature { id, column: at % dim, value: data[at] });
        }
        if let Some(at) = labels.iter().position(|&label| label as usize >= classes) {
            return Err(Error::Label { id: ids[at].clone(), label: labels[at], classes });
        }
        Ok(Self { dim, classes, data, labels, ids })
    }

    /// As [`Self::new`] for clips that have no names: they are numbered within their set, `set/0`, `set/1`, … Sets of
    /// different names, as train and test, share no clip.
    ///
    /// ```
    /// use tgm_eval::Features;
    ///
    /// let (x, y) = (vec![0.5, 1.0, 0.25, 0.0], vec![1, 0]);
    /// assert_eq!(Features::numbered("train", 2, 2, x, y)?.ids(), ["train/0", "train/1"]);
    /// # Ok::<(), tgm_eval::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn numbered(set: &str, dim: usize, classes: usize, data: Vec<f32>, labels: Vec<u32>) -> Result<Self> {
        let ids = (0..labels.len()).map(|clip| format!("{set}/{clip}")).collect();
        Self::new(dim, classes, data, labels, ids)
    }

    /// The same features with other labels, found by identity: a clip has a verb and a noun.
    ///
    /// # Errors
    /// [`Error::Unlabelled`] when a clip has no such label, [`Error::Label`] when one is not below `classes`.
    pub fn relabelled(&self, classes: usize, label: impl Fn(&str) -> Option<u32>) -> Result<Self> {
        let found = |id: &String| label(id).ok_or_else(|| Error::Unlabelled { path: id.clone() });
        let labels = self.ids.iter().map(found).collect::<Result<_>>()?;
        Self::new(self.dim, classes, self.data.clone(), labels, self.ids.clone())
    }

    /// Number of clips, at least 1.
    pub fn clips(&self) -> usize {
        self.labels.len()
    }

    /// Length of one feature vector, at least 1.
    pub fn dim(&self) -> usize {
        self.dim
    }

    /// Number of classes, including those without a clip here.
    pub fn classes(&self) -> usize {
        self.classes
    }

    /// The feature vector of one clip, `[dim]`.
    ///
    /// # Panics
    /// If `clip` is not below [`Self::clips`].
    pub fn row(&self, clip: usize) -> &[f32] {
        &self.data[clip * self.dim..][..self.dim]
    }

    /// All feature vectors, `[clips, dim]`.
    pub fn data(&self) -> &[f32] {
        &self.data
    }

    /// The label of every clip.
    pub fn labels(&self) -> &[u32] {
        &self.labels
    }

    /// The identity of every clip.
    pub fn ids(&self) -> &[String] {
        &self.ids
    }

    /// Number of clips of each class, `[classes]`.
    pub fn class_counts(&self) -> Vec<usize> {
        let mut counts = vec![0; self.classes];
        for &label in &self.labels {
            counts[label as usize] += 1;
        }
        counts
    }

    /// Refuses a test set that was not made with the same model and label set as this train set.
    ///
    /// # Errors
    /// [`Error::Mismatch`].
    pub fn check_same_kind(&self, test: &Self) -> Result<()> {
        let pairs = [("the feature size", self.dim, test.dim), ("classes", self.classes, test.classes)];
        for (what, train, test) in pairs {
            if train != test {
                return Err(Error::Mismatch { what, train, test });
            }
        }
        Ok(())
    }

    /// Refuses a test set that shares a clip with this train set.
    ///
    /// # Errors
    /// [`Error::Leak`].
    pub fn check_disjoint(&self, test: &Self) -> Result<()> {
        let train: HashSet<&str> = self.ids.iter().map(String::as_str).collect();
        match test.ids.iter().find(|id| train.contains(id.as_str())) {
            Some(id) => Err(Error::Leak { id: id.clone() }),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(names: &[&str]) -> Vec<String> {
        names.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_feature_that_is_not_a_number_is_refused_with_its_clip_and_column() {
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let error =
                Features::new(2, 2, vec![0.0, 1.0, 2.0, bad], vec![0, 1], ids(&["a", "b"])).unwrap_err();
            assert!(matches!(&error, Error::NonFiniteFeature { id, column: 1, .. } if id == "b"), "{error}");
        }
    }

    #[test]
    fn a_label_beyond_the_classes_is_refused_with_its_clip() {
        let error = Features::new(1, 2, vec![0.0, 1.0], vec![0, 2], ids(&["a", "b"])).unwrap_err();
        assert!(matches!(&error, Error::Label { id, label: 2, classes: 2 } if id == "b"), "{error}");
    }

    #[test]
    fn lengths_that_disagree_are_refused() {
        let short_labels = Features::new(1, 2, vec![0.0, 1.0], vec![0], ids(&["a", "b"]));
        assert!(matches!(short_labels, Err(Error::Length { what: "labels", expected: 2, got: 1 })));
        let short_data = Features::new(2, 2, vec![0.0; 3], vec![0, 1], ids(&["a", "b"]));
        assert!(matches!(short_data, Err(Error::Length { what: "features", expected: 4, got: 3 })));
    }

    #[test]
    fn a_size_that_overflows_is_a_wrong_length() {
        let error = Features::new(usize::MAX, 2, vec![0.0; 3], vec![0, 1], ids(&["a", "b"])).unwrap_err();
        assert!(matches!(error, Error::Length { what: "features", got: 3, .. }), "{error}");
    }

    #[test]
    fn numbered_sets_of_different_names_share_no_clip_and_of_one_name_all() {
        let set = |name| Features::numbered(name, 1, 2, vec![0.0, 1.0], vec![0, 1]).unwrap();
        assert!(set("train").check_disjoint(&set("test")).is_ok());
        assert!(matches!(set("a").check_disjoint(&set("a")), Err(Error::Leak { id }) if id == "a/0"));
        let short = Features::numbered("a", 2, 2, vec![0.0; 3], vec![0, 1]);
        assert!(matches!(short, Err(Error::Length { what: "features", expected: 4, got: 3 })));
    }

    #[test]
    fn nothing_is_not_a_set_of_features() {
        assert!(matches!(
            Features::new(3, 2, vec![], vec![], vec![]),
            Err(Error::Empty { missing: "rows", .. })
        ));
        let no_columns = Features::new(0, 2, vec![], vec![0], ids(&["a"]));
        assert!(matches!(no_columns, Err(Error::Empty { missing: "columns", .. })));
    }

    #[test]
    fn train_and_test_of_different_models_are_refused() {
        let train = Features::new(1, 2, vec![0.0], vec![0], ids(&["a"])).unwrap();
        let wider = Features::new(2, 2, vec![0.0; 2], vec![0], ids(&["b"])).unwrap();
        let more_classes = Features::new(1, 3, vec![0.0], vec![0], ids(&["b"])).unwrap();
        assert!(matches!(train.check_same_kind(&wider), Err(Error::Mismatch { train: 1, test: 2, .. })));
        assert!(matches!(
            train.check_same_kind(&more_classes),
            Err(Error::Mismatch { train: 2, test: 3, .. })
        ));
    }

    #[test]
    fn a_clip_in_both_train_and_test_is_a_leak() {
        let train = Features::new(1, 1, vec![0.0; 2], vec![0; 2], ids(&["x/1.mp4", "y/1.mp4"])).unwrap();
        let same_stem = Features::new(1, 1, vec![0.0], vec![0], ids(&["z/1.mp4"])).unwrap();
        let same_path = Features::new(1, 1, vec![0.0], vec![0], ids(&["y/1.mp4"])).unwrap();
        assert!(train.check_disjoint(&same_stem).is_ok());
        assert!(matches!(train.check_disjoint(&same_path), Err(Error::Leak { id }) if id == "y/1.mp4"));
    }
}
