//! A result with everything it must stand beside: as a table, as JSON, as predictions.

use std::path::Path;

use anyhow::Result;
use serde::Serialize;
use tgm_eval::bootstrap::{self, Interval};
use tgm_eval::{Evaluation, Report, joint};
use tgm_random::Streams;
use tgm_train::probe::Row;
use tgm_train::task::Task;

/// The result of one task.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// What was to be recognised.
    pub task: Task,
    /// Of the checkpoint.
    pub ours: Evaluation,
    /// Of a randomly initialised encoder of the same size.
    pub random: Option<Evaluation>,
    /// Of the pixel-difference baseline.
    pub motion: Option<Evaluation>,
}

/// What `--json` holds for a task.
#[derive(Clone, Debug, Serialize)]
pub struct Record {
    /// The data, with its split.
    pub data: String,
    /// What was to be recognised.
    pub task: String,
    /// Class names in the order of the report's indices.
    pub classes: Vec<String>,
    /// Of the checkpoint.
    pub report: Report,
    /// Of a randomly initialised encoder.
    pub random_encoder: Option<Report>,
    /// Of the pixel-difference baseline.
    pub pixel_difference: Option<Report>,
}

impl Outcome {
    /// For `--json`.
    pub fn record(&self, data: &str) -> Record {
        Record {
            data: data.to_owned(),
            task: self.task.name.clone(),
            classes: self.task.classes.clone(),
            report: self.ours.report.clone(),
            random_encoder: self.random.as_ref().map(|random| random.report.clone()),
            pixel_difference: self.motion.as_ref().map(|motion| motion.report.clone()),
        }
    }

    /// The line of the summary.
    pub fn row(&self, name: &str) -> Row {
        let report = &self.ours.report;
        Row {
            name: match self.task.distinction() {
                None => format!("{name} top-1"),
                Some(task) => format!("{name} {task} top-1"),
            },
            result: report.top1.mean,
            interval: Some([report.top1.low, report.top1.high]),
            random_encoder: self.random.as_ref().map(|random| random.report.top1.mean),
            baseline: report.chance,
        }
    }

    /// Prints the result and what it must be compared with.
    pub fn print(&self, protocol: &str, data: &str) {
        let report = &self.ours.report;
        println!("{protocol} on {data}, {}", self.task.name);
        println!("{:<24} {:>7}  {:>15}  {:>7}  {:>10}", "", "top-1", "95 % interval", "top-5", "mean class");
        let line = |name: &str, report: &Report| {
            let top5 = report.top5.map_or(String::new(), |top5| format!("{top5:.3}"));
            let interval = format!("{:.3} – {:.3}", report.top1.low, report.top1.high);
            println!(
                "{name:<24} {:>7.3}  {interval:>15}  {top5:>7}  {:>10.3}",
                report.top1.mean, report.mean_class
            );
        };
        line("this checkpoint", report);
        if let Some(random) = &self.random {
            line("random encoder", &random.report);
        }
        if let Some(motion) = &self.motion {
            line("pixel-difference kNN", &motion.report);
        }
        println!("{:<24} {:>7.3}", "majority class", report.majority);
        println!("{:<24} {:>7.3}", "chance", report.chance);
        if report.views.len() > 1 {
            let views: Vec<String> = report.views.iter().map(|view| format!("{:.3}", view.top1)).collect();
            println!("single views: {}", views.join(" "));
        }
        self.print_skipped();
        println!(
            "{} train and {} test clips of {} classes",
            report.train_clips, report.test_clips, report.classes
        );
    }

    fn print_skipped(&self) {
        let skipped = &self.ours.report.skipped;
        if let Some(first) = skipped.first() {
            println!(
                "{} test videos could not be read and count as wrong, as {}",
                skipped.len(),
                first.reason
            );
        }
    }

