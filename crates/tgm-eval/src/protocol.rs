//! One call from features to a result that can be trusted: scores, metrics, and what to compare them with.

use crate::bootstrap::{self, Interval};
use crate::linear::{logistic, sgd};
use crate::metrics::{self, Confusion};
use crate::{Features, Result, Scores, knn};
use serde::{Deserialize, Serialize};
use tgm_random::Streams;

/// Which classifier is put on the features, with its settings.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "protocol", rename_all = "kebab-case")]
pub enum Protocol {
    /// Nearest neighbours in train.
    Knn(knn::Settings),
    /// Linear probe by logistic regression.
    Logistic(logistic::Settings),
    /// Linear probe by batch normalisation and SGD.
    Sgd(sgd::Settings),
}

/// What the protocol did, with every setting used.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "protocol", rename_all = "kebab-case")]
pub enum ProtocolReport {
    /// Of nearest neighbours.
    Knn(knn::Report),
    /// Of logistic regression.
    Logistic(logistic::Report),
    /// Of batch normalisation and SGD.
    Sgd(sgd::Report),
}

/// The result for people and for files. Shares lie between 0 and 1.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    /// How the scores came about.
    #[serde(flatten)]
    pub protocol: ProtocolReport,
    /// Clips trained on, or in the bank.
    pub train_clips: usize,
    /// Clips scored.
    pub test_clips: usize,
    /// Classes, with or without clips.
    pub classes: usize,
    /// Top-1 accuracy with its interval over test clips.
    pub top1: Interval,
    /// Top-5 accuracy, `None` with fewer than six classes, where it says nothing.
    pub top5: Option<f64>,
    /// Mean of the accuracies of the classes that have test clips.
    pub mean_class: f64,
    /// Accuracy of guessing at random.
    pub chance: f64,
    /// Accuracy of always answering the most frequent class of train.
    pub majority: f64,
    /// Accuracy within each class, `None` without test clips.
    pub per_class: Vec<Option<f64>>,
    /// Answers counted by true label (rows) and prediction (columns).
    pub confusion: Confusion,
    /// Settings of the interval.
    pub interval: bootstrap::Settings,
    /// The seed of every random draw.
    pub seed: u64,
}

/// Class scores of the test clips, and their report.
#[derive(Clone, Debug, PartialEq)]
pub struct Evaluation {
    /// Probabilities `[test clips, classes]`.
    pub scores: Scores,
    /// What they amount to.
    pub report: Report,
}

/// Trains the protocol's classifier on `train` and scores `test`.
///
/// # Errors
/// [`crate::Error::Mismatch`] if the sets are not of one kind, [`crate::Error::Leak`] if they share a clip, else as
/// the protocol and [`bootstrap::mean`].
pub fn evaluate(
    protocol: &Protocol,
    train: &Features,
    test: &Features,
    interval: bootstrap::Settings,
    streams: &Streams,
) -> Result<Evaluation> {
    train.check_same_kind(test)?;
    train.check_disjoint(test)?;
    let (scores, protocol) = match protocol {
        Protocol::Knn(settings) => {
            let (scores, report) = knn::classify(train, test, settings)?;
            (scores, ProtocolReport::Knn(report))
        }
        Protocol::Logistic(settings) => {
            let (probe, report) = logistic::fit(train, settings, streams)?;
            (probe.classify(test)?, ProtocolReport::Logistic(report))
        }
        Protocol::Sgd(settings) => {
            let (probe, report) = sgd::fit(train, settings, streams)?;
            (probe.classify(test)?, ProtocolReport::Sgd(report))
        }
    };
    let labels = test.labels();
    let classes = test.classes();
    let hits = metrics::top_k_hits(&scores, labels, 1)?;
    let confusion = Confusion::new(&scores, labels)?;
    let report = Report {
        protocol,
        train_clips: train.clips(),
        test_clips: test.clips(),
        classes,
        top1: bootstrap::mean(&hits, interval, &mut streams.stream("bootstrap", 0, 0))?,
        top5: (classes > 5).then(|| metrics::top_k_accuracy(&scores, labels, 5)).transpose()?,
        mean_class: confusion.mean_class_accuracy(),
        chance: metrics::chance(classes),
        majority: metrics::majority_share(train.labels(), labels),
        per_class: confusion.per_class(),
        confusion,
        interval,
        seed: streams.seed(),
    };
    Ok(Evaluation { scores, report })
}
