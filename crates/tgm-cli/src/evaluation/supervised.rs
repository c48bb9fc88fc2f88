//! Fine-tuning and the attentive probe: training on labelled clips, resumable, beside a randomly initialised encoder.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use tgm_data::loader::{Batches, ClipConfig, EvalLoader, LoaderConfig, Sample, TrainLoader};
use tgm_eval::bootstrap;
use tgm_eval::pass::{BadVideo, clip_id};
use tgm_eval::supervised::{Head, Learner, Length, Settings};
use tgm_eval::{Bench, Evaluation, ProtocolReport, judge};
use tgm_mae::Checkpoint;
use tgm_random::Streams;
use tgm_train::progress::{self, Progress};
use tgm_train::stop::Stop;
use tgm_train::task::Task;

use super::data::EvalData;
use super::frozen::motion_baseline;
use super::outcome::Outcome;

/// A state older than this is written anew after the next step: a step of a large batch takes minutes.
const SAVE_AFTER: Duration = Duration::from_secs(600);

/// How it is run; none of this changes the result.
#[derive(Clone, Copy, Debug)]
pub struct Conduct<'a> {
    /// The folder of saved states; without, nothing is saved.
    pub out: Option<&'a Path>,
    /// Steps between saved states; one is also written when the last one is ten minutes old.
    pub save_every: u64,
    /// Memory for decoded videos, in MiB.
    pub cache_mb: usize,
    /// Train a randomly initialised encoder, too, to compare with.
    pub random: bool,
    /// Ends the training after a step, saved.
    pub stop: &'a Stop,
}

/// Trains and scores, once per task. Train videos that cannot be read are passed over, and said.
///
/// # Errors
/// When a setting or a test video is bad, too many train videos are, training diverges, a state cannot be written, or somebody
/// asks to stop.
pub fn evaluate(
    data: &EvalData,
    checkpoint: &Checkpoint,
    settings: &Settings,
    conduct: Conduct<'_>,
    seed: u64,
) -> Result<Vec<Outcome>> {
    // Before every video is read for the baseline.
    settings.check()?;
    let streams = Streams::new(seed);
    let [train, test] = data.encode_readable("pixel-difference baseline")?;
    say_unreadable(&train.bad);
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

/// Says how many train videos cannot be read.
fn say_unreadable(bad: &[BadVideo]) {
    if let Some(first) = bad.first() {
        let count = bad.len();
        progress::say(&format!(
            "{count} training videos could not be read and are passed over, as {}",
            first.reason
        ));
    }
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
        let report = learner.report(flip);
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
        let kind = if random { "random" } else { "trained" };
        let state = self.state_file(task, kind);
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
        let mut loader = self.loader(length, flip, learner.step())?;
        let _armed = self.conduct.stop.arm();
        let mut saved = Instant::now();
        while learner.step() < length.total {
            self.turn(learner, &mut loader, task, &progress)?;
            let (step, stop) = (learner.step(), self.conduct.stop.requested());
            if step.is_multiple_of(100) {
                progress.line(&format!("{title}: step {step}/{}  loss {:.4}", length.total, learner.loss()));
            }
            let due = stop || is_due(step, length.total, self.conduct.save_every, saved.elapsed());
            if let Some(state) = state.as_deref().filter(|_| due) {
                learner.save(state)?;
                saved = Instant::now();
            }
            if stop {
                progress.finish();
                bail!(stopped(step, length.total, state.as_deref()));
            }
        }
        progress.finish();
        Ok(())
    }

    /// Where the state of a training is saved, if it is.
    fn state_file(&self, task: &Task, kind: &str) -> Option<PathBuf> {
        let (head, suffix) = (self.settings.head, &self.data.suffix);
        let name = format!("{head:?}-{}-{kind}{suffix}.safetensors", task.name).to_lowercase();
        self.conduct.out.map(|out| out.join(name))
    }

    /// Augmented train clips from a step on.
    fn loader(&self, length: Length, flip: f64, start: u64) -> Result<TrainLoader> {
        let (data, repeats) = (self.data, self.settings.repeats);
        let clip = ClipConfig { crop: self.settings.crop.clone(), flip, ..data.clip.clone() };
        let loader = LoaderConfig { cache_mb: self.conduct.cache_mb, ..data.loader.clone() };
        let batches = Batches { repeats, ..Batches::of(length.batch * repeats).starting_at(start) };
        Ok(TrainLoader::with_batches(&data.train, &clip, &loader, batches, self.streams)?)
    }

    /// One step; says which videos were passed over for it.
    fn turn(
        &self,
        learner: &mut Learner,
        loader: &mut TrainLoader,
        task: &Task,
        progress: &Progress,
    ) -> Result<()> {
        let batch = loader.next_batch()?;
        for skip in &batch.skipped {
            progress.line(&format!("skipped: {}", skip.reason));
        }
        let labels =
            batch.samples.iter().map(|sample| self.label(task, sample)).collect::<Result<Vec<_>>>()?;
        learner.learn(&batch.samples, &labels)?;
        progress.set(learner.step());
        progress.message(format!("loss {:.3}", learner.loss()));
        Ok(())
    }

    /// The class of a training clip, swapped where mirroring swaps it.
    fn label(&self, task: &Task, sample: &Sample) -> Result<u32> {
        let label = task.label(&clip_id(&sample.path, sample.row));
        let label = label.with_context(|| format!("{} has no {}", sample.path, task.name))?;
        Ok(if sample.flipped { self.data.flip.label(label) } else { label })
    }
}