    /// Writes `path,row,label,prediction,confidence,rank` of every test clip.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn write_predictions(&self, file: &Path) -> Result<()> {
        let mut csv = csv::Writer::from_writer(Vec::new());
        csv.write_record(["path", "row", "label", "prediction", "confidence", "rank"])?;
        let name = |class: u32| self.task.classes.get(class as usize).map_or("", String::as_str);
        let answers = &self.ours.answers;
        let predictions = answers.scores.predictions();
        for (clip, (id, &label)) in answers.ids.iter().zip(&answers.labels).enumerate() {
            let (path, row) = id.rsplit_once('#').unwrap_or((id, ""));
            let prediction = predictions[clip];
            let confidence = answers.scores.row(clip)[prediction as usize].to_string();
            let rank = (answers.scores.rank(clip, label) + 1).to_string();
            csv.write_record([path, row, name(label), name(prediction), &confidence, &rank])?;
        }
        for bad in &self.ours.report.skipped {
            let (path, row) = bad.id.rsplit_once('#').unwrap_or((&bad.id, ""));
            csv.write_record([path, row, name(bad.label), "", "", ""])?;
        }
        tgm_train::run_dir::write_atomically(file, &csv.into_inner()?)
    }
}

/// What holds over several seeds. Both encoders of a seed are trained and scored alike, so their difference is paired.
#[derive(Clone, Debug, Serialize)]
pub struct OverSeeds {
    /// The data, with its split.
    pub data: String,
    /// What was to be recognised.
    pub task: String,
    /// How many seeds.
    pub seeds: usize,
    /// Top-1 of the checkpoint, over seeds and clips.
    pub top1: Interval,
    /// The same of randomly initialised encoders, one per seed.
    pub random_encoder: Option<Interval>,
    /// The checkpoint's above the random encoder's.
    pub gain: Option<Interval>,
}

impl OverSeeds {
    /// From the outcomes of one task, a seed each.
    ///
    /// # Errors
    /// When they were not scored on the same clips.
    pub fn of(outcomes: &[&Outcome], data: &str) -> Result<Self> {
        let ours = outcomes.iter().map(|outcome| Ok(outcome.ours.hits()?)).collect::<Result<Vec<_>>>()?;
        let random = outcomes.iter().filter_map(|outcome| outcome.random.as_ref());
        let random = random.map(|random| Ok(random.hits()?)).collect::<Result<Vec<_>>>()?;
        let settings = bootstrap::Settings::default();
        let interval = |runs: &[Vec<f64>]| {
            let mut rng = Streams::new(0).stream("bootstrap", 0, 0);
            bootstrap::over_runs(runs, settings, &mut rng)
        };
        let clips = ours.first().map_or(0, Vec::len);
        let share =
            |runs: &[Vec<f64>]| Ok::<_, tgm_eval::Error>(interval(runs)?.of_share(clips, settings.level));
        let difference = |(a, b): (&Vec<f64>, &Vec<f64>)| a.iter().zip(b).map(|(a, b)| a - b).collect();
        let gains: Vec<Vec<f64>> = ours.iter().zip(&random).map(difference).collect();
        let compared = random.len() == ours.len();
        Ok(Self {
            data: data.to_owned(),
            task: outcomes.first().map_or_else(String::new, |outcome| outcome.task.name.clone()),
            seeds: outcomes.len(),
            top1: share(&ours)?,
            random_encoder: compared.then(|| share(&random)).transpose()?,
            gain: compared.then(|| interval(&gains)).transpose()?,
        })
    }

    /// Prints the intervals.
    pub fn print(&self, protocol: &str) {
        println!("{protocol} on {}, {}: top-1 over {} seeds", self.data, self.task, self.seeds);
        println!("{:<24} {:>7}  {:>15}", "", "top-1", "95 % interval");
        let line = |name: &str, Interval { mean, low, high }: Interval| {
            println!("{name:<24} {mean:>7.3}  {:>15}", format!("{low:.3} – {high:.3}"));
        };
        line("this checkpoint", self.top1);
        if let Some(random) = self.random_encoder {
            line("random encoder", random);
        }
        if let Some(gain) = self.gain {
            line("difference", gain);
        }
    }
}

/// Prints verb and noun judged together.
pub fn print_action(report: &joint::Report) {
    let interval = format!("{:.3} – {:.3}", report.top1.low, report.top1.high);
    println!("{:<24} {:>7.3}  {interval:>15}  {:>7.3}", "action (both right)", report.top1.mean, report.top5);
}
