//! `tgm config`.

use anyhow::Result;

use tgm_train::config::{self, ConfigError, NAMED, NAMED_EVALUATIONS};
use toml::Table;

/// Look at configurations: the named ones, files, what differs, what a key means.
#[derive(clap::Subcommand, Debug)]
#[command(after_help = "\
Examples:
  tgm config list
  tgm config show tgm-base > mine.toml      a file to change, with its comments
  tgm config show tgm-base --full           every key, defaults included
  tgm config diff tgm-base videomae-base
  tgm config show finetune-base-ssv2        an evaluation: tgm eval ssv2 --config finetune-base-ssv2 …
  tgm config diff runs/a/config.toml runs/b/config.toml
  tgm config explain masking.ratio
  tgm config explain                        all keys, a line each")]
pub(super) enum Command {
    /// The named configurations, a line each.
    List,
    /// A configuration as it was written, with its comments.
    Show {
        /// A name, or a file.
        name: String,
        /// Every key with its value, the defaults included.
        #[arg(long)]
        full: bool,
    },
    /// The keys in which two configurations differ.
    Diff {
        /// A name, or a file.
        old: String,
        /// A name, or a file.
        new: String,
    },
    /// What a key means, its default, and its values in the named configurations.
    Explain {
        /// Such as `train.batch`; a section, such as `train`; none for a list of all.
        key: Option<String>,
    },
}

pub(super) fn run(command: Command) -> Result<()> {
    match command {
        Command::List => {
            println!("Runs, for `tgm pretrain --config NAME`:");
            NAMED.iter().for_each(print_line);
            println!("\nEvaluations, for `tgm eval DATASET --config NAME`:");
            NAMED_EVALUATIONS.iter().for_each(print_line);
        }
        Command::Show { name, full: true } => match config::is_evaluation(&name)? {
            true => print!("{}", toml::to_string_pretty(&document(&name)?)?),
            false => print!("{}", config::load(&name, &[])?.to_toml()?),
        },
        Command::Show { name, full: false } => {
            document(&name)?;
            match config::named(&name) {
                Some(text) => print!("{text}"),
                None => print!("{}", read(&name)?),
            }
        }
        Command::Diff { old, new } => {
            let differences = config::differences(&document(&old)?, &document(&new)?);
            if differences.is_empty() {
                println!("no difference");
            }
            differences.iter().for_each(|line| println!("{line}"));
        }
        Command::Explain { key: Some(key) } => print!("{}", config::explain(&key)?),
        Command::Explain { key: None } => print!("{}", config::overview()),
    }
    Ok(())
}

fn print_line((name, text): &(&str, &str)) {
    println!("{name:<24} {}", config::title(text));
}

/// Every key of a run's or an evaluation's configuration, the defaults included.
fn document(name: &str) -> Result<Table> {
    match config::is_evaluation(name)? {
        true => Ok(config::load_evaluation(name)?.effective()?),
        false => Ok(Table::try_from(config::load(name, &[])?)?),
    }
}

fn read(file: &str) -> Result<String> {
    std::fs::read_to_string(file).map_err(|e| ConfigError(format!("cannot read {file}: {e}")).into())
}
