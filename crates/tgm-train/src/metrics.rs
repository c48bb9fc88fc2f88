//! What is measured at every step, and the files of lines that it goes into.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::Serialize;

/// A line of `metrics.jsonl`. Numbers that are not finite are written as `null`.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Metrics {
    /// Batches consumed, this one included.
    pub step: u64,
    /// Passes over the training split.
    pub epoch: f64,
    /// Seconds since 1970.
    pub time: f64,
    /// The joint loss.
    pub loss: f64,
    /// Reconstruction.
    pub mae: f64,
    /// Reconstruction of a model that answers the mean.
    pub mae_of_mean: f64,
    /// Reconstruction of a model that copies the nearest visible tubelet.
    pub mae_of_copy: f64,
    /// The contrastive loss.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub contrastive: Option<f64>,
    /// The contrastive loss over that of guessing, ln(batch) where no caption repeats: 1 is guessing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub contrastive_relative: Option<f64>,
    /// Share of clips matched with their own caption.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub contrastive_top1: Option<f64>,
    /// τ.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub temperature: Option<f64>,
    /// The gradient's Euclidean norm, before clipping.
    pub grad_norm: f64,
    /// Learning rate.
    pub lr: f64,
    /// Speed.
    pub clips_per_second: f64,
    /// The model's arithmetic, recomputation not counted, over what the multiply-add units can do in its precision.
    pub peak_share: f64,
    /// Share of the time spent waiting for data.
    pub data_wait: f64,
    /// Videos that could not be read and were replaced.
    pub skipped: usize,
    /// Steps of the run so far whose gradient was not finite and was not used.
    pub skipped_steps: u64,
}

impl Metrics {
    /// One line for a person.
    pub fn line(&self, stop: u64, left: &str) -> String {
        let contrast = match (self.contrastive_relative, self.contrastive_top1) {
            (Some(relative), Some(top1)) => {
                format!("  contrast {relative:.3} ln B, top-1 {:.0} %", 100.0 * top1)
            }
            _ => String::new(),
        };
        let skipped = match self.skipped_steps {
            0 => String::new(),
            n => format!("  skipped steps {n}"),
        };
        format!(
            "step {}/{stop}  loss {:.4}  mae {:.4} (mean {:.4}, copy {:.4}){contrast}  lr {:.2e}  {:.1} clips/s  \
             {:.0} % of peak  data wait {:.0} %  left {left}{skipped}",
            self.step,
            self.loss,
            self.mae,
            self.mae_of_mean,
            self.mae_of_copy,
            self.lr,
            self.clips_per_second,
            100.0 * self.peak_share,
            100.0 * self.data_wait
        )
    }

    /// The numbers under the names that curves are known by.
    pub fn scalars(&self) -> Vec<(&'static str, f64)> {
        let mut all = vec![
            ("loss/joint", self.loss),
            ("loss/reconstruction", self.mae),
            ("loss/reconstruction of the mean", self.mae_of_mean),
            ("loss/reconstruction of a copy", self.mae_of_copy),
        ];
        let maybe = [
            ("loss/contrastive", self.contrastive),
            ("loss/contrastive over ln B", self.contrastive_relative),
            ("contrast/top-1", self.contrastive_top1),
            ("contrast/temperature", self.temperature),
        ];
        all.extend(maybe.into_iter().filter_map(|(name, value)| Some((name, value?))));
        all.extend([
            ("optimiser/gradient norm", self.grad_norm),
            ("optimiser/learning rate", self.lr),
            ("optimiser/skipped steps", self.skipped_steps as f64),
            ("speed/clips per second", self.clips_per_second),
            ("speed/share of peak", self.peak_share),
            ("speed/data wait", self.data_wait),
            ("data/skipped videos", self.skipped as f64),
        ]);
        all
    }
}

/// A file of JSON lines, each with a key `step`.
#[derive(Debug)]
pub struct JsonLines {
    path: PathBuf,
    file: File,
}

impl JsonLines {
    /// Opens a file for the lines after `step`. A run that was killed may have written more than it saved: what lies after
    /// `step`, and half a line at the end, is cut off.
    ///
    /// # Errors
    /// When the file cannot be read or written.
    pub fn open(path: &Path, step: u64) -> Result<Self> {
        let text = match std::fs::read(path) {
            Err(error) if error.kind() == ErrorKind::NotFound => Vec::new(),
            // What cannot be read now must not be written over.
            read => read.with_context(|| format!("cannot read {}", path.display()))?,
        };
        let lines = text.split(|&byte| byte == b'\n');
        let mut kept = Vec::with_capacity(text.len());
        for line in lines.filter(|line| step_of(line).is_some_and(|s| s <= step)) {
            kept.extend_from_slice(line);
            kept.push(b'\n');
        }
        crate::run_dir::write_atomically(path, &kept)?;
        let file = OpenOptions::new().append(true).open(path);
        Ok(Self {
            file: file.with_context(|| format!("cannot write {}", path.display()))?,
            path: path.to_path_buf(),
        })
    }

    /// Adds a line.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn push(&mut self, value: &impl Serialize) -> Result<()> {
        let line = serde_json::to_string(value)? + "\n";
        self.file.write_all(line.as_bytes()).with_context(|| format!("cannot write {}", self.path.display()))
    }
}

fn step_of(line: &[u8]) -> Option<u64> {
    serde_json::from_slice::<serde_json::Value>(line).ok()?.get("step")?.as_u64()
}

/// Seconds since 1970.
pub fn now() -> f64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0.0, |d| d.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_after_the_step_and_half_lines_are_cut_off() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("metrics.jsonl");
        std::fs::write(&path, "{\"step\":1}\n{\"step\":2}\n{\"step\":3}\n{\"st").unwrap();
        JsonLines::open(&path, 2).unwrap().push(&serde_json::json!({"step": 3, "again": true})).unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(text, "{\"step\":1}\n{\"step\":2}\n{\"again\":true,\"step\":3}\n");
    }

    #[test]
    fn one_damaged_line_costs_no_other() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("metrics.jsonl");
        std::fs::write(&path, b"{\"step\":1}\n{\"st\xffp\":2}\n{\"step\":3}\n").unwrap();
        JsonLines::open(&path, 9).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "{\"step\":1}\n{\"step\":3}\n");
    }

    #[test]
    fn a_file_that_cannot_be_read_is_not_written_over() {
        let dir = tempfile::tempdir().unwrap();
        let error = JsonLines::open(dir.path(), 1).unwrap_err();
        assert!(error.to_string().contains("cannot read"), "{error}");
    }

    #[test]
    fn the_line_for_a_person_holds_the_baselines() {
        let metrics = Metrics { mae_of_mean: 1.0, mae_of_copy: 0.75, ..Metrics::default() };
        let line = metrics.line(10, "3 min");
        assert!(line.contains("(mean 1.0000, copy 0.7500)") && line.contains("left 3 min"), "{line}");
    }
}
