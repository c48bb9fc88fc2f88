//! Probes of an encoder on labelled clips, and the rows of the table that they end in.

use anyhow::Result;
use serde::Serialize;
use tgm_data::loader::{ClipConfig, EvalLoader, LoaderConfig, MotionSource, Subset};
use tgm_eval::linear::logistic;
use tgm_eval::pass::encode_labelled;
use tgm_eval::{Evaluation, Features, Protocol, Readout, Report, bootstrap, evaluate, knn};
use tgm_mae::{Encoder, MaeConfig};
use tgm_ops::Pooling;
use tgm_random::Streams;

use crate::config::{Config, ConfigError};
use crate::model_io::{ONE_VIEW, random_encoder};
use crate::progress::Progress;
use crate::run_data::{load_manifest, subset};
use crate::task::{Task, check_disjoint};
use crate::watch::ProbeLine;

/// Train and test clips with labels.
#[derive(Clone, Debug)]
pub struct LabelledClips {
    /// To fit on.
    pub train: Subset,
    /// To score.
    pub test: Subset,
    /// How clips are made.
    pub clip: ClipConfig,
    /// How they are loaded.
    pub loader: LoaderConfig,
    /// What is to be recognised, at least one.
    pub tasks: Vec<Task>,
}

/// Features of both parts, with the labels of one task.
#[derive(Clone, Debug)]
pub struct ProbeFeatures {
    train: Features,
    test: Features,
}

impl LabelledClips {
    /// The clips of a run's manifest, when it has labels and both splits.
    ///
    /// # Errors
    /// When the manifest cannot be read, a clip is in both splits, or one lacks a label that others have.
    pub fn of(config: &Config) -> Result<Option<Self>> {
        let Some(path) = &config.data.manifest else { return Ok(None) };
        let manifest = load_manifest(path, config.data.allow_outside)?;
        let has_split = |name: &String| manifest.split_names().contains(name);
        let data = &config.data;
        if !has_split(&data.train_split) || !has_split(&data.test_split) {
            return Ok(None);
        }
        let (train, test) = (subset(&manifest, &data.train_split)?, subset(&manifest, &data.test_split)?);
        check_disjoint(&train, &test, [&data.train_split, &data.test_split])?;
        let columns = manifest.columns();
        let known = data.labels.iter().filter(|label| columns.contains(label));
        let tasks = known.map(|label| Task::of_column(label, [&train, &test])).collect::<Result<Vec<_>>>()?;
        let tasks: Vec<Task> = tasks.into_iter().filter(|task| task.classes.len() > 1).collect();
        let (clip, loader) = (config.clip.clone(), config.loader.clone());
        Ok((!tasks.is_empty()).then_some(Self { train, test, clip, loader, tasks }))
    }

    /// Encodes all clips, with the labels of the first task.
    ///
    /// # Errors
    /// When a video is bad.
    pub fn features(&self, title: &str, encoder: &Encoder) -> Result<ProbeFeatures> {
        let total = self.train.rows().len() + self.test.rows().len();
        let progress = Progress::new(title, total as u64);
        let first = &self.tasks[0];
        let clip = ClipConfig { motion: MotionSource::None, ..self.clip.clone() };
        let part = |subset: &Subset, before: usize| -> Result<Features> {
            let clips = EvalLoader::new(subset, &clip, &self.loader, ONE_VIEW)?;
            let done = |done| progress.set((before + done) as u64);
            let mut encoded = encode_labelled(
                &[encoder],
                Readout::Pooled(Pooling::Mean),
                clips,
                first.classes.len(),
                &|id| first.label(id),
                &done,
            )?;
            Ok(encoded.features.remove(0))
        };
        let train = part(&self.train, 0)?;
        let test = part(&self.test, self.train.rows().len())?;
        progress.finish();
        Ok(ProbeFeatures { train, test })
    }
}

/// kNN with few neighbours, for small sets; the field's 200 for large ones.
pub fn knn_protocol(train_clips: usize) -> Protocol {
    Protocol::Knn(knn::Settings { k: if train_clips < 5000 { 20 } else { 200 }, ..knn::Settings::default() })
}

/// The linear probe: logistic regression. With one clip per class none can be held out to choose the penalty, so it is 1.
pub fn linear_protocol(features: &ProbeFeatures) -> Protocol {
    let default = logistic::Settings::default();
    let lone = features.train.class_counts().into_iter().all(|count| count < 2);
    Protocol::Logistic(if lone { logistic::Settings { c: vec![1.0], ..default } } else { default })
}

