//! `tgm report`.

use std::path::PathBuf;

use anyhow::Result;
use tgm_train::run_dir::{RunDir, write_atomically};

use crate::report;

/// One self-contained HTML page about one run or several: curves, pictures, probes, configuration, machine.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  tgm report runs/demo                                   writes runs/demo/report.html
  tgm report runs/tube runs/text --out compare.html      several runs on one page
  tgm report runs/*                                      works while runs are in progress")]
pub(super) struct Args {
    /// Folders of runs.
    #[arg(required = true, value_name = "RUN")]
    runs: Vec<PathBuf>,
    /// The page. Default: report.html in the first run's folder.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

/// Of several folders, those with a run: `runs/*` may hold other things. A single one is asked for by name.
fn runs(folders: Vec<PathBuf>) -> Vec<PathBuf> {
    let (runs, others): (Vec<_>, Vec<_>) =
        folders.iter().cloned().partition(|folder| RunDir::at(folder).config_file().is_file());
    if runs.is_empty() {
        return folders;
    }
    for other in others {
        tracing::warn!("{}: no run is here (there is no config.toml); left out", other.display());
    }
    runs
}

pub(super) fn run(args: Args) -> Result<()> {
    let runs = runs(args.runs);
    let page = report::page(&runs)?;
    let out = args.out.unwrap_or_else(|| runs[0].join("report.html"));
    write_atomically(&out, page.as_bytes())?;
    println!("{}", out.display());
    Ok(())
}
