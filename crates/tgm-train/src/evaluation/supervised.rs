//! Fine-tuning and the attentive probe: training on labelled clips, resumable, beside a randomly initialised encoder.

use std::path::Path;

use anyhow::{Context, Result};
use tgm_data::loader::{ClipConfig, EvalLoader, LoaderConfig, Sample, TrainLoader};
use tgm_eval::bootstrap;
use tgm_eval::pass::clip_id;
use tgm_eval::supervised::{Head, Learner, Length, Settings};
use tgm_eval::{Bench, Evaluation, ProtocolReport, judge};
use tgm_mae::Checkpoint;
use tgm_random::Streams;

use super::data::{EvalData, Task};
use super::frozen::motion_baseline;
use super::outcome::Outcome;
use crate::progress::Progress;

/// How it is run; none of this changes the result.
#[derive(Clone, Copy, Debug)]
pub struct Conduct<'a> {
    /// The folder of saved states; without, nothing is saved.
    pub out: Option<&'a Path>,
    /// Steps between saved states.
    pub save_every: u64,
    /// Memory for decoded videos, in MiB.
    pub cache_mb: usize,
    /// Train a randomly initialised encoder, too, to compare with.
    pub random: bool,
}

/// Trains and scores, once per task.
///
/// # Errors
/// When a video is bad, training diverges, or a state cannot be written.
pub fn evaluate(
    data: &EvalData,
    checkpoint: &Checkpoint,
    settings: &Settings,
    conduct: Conduct<'_>,
    seed: u64,
) -> Result<Vec<Outcome>> {
    let streams = Streams::new(seed);
    let [train, test] = data.encode("pixel-difference baseline", &[])?;
    let run = Run { data, checkpoint, settings, conduct, streams };
    data.tasks
        .iter()
        .map(|task| {
            Ok(Outcome {
                task: task.clone(),
                ours: run.one(task, false)?,
                random: if conduct.random { Some(run.one(task, true)?) } else { None },
                motion: Some(motion_baseline([&train, &test], task, &streams)?),
            })
        })
        .collect()
}

struct Run<'a> {
    data: &'a EvalData,
    checkpoint: &'a Checkpoint,
    settings: &'a Settings,
    conduct: Conduct<'a>,
    streams: Streams,
}

impl Run<'_> {
    fn one(&self, task: &Task, random: bool) -> Result<Evaluation> {
        let (data, settings) = (self.data, self.settings);
        let length = Length::of(settings, data.train.rows().len());
        let classes = task.classes.len();
        let flip = settings.flip_on(&data.flip);
        let learner = Learner::new(self.checkpoint, random, classes, length, settings, &self.streams)?;
        let mut learner = learner.on_data(data.digest(task, flip)?);
        self.train(&mut learner, task, length, flip, random)?;

        let clips = EvalLoader::new(&data.test, &data.clip, &data.loader, data.views)?;
        let clips = if data.allow_bad { clips.keep_going() } else { clips };
        let progress = Progress::new("score", data.test.rows().len() as u64);
        let done = |done| progress.set(done as u64);
        let (answers, skipped) = learner.classify(clips, &|id| task.label(id), &done)?;
        progress.finish();
        let report = learner.report(random, flip);
        let report = match settings.head {
            Head::Finetune => ProtocolReport::Finetune(report),
            Head::Attentive => ProtocolReport::Attentive(report),
        };
        let train_labels = data.train_labels(task);
        let interval = bootstrap::Settings::default();
        let bench =
            Bench { train_labels: &train_labels, skipped: &skipped, interval, streams: &self.streams };
        Ok(judge(&answers, report, &bench)?)
    }

    fn train(
        &self,
        learner: &mut Learner,
        task: &Task,
        length: Length,
        flip: f64,
        random: bool,
    ) -> Result<()> {
        let (data, settings) = (self.data, self.settings);
        let kind = if random { "random" } else { "trained" };
        let name =
            format!("{:?}-{}-{kind}{}.safetensors", settings.head, task.name, data.suffix).to_lowercase();
        let state = self.conduct.out.map(|out| out.join(name));
        let title = format!("{} ({kind} encoder)", task.name);
        let progress = Progress::new(&title, length.total);
        if let Some(state) = state.as_deref().filter(|state| state.is_file()) {
            learner.restore(state)?;
            progress.line(&format!("{title}: going on at step {} of {}", learner.step(), length.total));
        }
        if let Some(out) = self.conduct.out {
            std::fs::create_dir_all(out)
                .with_context(|| format!("cannot make the folder {}", out.display()))?;
        }
        let clip = ClipConfig { crop: settings.crop.clone(), flip, ..data.clip.clone() };
        let loader = LoaderConfig { cache_mb: self.conduct.cache_mb, ..data.loader.clone() };
        let batch = length.batch * settings.repeats;
        let start = learner.step();
        let mut loader =
            TrainLoader::repeated(&data.train, &clip, &loader, batch, settings.repeats, self.streams, start)?;
        while learner.step() < length.total {
            let batch = loader.next_batch()?;
            for skip in &batch.skipped {
                progress.line(&format!("skipped: {}", skip.reason));
            }
            let labels =
                batch.samples.iter().map(|sample| self.label(task, sample)).collect::<Result<Vec<_>>>()?;
            learner.learn(&batch.samples, &labels, &data.clip.normalization)?;
            progress.set(learner.step());
            progress.message(format!("loss {:.3}", learner.loss()));
            let step = learner.step();
            if step.is_multiple_of(100) {
                progress.line(&format!("{title}: step {step}/{}  loss {:.4}", length.total, learner.loss()));
            }
            let due = step == length.total || step.is_multiple_of(self.conduct.save_every.max(1));
            if let Some(state) = state.as_deref().filter(|_| due) {
                learner.save(state)?;
            }
        }
        progress.finish();
        Ok(())
    }

    /// The class of a training clip, swapped where mirroring swaps it.
    fn label(&self, task: &Task, sample: &Sample) -> Result<u32> {
        let label = task.label(&clip_id(&sample.path, sample.row));
        let label = label.with_context(|| format!("{} has no {}", sample.path, task.name))?;
        Ok(if sample.flipped { self.data.flip.label(label) } else { label })
    }
}
