//! `tgm data check`.

use std::collections::{BTreeMap, HashMap};
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context, Result, bail};
use rayon::prelude::*;
use serde::Serialize;
use tgm_data::index_store::{IndexStore, IndexWriter};
use tgm_data::manifest::{Manifest, ManifestError, write_manifest};
use tgm_data::survey::{Depth, FileReport, examine, identity, row_problem};
use tgm_train::config::ConfigError;
use tgm_train::progress::Progress;
use tgm_video::{FrameIndex, ReadOptions, VideoFile, VideoReader, scanner_version};

use super::{ManifestArgs, clean};

/// Read every video of a manifest; say which are bad and why, and write a manifest without them.
///
/// Prints one line per bad file, and one per bad row of a good file. What was found is kept beside the manifest
/// (MANIFEST.check.jsonl): a check that was interrupted goes on where it was, and files that did not change are not read again, unless
/// this program or its FFmpeg reads videos otherwise by now. The
/// places of all frames are kept, too, beside this manifest and the new one (MANIFEST.index): training on either opens its videos
/// faster. Where nothing can be written beside the manifest, nothing is kept, and the check says so.
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
    /// Most seconds that a video may last.
    #[arg(long, default_value_t = ReadOptions::default().max_duration)]
    max_duration: f64,
    /// Forget what earlier checks found.
    #[arg(long)]
    fresh: bool,
    /// Longest time in seconds that one file may take to open or to read.
    #[arg(long, default_value_t = ReadOptions::default().max_seconds)]
    max_seconds: f64,
    /// Write the counts to a file.
    #[arg(long, value_name = "FILE", value_parser = crate::commands::result_file)]
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
    problems: Vec<Problem>,
}

/// What is wrong with a file, or with one row of a good file.
#[derive(Serialize)]
struct Problem {
    path: String,
    /// The row's line in the manifest.
    #[serde(skip_serializing_if = "Option::is_none")]
    line: Option<u64>,
    problem: String,
}

