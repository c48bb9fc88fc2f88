//! `tgm bench`: our speed and quality, measured, each command writing the same kind of file.

mod decode;
mod localise;
mod record;

use anyhow::Result;

/// Measure: every bench prints a table, and with --json writes rows of stable names.
#[derive(clap::Subcommand, Debug)]
pub(super) enum Command {
    Decode(decode::Args),
    Localise(localise::Args),
}

pub(super) fn run(command: Command) -> Result<()> {
    match command {
        Command::Decode(args) => decode::run(args),
        Command::Localise(args) => localise::run(args),
    }
}