impl ProbeFeatures {
    /// The same features with the labels of a task.
    ///
    /// # Errors
    /// When a clip has none.
    pub fn for_task(&self, task: &Task) -> Result<Self> {
        Ok(Self { train: task.relabel(&self.train)?, test: task.relabel(&self.test)? })
    }

    /// Runs a protocol.
    ///
    /// # Errors
    /// Those of [`evaluate`].
    pub fn evaluate(&self, protocol: &Protocol, seed: u64) -> Result<Report> {
        Ok(self.judged(protocol, seed)?.report)
    }

    /// Runs a protocol and gives for each test clip 1 where its best class is the label, else 0.
    ///
    /// # Errors
    /// Those of [`evaluate`].
    pub fn hits(&self, protocol: &Protocol, seed: u64) -> Result<Vec<f64>> {
        Ok(self.judged(protocol, seed)?.hits()?)
    }

    fn judged(&self, protocol: &Protocol, seed: u64) -> Result<Evaluation> {
        let interval = bootstrap::Settings::default();
        Ok(evaluate(protocol, &self.train, &self.test, interval, &Streams::new(seed))?)
    }

    /// Clips that the probes are fitted on.
    pub fn train_clips(&self) -> usize {
        self.train.clips()
    }
}

/// The probe that a run makes again and again: kNN, whose only setting is fixed, for the first task.
pub struct PeriodicProbe {
    clips: LabelledClips,
    seed: u64,
    random: Option<f64>,
}

impl PeriodicProbe {
    /// The probe that the configuration asks for, if it does.
    ///
    /// # Errors
    /// [`ConfigError`] when it does and there is nothing to probe on.
    pub fn new(config: &Config) -> Result<Option<Self>> {
        if config.output.probe_every == 0 {
            return Ok(None);
        }
        let Some(clips) = LabelledClips::of(config)? else {
            let (train, test) = (&config.data.train_split, &config.data.test_split);
            return Err(ConfigError(format!(
                "output.probe_every needs a manifest with labels of two or more classes and the splits `{train}` and \
                 `{test}`; set it to 0 without"
            ))
            .into());
        };
        Ok(Some(Self { clips, seed: config.seed, random: None }))
    }

    /// Probes an encoder as it is at `step`.
    ///
    /// # Errors
    /// When a video is bad.
    pub fn run(&mut self, step: u64, encoder: &Encoder, model: &MaeConfig) -> Result<ProbeLine> {
        let score = |encoder: &Encoder| -> Result<Report> {
            let features = self.clips.features("kNN probe", encoder)?;
            features.evaluate(&knn_protocol(features.train_clips()), self.seed)
        };
        let report = score(encoder)?;
        let random_encoder = match self.random {
            Some(known) => known,
            None => score(&random_encoder(model, self.seed.wrapping_add(1))?.0)?.top1.mean,
        };
        self.random = Some(random_encoder);
        Ok(ProbeLine {
            step,
            name: "kNN top-1".into(),
            result: report.top1.mean,
            interval: [report.top1.low, report.top1.high],
            random_encoder,
            chance: report.chance,
        })
    }
}

/// A row of the table: what was measured, ours, and what it is compared with.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// What was measured.
    pub name: String,
    /// The result.
    pub result: f64,
    /// Its 95 % interval, if it has one.
    pub interval: Option<[f64; 2]>,
    /// The same of a randomly initialised encoder.
    pub random_encoder: Option<f64>,
    /// What needs no learning: chance, or predicting the mean.
    pub baseline: f64,
}

/// Probes an encoder and a randomly initialised one of the same size, on every task.
///
/// # Errors
/// When a probe fails.
pub fn compare(clips: &LabelledClips, trained: &Encoder, random: &Encoder, seed: u64) -> Result<Vec<Row>> {
    let trained = clips.features("features", trained)?;
    let random = clips.features("features (random encoder)", random)?;
    let mut rows = Vec::new();
    for task in &clips.tasks {
        let (trained, random) = (trained.for_task(task)?, random.for_task(task)?);
        let protocols =
            [("kNN", knn_protocol(trained.train_clips())), ("linear probe", linear_protocol(&trained))];
        for (name, protocol) in protocols {
            let (ours, theirs) = (trained.evaluate(&protocol, seed)?, random.evaluate(&protocol, seed)?);
            let what = task.distinction().map_or(String::new(), |name| format!(" ({name})"));
            rows.push(Row {
                name: format!("{name} top-1{what}"),
                result: ours.top1.mean,
                interval: Some([ours.top1.low, ours.top1.high]),
                random_encoder: Some(theirs.top1.mean),
                baseline: ours.chance,
            });
        }
    }
    Ok(rows)
}
