//! The commands of `tgm`.

mod bench;
mod caption;
mod config;
mod convert;
mod data;
mod eval;
mod features;
mod forward;
mod join;
mod patch_features;
mod pretrain;
mod read;
mod replay;
mod report;
mod reproduce;
mod score;
mod shell;
mod viz;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::{ColorChoice, CommandFactory, FromArgMatches, Parser, Subcommand};
use tgm_data::loader::LoaderError;
use tgm_train::color;
use tgm_train::config::ConfigError;
use tracing_subscriber::EnvFilter;

/// Text-guided video masked autoencoders: pretrain, evaluate, convert.
#[derive(Parser, Debug)]
#[command(name = "tgm", version, propagate_version = true)]
struct Cli {
    /// More about what happens, on standard error; twice for even more.
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    verbose: u8,
    /// How messages look: for people, or a JSON object per line.
    #[arg(long, global = true, value_enum, default_value_t = LogFormat::Text)]
    log_format: LogFormat,
    /// When messages and help have colours; `auto`: on a terminal, unless NO_COLOR is set.
    #[arg(long, global = true, value_name = "WHEN", value_enum, default_value_t = ColorChoice::Auto)]
    color: ColorChoice,
    #[command(subcommand)]
    command: Command,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum LogFormat {
    Text,
    Json,
}

#[derive(Subcommand, Debug)]
enum Command {
    #[command(subcommand)]
    Bench(bench::Command),
    Caption(caption::Args),
    Pretrain(pretrain::Args),
    Join(join::Args),
    Eval(eval::Args),
    Features(features::Args),
    #[command(subcommand)]
    Data(data::Command),
    Forward(forward::Args),
    Import(convert::ImportArgs),
    Export(convert::ExportArgs),
    #[command(subcommand)]
    Config(config::Command),
    Replay(replay::Args),
    Report(report::Args),
    Reproduce(reproduce::Args),
    Completions(shell::CompletionsArgs),
    Man(shell::ManArgs),
    Score(score::Args),
    Viz(viz::Args),
}

/// Stack of the thread that commands run on: candle walks a loss's graph by recursion, one frame per operation.
const STACK: usize = 256 << 20;

/// Parses the command line, runs the command and reports its failure as one line.
pub fn main() -> ExitCode {
    let command = Cli::command().color(color::asked_for(std::env::args_os()));
    let cli = Cli::from_arg_matches(&command.get_matches()).unwrap_or_else(|error| error.exit());
    color::choose(cli.color);
    start_logging(cli.verbose, cli.log_format);
    let run = std::thread::Builder::new().stack_size(STACK).spawn(move || run(cli.command));
    let outcome = match run.map(std::thread::JoinHandle::join) {
        Ok(Ok(outcome)) => outcome,
        Ok(Err(_)) => Err(anyhow::anyhow!("this is a fault of tgm itself; the message above says where")),
        Err(error) => Err(anyhow::Error::from(error).context("cannot start a thread")),
    };
    let outcome = outcome.and_then(|()| match crate::out::failure() {
        Some(reason) => Err(anyhow::anyhow!("cannot write to standard output: {reason}")),
        None => Ok(()),
    });
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            match cli.log_format {
                LogFormat::Text => eprintln!("error: {}", one_line(&error)),
                LogFormat::Json => tracing::error!("{}", one_line(&error)),
            }
            ExitCode::from(if is_usage(&error) { 2 } else { 1 })
        }
    }
}

/// Whether an error is about what was asked for, and not about what was found.
fn is_usage(error: &anyhow::Error) -> bool {
    let setting = matches!(error.downcast_ref(), Some(tgm_eval::Error::Setting { .. }));
    let value = matches!(error.downcast_ref(), Some(LoaderError::BadConfig { .. }));
    setting || value || error.downcast_ref::<ConfigError>().is_some()
}

/// Messages go to standard error.
fn start_logging(verbose: u8, format: LogFormat) {
    // As JSON, progress is a message like any other.
    let least = if format == LogFormat::Json { 1 } else { 0 };
    let level = ["warn", "info", "debug"][usize::from(verbose.max(least).min(2))];
    // What FFmpeg has to say names no file; what comes of it is in our own messages.
    let ffmpeg = ["off", "error", "warn"][usize::from(verbose.min(2))];
    let filter = EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| EnvFilter::new(format!("warn,video={ffmpeg},tgm={level}")));
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match format {
        LogFormat::Text => {
            builder.without_time().with_ansi(color::on_stderr()).init();
        }
        LogFormat::Json => {
            tgm_train::progress::as_messages();
            builder.json().init();
        }
    }
}

fn run(command: Command) -> Result<()> {
    match command {
        Command::Bench(command) => bench::run(command),
        Command::Caption(args) => caption::run(args),
        Command::Pretrain(args) => pretrain::run(args),
        Command::Join(args) => join::run(args),
        Command::Eval(args) => eval::run(args),
        Command::Features(args) => features::run(args),
        Command::Data(command) => data::run(command),
        Command::Forward(args) => forward::run(args),
        Command::Import(args) => convert::import(args),
        Command::Export(args) => convert::export(args),
        Command::Config(command) => config::run(command),
        Command::Replay(args) => replay::run(args),
        Command::Report(args) => report::run(args),
        Command::Reproduce(args) => reproduce::run(args),
        Command::Completions(args) => shell::completions(args),
        Command::Man(args) => shell::man(args),
        Command::Score(args) => score::run(args),
        Command::Viz(args) => viz::run(args),
    }
}

/// The chain of causes in one line. Many errors quote their cause already: what has been said is not said again.
fn one_line(error: &anyhow::Error) -> String {
    let mut line = String::new();
    for cause in error.chain() {
        // candle puts a backtrace behind its messages where RUST_BACKTRACE is set.
        let text = cause.to_string();
        let text = text.split("\n   0: ").next().unwrap_or_default();
        let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
        if !line.contains(&text) {
            if !line.is_empty() {
                line += ": ";
            }
            line += &text;
        }
    }
    line
}

/// A count that cannot be none.
fn at_least_one(text: &str) -> Result<usize, String> {
    text.parse::<std::num::NonZeroUsize>().map(Into::into).map_err(|_| "a whole number from 1 on".into())
}

/// The file of `--json`: that its folder is missing is better known before hours of work than behind them.
fn result_file(path: &str) -> Result<PathBuf, String> {
    let path = PathBuf::from(path);
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    match folder {
        Some(folder) if !folder.is_dir() => Err(format!("there is no folder {}", folder.display())),
        _ if path.is_dir() => Err("it is a folder".into()),
        _ => Ok(path),
    }
}

/// Writes the numbers of a result where `--json` says.
fn write_json(path: Option<&std::path::Path>, value: &impl serde::Serialize) -> Result<()> {
    match path {
        Some(path) => tgm_train::run_dir::write_atomically(
            path,
            (serde_json::to_string_pretty(value)? + "\n").as_bytes(),
        ),
        None => Ok(()),
    }
}

/// The middle of some values, the mean of the two middle ones when their number is even; `None` of none.
fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    let upper = *values.get(middle)?;
    Some(if values.len() % 2 == 1 { upper } else { (values[middle - 1] + upper) / 2.0 })
}

#[cfg(test)]
mod tests {
    use super::median;

    #[test]
    fn the_median_of_an_even_number_is_the_mean_of_the_middle() {
        assert_eq!(median(vec![4.0, 1.0, 3.0, 2.0]), Some(2.5));
        assert_eq!(median(vec![5.0, 1.0, 3.0]), Some(3.0));
        assert_eq!(median(Vec::new()), None);
    }
}
