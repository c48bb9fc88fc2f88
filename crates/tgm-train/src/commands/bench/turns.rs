//! Measuring several programs in turn: each is a process of its own that sleeps while another one works.
//!
//! A noisy machine is as noisy for one as for the other when they take turns, and peak memory is each process's own. The
//! programs speak lines of JSON on their standard output, `benches/peers/worker.py` as well as [`super::worker`]:
//! `{"value": …}` once they are warm, `{"seconds": …}` for every line they are sent, and `{"peak_mb": …}` at the end.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};

use crate::progress::Progress;

/// The work that all programs of one row do. Both sides read it from the same file.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Spec {
    /// What is done.
    pub work: Kind,
    /// A folder in Hugging Face's layout.
    pub model: String,
    /// A safetensors file.
    pub input: String,
    /// `f32` or `bf16`.
    pub precision: String,
    /// Threads of each program.
    pub threads: usize,
    /// With the contrastive loss.
    pub contrastive: bool,
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

/// A running program.
struct Program {
    name: String,
    child: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
}

#[derive(Default, Deserialize)]
struct Line {
    value: Option<f64>,
    seconds: Option<f64>,
    peak_mb: Option<f64>,
}

/// Starts the named commands, lets each do `rounds` units of work in turn, and ends them.
///
/// # Errors
/// When a program cannot be started, or ends before its time.
pub(super) fn in_turn(title: &str, commands: Vec<(String, Command)>, rounds: usize) -> Result<Vec<Measured>> {
    ensure!(rounds > 0, "--rounds 0: at least 1");
    let progress = Progress::new(title, (commands.len() * (rounds + 1)) as u64);
    let mut done = 0;
    let mut step = || {
        done += 1;
        progress.set(done);
    };
    // One after the other, so that no program's warm-up runs beside another's.
    let mut programs = Vec::new();
    for (name, command) in commands {
        let mut program = Program::start(name, command)?;
        let value = program.line()?.value.context("a program began without its value")?;
        programs.push((program, value, Vec::with_capacity(rounds)));
        step();
    }
    for _ in 0..rounds {
        for (program, _, seconds) in &mut programs {
            seconds.push(program.work()?);
            step();
        }
    }
    progress.finish();
    programs
        .into_iter()
        .map(|(program, value, seconds)| {
            let name = program.name.clone();
            Ok(Measured { name, value, seconds: median(seconds), peak_mb: program.end()? })
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

impl Program {
    fn start(name: String, mut command: Command) -> Result<Self> {
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().with_context(|| format!("cannot start {name}: {command:?}"))?;
        let input = child.stdin.take();
        let output = child.stdout.take().context("a program without standard output")?;
        Ok(Self { name, child, input, output: BufReader::new(output) })
    }

    fn line(&mut self) -> Result<Line> {
        loop {
            let mut text = String::new();
            if self.output.read_line(&mut text)? == 0 {
                bail!("{} ended early ({}); what it wrote above says why", self.name, self.child.wait()?);
            }
            // Libraries print what they like; only JSON objects are meant for us.
            if text.starts_with('{') {
                return serde_json::from_str(&text).with_context(|| format!("{} said {text:?}", self.name));
            }
        }
    }

    fn work(&mut self) -> Result<f64> {
        let input = self.input.as_mut().context("a program that has ended")?;
        // A program that is gone shows in its output.
        let _ = input.write_all(b"go\n").and_then(|()| input.flush());
        self.line()?.seconds.with_context(|| format!("{} did not say how long it took", self.name))
    }

    fn end(mut self) -> Result<f64> {
        drop(self.input.take());
        let peak = self.line()?.peak_mb.with_context(|| format!("{} did not say its memory", self.name))?;
        self.child.wait()?;
        Ok(peak)
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // Does nothing to one that has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    if values.len() % 2 == 1 { values[middle] } else { (values[middle - 1] + values[middle]) / 2.0 }
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
    fn programs_that_compute_something_else_are_not_compared() {
        let other = WELL.replace("\"value\": 2", "\"value\": 3");
        let measured = in_turn("test", vec![shell("a", WELL), shell("b", &other)], 1).unwrap();
        let error = ensure_agreement(&measured, 0.1).unwrap_err().to_string();
        assert!(error.contains("b computes 3 where a computes 2"), "{error}");
    }

    #[test]
    fn the_median_of_an_even_number_is_the_mean_of_the_middle() {
        assert_eq!(median(vec![4.0, 1.0, 3.0, 2.0]), 2.5);
    }
}
