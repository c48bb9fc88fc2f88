//! The training loop: clips, masks, gradient, step; and what is written on the way.

use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use candle_core::{Device, Tensor};
use serde::Serialize;
use tgm_contrastive::ContrastiveHead;
use tgm_data::loader::{Batch, Sample, Subset, TrainLoader};
use tgm_data::manifest::Manifest;
use tgm_mae::{TokenSplit, VideoMae};
use tgm_ops::{AdamW, AdamWConfig, Gradients, Params};
use tgm_random::Streams;

use crate::checkpoint;
use crate::config::{Config, Plan};
use crate::guidance::Guide;
use crate::pictures;
use crate::progress::Progress;
use crate::run_dir::RunDir;
use crate::schedule::learning_rate;
use crate::step::{Joint, Losses, MicroBatch};

/// A run in progress.
pub struct Trainer {
    config: Config,
    plan: Plan,
    run: RunDir,
    data: Subset,
    guide: Guide,
    params: Params,
    joint: Joint,
    optimizer: AdamW,
    step: u64,
}

/// A line of `metrics.jsonl`.
#[derive(Clone, Debug, Serialize)]
struct Metrics {
    step: u64,
    epoch: f64,
    loss: f64,
    mae: f64,
    mae_of_mean: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    contrastive: Option<f64>,
    /// The contrastive loss over ln(batch).
    #[serde(skip_serializing_if = "Option::is_none")]
    contrastive_relative: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    contrastive_top1: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    temperature: Option<f64>,
    grad_norm: f64,
    lr: f64,
    clips_per_second: f64,
    /// Share of the time spent waiting for data.
    data_wait: f64,
    skipped: usize,
}

