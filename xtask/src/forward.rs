//! Every command that is not ours goes to the `tgm` program, built in the release profile.

use crate::command::{self, Result, become_program};

/// Builds `tgm` and becomes it, in the user's current folder: paths in `args` mean what the user typed.
///
/// cargo replaces itself by the program it runs, so the exit status and a death by a signal are those of `tgm`.
pub fn tgm(args: &[String]) -> Result {
    let manifest = command::root().join("Cargo.toml");
    let mut cargo = command::cargo_here(["run", "--release", "--package", "tgm-cli", "--bin", "tgm"]);
    become_program(cargo.arg("--manifest-path").arg(manifest).arg("--").args(args))
}
