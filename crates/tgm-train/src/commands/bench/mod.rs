//! `tgm bench`: our speed and quality, measured, each command writing the same kind of file.

mod localise;
mod record;

use anyhow::Result;

/// Measure: every bench prints a table, and with --json writes rows of stable names.
#[derive(clap::Subcommand, Debug)]
pub(super) enum Command {
    Localise(localise::Args),
}

pub(super) fn run(command: Command) -> Result<()> {
    match command {
        Command::Localise(args) => localise::run(args),
    }
}
