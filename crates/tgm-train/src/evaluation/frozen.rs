//! Protocols on cached features of a frozen encoder.

use anyhow::Result;
use tgm_eval::bootstrap;
use tgm_eval::linear::{adamw, logistic, sgd};
use tgm_eval::pass::Encoded;
use tgm_eval::{Answers, Bench, Evaluation, Features, Protocol, classify, judge, knn};
use tgm_mae::Encoder;
use tgm_random::Streams;

use super::data::{EvalData, Task};
use super::outcome::Outcome;
use crate::probe;

/// Which linear probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Recipe {
    /// Batch norm and linear layer by SGD: the field's (MAE, AdaptFormer).
    BnSgd,
    /// Layer norm and linear layer by AdamW: the fine-tuning code with a frozen encoder (SIGMA).
    Adamw,
    /// Logistic regression to its optimum: no schedule to argue about.
    Logistic,
}

/// How a protocol is made for a train set of this many clips per class.
pub type MakeProtocol<'a> = &'a dyn Fn(&Features) -> Protocol;

/// kNN with `k` neighbours, or a number that suits the size of the bank.
pub fn knn_protocol(train: &Features, k: Option<usize>) -> Protocol {
    match k {
        Some(k) => Protocol::Knn(knn::Settings { k, ..knn::Settings::default() }),
        None => probe::knn_protocol(train.clips()),
    }
}

/// A linear probe. With one clip per class none can be held out to choose a setting: then it is the published one.
pub fn linear_protocol(train: &Features, recipe: Recipe) -> Protocol {
    let lone = train.class_counts().into_iter().all(|count| count < 2);
    match recipe {
        Recipe::BnSgd => {
            let default = sgd::Settings::default();
            Protocol::Sgd(if lone { sgd::Settings { base_lr: vec![0.1], ..default } } else { default })
        }
        Recipe::Adamw => {
            let default = adamw::Settings::default();
            Protocol::Adamw(if lone { adamw::Settings { base_lr: vec![1e-3], ..default } } else { default })
        }
        Recipe::Logistic => {
            let default = logistic::Settings::default();
            Protocol::Logistic(if lone { logistic::Settings { c: vec![1.0], ..default } } else { default })
        }
    }
}

/// Evaluates an encoder, and beside it a randomly initialised one and the pixel-difference baseline.
///
/// # Errors
/// When a video is bad or a probe cannot be fitted.
pub fn evaluate(
    data: &EvalData,
    trained: &Encoder,
    random: Option<&Encoder>,
    protocol: MakeProtocol<'_>,
    seed: u64,
) -> Result<Vec<Outcome>> {
    let encoders: Vec<&Encoder> = [Some(trained), random].into_iter().flatten().collect();
    let [train, test] = data.encode("features", &encoders)?;
    let streams = Streams::new(seed);
    data.tasks
        .iter()
        .map(|task| {
            let one = |index: usize| -> Result<Evaluation> {
                let [train_set, test_set] = [&train, &test].map(|part| for_task(&part.features[index], task));
                let (train_set, test_set) = (train_set?, test_set?);
                fitted(&protocol(&train_set), [&train_set, &test_set], &test, task, &streams)
            };
            Ok(Outcome {
                task: task.clone(),
                ours: one(0)?,
                random: random.map(|_| one(1)).transpose()?,
                motion: Some(motion_baseline([&train, &test], task, &streams)?),
            })
        })
        .collect()
}

/// Five nearest neighbours by what moved where in small grey pictures: what needs no learning.
///
/// # Errors
/// When labels do not fit.
pub fn motion_baseline([train, test]: [&Encoded; 2], task: &Task, streams: &Streams) -> Result<Evaluation> {
    let protocol = Protocol::Knn(knn::Settings { k: 5, vote: knn::Vote::Uniform });
    let sets = [for_task(&train.motion, task)?, for_task(&test.motion, task)?];
    fitted(&protocol, [&sets[0], &sets[1]], test, task, streams)
}

fn for_task(features: &Features, task: &Task) -> Result<Features> {
    Ok(features.relabelled(task.classes.len(), |id| task.label(id))?)
}

fn fitted(
    protocol: &Protocol,
    [train, test]: [&Features; 2],
    encoded: &Encoded,
    task: &Task,
    streams: &Streams,
) -> Result<Evaluation> {
    let (scores, report) = classify(protocol, train, test, streams)?;
    let answers = Answers::new(scores, test.ids().to_vec(), test.labels().to_vec())?;
    let skipped = bad_of(encoded, task);
    let bench = Bench {
        train_labels: train.labels(),
        skipped: &skipped,
        interval: bootstrap::Settings::default(),
        streams,
    };
    Ok(judge(&answers, report, &bench)?)
}

/// The videos that could not be read, with their labels of this task.
pub fn bad_of(encoded: &Encoded, task: &Task) -> Vec<tgm_eval::pass::BadVideo> {
    let mut bad = encoded.bad.clone();
    for video in &mut bad {
        video.label = task.label(&video.id).unwrap_or(video.label);
    }
    bad
}
