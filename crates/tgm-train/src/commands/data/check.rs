//! `tgm data check`.

use std::collections::{BTreeMap, HashMap};
use std::fs::OpenOptions;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context, Result, bail};
use rayon::prelude::*;
use serde::Serialize;
use tgm_data::index_store::{IndexStore, IndexWriter};
use tgm_data::manifest::{Manifest, write_manifest};
use tgm_data::survey::{Depth, FileReport, examine, identity, row_problem};
use tgm_video::ReadOptions;

use super::ManifestArgs;
use crate::progress::Progress;

/// Read every video of a manifest; say which are bad and why, and write a manifest without them.
///
/// Prints one line per bad file. What was found is kept beside the manifest (MANIFEST.check.jsonl): a check that was
/// interrupted goes on where it was, and files that did not change are not read again. The places of all frames are kept, too
/// (MANIFEST.index): training on this manifest opens its videos faster.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  tgm data check clips.csv                      decodes every frame; writes clips.clean.csv
  tgm data check clips.csv --depth ends         three frames of each: much faster, finds most
  tgm data check clips.csv --fresh --out good.csv")]
pub(in crate::commands) struct Args {
    #[command(flatten)]
    data: ManifestArgs,
    /// How closely each file is looked at.
    #[arg(long, value_enum, default_value_t = DepthName::Frames)]
    depth: DepthName,
    /// Where the manifest of good rows goes. Default: NAME.clean.csv beside the manifest.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Forget what earlier checks found.
    #[arg(long)]
    fresh: bool,
    /// Longest time in seconds that one file may take to open or to read.
    #[arg(long, default_value_t = ReadOptions::default().max_seconds)]
    max_seconds: f64,
    /// Write the counts to a file.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum DepthName {
    /// Headers only.
    Headers,
    /// All packets, and the first, middle and last frame.
    Ends,
    /// Every frame.
    Frames,
}

/// What a check found.
#[derive(Serialize)]
struct Summary {
    files: usize,
    bad_files: usize,
    rows: usize,
    kept_rows: usize,
    problems: BTreeMap<String, String>,
}

pub(super) fn run(args: Args) -> Result<()> {
    let manifest = args.data.load()?;
    let depth = match args.depth {
        DepthName::Headers => Depth::Headers,
        DepthName::Ends => Depth::Ends,
        DepthName::Frames => Depth::Frames,
    };
    let options = ReadOptions { max_seconds: args.max_seconds, ..ReadOptions::default() };
    let record = with_suffix(manifest.file(), "check.jsonl");
    let reports = survey(&manifest, &record, &options, depth, args.fresh)?;

    let mut problems = BTreeMap::new();
    let mut kept = Vec::with_capacity(manifest.len());
    for row in 0..manifest.len() {
        let path = manifest.row(row).path();
        match row_problem(&manifest, row, &reports[path]) {
            None => kept.push(row),
            Some(problem) => drop(problems.insert(path.to_owned(), problem)),
        }
    }
    for problem in problems.values() {
        println!("{}", problem.split_whitespace().collect::<Vec<_>>().join(" "));
    }
    let bad_files = reports.values().filter(|report| report.problem.is_some()).count();
    let summary =
        Summary { files: reports.len(), bad_files, rows: manifest.len(), kept_rows: kept.len(), problems };
    eprintln!(
        "{} files, {} of them bad; {} of {} rows are good",
        summary.files, summary.bad_files, summary.kept_rows, summary.rows
    );
    super::super::write_json(args.json.as_deref(), &summary)?;
    if kept.is_empty() {
        bail!("{}: no row is good, so no manifest is written", manifest.file().display());
    }
    let out = args.out.unwrap_or_else(|| clean_name(manifest.file()));
    write_manifest(&out, kept.iter().map(|&row| manifest.row(row).record(&out)))?;
    eprintln!("written: {}", out.display());
    Ok(())
}

/// The report of every distinct path: from the record where the file is unchanged, else from the file.
fn survey(
    manifest: &Manifest,
    record: &Path,
    options: &ReadOptions,
    depth: Depth,
    fresh: bool,
) -> Result<HashMap<String, FileReport>> {
    if fresh && record.exists() {
        std::fs::remove_file(record).with_context(|| format!("cannot remove {}", record.display()))?;
    }
    let known = recorded(record, depth);
    let files: BTreeMap<&str, PathBuf> = manifest.rows().map(|row| (row.path(), row.file())).collect();
    let (old, new): (Vec<_>, Vec<_>) = files.into_iter().partition(|(path, file)| {
        known.get(*path).is_some_and(|report| (report.bytes, report.modified) == identity(file))
    });
    if !old.is_empty() {
        eprintln!("{} files did not change since they were checked", old.len());
    }
    let mut reports: HashMap<String, FileReport> =
        old.iter().map(|(path, _)| ((*path).to_owned(), known[*path].clone())).collect();
    let output = OpenOptions::new().create(true).append(true).open(record);
    let output = Mutex::new(output.with_context(|| format!("cannot write {}", record.display()))?);
    let unwritten = || format!("cannot write {}", IndexStore::file_of(manifest.file()).display());
    let indices = IndexWriter::open(manifest.file(), fresh).with_context(unwritten)?;
    let (progress, done) = (Progress::new("check", new.len() as u64), AtomicU64::new(0));
    let look = |(path, file): &(&str, PathBuf)| -> Result<(String, FileReport)> {
        let (report, index) = examine(path, file, options, depth);
        if let Some(index) = index {
            indices.append(path, file, &index).with_context(unwritten)?;
        }
        let line = serde_json::to_string(&Recorded { depth, report: report.clone() })? + "\n";
        // One write per line, so that an interruption leaves whole lines. A panic elsewhere leaves none half-written.
        let mut output = output.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        output.write_all(line.as_bytes()).with_context(|| format!("cannot write {}", record.display()))?;
        progress.set(done.fetch_add(1, Ordering::Relaxed) + 1);
        Ok(((*path).to_owned(), report))
    };
    reports.extend(new.par_iter().map(look).collect::<Result<Vec<_>>>()?);
    progress.finish();
    Ok(reports)
}

/// A line of the record.
#[derive(Serialize, serde::Deserialize)]
struct Recorded {
    depth: Depth,
    #[serde(flatten)]
    report: FileReport,
}

/// The newest report of each path at this depth. Lines that were cut off are passed over.
fn recorded(record: &Path, depth: Depth) -> HashMap<String, FileReport> {
    let text = std::fs::read_to_string(record).unwrap_or_default();
    let lines = text.lines().filter_map(|line| serde_json::from_str::<Recorded>(line).ok());
    lines.filter(|line| line.depth == depth).map(|line| (line.report.path.clone(), line.report)).collect()
}

fn with_suffix(file: &Path, suffix: &str) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(".");
    name.push(suffix);
    name.into()
}

/// `clips.csv` becomes `clips.clean.csv`.
fn clean_name(file: &Path) -> PathBuf {
    let extension = file.extension().unwrap_or("csv".as_ref()).to_string_lossy().into_owned();
    file.with_extension(format!("clean.{extension}"))
}
