//! `tgm report`.

use std::path::PathBuf;

use anyhow::Result;
use tgm_train::run_dir::write_atomically;

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

pub(super) fn run(args: Args) -> Result<()> {
    let page = report::page(&args.runs)?;
    let out = args.out.unwrap_or_else(|| args.runs[0].join("report.html"));
    write_atomically(&out, page.as_bytes())?;
    println!("{}", out.display());
    Ok(())
}
