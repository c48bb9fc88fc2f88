//! One arm with one seed: an ordinary run, its probes, and a file with what came out.

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result, bail};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tgm_data::manifest::{Manifest, write_manifest};
use tgm_train::config::{self, Config};
use tgm_train::probe::{LabelledClips, knn_protocol, linear_protocol};
use tgm_train::run_dir::{RunDir, write_atomically};
use tgm_train::stop::Stop;
use tgm_train::task::LABEL;
use tgm_train::trainer::{Start, Trainer};
use tgm_train::{model_io, score_cache};

use super::arm::{Arm, Clips, World};
use super::record::{Record, digits};
use crate::demo;
use crate::evaluation::data::{Choices, EvalData};
use crate::evaluation::supervised;

const RESULT: &str = "result.json";

/// The name of the probe that is made by fine-tuning.
pub(super) const FINE_TUNE: &str = "fine-tune";

/// What came out of one run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RunResult {
    /// What was trained.
    pub arm: Arm,
    /// The seed of the run.
    pub seed: u64,
    /// Optimiser steps.
    pub steps: u64,
    /// What the call that finished it spent its time on.
    #[serde(default)]
    pub spent: Spent,
    /// Loss on masked tubelets over that of their mean.
    pub masked_loss: Option<f64>,
    /// Contrastive loss over ln(batch).
    pub contrastive: Option<f64>,
    /// What was measured.
    pub probes: Vec<Probe>,
}

/// Seconds of a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Spent {
    /// The world and its score maps: near nothing when an earlier run of it has made them.
    pub world: f64,
    /// Optimiser steps and checkpoints.
    pub training: f64,
    /// Scoring the frozen encoder.
    pub probes: f64,
}

impl Spent {
    /// All of it.
    pub fn total(&self) -> f64 {
        self.world + self.training + self.probes
    }
}

/// A protocol's answers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Probe {
    /// `knn`, `linear` or `fine-tune` of the motion; of something else with its name behind: `linear colour`.
    pub name: String,
    /// For each test clip 1 where the best class is the label, else 0.
    #[serde(with = "digits")]
    pub hits: Vec<f64>,
}

/// What all runs share.
#[derive(Clone, Debug)]
pub struct Bench {
    /// The folder of the reproduction.
    pub out: PathBuf,
    /// Clips of each world.
    pub clips: Clips,
    /// Optimiser steps of each run.
    pub steps: u64,
    /// Also fine-tune every encoder for so many epochs.
    pub finetune: Option<f64>,
    /// Settings for all runs, as for `--set`.
    pub settings: Vec<String>,
    /// Runs that were made elsewhere.
    pub known: Vec<Record>,
    /// Ends a run after a step, saved.
    pub stop: Stop,
}

impl Bench {
    fn folder(&self, arm: &Arm, seed: u64) -> PathBuf {
        self.out.join("runs").join(arm.folder(seed))
    }

    /// Removes what an interrupted call left of a run, so that all of it is made and measured anew.
    ///
    /// # Errors
    /// When it cannot be deleted.
    pub fn clear(&self, arm: &Arm, seed: u64) -> Result<()> {
        let folder = self.folder(arm, seed);
        let Some((_, _lock)) = RunDir::claim(&folder)? else { return Ok(()) };
        std::fs::remove_dir_all(&folder).with_context(|| format!("cannot delete {}", folder.display()))
    }

    /// The result of a run of which nothing is missing.
    pub fn finished(&self, arm: &Arm, seed: u64) -> Option<RunResult> {
        let known = || self.known.iter().find_map(|record| record.find(arm, seed, self.finetune));
        self.finished_here(arm, seed).or_else(known)
    }

    fn finished_here(&self, arm: &Arm, seed: u64) -> Option<RunResult> {
        let folder = self.folder(arm, seed);
        let mut result: RunResult = read(&folder.join(RESULT))?;
        if let Some(epochs) = self.finetune {
            result.probes.push(read(&finetuned_file(&folder, epochs))?);
        }
        Some(result)
    }

    /// Trains, probes and fine-tunes, or goes on where that was interrupted; `None` when another process is at it.
    ///
    /// # Errors
    /// When a signal asks to stop, and for whatever makes a run fail.
    pub fn run(&self, arm: &Arm, seed: u64) -> Result<Option<RunResult>> {
        let begun = Instant::now();
        let folder = self.folder(arm, seed);
        let Some((run, _lock)) = RunDir::claim(&folder)? else { return Ok(None) };
        let config = self.config(arm, seed)?;
        let world = begun.elapsed().as_secs_f64();
        if read::<RunResult>(&folder.join(RESULT)).is_none() {
            let result = self.pretrained(arm, &config, run, world)?;
            write_atomically(&folder.join(RESULT), (serde_json::to_string(&result)? + "\n").as_bytes())?;
        }
        if let Some(epochs) = self.finetune {
            let file = finetuned_file(&folder, epochs);
            if read::<Probe>(&file).is_none() {
                let probe = finetuned(&config, &folder, epochs, &self.stop)?;
                write_atomically(&file, (serde_json::to_string(&probe)? + "\n").as_bytes())?;
            }
        }
        Ok(self.finished(arm, seed))
    }

