//! The training loop: clips, masks, gradient, step; and what is written on the way.

mod clock;
mod keep;
mod learner;
mod member;
mod rehearse;
mod step;

use std::path::PathBuf;

use anyhow::{Result, bail};
use tgm_contrastive::ContrastiveHead;
use tgm_data::loader::TrainLoader;
use tgm_mae::{MaeConfig, MemoryEstimate, VideoMae};
use tgm_masking::{Masking, Select};
use tgm_ops::{AdamW, AdamWConfig, Params, peak_flops};

use self::clock::Clock;
use self::learner::Learner;
pub use self::member::Member;
pub use self::rehearse::Rehearsed;
use crate::checkpoint;
use crate::config::{Config, Plan};
use crate::environment::{self, Environment};
use crate::init;
use crate::metrics::JsonLines;
use crate::probe::PeriodicProbe;
use crate::progress::say;
pub use crate::run_data::{subset, training_data};
use crate::run_dir::RunDir;
use crate::step::{Joint, Losses};
use crate::stop::Stop;
use crate::watch::Watch;

/// Where a run begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// At its first step.
    Fresh,
    /// At its newest checkpoint; at its first step when it has none yet.
    Resume {
        /// Go on although the data is no longer what it was.
        allow_changes: bool,
    },
}

/// A run in progress.
pub struct Trainer {
    learner: Learner,
    run: RunDir,
    stop: Stop,
    /// A process of the group was asked to stop.
    leave: bool,
    /// Too many steps in a row were not finite: these weights are not worth keeping.
    ruined: bool,
    probe: Option<PeriodicProbe>,
    saved: Option<u64>,
    /// From a checkpoint.
    resumed: bool,
    drawn: Vec<PathBuf>,
    peak_flops: f64,
}

/// How a run ended.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    /// Steps taken in all.
    pub steps: u64,
    /// Of them, those whose gradient was not finite and was not used.
    pub skipped_steps: u64,
    /// It was asked to stop before its end.
    pub stopped: bool,
    /// Losses of the last step that this call took; none if there was nothing left to do.
    pub losses: Option<Losses>,
    /// The last checkpoint.
    pub checkpoint: PathBuf,
    /// Pictures, if any were made.
    pub pictures: Vec<PathBuf>,
}

impl Trainer {
    /// Prepares a run from its first step, or from the newest checkpoint in its folder.
    ///
    /// # Errors
    /// When the configuration, the data, the CLIP or the checkpoint cannot be used.
    pub fn new(config: Config, run: RunDir, start: Start) -> Result<Self> {
        let learner = Learner::new(config)?;
        let config = &learner.config;
        let mut trainer = Self {
            probe: PeriodicProbe::new(config)?,
            stop: Stop::new(),
            leave: false,
            ruined: false,
            saved: None,
            resumed: false,
            drawn: Vec::new(),
            peak_flops: peak_flops(config.train.compute().precision),
            run,
            learner,
        };
        if let Start::Resume { allow_changes } = start {
            trainer.resume(allow_changes)?;
        }
        if let (Some(path), false) = (&trainer.learner.config.model.init, trainer.resumed) {
            let taken = init::start_from(&trainer.learner.params, path)?;
            say(&format!("beginning with the {taken}"));
        }
        Ok(trainer)
    }

    /// Lets `stop` end the run after a step.
    #[must_use]
    pub fn stopped_by(self, stop: Stop) -> Self {
        Self { stop, ..self }
    }

    fn resume(&mut self, allow_changes: bool) -> Result<()> {
        let folder = self.run.checkpoints();
        checkpoint::sweep(&folder)?;
        let Some(newest) = checkpoint::newest(&folder)? else {
            say(&format!("{}: no checkpoint yet, starting at step 0", self.run.path().display()));
            return Ok(());
        };
        let state = checkpoint::restore(&newest, &self.learner.params, &mut self.learner.optimizer)?;
        if state.data != self.learner.data_print {
            let (then, here) = (&state.data, &self.learner.data_print);
            let what = format!(
                "the training data is not what {} was trained on: {then} then, {here} now",
                newest.display()
            );
            if !allow_changes {
                bail!("{what}; bring the old manifest back, or give --allow-changes");
            }
            tracing::warn!("{what}");
        }
        checkpoint::set_aside_after(&folder, &newest)?;
        self.saved = Some(state.position.step);
        self.learner.position = state.position;
        if allow_changes {
            // What was wrong has been changed: the steps before do not count against it.
            self.learner.position.skipped_in_a_row = 0;
        }
        self.resumed = true;
        Ok(())
    }

