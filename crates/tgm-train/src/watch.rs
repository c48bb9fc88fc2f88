//! Watching a run: the bar and the lines on the terminal, the files of numbers, TensorBoard's events.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use indicatif::HumanDuration;
use serde::Serialize;

use crate::config::Config;
use crate::metrics::{JsonLines, Metrics};
use crate::progress::Progress;
use crate::run_dir::RunDir;
use crate::tensorboard::EventFile;

/// A line of `probes.jsonl`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ProbeLine {
    /// Batches consumed.
    pub step: u64,
    /// What was measured.
    pub name: String,
    /// The result.
    pub result: f64,
    /// Its 95 % interval.
    pub interval: [f64; 2],
    /// The same of a randomly initialised encoder.
    pub random_encoder: f64,
    /// What guessing gives.
    pub chance: f64,
}

/// Everything that shows how a run fares. Nothing here changes what it computes.
pub struct Watch {
    progress: Progress,
    metrics: JsonLines,
    probes: JsonLines,
    events: Option<EventFile>,
    log_every: u64,
    stop: u64,
    started: (Instant, u64),
}

impl Watch {
    /// Opens the files for the steps after `step`.
    ///
    /// # Errors
    /// When one cannot be written.
    pub fn open(run: &RunDir, config: &Config, step: u64, stop: u64) -> Result<Self> {
        let events = if config.output.tensorboard {
            let mut events = EventFile::create(&run.tensorboard(), step)?;
            events.text(step, "config", &format!("```toml\n{}\n```", config.to_toml()?))?;
            Some(events)
        } else {
            None
        };
        let progress = Progress::new("pretrain", stop);
        progress.set(step);
        Ok(Self {
            progress,
            metrics: JsonLines::open(&run.metrics_file(), step)?,
            probes: JsonLines::open(&run.probes_file(), step)?,
            events,
            log_every: config.output.log_every.max(1),
            stop,
            started: (Instant::now(), step),
        })
    }

    /// Writes a line above the bar.
    pub fn line(&self, line: &str) {
        self.progress.line(line);
    }

    /// A step was made.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub fn step(&mut self, metrics: &Metrics) -> Result<()> {
        self.metrics.push(metrics)?;
        let left = self.time_left(metrics.step);
        self.progress.set(metrics.step);
        self.progress.message(format!(
            "left  loss {:.3}  lr {:.1e}  {:.1} clips/s  {:.0} % of peak  wait {:.0} %",
            metrics.loss,
            metrics.lr,
            metrics.clips_per_second,
            100.0 * metrics.peak_share,
            100.0 * metrics.data_wait
        ));
        if metrics.step.is_multiple_of(self.log_every) || metrics.step == self.stop {
            self.progress.line(&metrics.line(self.stop, &left));
            if let Some(events) = &mut self.events {
                events.scalars(metrics.step, &metrics.scalars())?;
            }
        }
        Ok(())
    }

    /// Pictures were made.
    ///
    /// # Errors
    /// When they cannot be read, or the events not written.
    pub fn pictures(&mut self, step: u64, pictures: &[PathBuf]) -> Result<()> {
        let Some(events) = &mut self.events else { return Ok(()) };
        for (i, path) in pictures.iter().enumerate() {
            let png = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
            events.picture(step, &format!("clips/{i} (clip, visible, reconstruction)"), &png)?;
        }
        Ok(())
    }

    /// A probe was made.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub fn probe(&mut self, probe: &ProbeLine) -> Result<()> {
        self.probes.push(probe)?;
        self.progress.line(&format!(
            "step {}/{}  {} {:.3} (95 %: {:.3} – {:.3}; random encoder {:.3}, chance {:.3})",
            probe.step,
            self.stop,
            probe.name,
            probe.result,
            probe.interval[0],
            probe.interval[1],
            probe.random_encoder,
            probe.chance
        ));
        if let Some(events) = &mut self.events {
            events.scalars(probe.step, &[(&format!("probe/{}", probe.name), probe.result)])?;
        }
        Ok(())
    }

    /// Removes the bar.
    pub fn finish(&self) {
        self.progress.finish();
    }

    /// From the mean of the steps since the start: single ones vary.
    fn time_left(&self, step: u64) -> String {
        let (since, from) = self.started;
        let per_step = since.elapsed().as_secs_f64() / step.saturating_sub(from).max(1) as f64;
        let seconds = per_step * self.stop.saturating_sub(step) as f64;
        HumanDuration(Duration::from_secs_f64(seconds.min(1e12))).to_string()
    }
}