/// Whether a state is to be written after a step: at the end, every so many steps, and when the last one is old.
fn is_due(step: u64, total: u64, every: u64, since: Duration) -> bool {
    step == total || step.is_multiple_of(every.max(1)) || since >= SAVE_AFTER
}

/// Why a training that was asked to stop has no result.
fn stopped(step: u64, total: u64, state: Option<&Path>) -> String {
    let place = state.map_or_else(
        || "; nothing is kept without --out".to_owned(),
        |state| format!(", saved in {}; the same command goes on from there", state.display()),
    );
    format!("stopped by a signal after step {step} of {total}{place}")
}

#[cfg(test)]
mod tests {
    use super::super::data::Choices;
    use super::*;
    use tgm_train::model_io;
    use tgm_train::task::LABEL;

    fn fixtures() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures")
    }

    /// Fine-tuning of the fixtures' encoder on their twelve train clips in six steps.
    fn finetuned(out: Option<&Path>, stop: &Stop) -> Result<Vec<Outcome>> {
        let checkpoint = Checkpoint::open(&fixtures().join("mae-plain"), None).unwrap();
        let (manifest, clip) =
            (fixtures().join("world/manifest.csv"), model_io::clip_config(&checkpoint, None));
        let choices = Choices::default();
        let data =
            EvalData::of_manifest(&manifest, ["train", "test"], &[LABEL], clip.unwrap(), choices).unwrap();
        let settings =
            Settings { epochs: 2.0, warmup_epochs: 0.5, batch: 4, micro_batch: 4, ..Settings::finetune() };
        let conduct = Conduct { out, save_every: 200, cache_mb: 0, random: false, stop };
        evaluate(&data, &checkpoint, &settings, conduct, 3)
    }

    #[test]
    fn a_training_that_is_asked_to_stop_is_saved_and_goes_on_to_the_answers_of_an_unbroken_one() {
        let dir = tempfile::tempdir().unwrap();
        let (asked, never) = (Stop::new(), Stop::new());
        asked.request();
        let error = finetuned(Some(dir.path()), &asked).unwrap_err().to_string();
        assert!(error.starts_with("stopped by a signal after step 1 of 6, saved in "), "{error}");
        assert!(error.contains("finetune-label-trained.safetensors; the same command goes on"), "{error}");

        let (parts, whole) = (finetuned(Some(dir.path()), &never), finetuned(None, &never));
        let answers = |outcomes: Result<Vec<Outcome>>| outcomes.unwrap()[0].ours.answers.clone();
        assert_eq!(answers(parts), answers(whole));
    }

    #[test]
    fn without_a_folder_whoever_stops_is_told_that_nothing_is_kept() {
        let asked = Stop::new();
        asked.request();
        let error = finetuned(None, &asked).unwrap_err().to_string();
        assert_eq!(error, "stopped by a signal after step 1 of 6; nothing is kept without --out");
    }

    #[test]
    fn a_state_is_written_at_the_end_at_the_interval_and_when_the_last_one_is_ten_minutes_old() {
        let (young, old) = (Duration::from_secs(599), Duration::from_secs(600));
        assert!(is_due(7, 7, 200, young) && is_due(400, 1000, 200, young) && is_due(3, 1000, 200, old));
        assert!(!is_due(3, 1000, 200, young));
        assert!(is_due(3, 1000, 0, young), "no interval is every step");
    }
}