    /// What will be done, in a few lines for a person.
    pub fn describe(&self) -> String {
        let (plan, config) = (&self.learner.plan, &self.learner.config);
        let [slots, rows, cols] = plan.model.grid();
        let joint = if config.contrastive.enabled { "with" } else { "without" };
        let compute = config.train.compute();
        let (memory, clips) = (self.memory(), plan.clip_bytes(config.train.batch));
        let mib = |bytes: usize| bytes as f64 / f64::from(1 << 20);
        let precision = compute.precision.or_f32();
        let slower = if precision.is_fast() { "" } else { " (saves memory, and on this processor no time)" };
        let precision = format!("{precision}{slower}");
        format!(
            "model     {:.1} M parameters, {slots}×{rows}×{cols} tubelets of {} values\n\
             masking   {} at ratio {}{}, {joint} contrastive loss\n\
             data      {} clips\n\
             batch     {} = {} micro-batches of {}\n\
             schedule  {} steps ({:.1} epochs), warm-up {}, lr {:.2e} (= base {:.2e} × {} / 256)\n\
             memory    about {:.0} MiB: {:.0} for parameters and their state, {:.0} for activations in {}{}, {:.0} for \
             the clips of the batch; videos kept decoded take up to {} more\n\
             machine   {:.0} GFLOP/s in multiply-adds\n\
             run       {}, from step {}",
            self.learner.params.count() as f64 / 1e6,
            plan.model.tubelet_len(),
            config.masking.name(),
            config.masking.ratio(),
            guidance(config),
            self.learner.data.rows().len(),
            config.train.batch,
            plan.micro_batches,
            plan.micro_batch,
            plan.length.stop,
            self.epoch(plan.length.stop),
            plan.length.warmup,
            plan.lr.0,
            config.schedule.base_lr,
            config.train.batch,
            mib(memory.total() + clips),
            mib(memory.parameters),
            mib(memory.activations),
            precision,
            if config.train.recompute { ", recomputed" } else { "" },
            mib(clips),
            config.loader.cache_mb,
            self.peak_flops / 1e9,
            self.run.path().display(),
            self.learner.position.step,
        )
    }

    /// What a step will take, besides the clips of the batch ([`Plan::clip_bytes`]).
    pub fn memory(&self) -> MemoryEstimate {
        let (model, masking) = (&self.learner.plan.model, &self.learner.config.masking);
        let visible = ((1.0 - masking.ratio()) * model.tokens() as f64).round() as usize;
        let compute = self.learner.config.train.compute();
        model.memory(self.learner.params.count(), self.learner.plan.micro_batch, visible, compute)
    }

    /// What a step and its clips take more than the machine has, in words; none if they fit, or the system does not say.
    pub fn memory_shortage(&self) -> Option<String> {
        let bytes = self.memory().total() + self.learner.plan.clip_bytes(self.learner.config.train.batch);
        let (needed, here) = (bytes as f64 / f64::from(1 << 20), environment::memory_mib()?);
        (needed > here).then(|| {
            format!(
                "a step takes about {needed:.0} MiB, and this machine has {here:.0}: give a smaller train.micro_batch or train.batch, \
                 train.recompute = true, or a smaller model"
            )
        })
    }

    /// The model of this run.
    pub fn model(&self) -> &VideoMae {
        &self.learner.joint.mae
    }

    /// The folder of this run.
    pub fn run_dir(&self) -> &RunDir {
        &self.run
    }

    /// What the configuration comes to.
    pub fn plan(&self) -> &Plan {
        &self.learner.plan
    }

    /// All parameters.
    pub fn params(&self) -> &Params {
        &self.learner.params
    }

    /// Clips to train on.
    pub fn clips(&self) -> usize {
        self.learner.data.rows().len()
    }

    fn epoch(&self, step: u64) -> f64 {
        step as f64 * self.learner.config.train.batch as f64 / self.learner.data.rows().len() as f64
    }

