//! One step: clips, masks, gradient, update; or, when a number is not finite, none.

use anyhow::{Result, bail};
use tgm_data::loader::{Sample, TrainLoader};
use tgm_mae::VideoMae;
use tgm_ops::Gradients;
use tgm_random::Streams;

use super::Trainer;
use super::clock::Clock;
use crate::batch::ClipBatch;
use crate::fault;
use crate::metrics::{Metrics, now};
use crate::schedule::learning_rate;
use crate::step::Losses;
use crate::watch::Watch;

impl Trainer {
    /// The loader of the batches from the current step on.
    pub(super) fn loader(&self) -> Result<TrainLoader> {
        let start = self.position.step * self.plan.micro_batches as u64;
        let streams = Streams::new(self.config.seed);
        let (clip, loader) = (&self.config.clip, &self.config.loader);
        Ok(TrainLoader::new(&self.data, clip, loader, self.plan.micro_batch, streams, start)?)
    }

    /// The clips of the next step, masked.
    pub(super) fn load(&mut self, loader: &mut TrainLoader, watch: &Watch) -> Result<ClipBatch> {
        let mut batch = ClipBatch::default();
        for _ in 0..self.plan.micro_batches {
            let loaded = loader.next_batch()?;
            for skip in &loaded.skipped {
                watch.line(&format!("skipped: {}", skip.reason));
            }
            batch.skipped += loaded.skipped.len();
            self.add(&mut batch, loaded.samples)?;
        }
        Ok(batch)
    }

    pub(super) fn add(&mut self, batch: &mut ClipBatch, samples: Vec<Sample>) -> Result<()> {
        let texts = self.joint.contrastive.is_some();
        batch.push(samples, &mut self.guide, &self.plan.model, texts, self.params.device())
    }

    pub(super) fn one_step(
        &mut self,
        batch: &ClipBatch,
        clock: &mut Clock,
        loader: &TrainLoader,
        watch: &Watch,
    ) -> Result<(Metrics, Losses)> {
        let mut grads = self.gradients.take().unwrap_or_else(|| Gradients::zeros(&self.params));
        grads.clear();
        let losses = self.joint.gradient(&self.params, batch, &mut grads)?;
        fault::inject(self.position.step, &mut grads)?;
        let norm = grads.norm();
        let total = losses.total(self.config.contrastive.weight);
        let lr = learning_rate(&self.plan, self.position.step);
        if total.is_finite() && norm.is_finite() {
            self.update(&grads, norm, lr)?;
            self.position.skipped_in_a_row = 0;
            self.progress_made.add_if_finite(losses.mae / losses.mae_of_mean);
        } else {
            self.skip(batch, &losses, &grads, watch)?;
        }
        self.gradients = Some(grads);
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

    pub(super) fn update(&mut self, grads: &Gradients, norm: f64, lr: f64) -> Result<()> {
        let limit = self.config.train.clip_norm;
        let scale = if limit > 0.0 { (limit / (norm + 1e-6)).min(1.0) } else { 1.0 };
        self.optimizer.step(&self.params, grads, lr, scale)?;
        if let Some((head, _)) = &self.joint.contrastive {
            head.constrain(&self.params)?;
        }
        Ok(())
    }

    /// Counts a step that is not made. After too many in a row everything about this one is written down and the run ends.
    fn skip(&mut self, batch: &ClipBatch, losses: &Losses, grads: &Gradients, watch: &Watch) -> Result<()> {
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
        let folder = fault::write(&self.run.faults(), &batch.whole()?, losses, grads, &self.snapshot(None))?;
        bail!(
            "{what}, as for {limit} steps before (train.max_skipped); what it was computed from is in {folder}: look at it with \
             `tgm replay {folder}`, then resume with --allow-changes and a lower schedule.base_lr or another train.clip_norm",
            folder = folder.display(),
        );
    }

    /// Matrix products for one clip: forward, and twice that backward.
    fn flops_per_clip(&self, batch: &ClipBatch) -> f64 {
        let (visible, targets) = batch.tokens();
        3.0 * self.plan.model.forward_flops(visible, targets) as f64
    }
}

/// The reconstruction loss of a model that copies the nearest visible tubelet.
fn copy_loss(mae: &VideoMae, batch: &ClipBatch) -> Result<f64> {
    let mut sum = 0.0;
    for clips in &batch.micro {
        let micro = clips.micro_batch()?;
        sum += f64::from(mae.copy_loss(&micro.tubelets, &micro.split, &clips.nearest)?.to_scalar::<f32>()?);
    }
    Ok(sum / batch.micro.len() as f64)
}
