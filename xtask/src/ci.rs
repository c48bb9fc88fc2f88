//! `ci`: everything that continuous integration checks, from the quickest step to the slowest.
//!
//! The first step that fails ends the run. The tests come last, so that their results are what a log ends with.

use std::process::Command;
use std::time::{Duration, Instant};
use std::{env, fs, io};

use crate::check::doc_command;
use crate::command::{Failure, Result, cargo, root, run, shown, succeeds};
use crate::{layers, tidy};

/// Where the smoke run of the demo writes.
const DEMO: &str = "target/ci-demo";

/// A step has a name and does something; false when it was left out.
type Step = (&'static str, fn() -> Result<bool>);

const STEPS: &[Step] = &[
    ("fmt", || spoken(&mut cargo(["fmt", "--all", "--check"])).map(done)),
    ("tidy", || tidy::tidy().map(done)),
    ("layers", || layers::layers().map(done)),
    ("deny", deny),
    ("alone", || alone().map(done)),
    ("clippy", || {
        let targets = ["--workspace", "--all-targets", "--", "-D", "warnings"];
        spoken(cargo(["clippy", "--locked"]).args(targets)).map(done)
    }),
    ("doc", || spoken(&mut doc_command()).map(done)),
    ("demo", || demo().map(done)),
    // By its public name: the command that the README tells everyone to run.
    ("test", || spoken(&mut cargo(["xtask", "test"])).map(done)),
];

fn done((): ()) -> bool {
    true
}

/// Runs all steps.
pub fn ci() -> Result {
    let begin = Instant::now();
    let mut times = Vec::with_capacity(STEPS.len());
    for (name, step) in STEPS {
        println!("\n=== {name}");
        let begin = Instant::now();
        let done = step().map_err(|failure| failure.at(&format!("ci stopped at `{name}`")))?;
        let time = seconds(begin.elapsed());
        if done {
            println!("=== {name}: ok in {time}");
            times.push(format!("{name} {time}"));
        } else {
            println!("=== {name}: skipped");
        }
    }
    println!("ci: ok in {} ({})", seconds(begin.elapsed()), times.join(", "));
    Ok(())
}

/// Says what it runs: a step that failed can be run again by hand.
fn spoken(command: &mut Command) -> Result {
    println!("$ {}", shown(command));
    run(command)
}

/// Licences, sources and duplicate versions of the dependencies, by cargo-deny, which is not installed
/// everywhere and takes minutes to build. Security advisories are not checked: their database is a
/// repository that builds without full network access cannot fetch.
fn deny() -> Result<bool> {
    if !succeeds(&mut cargo(["deny", "--version"])) {
        if env::var_os("TGM_CI_DENY").is_none_or(|value| value != "1") {
            println!("cargo-deny is not installed; TGM_CI_DENY=1 installs it");
            return Ok(false);
        }
        spoken(&mut cargo(["install", "cargo-deny", "--locked"]))?;
    }
    spoken(&mut cargo(["deny", "--locked", "check", "--hide-inclusion-graph", "licenses", "bans", "sources"]))
        .map(done)
}

/// Each crate by itself: in a build of the whole workspace a crate may lean on features that only its
/// neighbours ask for.
fn alone() -> Result {
    for name in layers::crates()? {
        spoken(&mut cargo(["check", "--quiet", "--locked", "-p", &name]))?;
    }
    Ok(())
}

/// The README's first command, cut short, and gone on with by the one that a scheduler repeats.
fn demo() -> Result {
    if let Err(error) = fs::remove_dir_all(root().join(DEMO))
        && error.kind() != io::ErrorKind::NotFound
    {
        return Err(Failure::new(format!("cannot remove {DEMO}: {error}")));
    }
    spoken(&mut cargo(["xtask", "pretrain", "--steps", "20", "--out", DEMO]))?;
    spoken(&mut cargo(["xtask", "pretrain", "--steps", "22", "--out", DEMO, "--auto-resume"]))
}

fn seconds(time: Duration) -> String {
    format!("{:.1} s", time.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tests_are_the_last_step_so_that_a_log_ends_with_their_results() {
        assert_eq!(STEPS.last().map(|(name, _)| *name), Some("test"));
    }

    #[test]
    fn continuous_integration_calls_ci() {
        let script = fs::read_to_string(root().join(".ci/run")).unwrap();
        assert_eq!(script.lines().last(), Some("cargo xtask ci"));
    }

    #[test]
    fn times_are_in_seconds() {
        assert_eq!(seconds(Duration::from_millis(61_250)), "61.2 s");
    }
}
