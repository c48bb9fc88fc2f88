//! `tgm bench`: our speed and quality, measured, each command writing the same kind of file.

mod decode;
mod localise;
mod options;
mod program;
mod python;
mod rates;
mod record;
mod score;
mod scratch;
mod step;
mod turns;
mod worker;

use anyhow::Result;

/// Measure: every bench prints a table, and with --json writes rows of stable names.
#[derive(clap::Subcommand, Debug)]
pub(super) enum Command {
    Decode(decode::Args),
    Localise(localise::Args),
    Score(score::Args),
    Step(step::Args),
    #[command(hide = true)]
    Worker(worker::Args),
}

pub(super) fn run(command: Command) -> Result<()> {
    match command {
        Command::Decode(args) => decode::run(args),
        Command::Localise(args) => localise::run(args),
        Command::Score(args) => score::run(args),
        Command::Step(args) => step::run(args),
        Command::Worker(args) => worker::run(args),
    }
}