pub(super) fn run(args: Args) -> Result<()> {
    let manifest = args.data.load()?;
    let depth = match args.depth {
        DepthName::Headers => Depth::Headers,
        DepthName::Ends => Depth::Ends,
        DepthName::Frames => Depth::Frames,
    };
    let options = ReadOptions {
        max_duration: args.max_duration,
        max_seconds: args.max_seconds,
        ..ReadOptions::default()
    };
    options.validate().map_err(|error| ConfigError(error.to_string()))?;
    let record = with_suffix(manifest.file(), "check.jsonl");
    let (reports, indices) = survey(&manifest, &record, &options, depth, args.fresh)?;

    let mut problems = BTreeMap::new();
    let mut kept = Vec::with_capacity(manifest.len());
    for row in manifest.rows() {
        let (path, report) = (row.path(), &reports[row.path()]);
        match row_problem(&manifest, row.index(), report) {
            None => kept.push(row.index()),
            Some(problem) => {
                // A bad file is told once, however many rows it has.
                let of_row = report.problem.is_none().then(|| (row.index(), row.line()));
                let line = of_row.map(|(_, line)| line);
                problems.insert((path, of_row), Problem { path: path.to_owned(), line, problem });
            }
        }
    }
    let problems: Vec<Problem> = problems.into_values().collect();
    for Problem { line, problem, .. } in &problems {
        let place = line.map_or_else(String::new, |line| format!("{}:{line}: ", manifest.file().display()));
        println!("{place}{}", problem.split_whitespace().collect::<Vec<_>>().join(" "));
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
    let out = args.out.clone().unwrap_or_else(|| clean_name(manifest.file()));
    match write_manifest(&out, kept.iter().map(|&row| manifest.row(row).record(&out))) {
        Ok(()) => {
            eprintln!("written: {}", out.display());
            clean::write_indices(&out, &manifest, &kept, &indices).unwrap_or_else(|error| {
                eprintln!("{error:#}: training on {} opens its videos more slowly", out.display());
            });
        }
        // Nobody asked for this very file: the check itself has done its work.
        Err(error @ ManifestError::Write { .. }) if args.out.is_none() => {
            eprintln!("{error}; say where the good rows go with --out FILE");
        }
        Err(error) => return Err(error.into()),
    }
    Ok(())
}

/// The report of every distinct path, from the record where the file is unchanged, else from the file; and the indices of the good
/// ones, unless only headers are read.
fn survey(
    manifest: &Manifest,
    record: &Path,
    options: &ReadOptions,
    depth: Depth,
    fresh: bool,
) -> Result<(HashMap<String, FileReport>, IndexStore)> {
    let notes = Notes::open(manifest, record, fresh);
    let known = if fresh { HashMap::new() } else { recorded(record, depth, options) };
    // All of them: they are written again beside the manifest of good rows.
    let indices = IndexStore::load(manifest.file(), usize::MAX);
    let files: BTreeMap<&str, VideoFile> = manifest.rows().map(|row| (row.path(), row.video())).collect();
    let (old, new): (Vec<_>, Vec<_>) = files.into_iter().partition(|(path, file)| {
        known.get(*path).is_some_and(|report| (report.bytes, report.modified) == identity(file))
    });
    if !old.is_empty() {
        eprintln!("{} files did not change since they were checked", old.len());
    }
    let mut reports: HashMap<String, FileReport> =
        old.iter().map(|(path, _)| ((*path).to_owned(), known[*path].clone())).collect();
    let keep_index = |path: &str, file: &VideoFile, index: &FrameIndex| -> Result<()> {
        indices.put(path, file, index);
        notes.as_ref().map_or(Ok(()), |notes| notes.keep_index(path, file, index))
    };
    let (progress, done) = (Progress::new("check", new.len() as u64), AtomicU64::new(0));
    let look = |(path, file): &(&str, VideoFile)| -> Result<(String, FileReport)> {
        let (report, index) = examine(path, file, options, depth);
        // Before the report, which says that the file need not be looked at again.
        index.iter().try_for_each(|index| keep_index(path, file, index))?;
        if let Some(notes) = &notes {
            let (limits, scanner) = (limits(options), scanner_version());
            notes.keep(&Recorded { depth, limits, scanner, report: report.clone() })?;
        }
        progress.set(done.fetch_add(1, Ordering::Relaxed) + 1);
        Ok(((*path).to_owned(), report))
    };
    reports.extend(new.par_iter().map(look).collect::<Result<Vec<_>>>()?);
    progress.finish();
    // The index of a file that did not change may be gone, or be another version's: its packets are read again, not its frames.
    old.par_iter()
        .filter(|(path, file)| {
            depth != Depth::Headers && known[*path].problem.is_none() && indices.get(path, file).is_none()
        })
        .filter_map(|(path, file)| Some((path, file, VideoReader::open(file, options).ok()?)))
        .try_for_each(|(path, file, reader)| keep_index(path, file, reader.index()))?;
    Ok((reports, indices))
}

/// What is kept beside the manifest.
struct Notes {
    record: Mutex<File>,
    record_name: PathBuf,
    indices: IndexWriter,
    indices_name: PathBuf,
}

impl Notes {
    /// `None`, with a message, where nothing can be written, as on a read-only disk.
    fn open(manifest: &Manifest, record: &Path, fresh: bool) -> Option<Self> {
        let indices_name = IndexStore::file_of(manifest.file());
        let open = || -> Result<Self> {
            let unwritten = |path: &Path| format!("cannot write {}", path.display());
            let file = OpenOptions::new().create(true).append(true).open(record);
            let file = file.with_context(|| unwritten(record))?;
            if fresh {
                file.set_len(0).with_context(|| unwritten(record))?;
            }
            let indices =
                IndexWriter::open(manifest.file(), fresh).with_context(|| unwritten(&indices_name))?;
            let (record, record_name) = (Mutex::new(file), record.to_owned());
            Ok(Self { record, record_name, indices, indices_name: indices_name.clone() })
        };
        open().map_err(|error| eprintln!("{error:#}: what is found is not kept for the next time")).ok()
    }

    fn keep_index(&self, path: &str, file: &VideoFile, index: &FrameIndex) -> Result<()> {
        let written = self.indices.append(path, file, index);
        written.with_context(|| format!("cannot write {}", self.indices_name.display()))
    }

    fn keep(&self, line: &Recorded) -> Result<()> {
        let line = serde_json::to_string(line)? + "\n";
        // One write per line, so that an interruption leaves whole lines. A panic elsewhere leaves none half-written.
        let mut record = self.record.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let written = record.write_all(line.as_bytes());
        written.with_context(|| format!("cannot write {}", self.record_name.display()))
    }
}

/// A line of the record.
#[derive(Serialize, serde::Deserialize)]
struct Recorded {
    depth: Depth,
    /// What [`limits`] says: other ones may find another file bad.
    #[serde(default)]
    limits: [f64; 2],
    /// What read the file, as [`scanner_version`] says: another decoder may find another file bad.
    #[serde(default)]
    scanner: String,
    #[serde(flatten)]
    report: FileReport,
}

fn limits(options: &ReadOptions) -> [f64; 2] {
    [options.max_duration, options.max_seconds]
}

/// The newest report of each path at this depth, with these limits and by this decoder. Lines that were cut off are passed over.
fn recorded(record: &Path, depth: Depth, options: &ReadOptions) -> HashMap<String, FileReport> {
    let text = std::fs::read_to_string(record).unwrap_or_default();
    let lines = text.lines().filter_map(|line| serde_json::from_str::<Recorded>(line).ok());
    let (limits, scanner) = (limits(options), scanner_version());
    let same = |line: &Recorded| line.depth == depth && line.limits == limits && line.scanner == scanner;
    lines.filter(same).map(|line| (line.report.path.clone(), line.report)).collect()
}

fn with_suffix(file: &Path, suffix: &str) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(".");
    name.push(suffix);
    name.into()
}

/// `clips.csv` becomes `clips.clean.csv`; a folder or an archive, `clips` or `clips.tar`, gets a manifest beside it.
fn clean_name(file: &Path) -> PathBuf {
    let ending = file.extension().and_then(|ending| ending.to_str());
    match ending.filter(|ending| ["csv", "jsonl", "ndjson", "json"].contains(ending) && !file.is_dir()) {
        Some(ending) => file.with_extension(format!("clean.{ending}")),
        None => with_suffix(file, "clean.csv"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_good_rows_go_beside_the_manifest() {
        for (file, clean) in [
            ("a/clips.csv", "a/clips.clean.csv"),
            ("clips.jsonl", "clips.clean.jsonl"),
            ("s-{0..3}.tar", "s-{0..3}.tar.clean.csv"),
            ("videos.v2", "videos.v2.clean.csv"),
        ] {
            assert_eq!(clean_name(Path::new(file)), Path::new(clean));
        }
    }
}
