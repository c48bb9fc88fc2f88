//! Protocols on cached features of a frozen encoder.

use anyhow::Result;
use tgm_eval::bootstrap;
use tgm_eval::linear::{adamw, logistic, sgd};
use tgm_eval::pass::Encoded;
use tgm_eval::{Answers, Bench, Evaluation, Features, Protocol, Readout, classify, judge, knn};
use tgm_mae::Encoder;
use tgm_random::Streams;
use tgm_train::config::{ConfigError, EvalConfig, ProtocolName, Recipe};
use tgm_train::probe;
use tgm_train::task::Task;

use super::data::EvalData;
use super::outcome::Outcome;

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
pub fn linear_protocol(train: &Features, config: &EvalConfig) -> Protocol {
    let lone = train.class_counts().into_iter().all(|count| count < 2);
    let one = |several: &[f64], published: f64| match several {
        [_] => several.to_vec(),
        _ if lone => vec![published],
        _ => several.to_vec(),
    };
    let (bn_sgd, by_adamw, regression) = (&config.sgd, &config.adamw, &config.logistic);
    match config.recipe {
        Recipe::BnSgd => {
            Protocol::Sgd(sgd::Settings { base_lr: one(&bn_sgd.base_lr, 0.1), ..bn_sgd.clone() })
        }
        Recipe::Adamw => {
            Protocol::Adamw(adamw::Settings { base_lr: one(&by_adamw.base_lr, 1e-3), ..by_adamw.clone() })
        }
        Recipe::Logistic => {
            Protocol::Logistic(logistic::Settings { c: one(&regression.c, 1.0), ..regression.clone() })
        }
    }
}

/// Refuses settings that suit no data: features may take days.
///
/// # Errors
/// Naming the setting.
pub fn check(config: &EvalConfig) -> Result<(), ConfigError> {
    let protocol = match config.protocol {
        ProtocolName::Knn => config.k.map(|k| Protocol::Knn(knn::Settings { k, ..knn::Settings::default() })),
        ProtocolName::Linear => Some(match config.recipe {
            Recipe::BnSgd => Protocol::Sgd(config.sgd.clone()),
            Recipe::Adamw => Protocol::Adamw(config.adamw.clone()),
            Recipe::Logistic => Protocol::Logistic(config.logistic.clone()),
        }),
        _ => None,
    };
    protocol.map_or(Ok(()), |protocol| protocol.check()).map_err(|error| ConfigError(error.to_string()))
}

/// Evaluates an encoder, and beside it a randomly initialised one and the pixel-difference baseline.
///
/// # Errors
/// When a video is bad or a probe cannot be fitted.
pub fn evaluate(
    data: &EvalData,
    trained: &Encoder,
    random: Option<&Encoder>,
    readout: Readout,
    protocol: MakeProtocol<'_>,
    seed: u64,
) -> Result<Vec<Outcome>> {
    let encoders: Vec<&Encoder> = [Some(trained), random].into_iter().flatten().collect();
    let [train, test] = data.encode_as("features", &encoders, readout)?;
    let streams = Streams::new(seed);
    data.tasks
        .iter()
        .map(|task| {
            let one = |index: usize| -> Result<Evaluation> {
                let [train_set, test_set] = [&train, &test].map(|part| task.relabel(&part.features[index]));
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
    let sets = [task.relabel(&train.motion)?, task.relabel(&test.motion)?];
    fitted(&protocol, [&sets[0], &sets[1]], test, task, streams)
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
