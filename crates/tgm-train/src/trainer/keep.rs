//! What is kept on the way: probes, checkpoints, pictures.

use std::path::PathBuf;

use anyhow::Result;
use tgm_data::loader::TrainLoader;
use tgm_random::Streams;

use super::Trainer;
use super::clock::Average;
use crate::batch::GlobalBatch;
use crate::checkpoint::{self, Keep, Score, Snapshot};
use crate::pictures;
use crate::watch::Watch;

impl Trainer {
    /// Probes, saves and pictures, each when it is due.
    pub(super) fn keep(&mut self, watch: &mut Watch, stop: u64) -> Result<()> {
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

    pub(super) fn snapshot<'a>(&'a self, score: Option<&'a Score>) -> Snapshot<'a> {
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
    pub(super) fn save(&mut self, score: Option<Score>) -> Result<PathBuf> {
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
    pub(super) fn pictures(&mut self) -> Result<Vec<PathBuf>> {
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
