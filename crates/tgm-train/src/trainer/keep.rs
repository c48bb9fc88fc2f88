//! What is kept on the way: probes, checkpoints, pictures.

use std::path::{Path, PathBuf};

use anyhow::Result;
use tgm_data::loader::TrainLoader;
use tgm_random::Streams;

use super::Trainer;
use super::clock::Average;
use crate::batch::ClipBatch;
use crate::checkpoint::{self, Keep, Score, Snapshot};
use crate::pictures;
use crate::watch::Watch;

impl Trainer {
    /// Saves, probes and pictures, each when it is due. The save comes first: whatever befalls the rest, the steps are kept.
    pub(super) fn keep(&mut self, watch: &mut Watch, stop: u64) -> Result<()> {
        let (step, output) = (self.learner.position.step, &self.learner.config.output);
        let due = |every: u64| every > 0 && step.is_multiple_of(every);
        let (save, picture) = (step == stop || due(output.checkpoint_every), due(output.pictures_every));
        let probe = due(output.probe_every) || (output.probe_every > 0 && step == stop);
        if save {
            self.learner.check_weights()?;
        }
        if save || probe {
            // Without probes the best checkpoint is the one with the lowest loss since the one before.
            let loss = self.progress_made.mean().filter(|_| self.probe.is_none());
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

    /// Probes the checkpoint that was just saved. What the probe lacks, such as a labelled video that cannot be read, must not
    /// end a training that goes on without it.
    fn rate(&mut self, place: &Path, watch: &mut Watch) -> Result<()> {
        let Some(probe) = &mut self.probe else { return Ok(()) };
        let step = self.learner.position.step;
        let line = match probe.run(step, self.learner.joint.mae.encoder(), &self.learner.plan.model) {
            Ok(line) => line,
            Err(error) => {
                tracing::warn!("no probe after step {step}: {error:#}");
                return Ok(());
            }
        };
        checkpoint::rate(place, Score { name: line.name.clone(), value: line.result })?;
        self.prune()?;
        watch.probe(&line)
    }

    /// Deletes the checkpoints that need not stay beside the one of this step.
    fn prune(&self) -> Result<()> {
        let output = &self.learner.config.output;
        let keep = Keep { last: output.keep, best: output.keep_best };
        checkpoint::prune(&self.run.checkpoints(), keep, self.learner.position.step)
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

    /// Saves this step, unless it is saved already.
    pub(super) fn save(&mut self, score: Option<Score>) -> Result<PathBuf> {
        let folder = self.run.checkpoints();
        let step = self.learner.position.step;
        if self.saved == Some(step) {
            return Ok(checkpoint::of_step(&folder, step));
        }
        let place = checkpoint::save(&folder, &self.snapshot(score.as_ref()))?;
        self.prune()?;
        tracing::info!("saved {}", place.display());
        self.saved = Some(step);
        self.progress_made = Average::default();
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
