//! What is kept on the way: probes, checkpoints, pictures.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use tgm_data::loader::TrainLoader;
use tgm_random::Streams;

use super::Trainer;
use super::learner::due;
use crate::batch::ClipBatch;
use crate::checkpoint::{self, Average, Keep, Score, Snapshot};
use crate::pictures;
use crate::watch::Watch;

impl Trainer {
    /// Saves, probes and pictures, each when it is due. The save comes first: whatever befalls the rest, the steps are kept.
    pub(super) fn keep(&mut self, watch: &mut Watch, stop: u64) -> Result<()> {
        let (step, output) = (self.learner.position.step, &self.learner.config.output);
        let (checkpoint, picture) = (due(output.checkpoint_every, step), due(output.pictures_every, step));
        // Weights that the last step could not be made with may be ruined: a checkpoint before them is worth more.
        let sound = self.learner.position.skipped_in_a_row == 0 || step == stop;
        let (save, probe) = (sound && self.learner.checkpoint_is_due(), sound && self.probe_is_due());
        if save || probe {
            // Without probes the best checkpoint is the one with the lowest loss since the one before.
            let loss = self.learner.position.progress.mean().filter(|_| self.probe.is_none());
            // Not at a stop in between: the run may go on from there.
            if checkpoint || probe {
                self.learner.position.progress = Average::default();
            }
            let place = self.save(loss.map(|loss| Score { name: "-masked loss".into(), value: -loss }))?;
            if probe {
                self.rate(&place, watch)?;
            }
        }
        if (picture || step == stop) && self.learner.config.output.pictures > 0 {
            self.drawn = self.pictures()?;
            watch.pictures(step, &self.drawn)?;
        }
        Ok(())
    }

    /// Whether the encoder is probed after this step.
    fn probe_is_due(&self) -> bool {
        let (every, step) = (self.learner.config.output.probe_every, self.learner.position.step);
        due(every, step) || (every > 0 && step == self.learner.plan.length.stop)
    }

    /// Makes the probe of the checkpoint that the run goes on from, if it was killed before that was made.
    pub(super) fn make_up_probe(&mut self) -> Result<()> {
        let step = self.learner.position.step;
        let place = checkpoint::of_step(&self.run.checkpoints(), step);
        if step == 0 || !self.probe_is_due() || checkpoint::read(&place)?.score.is_some() {
            return Ok(());
        }
        let mut watch = Watch::open(&self.run, &self.learner.config, step, self.learner.plan.length.stop)?;
        self.rate(&place, &mut watch)?;
        watch.finish();
        Ok(())
    }

    /// Probes the checkpoint that was just saved. What the probe lacks, such as a labelled video that cannot be read, must not
    /// end a training that goes on without it.
    fn rate(&mut self, place: &Path, watch: &mut Watch) -> Result<()> {
        let Some(probe) = &mut self.probe else { return Ok(()) };
        let step = self.learner.position.step;
        if place != checkpoint::of_step(&self.run.checkpoints(), step) {
            // This step was not saved: its weights are not finite.
            return Ok(());
        }
        let line = match probe.run(step, self.learner.joint.mae.encoder(), &self.learner.plan.model) {
            Ok(line) => line,
            Err(error) => {
                tracing::warn!("no probe after step {step}: {error:#}");
                return Ok(());
            }
        };
        checkpoint::rate(place, Score { name: line.name.clone(), value: line.result })?;
        self.prune();
        watch.probe(&line)
    }

    /// Deletes the checkpoints that need not stay beside the one of this step.
    /// One that cannot be deleted, as somebody may have a file of it open on a network drive, ends no training.
    fn prune(&self) {
        let output = &self.learner.config.output;
        let keep = Keep { last: output.keep, best: output.keep_best };
        if let Err(error) = checkpoint::prune(&self.run.checkpoints(), keep, self.learner.position.step) {
            tracing::warn!("{error:#}; the run goes on");
        }
    }

    pub(super) fn snapshot<'a>(&'a self, score: Option<&'a Score>) -> Snapshot<'a> {
        Snapshot {
            config: &self.learner.config,
            model: &self.learner.plan.model,
            params: &self.learner.params,
            optimizer: &self.learner.optimizer,
            position: &self.learner.position,
            score,
            data: &self.learner.data_print,
        }
    }

    /// Saves this step, unless it is saved already, or its weights are no longer finite: then the newest checkpoint stays the one to go
    /// on from.
    pub(super) fn save(&mut self, score: Option<Score>) -> Result<PathBuf> {
        let folder = self.run.checkpoints();
        let step = self.learner.position.step;
        if self.saved == Some(step) {
            return Ok(checkpoint::of_step(&folder, step));
        }
        if !self.learner.params.all_finite()? {
            let newest = checkpoint::newest(&folder)?;
            let newest = newest
                .context("the weights are no longer finite, and there is no checkpoint to go back to")?;
            tracing::warn!(
                "step {step} is not saved, its weights are not finite: {} stays the newest",
                newest.display()
            );
            return Ok(newest);
        }
        let place = checkpoint::save(&folder, &self.snapshot(score.as_ref()))?;
        tracing::info!("saved {}", place.display());
        self.saved = Some(step);
        self.prune();
        Ok(place)
    }

    /// Pictures of the first clips of the run, always the same ones, as the model sees them now.
    pub(super) fn pictures(&mut self) -> Result<Vec<PathBuf>> {
        let count = self.learner.config.output.pictures;
        let (clip, streams) = (&self.learner.config.clip, Streams::new(self.learner.config.seed));
        let mut loader =
            TrainLoader::new(&self.learner.data, clip, &self.learner.config.loader, count, streams, 0)?;
        let samples = loader.next_batch()?.samples;
        let mut batch = ClipBatch::default();
        self.learner.add(&mut batch, samples)?;
        let clips = &batch.micro[0];
        let micro = clips.micro_batch()?;
        let prediction = self.learner.joint.mae.forward(&micro.tubelets, &micro.split)?.prediction;
        let mut paths = Vec::with_capacity(count);
        let drawn = clips.samples.iter().zip(&batch.masks).zip(prediction.to_vec3::<f32>()?);
        for (i, ((sample, mask), prediction)) in drawn.enumerate() {
            let path =
                self.run.pictures().join(format!("step-{:08}-clip-{i}.png", self.learner.position.step));
            let normalized = self.learner.plan.model.normalize_target;
            pictures::write(&path, sample, mask, &prediction, &self.learner.config.clip, normalized)?;
            paths.push(path);
        }
        Ok(paths)
    }
}
