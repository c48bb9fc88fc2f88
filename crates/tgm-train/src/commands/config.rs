//! `tgm config`.

use anyhow::Result;

use crate::config::{self, ConfigError, NAMED};

/// Look at configurations: the named ones, files, what differs, what a key means.
#[derive(clap::Subcommand, Debug)]
#[command(after_help = "\
Examples:
  tgm config list
  tgm config show tgm-base > mine.toml      a file to change, with its comments
  tgm config show tgm-base --full           every key, defaults included
  tgm config diff tgm-base videomae-base
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
            for (name, text) in NAMED {
                println!("{name:<24} {}", config::title(text));
            }
        }
        Command::Show { name, full } => {
            let config = config::load(&name, &[])?;
            let written = NAMED.iter().find(|(known, _)| *known == name).map(|(_, text)| (*text).to_string());
            match (full, written) {
                (true, _) => print!("{}", config.to_toml()?),
                (false, Some(text)) => print!("{text}"),
                (false, None) => print!("{}", read(&name)?),
            }
        }
        Command::Diff { old, new } => {
            let differences = config::differences(&config::load(&old, &[])?, &config::load(&new, &[])?);
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

fn read(file: &str) -> Result<String> {
    std::fs::read_to_string(file).map_err(|e| ConfigError(format!("cannot read {file}: {e}")).into())
}