/// How a run ended.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    /// Steps taken in all.
    pub steps: u64,
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
    pub fn new(config: Config, run: RunDir, resume: bool) -> Result<Self> {
        let device = Device::Cpu;
        let data = training_data(&config)?;
        let plan = Plan::new(&config, data.rows().len())?;
        let guide = Guide::new(&config, &device)?;
        let mut params = Params::new(Streams::new(config.seed), &device);
        let mae = VideoMae::new(&plan.model, &mut params)?;
        let contrastive = match guide.text_dim() {
            Some(width) if config.contrastive.enabled => {
                let head = ContrastiveHead::new(
                    plan.model.encoder.dim,
                    width,
                    &config.contrastive.head,
                    &mut params,
                )?;
                Some((head, config.contrastive.weight))
            }
            _ => None,
        };
        let [beta1, beta2] = config.train.betas;
        let adamw =
            AdamWConfig { beta1, beta2, weight_decay: config.train.weight_decay, ..AdamWConfig::default() };
        let mut optimizer = AdamW::new(&params, adamw);
        let step = if resume { resume_from(&run, &params, &mut optimizer)? } else { 0 };
        let joint = Joint { mae, contrastive };
        Ok(Self { config, plan, run, data, guide, params, joint, optimizer, step })
    }

    /// What will be done, in a few lines for a person.
    pub fn describe(&self) -> String {
        let (plan, config) = (&self.plan, &self.config);
        let [slots, rows, cols] = plan.model.grid();
        let joint = if config.contrastive.enabled { "with" } else { "without" };
        format!(
            "model     {:.1} M parameters, {slots}×{rows}×{cols} tubelets of {} values\n\
             masking   {} at ratio {}, {joint} contrastive loss\n\
             data      {} clips, batch {} in micro-batches of {}\n\
             schedule  {} steps ({:.1} epochs), warm-up {}, lr {:.2e} (= base {:.2e} × {} / 256)\n\
             run       {}",
            self.params.count() as f64 / 1e6,
            plan.model.tubelet_len(),
            config.masking.name(),
            config.masking.ratio(),
            self.data.rows().len(),
            config.train.batch,
            plan.micro_batch,
            plan.length.stop,
            self.epoch(plan.length.stop),
            plan.length.warmup,
            plan.lr.0,
            config.schedule.base_lr,
            config.train.batch,
            self.run.path().display(),
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

    fn epoch(&self, step: u64) -> f64 {
        step as f64 * self.config.train.batch as f64 / self.data.rows().len() as f64
    }

    /// Trains to the end.
    ///
    /// # Errors
    /// When data, a gradient or a file fails; the last checkpoint stays.
    pub fn run(&mut self) -> Result<Outcome> {
        let stop = self.plan.length.stop;
        let mut losses = None;
        if self.step < stop {
            let mut log = open_metrics(&self.run.metrics_file(), self.step)?;
            let per_step = self.plan.micro_batches as u64;
            let mut loader = TrainLoader::new(
                &self.data,
                &self.config.clip,
                &self.config.loader,
                self.plan.micro_batch,
                Streams::new(self.config.seed),
                self.step * per_step,
            )?;
            let progress = Progress::new("pretrain", stop);
            progress.set(self.step);
            let mut clock = Clock::start(&loader);
            while self.step < stop {
                let metrics = self.one_step(&mut loader, &mut clock, &progress)?;
                losses = Some(metrics.1);
                self.write_metrics(&mut log, &metrics.0)?;
                self.report(&progress, &metrics.0);
                self.save_if_due(stop)?;
            }
            progress.finish();
        }
        let checkpoint = checkpoint::newest(&self.run.checkpoints())?;
        let pictures = if self.config.output.pictures > 0 { self.pictures()? } else { Vec::new() };
        Ok(Outcome { steps: self.step, losses, checkpoint, pictures })
    }

    fn one_step(
        &mut self,
        loader: &mut TrainLoader,
        clock: &mut Clock,
        progress: &Progress,
    ) -> Result<(Metrics, Losses)> {
        let mut skipped = 0;
        let mut micro_batches = Vec::with_capacity(self.plan.micro_batches);
        for _ in 0..self.plan.micro_batches {
            let batch = loader.next_batch()?;
            skipped += batch.skipped.len();
            report_skipped(&batch, progress);
            micro_batches.push(self.prepare(&batch.samples)?);
        }
        let mut grads = Gradients::zeros(&self.params);
        let losses = self.joint.gradient(&self.params, &micro_batches, &mut grads)?;
        let norm = grads.norm();
        let total = losses.total(self.config.contrastive.weight);
        if !(total.is_finite() && norm.is_finite()) {
            bail!(
                "step {}: the loss is {total} and the gradient's norm {norm}; lower schedule.base_lr or set train.clip_norm \
                 (the last checkpoint is in {})",
                self.step,
                self.run.checkpoints().display()
            );
        }
        let lr = learning_rate(&self.plan, self.step);
        let limit = self.config.train.clip_norm;
        let scale = if limit > 0.0 { (limit / (norm + 1e-6)).min(1.0) } else { 1.0 };
        self.optimizer.step(&self.params, &grads, lr, scale)?;
        if let Some((head, _)) = &self.joint.contrastive {
            head.constrain(&self.params)?;
        }
        self.step += 1;
        let (clips_per_second, data_wait) = clock.lap(self.config.train.batch, loader);
        let contrastive = losses.contrastive;
        let metrics = Metrics {
            step: self.step,
            epoch: self.epoch(self.step),
            loss: total,
            mae: losses.mae,
            mae_of_mean: losses.mae_of_mean,
            contrastive: contrastive.map(|c| c.loss),
            contrastive_relative: contrastive.map(|c| c.relative),
            contrastive_top1: contrastive.map(|c| c.top1),
            temperature: contrastive.map(|c| c.scale.recip()),
            grad_norm: norm,
            lr,
            clips_per_second,
            data_wait,
            skipped,
        };
        Ok((metrics, losses))
    }

    /// Clips to tensors, with their masks and text embeddings.
    fn prepare(&mut self, samples: &[Sample]) -> Result<MicroBatch> {
        let masks = self.guide.masks(samples)?;
        let split = TokenSplit::from_masks(&masks, self.params.device())?;
        let texts = if self.joint.contrastive.is_some() { Some(self.guide.embed(samples)?) } else { None };
        let (tokens, len) = (self.plan.model.tokens(), self.plan.model.tubelet_len());
        let tubelets: Vec<f32> = samples.iter().flat_map(|s| s.tubelets.iter().copied()).collect();
        Ok(MicroBatch {
            tubelets: Tensor::from_vec(tubelets, (samples.len(), tokens, len), self.params.device())?,
            split,
            texts,
            captions: samples.iter().map(|s| s.caption.clone().unwrap_or_default()).collect(),
        })
    }

    fn report(&self, progress: &Progress, metrics: &Metrics) {
        progress.set(self.step);
        let line = log_line(metrics, self.plan.length.stop);
        progress.message(format!("loss {:.3} {:.1} clips/s", metrics.loss, metrics.clips_per_second));
        if self.step.is_multiple_of(self.config.output.log_every.max(1)) || self.step == self.plan.length.stop
        {
            progress.line(&line);
        }
    }

    fn write_metrics(&self, log: &mut File, metrics: &Metrics) -> Result<()> {
        let path = self.run.metrics_file();
        let line = serde_json::to_string(metrics)? + "\n";
        log.write_all(line.as_bytes()).with_context(|| format!("cannot write {}", path.display()))
    }

    fn save_if_due(&mut self, stop: u64) -> Result<()> {
        let output = &self.config.output;
        let due = |every: u64| every > 0 && self.step.is_multiple_of(every);
        let (save, picture) = (self.step == stop || due(output.checkpoint_every), due(output.pictures_every));
        if save {
            let folder = self.run.checkpoints();
            checkpoint::save(
                &folder,
                self.step,
                &self.config,
                &self.plan.model,
                &self.params,
                &self.optimizer,
            )?;
            checkpoint::prune(&folder, output.keep)?;
        }
        if picture && self.step != stop && output.pictures > 0 {
            self.pictures()?;
        }
        Ok(())
    }

    /// Pictures of the first clips of the run, always the same ones, as the model sees them now.
    fn pictures(&mut self) -> Result<Vec<PathBuf>> {
        let count = self.config.output.pictures;
        let (clip, streams) = (&self.config.clip, Streams::new(self.config.seed));
        let mut loader = TrainLoader::new(&self.data, clip, &self.config.loader, count, streams, 0)?;
        let samples = loader.next_batch()?.samples;
        let masks = self.guide.masks(&samples)?;
        let batch = self.prepare(&samples)?;
        let prediction =
            self.joint.mae.forward(&batch.tubelets, &batch.split)?.prediction.to_vec3::<f32>()?;
        let mut paths = Vec::with_capacity(count);
        for (i, ((sample, mask), prediction)) in samples.iter().zip(&masks).zip(&prediction).enumerate() {
            let path = self.run.pictures().join(format!("step-{:08}-clip-{i}.png", self.step));
            pictures::write(
                &path,
                sample,
                mask,
                prediction,
                &self.config.clip,
                self.plan.model.normalize_target,
            )?;
            paths.push(path);
        }
        Ok(paths)
    }
}

/// The rows of the training split, or all of a manifest without splits.
///
/// # Errors
/// When there is no manifest, or none of its rows is for training.
pub fn training_data(config: &Config) -> Result<Subset> {
    let Some(path) = &config.data.manifest else {
        bail!("no data: give a manifest with --data MANIFEST (CSV or JSON Lines with a column `path`)");
    };
    let manifest = Arc::new(Manifest::load(path)?);
    subset(&manifest, &config.data.train_split)
}

/// A split, or all rows of a manifest that has none.
///
/// # Errors
/// When the manifest has splits, but not this one.
pub fn subset(manifest: &Arc<Manifest>, split: &str) -> Result<Subset> {
    if manifest.split_names().is_empty() {
        let rows = (0..manifest.len() as u32).collect();
        return Ok(Subset::new(manifest.clone(), rows)?);
    }
    Ok(Subset::split(manifest, split)?)
}

fn resume_from(run: &RunDir, params: &Params, optimizer: &mut AdamW) -> Result<u64> {
    let newest = checkpoint::newest(&run.checkpoints())?;
    checkpoint::restore(&newest, params, optimizer)
}

/// The metrics file, cut back to the steps before `step`: a run that was killed may have written more than it saved.
fn open_metrics(path: &Path, step: u64) -> Result<File> {
    let kept: Vec<String> = match File::open(path) {
        Ok(file) => {
            let lines = BufReader::new(file).lines().map_while(Result::ok);
            lines.filter(|line| step_of(line).is_some_and(|s| s <= step)).collect()
        }
        Err(_) => Vec::new(),
    };
    let text: String = kept.iter().map(|line| format!("{line}\n")).collect();
    crate::run_dir::write_atomically(path, text.as_bytes())?;
    OpenOptions::new().append(true).open(path).with_context(|| format!("cannot write {}", path.display()))
}

fn step_of(line: &str) -> Option<u64> {
    serde_json::from_str::<serde_json::Value>(line).ok()?.get("step")?.as_u64()
}

fn report_skipped(batch: &Batch, progress: &Progress) {
    for skip in &batch.skipped {
        progress.line(&format!("skipped: {}", skip.reason));
    }
}

fn log_line(m: &Metrics, stop: u64) -> String {
    let contrast = match (m.contrastive_relative, m.contrastive_top1) {
        (Some(relative), Some(top1)) => format!("  contrast {relative:.3} ln B, top-1 {:.0} %", 100.0 * top1),
        _ => String::new(),
    };
    format!(
        "step {}/{stop}  loss {:.4}  mae {:.4} (mean: {:.4}){contrast}  lr {:.2e}  {:.1} clips/s  data wait {:.0} %",
        m.step,
        m.loss,
        m.mae,
        m.mae_of_mean,
        m.lr,
        m.clips_per_second,
        100.0 * m.data_wait
    )
}

/// Times steps, and the part of them that was spent waiting for data.
struct Clock {
    since: Instant,
    waited: Duration,
}

impl Clock {
    fn start(loader: &TrainLoader) -> Self {
        Self { since: Instant::now(), waited: loader.stats().waited }
    }

    /// Clips per second and share of waiting since the last lap.
    fn lap(&mut self, clips: usize, loader: &TrainLoader) -> (f64, f64) {
        let (now, waited) = (Instant::now(), loader.stats().waited);
        let seconds = (now - self.since).as_secs_f64().max(1e-9);
        let share = (waited - self.waited).as_secs_f64() / seconds;
        (self.since, self.waited) = (now, waited);
        (clips as f64 / seconds, share.min(1.0))
    }
}