    fn pretrained(&self, arm: &Arm, config: &Config, run: RunDir, world: f64) -> Result<RunResult> {
        let begun = Instant::now();
        let folder = run.path().to_owned();
        write_atomically(&run.config_file(), config.to_toml()?.as_bytes())?;
        let start = Start::Resume { allow_changes: false };
        let mut trainer = Trainer::new(config.clone(), run, start)?.stopped_by(self.stop.clone());
        let outcome = trainer.run()?;
        if outcome.stopped {
            bail!("stopped by a signal in {}, saved; the same command goes on from there", folder.display());
        }
        let training = begun.elapsed().as_secs_f64();
        let (masked_loss, contrastive) = last_losses(&trainer)?;
        let probes = frozen(config, &trainer)?;
        Ok(RunResult {
            arm: arm.clone(),
            seed: config.seed,
            steps: outcome.steps,
            spent: Spent { world, training, probes: begun.elapsed().as_secs_f64() - training },
            masked_loss,
            contrastive,
            probes,
        })
    }

    /// The configuration of a run, with its world rendered and its score maps made.
    fn config(&self, arm: &Arm, seed: u64) -> Result<Config> {
        let warmup = [format!("schedule.warmup={}", self.steps / 10)];
        // Of the plan: a budget may have shortened it.
        let length = [format!("schedule.length={}", self.steps)];
        let settings = [&warmup[..], &self.settings, &length, &arm.settings].concat();
        let mut config = config::load("reproduce", &settings)?;
        let folder = self.out.join("worlds").join(arm.world.folder());
        // Whoever comes first renders and scores; others wait.
        let _door = super::door(&self.out.join("worlds"))?;
        let manifest = demo::render(&folder, &arm.world.config(self.clips))?;
        config.data.manifest = Some(with_captions(manifest, arm.world)?);
        config.seed = seed;
        if let Some(features) = arm.score_features() {
            let cache = folder.join(format!("scores-{features}"));
            score_cache::fill_for(&config, &cache)?;
            config.text.cache = Some(cache);
        }
        Ok(config)
    }
}

/// Masked loss and contrastive loss of the last step, each as a share of what guessing costs; from the run's file of metrics,
/// since the process that made the last step may have been another one.
fn last_losses(trainer: &Trainer) -> Result<(Option<f64>, Option<f64>)> {
    let file = trainer.run_dir().metrics_file();
    let text = std::fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
    let Some(last) = text.lines().last() else { return Ok((None, None)) };
    let line: serde_json::Value =
        serde_json::from_str(last).with_context(|| format!("{}: damaged", file.display()))?;
    let number = |key: &str| line[key].as_f64();
    let masked = number("mae").zip(number("mae_of_mean")).map(|(mae, mean)| mae / mean);
    Ok((masked, number("contrastive_relative")))
}

/// What was written into a file, if it is there and whole.
fn read<T: DeserializeOwned>(file: &Path) -> Option<T> {
    serde_json::from_slice(&std::fs::read(file).ok()?).ok()
}

/// Apart from the result of pretraining, so that fine-tuning can be added to runs that are finished.
fn finetuned_file(folder: &Path, epochs: f64) -> PathBuf {
    folder.join(format!("finetune-{epochs}.json"))
}

/// The manifest with as many captions per clip as the world shall have.
fn with_captions(manifest: PathBuf, world: World) -> Result<PathBuf> {
    if world.captions != 1 {
        return Ok(manifest);
    }
    let file = manifest.with_file_name("manifest-one.csv");
    let all = Manifest::load(&manifest)?;
    let rows = all.rows().map(|row| {
        let mut record = row.record(&file)?;
        record.captions.truncate(1);
        Ok(record)
    });
    write_manifest(&file, rows)?;
    Ok(file)
}

/// kNN and logistic regression on the mean token: of the motion, and of what captions name.
fn frozen(config: &Config, trainer: &Trainer) -> Result<Vec<Probe>> {
    let clips = LabelledClips::of(config)?.context("a world has labels and both splits")?;
    let features = clips.features("features", trainer.model().encoder())?;
    let mut probes = Vec::new();
    for task in &clips.tasks {
        let features = features.for_task(task)?;
        let protocols =
            [("knn", knn_protocol(features.train_clips())), ("linear", linear_protocol(&features))];
        for (protocol, settings) in protocols {
            let what = task.distinction().map_or(String::new(), |name| format!(" {name}"));
            probes.push(Probe {
                name: protocol.to_owned() + &what,
                hits: features.hits(&settings, config.seed)?,
            });
        }
    }
    Ok(probes)
}

/// Fine-tuning without the augmentations that large models need.
fn finetuned(config: &Config, folder: &Path, epochs: f64, stop: &Stop) -> Result<Probe> {
    let checkpoint = model_io::open(folder)?;
    let manifest = config.data.manifest.as_deref().context("a run on a world has a manifest")?;
    let data = EvalData::of_manifest(
        manifest,
        ["train", "test"],
        &[LABEL],
        config.clip.clone(),
        Choices::default(),
    )?;
    let recipe = tgm_eval::supervised::Settings {
        epochs,
        warmup_epochs: epochs / 10.0,
        batch: 32,
        base_lr: 8e-3,
        layer_decay: 1.0,
        crop: config.clip.crop.clone(),
        mixup: 0.0,
        cutmix: 0.0,
        erase: 0.0,
        rand_augment: None,
        ..tgm_eval::supervised::Settings::finetune()
    };
    let conduct = supervised::Conduct {
        out: Some(&folder.join(format!("finetune-{epochs}"))),
        save_every: 200,
        cache_mb: config.loader.cache_mb,
        random: false,
        stop,
    };
    let outcome = supervised::evaluate(&data, &checkpoint, &recipe, conduct, config.seed)?;
    let task = outcome.first().context("a world has one task")?;
    Ok(Probe { name: FINE_TUNE.into(), hits: task.ours.hits()? })
}