    /// Trains to the end, or until asked to stop.
    ///
    /// # Errors
    /// When data, a gradient or a file fails; the last checkpoint stays.
    pub fn run(&mut self) -> Result<Outcome> {
        let stop = self.learner.plan.length.stop;
        let mut losses = None;
        if self.resumed {
            self.make_up_probe()?;
        }
        if self.learner.position.step < stop {
            losses = self.train(stop)?;
        }
        let stopped = self.learner.position.step < stop;
        let checkpoint = match checkpoint::newest(&self.run.checkpoints())? {
            Some(newest) => newest,
            None => self.save(None)?,
        };
        if self.drawn.is_empty() && self.learner.config.output.pictures > 0 && !stopped {
            self.drawn = self.pictures()?;
        }
        Ok(Outcome {
            steps: self.learner.position.step,
            skipped_steps: self.learner.position.skipped,
            stopped,
            losses,
            checkpoint,
            pictures: self.drawn.clone(),
        })
    }

    /// One step, written down, and what is kept of it.
    fn turn(
        &mut self,
        loader: &mut TrainLoader,
        clock: &mut Clock,
        watch: &mut Watch,
        stop: u64,
    ) -> Result<Losses> {
        let batch = self.learner.load(loader, &|line| watch.line(line))?;
        let (metrics, losses) = self.one_step(&batch, clock, loader, watch)?;
        watch.step(&metrics)?;
        self.keep(watch, stop)?;
        Ok(losses)
    }

    /// Whether the run ends here. The processes of a group must agree on that.
    fn leaving(&self) -> bool {
        if self.learner.group.size() == 1 { self.stop.requested() } else { self.leave }
    }

    fn train(&mut self, stop: u64) -> Result<Option<Losses>> {
        let _armed = self.stop.arm();
        let step = self.learner.position.step;
        let environment = Environment::here(step, self.peak_flops);
        JsonLines::open(&self.run.environment_file(), step)?.push(&environment)?;
        let mut watch = Watch::open(&self.run, &self.learner.config, step, stop)?;
        let mut loader = self.learner.loader(self.learner.group.rank())?;
        let mut clock = Clock::start(&loader);
        let mut losses = None;
        while self.learner.position.step < stop && !self.leaving() {
            match self.turn(&mut loader, &mut clock, &mut watch, stop) {
                Ok(of_step) => losses = Some(of_step),
                Err(error) if self.ruined || self.learner.position.step == step => return Err(error),
                Err(error) => {
                    // The weights are those of a whole step: what was learnt since the last checkpoint is kept.
                    let here = checkpoint::of_step(&self.run.checkpoints(), self.learner.position.step);
                    let saved = match self.save(None) {
                        Ok(place) if place == here => format!("saved in {}", place.display()),
                        Ok(place) => format!("and not saved, the newest checkpoint is {}", place.display()),
                        Err(error) => format!("and could not be saved ({error:#})"),
                    };
                    return Err(error.context(format!(
                        "training stopped after step {}, {saved}",
                        self.learner.position.step
                    )));
                }
            }
        }
        if self.learner.position.step < stop {
            self.save(None)?;
        }
        watch.finish();
        Ok(losses)
    }
}

/// The model and its losses, with parameters at their initial values. `text_dim` is the width of the texts' embeddings.
///
/// # Errors
/// When sizes do not fit.
pub fn joint(
    config: &Config,
    model: &MaeConfig,
    text_dim: Option<usize>,
    params: &mut Params,
) -> Result<Joint> {
    let mae = VideoMae::new(model, params)?.with_compute(config.train.compute());
    let contrastive = match text_dim {
        Some(width) if config.contrastive.enabled => {
            let head = ContrastiveHead::new(model.encoder.dim, width, &config.contrastive.head, params)?;
            Some((head, config.contrastive.weight))
        }
        _ => None,
    };
    Ok(Joint { mae, contrastive })
}

/// The optimiser before its first step.
pub fn optimizer(config: &Config, params: &Params) -> AdamW {
    let [beta1, beta2] = config.train.betas;
    let weight_decay = config.train.weight_decay;
    AdamW::new(params, AdamWConfig { beta1, beta2, weight_decay, ..AdamWConfig::default() })
}

/// What guides the masks, in words: by default nothing else says which CLIP it is, and how strictly it decides.
fn guidance(config: &Config) -> String {
    let Masking::Text(text) = &config.masking else { return String::new() };
    let chosen = match text.select {
        Select::TopK => "best matches".to_owned(),
        Select::BottomK => "worst matches".to_owned(),
        Select::Sample => format!("sampled at temperature {}", text.temperature),
    };
    let cache = if config.text.cache.is_some() { " from a cache" } else { "" };
    format!(" ({chosen} by {}{cache})", config.text.model)
}
