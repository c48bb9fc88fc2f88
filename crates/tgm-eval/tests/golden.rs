//! The same features give the same answers as scikit-learn and PyTorch.
//!
//! `fixtures/scripts/eval_golden.py` writes the expected values.

use serde::Deserialize;
use serde::de::DeserializeOwned;
use std::collections::BTreeMap;
use std::path::Path;
use tgm_eval::linear::{Probe, adamw, logistic, sgd};
use tgm_eval::metrics::{Confusion, top_k_accuracy};
use tgm_eval::{Features, Scores, knn};
use tgm_random::Streams;

fn golden<T: DeserializeOwned>(name: &str) -> T {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/eval-golden").join(name);
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

#[derive(Deserialize)]
struct FeatureFile {
    classes: usize,
    train: Part,
    test: Part,
}

#[derive(Deserialize)]
struct Part {
    dim: usize,
    data: Vec<f32>,
    labels: Vec<u32>,
}

impl Part {
    /// The clips of the first `classes` classes.
    fn features(&self, name: &str, classes: usize) -> Features {
        let kept =
            || self.data.chunks(self.dim).zip(&self.labels).filter(|(_, label)| **label < classes as u32);
        let data = kept().flat_map(|(row, _)| row).copied().collect();
        let labels: Vec<u32> = kept().map(|(_, &label)| label).collect();
        let ids = (0..labels.len()).map(|clip| format!("{name}/{clip}")).collect();
        Features::new(self.dim, classes, data, labels, ids).unwrap()
    }
}

/// Train and test clips of the first `classes` classes, or all.
fn features(classes: Option<usize>) -> (Features, Features) {
    let file: FeatureFile = golden("features.json");
    let classes = classes.unwrap_or(file.classes);
    (file.train.features("train", classes), file.test.features("test", classes))
}

fn assert_close(got: impl IntoIterator<Item = f64>, expected: &[f64], tolerance: f64, what: &str) {
    let got: Vec<f64> = got.into_iter().collect();
    assert_eq!(got.len(), expected.len(), "{what}");
    for (index, (got, expected)) in got.iter().zip(expected).enumerate() {
        let error = (got - expected).abs();
        assert!(error <= tolerance, "{what} {index}: {got} is not {expected} (off by {error:e})");
    }
}

fn probabilities(scores: &Scores) -> Vec<f64> {
    scores.rows().flatten().copied().collect()
}

#[derive(Deserialize)]
struct KnnFile {
    cases: Vec<KnnCase>,
}

#[derive(Deserialize)]
struct KnnCase {
    k: usize,
    neighbours: Option<Vec<usize>>,
    uniform: Vec<u32>,
    similarity: Vec<u32>,
    similarity_proba: Vec<f64>,
}

#[test]
fn knn_finds_the_neighbours_of_scikit_learn_and_answers_the_same_for_every_clip() {
    let (train, test) = features(None);
    let file: KnnFile = golden("knn.json");
    for case in file.cases {
        if let Some(expected) = case.neighbours {
            let found = knn::neighbours(&train, &test, case.k).unwrap();
            let rows: Vec<usize> = found.iter().flatten().map(|neighbour| neighbour.row).collect();
            assert_eq!(rows, expected, "k = {}", case.k);
        }
        let classify = |vote| knn::classify(&train, &test, &knn::Settings { k: case.k, vote }).unwrap().0;
        assert_eq!(classify(knn::Vote::Uniform).predictions(), case.uniform, "k = {}", case.k);
        let weighted = classify(knn::Vote::Similarity { temperature: 0.07 });
        assert_eq!(weighted.predictions(), case.similarity, "k = {}", case.k);
        assert_close(probabilities(&weighted), &case.similarity_proba, 1e-9, "vote");
    }
}

#[derive(Deserialize)]
struct LogisticFile {
    five_classes: Vec<LogisticCase>,
    two_classes: Vec<LogisticCase>,
}

#[derive(Deserialize)]
struct LogisticCase {
    c: f64,
    coefficients: Vec<f64>,
    intercepts: Vec<f64>,
    proba: Vec<f64>,
    accuracy: f64,
}

/// Trained with one C to a tight optimum.
fn exact(train: &Features, c: f64) -> Probe {
    let settings = logistic::Settings { c: vec![c], tolerance: 1e-8, ..Default::default() };
    let (probe, report) = logistic::fit(train, &settings, &Streams::new(0)).unwrap();
    assert!(report.converged, "{report:?}");
    probe
}

#[test]
fn logistic_regression_has_the_coefficients_of_scikit_learn() {
    let (train, test) = features(None);
    let file: LogisticFile = golden("logistic.json");
    for case in file.five_classes {
        let probe = exact(&train, case.c);
        assert_close(probe.coefficients().to_vec(), &case.coefficients, 1e-5, "coefficient");
        assert_close(probe.intercepts().to_vec(), &case.intercepts, 1e-5, "intercept");
        let scores = probe.classify(&test).unwrap();
        assert_close(probabilities(&scores), &case.proba, 1e-6, "probability");
        assert_eq!(top_k_accuracy(&scores, test.labels(), 1).unwrap(), case.accuracy);
    }
}

#[test]
fn two_classes_equal_the_binary_form_of_scikit_learn_at_twice_its_strength() {
    let (train, test) = features(Some(2));
    let file: LogisticFile = golden("logistic.json");
    for case in file.two_classes {
        let probe = exact(&train, case.c / 2.0);
        let (first, second) = probe.coefficients().split_at(train.dim());
        let between = second.iter().zip(first).map(|(b, a)| b - a);
        assert_close(between, &case.coefficients, 1e-5, "coefficient");
        assert_close([probe.intercepts()[1] - probe.intercepts()[0]], &case.intercepts, 1e-5, "intercept");
        let scores = probe.classify(&test).unwrap();
        assert_close(probabilities(&scores), &case.proba, 1e-6, "probability");
    }
}

#[test]
fn the_default_tolerance_is_tight_enough_for_the_same_accuracy() {
    let (train, test) = features(None);
    let file: LogisticFile = golden("logistic.json");
    for case in file.five_classes {
        let settings = logistic::Settings { c: vec![case.c], ..Default::default() };
        let (probe, _) = logistic::fit(&train, &settings, &Streams::new(0)).unwrap();
        let accuracy = top_k_accuracy(&probe.classify(&test).unwrap(), test.labels(), 1).unwrap();
        assert!((accuracy - case.accuracy).abs() <= 0.005, "{accuracy} {}", case.accuracy);
    }
}

#[derive(Deserialize)]
struct SgdFile {
    settings: sgd::Settings,
    coefficients: Vec<f64>,
    intercepts: Vec<f64>,
    proba: Vec<f64>,
    train_loss: f64,
}

#[test]
fn sgd_takes_the_steps_of_pytorch() {
    let (train, test) = features(None);
    let file: SgdFile = golden("sgd.json");
    let (probe, report) = sgd::fit(&train, &file.settings, &Streams::new(0)).unwrap();
    assert_close(probe.coefficients().to_vec(), &file.coefficients, 1e-8, "coefficient");
    assert_close(probe.intercepts().to_vec(), &file.intercepts, 1e-8, "intercept");
    assert_close(probabilities(&probe.classify(&test).unwrap()), &file.proba, 1e-8, "probability");
    assert_close([report.train_loss], &[file.train_loss], 1e-10, "loss");
}

#[derive(Deserialize)]
struct AdamwFile {
    settings: adamw::Settings,
    proba: Vec<f64>,
    train_loss: f64,
}

#[test]
fn adamw_takes_the_steps_of_pytorch() {
    let (train, test) = features(None);
    let file: AdamwFile = golden("adamw.json");
    let (probe, report) = adamw::fit(&train, &file.settings, &Streams::new(0)).unwrap();
    assert_close(probabilities(&probe.classify(&test).unwrap()), &file.proba, 1e-5, "probability");
    assert_close([report.train_loss], &[file.train_loss], 1e-6, "loss");
}

#[derive(Deserialize)]
struct ScoresFile {
    classes: usize,
    labels: Vec<u32>,
    scores: Vec<f64>,
    top_k: BTreeMap<String, f64>,
    mean_class: f64,
    confusion: Vec<u64>,
}

#[test]
fn metrics_are_those_of_scikit_learn() {
    let file: ScoresFile = golden("scores.json");
    let scores = Scores::new(file.classes, file.scores).unwrap();
    for (k, expected) in file.top_k {
        let accuracy = top_k_accuracy(&scores, &file.labels, k.parse().unwrap()).unwrap();
        assert_close([accuracy], &[expected], 1e-12, "top-k");
    }
    let confusion = Confusion::new(&scores, &file.labels).unwrap();
    assert_eq!(confusion.counts().concat(), file.confusion);
    assert_close([confusion.mean_class_accuracy()], &[file.mean_class], 1e-9, "mean class accuracy");
}
