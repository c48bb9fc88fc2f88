//! A few steps that are measured and thrown away.

use std::time::{Duration, Instant};

use anyhow::Result;
use tgm_group::Group;
use tgm_ops::Gradients;

use super::Trainer;
use crate::batch::ClipBatch;

/// What [`Trainer::rehearse`] measured.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rehearsed {
    /// How many micro-batches.
    pub micro_batches: usize,
    /// Seconds per optimiser step.
    pub seconds_per_step: f64,
    /// Share of the time that was spent waiting for data.
    pub data_wait: f64,
    /// Clips that were there at once; in a run all of a batch are.
    pub clips_at_once: usize,
    /// Videos that could not be read.
    pub bad_videos: u64,
}

impl Trainer {
    /// Measures up to so many steps, no longer than `limit` and at least a part of one; they are not counted and nothing is
    /// written. A step that is too long is measured on some of its micro-batches.
    ///
    /// # Errors
    /// Those of a step.
    pub fn rehearse(&mut self, steps: usize, limit: Duration) -> Result<Rehearsed> {
        let mut loader = self.learner.loader(0)?;
        // With the joint loss, several micro-batches cost more each than one alone.
        let at_once = self.learner.plan.micro_batches.min(2);
        let wanted = steps * self.learner.plan.micro_batches;
        let (mut micro_batches, mut updating) = (0, 0.0);
        let begun = Instant::now();
        while micro_batches < wanted && !(micro_batches > 0 && begun.elapsed() >= limit) {
            let mut batch = ClipBatch::default();
            for _ in 0..at_once {
                let loaded = loader.next_batch()?;
                self.learner.add(&mut batch, loaded.samples)?;
            }
            let mut grads = Gradients::zeros(&self.learner.params);
            self.learner.joint.gradient(&self.learner.params, &batch, &mut grads, &mut Group::alone())?;
            let updated = Instant::now();
            self.learner.update(&grads, grads.norm(), 0.0)?;
            updating += updated.elapsed().as_secs_f64();
            micro_batches += at_once;
        }
        let (seconds, updates) = (begun.elapsed().as_secs_f64(), (micro_batches / at_once) as f64);
        let per_micro_batch = (seconds - updating) / micro_batches as f64;
        let stats = loader.stats();
        Ok(Rehearsed {
            micro_batches,
            seconds_per_step: per_micro_batch * self.learner.plan.micro_batches as f64 + updating / updates,
            clips_at_once: at_once * self.learner.plan.micro_batch,
            data_wait: (stats.waited.as_secs_f64() / seconds).min(1.0),
            bad_videos: stats.bad,
        })
    }
}
