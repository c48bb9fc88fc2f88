//! What fits into a time budget.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};
use tgm_train::run_dir::write_atomically;

use super::arm::Clips;
use super::run::{RunResult, Spent};

/// What every run of a reproduction has in common. It is decided once per folder, because runs of different length or data
/// must not stand in one table.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// Clips of each world.
    pub clips: Clips,
    /// Optimiser steps of each run.
    pub steps: u64,
    /// Settings for all runs.
    pub settings: Vec<String>,
}

impl Plan {
    /// The plan of a folder: the one that is there, which must be the one that is asked for, or else this one, written down.
    ///
    /// # Errors
    /// When the folder has another plan or cannot be written.
    pub fn claim(self, out: &Path) -> Result<Self> {
        let file = out.join("plan.json");
        if let Some(found) = Self::of(out)? {
            ensure!(
                found == self,
                "{}: begun with another plan ({}; asked for is {}); give the same options, or another --out",
                out.display(),
                serde_json::to_string(&found)?,
                serde_json::to_string(&self)?
            );
            return Ok(found);
        }
        std::fs::create_dir_all(out).with_context(|| format!("cannot make the folder {}", out.display()))?;
        write_atomically(&file, serde_json::to_string(&self)?.as_bytes())?;
        Ok(self)
    }

    /// The plan in a folder, if there is one.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn of(out: &Path) -> Result<Option<Self>> {
        let file = out.join("plan.json");
        if !file.is_file() {
            return Ok(None);
        }
        let text =
            std::fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
        let plan = serde_json::from_str(&text);
        plan.with_context(|| format!("{} is not a plan; give another --out", file.display()))
    }
}

/// What is to be made, besides steps.
#[derive(Clone, Copy, Debug)]
pub struct Runs {
    /// Worlds to render.
    pub worlds: usize,
    /// Runs of one seed.
    pub arms: usize,
    /// Seconds of fine-tuning behind each run.
    pub finetune: f64,
}

/// Steps with which one run of every arm fits into the time left, at most the wanted ones; judged by a trial run.
///
/// Worlds, score maps, probes and fine-tuning cost the same however many steps there are, and come first.
pub fn steps_within(left: Duration, runs: Runs, trial: &RunResult, wanted: u64) -> u64 {
    const LEAST: u64 = 10;
    const SAFETY: f64 = 0.9;
    let Spent { world, training, probes } = trial.spent;
    let Runs { worlds, arms, finetune } = runs;
    let fixed = worlds.saturating_sub(1) as f64 * world + arms as f64 * (probes + finetune);
    let per_step = training / trial.steps as f64 * arms as f64;
    (((SAFETY * left.as_secs_f64() - fixed) / per_step) as u64).clamp(LEAST.min(wanted), wanted)
}

/// Reads `90s`, `30m`, `2h` or a number of seconds.
///
/// # Errors
/// A message for the command line.
pub fn duration(text: &str) -> Result<Duration, String> {
    let (number, unit) = match text.char_indices().last() {
        Some((at, 's')) => (&text[..at], 1.0),
        Some((at, 'm')) => (&text[..at], 60.0),
        Some((at, 'h')) => (&text[..at], 3600.0),
        _ => (text, 1.0),
    };
    let seconds = number.parse().ok().map(|number: f64| number * unit).filter(|seconds| *seconds > 0.0);
    let duration = seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    duration.ok_or_else(|| format!("`{text}` is no duration; examples: 90s, 30m, 2h"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reproduce::{Arm, Scene, World};

    #[test]
    fn durations_are_read_with_their_unit() {
        for (text, seconds) in [("90s", 90), ("30m", 1800), ("2h", 7200), ("45", 45), ("0.5m", 30)] {
            assert_eq!(duration(text), Ok(Duration::from_secs(seconds)), "{text}");
        }
        for text in ["", "m", "-3m", "0s", "soon", "inf", "NaN", "9999999999999999999h"] {
            assert!(duration(text).is_err(), "{text}");
        }
    }

    /// 0.1 s a step, 2 s of probes, 10 s for a world.
    fn trial() -> RunResult {
        let world = World::plain(Scene::Static);
        RunResult {
            arm: Arm::untrained(world),
            seed: 0,
            steps: 20,
            spent: Spent { world: 10.0, training: 2.0, probes: 2.0 },
            masked_loss: None,
            contrastive: None,
            probes: Vec::new(),
        }
    }

    #[test]
    fn a_small_budget_shortens_the_runs_but_not_to_nothing() {
        let steps_with = |seconds: u64, finetune: f64| {
            let runs = Runs { worlds: 3, arms: 30, finetune };
            steps_within(Duration::from_secs(seconds), runs, &trial(), 800)
        };
        let steps = |seconds: u64| steps_with(seconds, 0.0);
        assert_eq!(steps(36_000), 800, "never longer than wanted");
        assert_eq!(steps(600), 153, "540 s less 80 s that do not depend on the steps, 30 runs");
        assert_eq!(steps(0), 10);
        assert_eq!(steps_with(600, 10.0), 53, "300 s less for fine-tuning");
    }

    #[test]
    fn a_folder_keeps_its_plan() {
        let dir = tempfile::tempdir().unwrap();
        let plan = Plan { clips: Clips { train: 4, test: 2 }, steps: 9, settings: Vec::new() };
        assert_eq!(plan.clone().claim(dir.path()).unwrap(), plan);
        assert_eq!(plan.clone().claim(dir.path()).unwrap(), plan);
        let error = Plan { steps: 10, ..plan }.claim(dir.path()).unwrap_err().to_string();
        assert!(error.contains("\"steps\":9") && error.contains("\"steps\":10"), "{error}");
    }
}
