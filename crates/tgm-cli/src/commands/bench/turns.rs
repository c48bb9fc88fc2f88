//! Measuring several programs in turn: each is a process of its own that sleeps while another one works.
//!
//! A noisy machine is as noisy for one as for the other when they take turns, and peak memory is each process's own. The
//! programs speak lines of JSON on their standard output, `benches/peers/worker.py` as well as [`super::worker`]:
//! `{"value": …}` once they are warm, `{"seconds": …}` for every line they are sent, and `{"peak_mb": …}` at the end.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};
use tgm_ops::Precision;
use tgm_train::progress::Progress;

use super::program::Program;
use crate::commands::median;

/// The work that all programs of one row do. Both sides read it from the same file.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Spec {
    /// What is done.
    pub work: Kind,
    /// A folder in Hugging Face's layout.
    pub model: String,
    /// A safetensors file.
    pub input: String,
    /// What it is computed in.
    pub precision: Precision,
    /// Threads of each program.
    pub threads: usize,
    /// With the contrastive loss.
    pub contrastive: bool,
    /// Ours keeps nothing but the inputs of blocks for the backward pass.
    pub recompute: bool,
}

/// Kinds of work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Kind {
    /// A pretraining step: forward, backward, AdamW.
    Step,
    /// The encoder on all tubelets.
    Features,
    /// CLIP's projected patch features of frames.
    Score,
}

/// What a program said of its work.
#[derive(Clone, Debug)]
pub(super) struct Measured {
    /// Its name, as in the rows.
    pub name: String,
    /// The number that all programs must agree on, before any step changed it.
    pub value: f64,
    /// Median seconds of one unit of work.
    pub seconds: f64,
    /// Peak resident memory in MB.
    pub peak_mb: f64,
}

/// Before its first turn.
#[derive(Deserialize)]
pub(super) struct Warm {
    /// `None` is not a number.
    pub value: Option<f64>,
}

/// After every turn.
#[derive(Deserialize)]
pub(super) struct Done {
    pub seconds: f64,
}

/// At the end.
#[derive(Deserialize)]
struct Ended {
    peak_mb: f64,
}

/// Starts the named commands, lets each do `rounds` units of work in turn, and ends them. The first one is ours; one of the others that
/// computes NaN is left out, with a warning.
///
/// # Errors
/// When a program cannot be started, or ends before its time, or the first one computes NaN.
pub(super) fn in_turn(title: &str, commands: Vec<(String, Command)>, rounds: u32) -> Result<Vec<Measured>> {
    let progress = Progress::new(title, commands.len() as u64 * u64::from(rounds + 1));
    let mut done = 0;
    let mut step = || {
        done += 1;
        progress.set(done);
    };
    // One after the other, so that no program's warm-up runs beside another's.
    let mut programs = Vec::new();
    for (name, command) in commands {
        let mut program = Program::start(name, command)?;
        match program.line()? {
            Warm { value: Some(value) } => programs.push((program, value, Vec::new())),
            Warm { value: None } => {
                ensure!(!programs.is_empty(), "{} computed NaN, which cannot be compared", program.name());
                tracing::warn!("{title}: {} is left out, it computes NaN", program.name());
            }
        }
        step();
    }
    for _ in 0..rounds {
        for (program, _, seconds) in &mut programs {
            seconds.push(program.turn::<Done>()?.seconds);
            step();
        }
    }
    progress.finish();
    programs
        .into_iter()
        .map(|(program, value, seconds)| {
            let name = program.name().to_owned();
            let seconds = median(seconds).context("no rounds")?;
            Ok(Measured { name, value, seconds, peak_mb: program.end::<Ended>()?.peak_mb })
        })
        .collect()
}

/// Refuses to compare programs that did not compute the same.
///
/// # Errors
/// Names the program that differs from the first by more than `tolerance`, relatively.
pub(super) fn ensure_agreement(measured: &[Measured], tolerance: f64) -> Result<()> {
    let [first, others @ ..] = measured else { return Ok(()) };
    for other in others {
        let difference = (other.value - first.value).abs() / first.value.abs().max(f64::MIN_POSITIVE);
        ensure!(
            difference <= tolerance,
            "{} computes {} where {} computes {}: speeds of different work cannot be compared",
            other.name,
            other.value,
            first.name,
            first.value
        );
    }
    Ok(())
}

/// Writes the work down where both sides can read it.
pub(super) fn write_spec(folder: &Path, name: &str, spec: &Spec) -> Result<std::path::PathBuf> {
    let path = folder.join(format!("{name}.json"));
    let text = serde_json::to_string_pretty(spec)?;
    std::fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
    Ok(path)
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    fn shell(name: &str, script: &str) -> (String, Command) {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        (name.into(), command)
    }

    const WELL: &str = r#"echo loading; echo '{"value": 2}'; n=1; while read go; do echo "{\"seconds\": $n}"; n=$((n+1)); done; echo '{"peak_mb": 7}'"#;

    #[test]
    fn every_program_works_as_often_and_the_median_counts() {
        let measured = in_turn("test", vec![shell("a", WELL), shell("b", WELL)], 3).unwrap();
        assert_eq!(measured.iter().map(|m| m.name.as_str()).collect::<Vec<_>>(), ["a", "b"]);
        for m in &measured {
            assert_eq!((m.value, m.seconds, m.peak_mb), (2.0, 2.0, 7.0));
        }
        ensure_agreement(&measured, 1e-9).unwrap();
    }

    #[test]
    fn a_program_that_dies_is_named() {
        let error = in_turn("test", vec![shell("fragile", "echo '{\"value\": 1}'; exit 3")], 1).unwrap_err();
        assert!(error.to_string().contains("fragile ended early"), "{error}");
    }

    #[test]
    fn a_peer_that_computes_nan_is_left_out_and_ours_is_an_error() {
        let nan = WELL.replace("\"value\": 2", "\"value\": NaN");
        let peers = vec![shell("ours", WELL), shell("lost", &nan), shell("well", WELL)];
        let measured = in_turn("test", peers, 1).unwrap();
        assert_eq!(measured.iter().map(|m| m.name.as_str()).collect::<Vec<_>>(), ["ours", "well"]);
        let error = in_turn("test", vec![shell("ours", &nan)], 1).unwrap_err();
        assert!(error.to_string().contains("ours computed NaN"), "{error}");
    }

    #[test]
    fn programs_that_compute_something_else_are_not_compared() {
        let other = WELL.replace("\"value\": 2", "\"value\": 3");
        let measured = in_turn("test", vec![shell("a", WELL), shell("b", &other)], 1).unwrap();
        let error = ensure_agreement(&measured, 0.1).unwrap_err().to_string();
        assert!(error.contains("b computes 3 where a computes 2"), "{error}");
    }
}
