//! The commands around cargo: `test`, `doc` and `fmt`.

use std::process::Command;

use crate::command::{Result, cargo, run};

/// All tests of the workspace, doc tests included; `args` go to `cargo test`, except for `--slow`.
pub fn test(args: &[String]) -> Result {
    run(&mut test_command(args))
}

fn test_command(args: &[String]) -> Command {
    let (ours, harness) = args.split_at(args.iter().position(|arg| arg == "--").unwrap_or(args.len()));
    let mut command = cargo(["test"]);
    if !chooses_packages(ours) {
        command.arg("--workspace");
    }
    if ours.iter().any(|arg| arg == "--slow") {
        command.env("TGM_SLOW_TESTS", "1");
    }
    command.args(ours.iter().filter(|arg| *arg != "--slow")).args(harness);
    command
}

/// The documentation of all crates, where a warning is an error.
pub fn doc(args: &[String]) -> Result {
    run(doc_command().args(args))
}

pub fn doc_command() -> Command {
    let mut command = cargo(["doc", "--workspace", "--no-deps"]);
    command.env("RUSTDOCFLAGS", "-D warnings");
    command
}

/// Formats all crates.
pub fn fmt(args: &[String]) -> Result {
    run(cargo(["fmt", "--all"]).args(args))
}

fn chooses_packages(args: &[String]) -> bool {
    args.iter().any(|arg| arg.starts_with("-p") || arg.starts_with("--package") || arg == "--workspace")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::shown;

    fn test_line(args: &str) -> String {
        shown(&test_command(&args.split_whitespace().map(String::from).collect::<Vec<_>>()))
    }

    #[test]
    fn test_runs_the_whole_workspace() {
        assert_eq!(test_line(""), "cargo test --workspace");
    }

    #[test]
    fn test_passes_arguments_on() {
        assert_eq!(
            test_line("--lib mask -- --nocapture"),
            "cargo test --workspace --lib mask -- --nocapture"
        );
    }

    #[test]
    fn test_of_one_crate_leaves_the_others_alone() {
        assert_eq!(test_line("-p tgm-masking"), "cargo test -p tgm-masking");
        assert_eq!(test_line("--package=tgm-masking"), "cargo test --package=tgm-masking");
    }

    #[test]
    fn slow_is_ours_and_reaches_the_tests_by_the_environment() {
        assert_eq!(test_line("--slow mask"), "TGM_SLOW_TESTS=1 cargo test --workspace mask");
    }

    #[test]
    fn what_follows_two_dashes_belongs_to_the_test_harness() {
        assert_eq!(test_line("-- --slow -p"), "cargo test --workspace -- --slow -p");
    }
}
