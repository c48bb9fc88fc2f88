//! `cargo xtask …`: checks that the machine has what is needed, then runs `tgm`, the tests or the checks.
//!
//! It has no dependencies on purpose. It is the first thing a fresh machine builds, and it must build (in a
//! second) while FFmpeg and libclang are still missing, because it is what installs them.
#![allow(clippy::print_stdout, reason = "a command line program: results go to stdout")]

mod check;
mod ci;
mod command;
mod forward;
mod layers;
mod probe;
mod setup;
mod tidy;

use std::io::Write;
use std::process::ExitCode;

use command::{Failure, Result, no_arguments};

const HELP: &str = "\
Everything that is run in this repository, after checking that the machine has what it needs.

Usage: cargo xtask <COMMAND> [ARGS]...

Commands of this repository:
  setup   Check for FFmpeg, pkg-config and libclang; install what is missing (Debian, Ubuntu);
          --browser also Chromium, in which tests open the pages (without it they are skipped)
  test    Run the tests: cargo test --workspace, or of one crate with `-p CRATE`;
          --slow adds the slow ones, all other arguments go to cargo test
  ci      Everything continuous integration checks, tests included
  tidy    Check the files: white space, module docs, file lengths, machine paths, size of the fixtures
  doc     Build the documentation of all crates, warnings are errors (--open shows it)
  fmt     Format all crates (--check only checks)

Every other command goes to tgm, which is built first (release profile):
  cargo xtask pretrain           Train on the built-in demo, end to end
  cargo xtask pretrain --help    The options of a tgm command
  cargo xtask tgm --help         All tgm commands

Exit status: 0 success, 2 bad usage or config, 1 any other failure.
";

fn main() -> ExitCode {
    let args: Vec<String> = match std::env::args_os().skip(1).map(|arg| arg.into_string()).collect() {
        Ok(args) => args,
        Err(arg) => return Failure::usage(format!("argument {arg:?} is not valid UTF-8")).report(),
    };
    match dispatch(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}

fn dispatch(args: &[String]) -> Result {
    let Some((name, rest)) = args.split_first() else { return help() };
    match name.as_str() {
        "help" | "--help" | "-h" => help(),
        "setup" | "test" | "ci" | "tidy" | "doc" | "fmt" if asks_for_help(rest) => help(),
        "setup" if rest == ["--browser"] => setup::setup().and_then(|()| setup::browser()),
        "setup" => no_arguments(name, rest).and_then(|()| setup::setup()),
        // These two only look at files: they work on a machine that has nothing but Rust.
        "tidy" => no_arguments(name, rest).and_then(|()| tidy::tidy()),
        "fmt" => check::fmt(rest),
        _ => {
            setup::ensure()?;
            match name.as_str() {
                "test" => check::test(rest),
                "ci" => no_arguments(name, rest).and_then(|()| ci::ci()),
                "doc" => check::doc(rest),
                "tgm" => forward::tgm(rest),
                _ => forward::tgm(args),
            }
        }
    }
}

fn help() -> Result {
    // A reader that has seen enough (`| head`) is no failure.
    let _ = std::io::stdout().write_all(HELP.as_bytes());
    Ok(())
}

fn asks_for_help(args: &[String]) -> bool {
    args.first().is_some_and(|arg| arg == "--help" || arg == "-h")
}
