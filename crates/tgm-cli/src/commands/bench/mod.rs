//! `tgm bench`: our speed and quality, measured, each command writing the same kind of file.

mod all;
mod decode;
mod localise;
mod mask;
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
    All(all::Args),
    Decode(decode::Args),
    Localise(localise::Args),
    Mask(mask::Args),
    Score(score::Args),
    Step(step::Args),
    #[command(hide = true)]
    Worker(worker::Args),
}

pub(super) fn run(command: Command) -> Result<()> {
    match command {
        Command::All(args) => all::run(&args),
        Command::Decode(args) => decode::run(&args),
        Command::Localise(args) => localise::run(args),
        Command::Mask(args) => mask::run(&args),
        Command::Score(args) => score::run(&args),
        Command::Step(args) => step::run(&args),
        Command::Worker(args) => worker::run(args),
    }
}
