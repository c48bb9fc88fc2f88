//! One call from features to a result that can be trusted: scores, metrics, and what to compare them with.

use crate::bootstrap::{self, Interval};
use crate::linear::{adamw, logistic, sgd};
use crate::merge::{Answers, ViewAccuracy};
use crate::metrics::{self, Confusion};
use crate::pass::BadVideo;
use crate::{Error, Features, Result, Scores, knn, supervised, zero_shot};
use serde::{Deserialize, Serialize};
use tgm_random::Streams;

/// Which classifier is put on the features, with its settings.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "protocol", rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Protocol {
    /// Nearest neighbours in train.
    Knn(knn::Settings),
    /// Linear probe by logistic regression.
    Logistic(logistic::Settings),
    /// Linear probe by batch normalisation and SGD.
    Sgd(sgd::Settings),
    /// Linear probe by layer normalisation and AdamW.
    Adamw(adamw::Settings),
}

impl Protocol {
    /// Refuses settings that suit no data, before features are computed for them.
    ///
    /// # Errors
    /// [`Error::Setting`].
    pub fn check(&self) -> Result<()> {
        match self {
            Self::Knn(settings) => settings.check(),
            Self::Logistic(settings) => settings.check(),
            Self::Sgd(settings) => settings.check(),
            Self::Adamw(settings) => settings.check(),
        }
    }
}

/// What the protocol did, with every setting used.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "protocol", rename_all = "kebab-case")]
#[non_exhaustive]
pub enum ProtocolReport {
    /// Of nearest neighbours.
    Knn(knn::Report),
    /// Of logistic regression.
    Logistic(logistic::Report),
    /// Of batch normalisation and SGD.
    Sgd(sgd::Report),
    /// Of layer normalisation and AdamW.
    Adamw(adamw::Report),
    /// Of classes by their names.
    ZeroShot(zero_shot::Report),
    /// Of the attentive probe.
    Attentive(supervised::Report),
    /// Of fine-tuning.
    Finetune(supervised::Report),
}

/// The result for people and for files. Shares lie between 0 and 1.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    /// How the scores came about.
    #[serde(flatten)]
    pub protocol: ProtocolReport,
    /// Clips trained on, or in the bank.
    pub train_clips: usize,
    /// Clips scored, those that could not be read among them.
    pub test_clips: usize,
    /// Classes, with or without clips.
    pub classes: usize,
    /// Top-1 accuracy with its interval over test clips.
    pub top1: Interval,
    /// Top-5 accuracy, `None` with fewer than six classes, where it says nothing.
    pub top5: Option<f64>,
    /// Mean of the accuracies of the classes that have test clips.
    pub mean_class: f64,
    /// Top-1 accuracy of each test view alone.
    pub views: Vec<ViewAccuracy>,
    /// Test videos that could not be read: wrong answers.
    pub skipped: Vec<BadVideo>,
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
    /// Probabilities of every test clip, its views merged, with identity and label.
    pub answers: Answers,
    /// What they amount to.
    pub report: Report,
}

impl Evaluation {
    /// For every test clip 1 if its best class is the label, else 0; bad videos count 0, at the end.
    ///
    /// # Errors
    /// Those of [`metrics::top_k_hits`].
    pub fn hits(&self) -> Result<Vec<f64>> {
        hits(&self.answers, &self.report.skipped, 1)
    }
}

/// What a result is judged against, whatever the protocol.
#[derive(Clone, Copy, Debug)]
pub struct Bench<'a> {
    /// Labels of the clips trained on: for the majority class.
    pub train_labels: &'a [u32],
    /// Test videos that could not be read. They count as wrong answers.
    pub skipped: &'a [BadVideo],
    /// Settings of the interval.
    pub interval: bootstrap::Settings,
    /// Draws of the bootstrap.
    pub streams: &'a Streams,
}

/// Trains the protocol's classifier on `train` and scores `test`, whose rows may be views of the same clips.
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
    let bench = Bench { train_labels: train.labels(), skipped: &[], interval, streams };
    let (scores, protocol) = classify(protocol, train, test, streams)?;
    judge(&Answers::new(scores, test.ids().to_vec(), test.labels().to_vec())?, protocol, &bench)
}

/// The scores of every row of `test`.
///
/// # Errors
/// As [`evaluate`].
pub fn classify(
    protocol: &Protocol,
    train: &Features,
    test: &Features,
    streams: &Streams,
) -> Result<(Scores, ProtocolReport)> {
    train.check_same_kind(test)?;
    train.check_disjoint(test)?;
    Ok(match protocol {
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
        Protocol::Adamw(settings) => {
            let (probe, report) = adamw::fit(train, settings, streams)?;
            (probe.classify(test)?, ProtocolReport::Adamw(report))
        }
    })
}

/// Merges the views of each clip and counts what is right.
///
/// # Errors
/// [`crate::Error::Label`] if a label is not below the number of classes, else as [`bootstrap::mean`].
pub fn judge(views: &Answers, protocol: ProtocolReport, bench: &Bench<'_>) -> Result<Evaluation> {
    let answers = views.merged()?;
    let classes = answers.scores.classes();
    let confusion = Confusion::new(&answers.scores, &answers.labels)?;
    let per_class = per_class(&confusion, bench.skipped)?;
    let present: Vec<f64> = per_class.iter().copied().flatten().collect();
    let mut labels = answers.labels.clone();
    labels.extend(bench.skipped.iter().map(|bad| bad.label));
    let mut stream = bench.streams.stream("bootstrap", 0, 0);
    let report = Report {
        protocol,
        train_clips: bench.train_labels.len(),
        test_clips: labels.len(),
        classes,
        top1: bootstrap::mean(&hits(&answers, bench.skipped, 1)?, bench.interval, &mut stream)?
            .of_share(labels.len(), bench.interval.level),
        top5: match classes {
            ..6 => None,
            _ => Some(mean(&hits(&answers, bench.skipped, 5)?)),
        },
        mean_class: mean(&present),
        views: views.per_view()?,
        skipped: bench.skipped.to_vec(),
        chance: metrics::chance(classes),
        majority: metrics::majority_share(bench.train_labels, &labels),
        per_class,
        confusion,
        interval: bench.interval,
        seed: bench.streams.seed(),
    };
    Ok(Evaluation { answers, report })
}

fn hits(answers: &Answers, skipped: &[BadVideo], k: usize) -> Result<Vec<f64>> {
    let mut hits = metrics::top_k_hits(&answers.scores, &answers.labels, k)?;
    hits.resize(hits.len() + skipped.len(), 0.0);
    Ok(hits)
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

/// Accuracy within each class, where a video that could not be read is a wrong answer.
fn per_class(confusion: &Confusion, skipped: &[BadVideo]) -> Result<Vec<Option<f64>>> {
    let classes = confusion.counts().len();
    let mut clips: Vec<u64> = confusion.counts().iter().map(|row| row.iter().sum()).collect();
    for bad in skipped {
        let count = clips.get_mut(bad.label as usize);
        *count.ok_or_else(|| Error::Label { id: bad.id.clone(), label: bad.label, classes })? += 1;
    }
    let right = confusion.counts().iter().enumerate().map(|(class, row)| row[class]);
    Ok(right.zip(clips).map(|(right, clips)| (clips > 0).then(|| right as f64 / clips as f64)).collect())
}
