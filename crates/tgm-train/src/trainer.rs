//! The training loop: clips, masks, gradient, step; and what is written on the way.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use candle_core::Device;
use tgm_contrastive::ContrastiveHead;
use tgm_data::loader::{Subset, TrainLoader};
use tgm_mae::{MaeConfig, VideoMae};
use tgm_ops::{AdamW, AdamWConfig, Gradients, Params};
use tgm_random::Streams;

use crate::batch::GlobalBatch;
use crate::checkpoint::{self, DataPrint, Keep, Position, Score, Snapshot};
use crate::config::{Config, Plan};
use crate::environment::Environment;
use crate::fault;
use crate::guidance::Guide;
use crate::metrics::{JsonLines, Metrics, now};
use crate::pictures;
use crate::probe::PeriodicProbe;
use crate::rehearsal::Budget;
use crate::run_data::{check_files, fingerprint};
pub use crate::run_data::{subset, training_data};
use crate::run_dir::RunDir;
use crate::schedule::learning_rate;
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
    config: Config,
    plan: Plan,
    run: RunDir,
    data: Subset,
    data_print: DataPrint,
    guide: Guide,
    params: Params,
    joint: Joint,
    optimizer: AdamW,
    position: Position,
    stop: Stop,
    probe: Option<PeriodicProbe>,
    progress_made: Average,
    saved: Option<u64>,
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
        let device = Device::Cpu;
        let data = training_data(&config)?;
        check_files(&data, config.loader.max_bad_share)?;
        let plan = Plan::new(&config, data.rows().len())?;
        let guide = Guide::new(&config, &device)?;
        let mut params = Params::new(Streams::new(config.seed), &device);
        let joint = joint(&config, &plan.model, guide.text_dim(), &mut params)?;
        let mut trainer = Self {
            optimizer: optimizer(&config, &params),
            data_print: fingerprint(&data),
            probe: PeriodicProbe::new(&config)?,
            stop: Stop::new(),
            position: Position::default(),
            progress_made: Average::default(),
            saved: None,
            drawn: Vec::new(),
            peak_flops: crate::peak::matmul_flops()?,
            config,
            plan,
            run,
            data,
            guide,
            params,
            joint,
        };
        if let Start::Resume { allow_changes } = start {
            trainer.resume(allow_changes)?;
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
            crate::progress::say(&format!(
                "{}: no checkpoint yet, starting at step 0",
                self.run.path().display()
            ));
            return Ok(());
        };
        let state = checkpoint::restore(&newest, &self.params, &mut self.optimizer)?;
        if state.data != self.data_print {
            let (then, here) = (&state.data, &self.data_print);
            let what = format!(
                "the training data is not what {} was trained on: {} rows with checksum {:08x} then, {} rows with checksum \
                 {:08x} now",
                newest.display(),
                then.rows,
                then.crc32,
                here.rows,
                here.crc32
            );
            if !allow_changes {
                bail!("{what}; bring the old manifest back, or give --allow-changes");
            }
            tracing::warn!("{what}");
        }
        self.saved = Some(state.position.step);
        self.position = state.position;
        Ok(())
    }

    /// What will be done, in a few lines for a person.
    pub fn describe(&self) -> String {
        let (plan, config) = (&self.plan, &self.config);
        let [slots, rows, cols] = plan.model.grid();
        let joint = if config.contrastive.enabled { "with" } else { "without" };
        format!(
            "model     {:.1} M parameters, {slots}×{rows}×{cols} tubelets of {} values\n\
             masking   {} at ratio {}, {joint} contrastive loss\n\
             data      {} clips\n\
             batch     {} = {} micro-batches of {}\n\
             schedule  {} steps ({:.1} epochs), warm-up {}, lr {:.2e} (= base {:.2e} × {} / 256)\n\
             machine   {:.0} GFLOP/s in matrix products\n\
             run       {}, from step {}",
            self.params.count() as f64 / 1e6,
            plan.model.tubelet_len(),
            config.masking.name(),
            config.masking.ratio(),
            self.data.rows().len(),
            config.train.batch,
            plan.micro_batches,
            plan.micro_batch,
            plan.length.stop,
            self.epoch(plan.length.stop),
            plan.length.warmup,
            plan.lr.0,
            config.schedule.base_lr,
            config.train.batch,
            self.peak_flops / 1e9,
            self.run.path().display(),
            self.position.step,
        )
    }

    /// The model of this run.
    pub fn model(&self) -> &VideoMae {
        &self.joint.mae
    }

    /// What the configuration comes to.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// All parameters.
    pub fn params(&self) -> &Params {
        &self.params
    }

    /// Clips to train on.
    pub fn clips(&self) -> usize {
        self.data.rows().len()
    }

    fn epoch(&self, step: u64) -> f64 {
        step as f64 * self.config.train.batch as f64 / self.data.rows().len() as f64
    }

    /// Trains to the end, or until asked to stop.
    ///
    /// # Errors
    /// When data, a gradient or a file fails; the last checkpoint stays.
    pub fn run(&mut self) -> Result<Outcome> {
        let stop = self.plan.length.stop;
        let mut losses = None;
        if self.position.step < stop {
            losses = self.train(stop)?;
        }
        let stopped = self.position.step < stop;
        let checkpoint = match checkpoint::newest(&self.run.checkpoints())? {
            Some(newest) => newest,
            None => self.save(None)?,
        };
        if self.drawn.is_empty() && self.config.output.pictures > 0 && !stopped {
            self.drawn = self.pictures()?;
        }
        Ok(Outcome {
            steps: self.position.step,
            skipped_steps: self.position.skipped,
            stopped,
            losses,
            checkpoint,
            pictures: self.drawn.clone(),
        })
    }

    fn train(&mut self, stop: u64) -> Result<Option<Losses>> {
        let _armed = self.stop.arm();
        let step = self.position.step;
        let environment = Environment::here(step, self.peak_flops);
        JsonLines::open(&self.run.environment_file(), step)?.push(&environment)?;
        let mut watch = Watch::open(&self.run, &self.config, step, stop)?;
        let mut loader = self.loader()?;
        let mut clock = Clock::start(&loader);
        let mut losses = None;
        while self.position.step < stop && !self.stop.requested() {
            let batch = match self.load(&mut loader, &watch) {
                Ok(batch) => batch,
                Err(error) => {
                    // The weights are those of a whole step: what was learnt since the last checkpoint is kept.
                    let saved = match self.save(None) {
                        Ok(place) => format!("saved in {}", place.display()),
                        Err(error) => format!("and could not be saved ({error:#})"),
                    };
                    return Err(
                        error.context(format!("training stopped after step {}, {saved}", self.position.step))
                    );
                }
            };
            let (metrics, of_step) = self.one_step(&batch, &mut clock, &loader, &watch)?;
            losses = Some(of_step);
            watch.step(&metrics)?;
            self.keep(&mut watch, stop)?;
        }
        if self.position.step < stop {
            self.save(None)?;
        }
        watch.finish();
        Ok(losses)
    }

    /// Measures up to so many steps, no longer than `limit` and at least a part of one; they are not counted and nothing is
    /// written. A step that is too long is measured on some of its micro-batches.
    ///
    /// # Errors
    /// Those of a step.
    pub fn rehearse(&mut self, steps: usize, limit: Duration) -> Result<Rehearsed> {
        let mut loader = self.loader()?;
        // With the joint loss, several micro-batches cost more each than one alone.
        let at_once = self.plan.micro_batches.min(2);
        let wanted = steps * self.plan.micro_batches;
        let (mut micro_batches, mut updating) = (0, 0.0);
        let budget = Budget::new(limit);
        while micro_batches < wanted && !(micro_batches > 0 && budget.spent()) {
            let mut batch = GlobalBatch::default();
            for _ in 0..at_once {
                let loaded = loader.next_batch()?;
                self.add(&mut batch, &loaded.samples)?;
            }
            let mut grads = Gradients::zeros(&self.params);
            self.joint.gradient(&self.params, &batch.micro, &mut grads)?;
            let begun = Instant::now();
            self.update(&grads, grads.norm(), 0.0)?;
            updating += begun.elapsed().as_secs_f64();
            micro_batches += at_once;
        }
        let (seconds, updates) = (budget.seconds(), (micro_batches / at_once) as f64);
        let per_micro_batch = (seconds - updating) / micro_batches as f64;
        let stats = loader.stats();
        Ok(Rehearsed {
            micro_batches,
            seconds_per_step: per_micro_batch * self.plan.micro_batches as f64 + updating / updates,
            data_wait: (stats.waited.as_secs_f64() / seconds).min(1.0),
            bad_videos: stats.bad,
        })
    }

    /// The loader of the batches from the current step on.
    fn loader(&self) -> Result<TrainLoader> {
        let start = self.position.step * self.plan.micro_batches as u64;
        let streams = Streams::new(self.config.seed);
        let (clip, loader) = (&self.config.clip, &self.config.loader);
        Ok(TrainLoader::new(&self.data, clip, loader, self.plan.micro_batch, streams, start)?)
    }

    /// The clips of the next step, masked.
    fn load(&mut self, loader: &mut TrainLoader, watch: &Watch) -> Result<GlobalBatch> {
        let mut batch = GlobalBatch::default();
        for _ in 0..self.plan.micro_batches {
            let loaded = loader.next_batch()?;
            for skip in &loaded.skipped {
                watch.line(&format!("skipped: {}", skip.reason));
            }
            batch.skipped += loaded.skipped.len();
            self.add(&mut batch, &loaded.samples)?;
        }
        Ok(batch)
    }

    fn add(&mut self, batch: &mut GlobalBatch, samples: &[tgm_data::loader::Sample]) -> Result<()> {
        let texts = self.joint.contrastive.is_some();
        batch.push(samples, &mut self.guide, &self.plan.model, texts, self.params.device())
    }

    fn one_step(
        &mut self,
        batch: &GlobalBatch,
        clock: &mut Clock,
        loader: &TrainLoader,
        watch: &Watch,
    ) -> Result<(Metrics, Losses)> {
        let mut grads = Gradients::zeros(&self.params);
        let losses = self.joint.gradient(&self.params, &batch.micro, &mut grads)?;
        fault::inject(self.position.step, &mut grads)?;
        let norm = grads.norm();
        let total = losses.total(self.config.contrastive.weight);
        let lr = learning_rate(&self.plan, self.position.step);
        if total.is_finite() && norm.is_finite() {
            self.update(&grads, norm, lr)?;
            self.position.skipped_in_a_row = 0;
            self.progress_made.add(losses.mae / losses.mae_of_mean);
        } else {
            self.skip(batch, &losses, &grads, watch)?;
        }
        self.position.step += 1;
        let lap = clock.lap(self.config.train.batch, loader);
        let contrastive = losses.contrastive;
        let metrics = Metrics {
            step: self.position.step,
            epoch: self.epoch(self.position.step),
            time: now(),
            loss: total,
            mae: losses.mae,
            mae_of_mean: losses.mae_of_mean,
            mae_of_copy: copy_loss(&self.joint.mae, batch)?,
            contrastive: contrastive.map(|c| c.loss),
            contrastive_relative: contrastive.map(|c| c.relative),
            contrastive_top1: contrastive.map(|c| c.top1),
            temperature: contrastive.map(|c| c.scale.recip()),
            grad_norm: norm,
            lr,
            clips_per_second: lap.clips_per_second,
            peak_share: lap.clips_per_second * self.flops_per_clip(batch) / self.peak_flops,
            data_wait: lap.data_wait,
            skipped: batch.skipped,
            skipped_steps: self.position.skipped,
        };
        Ok((metrics, losses))
    }

    fn update(&mut self, grads: &Gradients, norm: f64, lr: f64) -> Result<()> {
        let limit = self.config.train.clip_norm;
        let scale = if limit > 0.0 { (limit / (norm + 1e-6)).min(1.0) } else { 1.0 };
        self.optimizer.step(&self.params, grads, lr, scale)?;
        if let Some((head, _)) = &self.joint.contrastive {
            head.constrain(&self.params)?;
        }
        Ok(())
    }

    /// Counts a step that is not made. After too many in a row everything about this one is written down and the run ends.
    fn skip(&mut self, batch: &GlobalBatch, losses: &Losses, grads: &Gradients, watch: &Watch) -> Result<()> {
        let (row, limit) = (self.position.skipped_in_a_row + 1, self.config.train.max_skipped);
        let what = format!(
            "step {}: the loss is {} and the gradient's norm {}",
            self.position.step + 1,
            losses.total(self.config.contrastive.weight),
            grads.norm()
        );
        if row <= limit {
            watch.line(&format!("skipped: {what} ({row} in a row, the run stops after {limit})"));
            self.position.skipped += 1;
            self.position.skipped_in_a_row = row;
            return Ok(());
        }
        let folder = fault::write(&self.run.faults(), batch, losses, grads, &self.snapshot(None))?;
        bail!(
            "{what}, as for {limit} steps before (train.max_skipped); what it was computed from is in {folder}: look at it with \
             `tgm replay {folder}`, then resume with --allow-changes and a lower schedule.base_lr or another train.clip_norm",
            folder = folder.display(),
        );
    }

    /// Matrix products for one clip: forward, and twice that backward.
    fn flops_per_clip(&self, batch: &GlobalBatch) -> f64 {
        let (visible, targets) = batch.tokens();
        3.0 * self.plan.model.forward_flops(visible, targets) as f64
    }

    /// Probes, saves and pictures, each when it is due.
    fn keep(&mut self, watch: &mut Watch, stop: u64) -> Result<()> {
        let (step, output) = (self.position.step, &self.config.output);
        let due = |every: u64| every > 0 && step.is_multiple_of(every);
        let (save, picture) = (step == stop || due(output.checkpoint_every), due(output.pictures_every));
        let probe = due(output.probe_every) || (output.probe_every > 0 && step == stop);
        let mut score = None;
        if let (true, Some(probe)) = (probe, &mut self.probe) {
            let line = probe.run(step, self.joint.mae.encoder(), &self.plan.model)?;
            score = Some(Score { name: line.name.clone(), value: line.result });
            watch.probe(&line)?;
        } else if self.probe.is_none() {
            // Without probes the best checkpoint is the one with the lowest loss since the one before.
            score = self.progress_made.mean().map(|loss| Score { name: "-masked loss".into(), value: -loss });
        }
        if save || probe {
            self.save(score)?;
        }
        if (picture || step == stop) && self.config.output.pictures > 0 {
            self.drawn = self.pictures()?;
            watch.pictures(step, &self.drawn)?;
        }
        Ok(())
    }

    fn snapshot<'a>(&'a self, score: Option<&'a Score>) -> Snapshot<'a> {
        Snapshot {
            config: &self.config,
            model: &self.plan.model,
            params: &self.params,
            optimizer: &self.optimizer,
            position: &self.position,
            score,
            data: &self.data_print,
        }
    }

    /// Saves this step, unless it is saved already.
    fn save(&mut self, score: Option<Score>) -> Result<PathBuf> {
        let folder = self.run.checkpoints();
        let step = self.position.step;
        if self.saved == Some(step) {
            return Ok(folder.join(format!("step-{step:08}")));
        }
        let place = checkpoint::save(&folder, &self.snapshot(score.as_ref()))?;
        let output = &self.config.output;
        checkpoint::prune(&folder, Keep { last: output.keep, best: output.keep_best })?;
        tracing::info!("saved {}", place.display());
        self.saved = Some(step);
        self.progress_made = Average::default();
        Ok(place)
    }

    /// Pictures of the first clips of the run, always the same ones, as the model sees them now.
    fn pictures(&mut self) -> Result<Vec<PathBuf>> {
        let count = self.config.output.pictures;
        let (clip, streams) = (&self.config.clip, Streams::new(self.config.seed));
        let mut loader = TrainLoader::new(&self.data, clip, &self.config.loader, count, streams, 0)?;
        let samples = loader.next_batch()?.samples;
        let mut batch = GlobalBatch::default();
        self.add(&mut batch, &samples)?;
        let micro = &batch.micro[0];
        let prediction = self.joint.mae.forward(&micro.tubelets, &micro.split)?.prediction;
        let mut paths = Vec::with_capacity(count);
        let drawn = samples.iter().zip(&batch.masks).zip(prediction.to_vec3::<f32>()?);
        for (i, ((sample, mask), prediction)) in drawn.enumerate() {
            let path = self.run.pictures().join(format!("step-{:08}-clip-{i}.png", self.position.step));
            let normalized = self.plan.model.normalize_target;
            pictures::write(&path, sample, mask, &prediction, &self.config.clip, normalized)?;
            paths.push(path);
        }
        Ok(paths)
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
    let mae = VideoMae::new(model, params)?;
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

/// The reconstruction loss of a model that copies the nearest visible tubelet.
fn copy_loss(mae: &VideoMae, batch: &GlobalBatch) -> Result<f64> {
    let mut sum = 0.0;
    for (micro, nearest) in batch.micro.iter().zip(&batch.nearest) {
        sum += f64::from(mae.copy_loss(&micro.tubelets, &micro.split, nearest)?.to_scalar::<f32>()?);
    }
    Ok(sum / batch.micro.len() as f64)
}

/// What [`Trainer::rehearse`] measured.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rehearsed {
    /// How many micro-batches.
    pub micro_batches: usize,
    /// Seconds per optimiser step.
    pub seconds_per_step: f64,
    /// Share of the time that was spent waiting for data.
    pub data_wait: f64,
    /// Videos that could not be read.
    pub bad_videos: u64,
}

/// A running mean.
#[derive(Clone, Copy, Debug, Default)]
struct Average {
    sum: f64,
    count: u64,
}

impl Average {
    fn add(&mut self, value: f64) {
        self.sum += value;
        self.count += 1;
    }

    fn mean(&self) -> Option<f64> {
        (self.count > 0).then(|| self.sum / self.count as f64)
    }
}

/// Times steps, and the part of them that was spent waiting for data.
struct Clock {
    since: Instant,
    waited: Duration,
}

/// What a [`Clock`] measured.
struct Lap {
    clips_per_second: f64,
    data_wait: f64,
}

impl Clock {
    fn start(loader: &TrainLoader) -> Self {
        Self { since: Instant::now(), waited: loader.stats().waited }
    }

    fn lap(&mut self, clips: usize, loader: &TrainLoader) -> Lap {
        let (now, waited) = (Instant::now(), loader.stats().waited);
        let seconds = (now - self.since).as_secs_f64().max(1e-9);
        let share = (waited - self.waited).as_secs_f64() / seconds;
        (self.since, self.waited) = (now, waited);
        Lap { clips_per_second: clips as f64 / seconds, data_wait: share.min(1.0) }
    }
}
