//! `tgm reproduce`.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;
use tgm_train::config::{self, ConfigError};
use tgm_train::stop::Stop;

use crate::reproduce::{Clips, Order, Plan, Table, arms, duration, reproduce};

/// The paper's ablation tables at small scale, on synthetic worlds; interrupted and started again, it goes on.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  tgm reproduce --budget 10m                       the main table, as far as ten minutes go
  tgm reproduce --table a --seeds 3                the main table, complete
  tgm reproduce --table a --table b --table c      more tables; runs that they share are made once
  tgm reproduce --table a --known their/runs.json  without the runs that another machine has made
  tgm reproduce --list                             the runs, without making them")]
pub(super) struct Args {
    /// The tables; by default the main one.
    #[arg(long = "table", value_name = "TABLE", default_value = "a")]
    tables: Vec<Table>,
    /// Runs of each arm.
    #[arg(long, default_value_t = 3)]
    seeds: u64,
    /// Stop in time, as in 90s, 30m or 2h: fewer seeds, and in a new folder shorter runs.
    #[arg(long, value_parser = duration, value_name = "TIME")]
    budget: Option<Duration>,
    /// Optimiser steps of each run; by default those of the configuration `reproduce`.
    #[arg(long, value_name = "N")]
    steps: Option<u64>,
    /// Clips of each world to train on.
    #[arg(long, default_value_t = 1920, value_name = "N")]
    train: u32,
    /// Clips of each world to score.
    #[arg(long, default_value_t = 240, value_name = "N")]
    test: u32,
    /// Also fine-tune every encoder for so many epochs.
    #[arg(long, value_name = "EPOCHS")]
    finetune: Option<f64>,
    /// Runs that were made elsewhere: the `runs.json` of their folder; may be repeated.
    #[arg(long, value_name = "FILE")]
    known: Vec<PathBuf>,
    /// Set a key of the configuration for all runs; may be repeated.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    settings: Vec<String>,
    /// The folder of the reproduction.
    #[arg(long, default_value = "runs/reproduce", value_name = "DIR")]
    out: PathBuf,
    /// Only list the runs.
    #[arg(long)]
    list: bool,
    /// Write the tables to a file.
    #[arg(long, value_name = "FILE", value_parser = crate::commands::result_file)]
    json: Option<PathBuf>,
}

pub(super) fn run(args: Args) -> Result<()> {
    if args.list {
        for arm in arms(&args.tables) {
            println!("{:<28} {:<28} {}", arm.world.name(), arm.name, arm.settings.join("  "));
        }
        return Ok(());
    }
    if args.seeds == 0 || args.steps == Some(0) || args.train == 0 || args.test == 0 {
        return Err(ConfigError("--seeds, --steps, --train and --test must be at least 1".into()).into());
    }
    if args.finetune.is_some_and(|epochs| !(epochs > 0.0 && epochs.is_finite())) {
        return Err(ConfigError("--finetune must be more than 0 epochs".into()).into());
    }
    let wanted = config::load("reproduce", &args.settings)?;
    let sets_length = args.settings.iter().any(|setting| setting.trim_start().starts_with("schedule.length"));
    if args.steps.is_some() && sets_length {
        return Err(
            ConfigError("--steps and --set schedule.length say the same: leave one out".into()).into()
        );
    }
    let stop = Stop::on_signals()?;
    let plan = Plan {
        clips: Clips { train: args.train, test: args.test },
        steps: args.steps.unwrap_or(wanted.schedule.length as u64),
        settings: args.settings,
    };
    let (out, tables) = (std::path::absolute(&args.out)?, args.tables);
    let Args { seeds, budget, finetune, known, .. } = args;
    let order = Order { out, tables, seeds, budget, finetune, known, plan };
    let result = reproduce(order, stop)?;
    print!("{}", result.markdown);
    println!("\npage        {}", result.page.display());
    super::write_json(args.json.as_deref(), &result.summaries)
}
