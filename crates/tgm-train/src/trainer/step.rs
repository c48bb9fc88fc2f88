//! One step as the run writes it down.

use std::path::PathBuf;

use anyhow::{Result, bail};
use tgm_data::loader::TrainLoader;
use tgm_group::Group;
use tgm_ops::Gradients;

use super::Trainer;
use super::clock::Clock;
use super::learner::{Fault, Stepped};
use crate::batch::ClipBatch;
use crate::checkpoint;
use crate::fault;
use crate::metrics::{Metrics, now};
use crate::step::Losses;
use crate::watch::Watch;

impl Trainer {
    /// Gradient and update of a batch, and its line of metrics; when a number is not finite, the update is left out.
    pub(super) fn one_step(
        &mut self,
        batch: &ClipBatch,
        clock: &mut Clock,
        loader: &TrainLoader,
        watch: &Watch,
    ) -> Result<(Metrics, Losses)> {
        let stepped = self.learner.step(batch, self.stop.requested())?;
        match &stepped.fault {
            Some(fault) => self.skip(batch, &stepped, fault, watch)?,
            None => {
                let losses = stepped.numbers.losses;
                let progress = losses.mae / losses.mae_of_mean;
                self.learner.position.progress.add_if_finite(progress);
            }
        }
        let numbers = stepped.numbers;
        self.leave = numbers.leave;
        let (config, position) = (&self.learner.config, &self.learner.position);
        let lap = clock.lap(config.train.batch, loader);
        let losses = numbers.losses;
        let contrastive = losses.contrastive;
        let peak_flops = self.peak_flops * self.learner.group.size() as f64;
        let metrics = Metrics {
            step: position.step,
            epoch: self.epoch(position.step),
            time: now(),
            loss: losses.total(config.contrastive.weight),
            mae: losses.mae,
            mae_of_mean: losses.mae_of_mean,
            mae_of_copy: numbers.mae_of_copy,
            contrastive: contrastive.map(|c| c.loss),
            contrastive_relative: contrastive.map(|c| c.relative),
            contrastive_top1: contrastive.map(|c| c.top1),
            temperature: contrastive.map(|c| c.scale.recip()),
            grad_norm: numbers.grad_norm,
            lr: stepped.lr,
            clips_per_second: lap.clips_per_second,
            peak_share: lap.clips_per_second * self.flops_per_clip(batch) / peak_flops,
            data_wait: lap.data_wait,
            skipped: numbers.skipped_videos,
            skipped_steps: position.skipped,
        };
        Ok((metrics, losses))
    }

    /// Says that a step was not made. After too many in a row everything about this one is written down and the run ends.
    fn skip(&mut self, batch: &ClipBatch, stepped: &Stepped, fault: &Fault, watch: &Watch) -> Result<()> {
        let (row, limit) = (fault.in_a_row, self.learner.config.train.max_skipped);
        let gone_on = u64::from(!fault.last);
        let what = format!(
            "step {}: the loss is {} and the gradient's norm {}{}",
            self.learner.position.step + 1 - gone_on,
            stepped.numbers.losses.total(self.learner.config.contrastive.weight),
            stepped.numbers.grad_norm,
            self.whose(fault)
        );
        if !fault.last {
            watch.line(&format!("skipped: {what} ({row} in a row, the run stops after {limit})"));
            return Ok(());
        }
        self.ruined = true;
        let back = match checkpoint::newest(&self.run.checkpoints())? {
            Some(newest) => format!(
                "and --resume --allow-changes with a lower schedule.base_lr or another train.clip_norm goes on from {}",
                newest.display()
            ),
            None => {
                "and there is no checkpoint before them: start again with a lower schedule.base_lr".into()
            }
        };
        let written = match self.write_down(batch, stepped, fault) {
            Ok(folder) => format!(
                "what it was computed from is in {0}: look at it with `tgm replay {0}`",
                folder.display()
            ),
            Err(error) => format!("what it was computed from could not be written down ({error:#})"),
        };
        bail!(
            "{what}, as for {limit} steps before (train.max_skipped): these weights are not saved, {back}; {written}"
        );
    }

    /// In a group, the processes that a fault began in.
    fn whose(&self, fault: &Fault) -> String {
        match (self.learner.group.size(), fault.ranks.as_slice()) {
            (1, _) | (_, []) => String::new(),
            (_, ranks) => format!(" (of the clips of process {ranks:?})"),
        }
    }

    /// Writes the step down. In a group these are the clips of the process in which it began, loaded once more here, and what they come to by
    /// themselves.
    fn write_down(&mut self, batch: &ClipBatch, stepped: &Stepped, fault: &Fault) -> Result<PathBuf> {
        let folder = self.run.faults();
        let whole = match fault.ranks.first() {
            Some(&rank) if rank != self.learner.group.rank() => {
                let mut loader = self.learner.loader(rank)?;
                self.learner.load(&mut loader, &|_| {})?.whole()?
            }
            _ => batch.whole()?,
        };
        if self.learner.group.size() == 1
            && let Some(grads) = &self.learner.gradients
        {
            return fault::write(&folder, &whole, &stepped.numbers.losses, grads, &self.snapshot(None));
        }
        let mut grads = Gradients::zeros(&self.learner.params);
        let losses = self.learner.joint.gradient(
            &self.learner.params,
            &whole.micro,
            &mut grads,
            &mut Group::alone(),
        )?;
        fault::write(&folder, &whole, &losses, &grads, &self.snapshot(None))
    }

    /// Matrix products for one clip: forward, and twice that backward.
    fn flops_per_clip(&self, batch: &ClipBatch) -> f64 {
        let (visible, targets) = batch.tokens();
        3.0 * self.learner.plan.model.forward_flops(visible, targets) as f64
    }
}
