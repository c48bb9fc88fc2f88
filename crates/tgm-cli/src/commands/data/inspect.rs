//! `tgm data inspect`.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use rayon::prelude::*;
use serde::Serialize;
use tgm_data::manifest::{Manifest, Row};
use tgm_data::survey::{Depth, FileReport, examine};
use tgm_random::Streams;
use tgm_train::progress::Progress;
use tgm_video::{Crop, ReadOptions, VideoFile, VideoReader, View, write_png};

use super::ManifestArgs;
use crate::commands::median;
use crate::html::escape;

/// What is in a manifest and its videos: counts, lengths, sizes, codecs, labels and captions of every split, and videos that
/// may be in two splits. Reads headers only.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  tgm data inspect clips.csv
  tgm data inspect clips.csv --page look/        writes look/index.html with a picture of some videos")]
pub(in crate::commands) struct Args {
    #[command(flatten)]
    data: ManifestArgs,
    /// Folder for a page of thumbnails.
    #[arg(long, value_name = "FOLDER")]
    page: Option<PathBuf>,
    /// Thumbnails of each split.
    #[arg(long, default_value_t = 24)]
    thumbnails: usize,
    /// Write the table to a file.
    #[arg(long, value_name = "FILE", value_parser = crate::commands::result_file)]
    json: Option<PathBuf>,
}

/// Everything that is known about a manifest.
#[derive(Serialize)]
struct Inspection {
    rows: usize,
    classes: usize,
    other_columns: Vec<String>,
    splits: BTreeMap<String, Split>,
    /// Rows that name no split in a manifest that has that column.
    no_split: usize,
    /// Names of videos that occur in more than one split, with the splits.
    shared: BTreeMap<String, Vec<String>>,
    unreadable: BTreeMap<String, String>,
}

#[derive(Default, Serialize)]
struct Split {
    rows: usize,
    files: usize,
    labelled: usize,
    classes: usize,
    captioned: usize,
    /// Least, median and greatest seconds of a video.
    seconds: Option<[f64; 3]>,
    /// Files by width × height.
    sizes: BTreeMap<String, usize>,
    codecs: BTreeMap<String, usize>,
    /// Files by frames per second, rounded.
    fps: BTreeMap<String, usize>,
    gigabytes: f64,
}

pub(super) fn run(args: Args) -> Result<()> {
    let manifest = args.data.load()?;
    let reports = headers(&manifest);
    let inspection = inspect(&manifest, &reports);
    print!("{}", text(&inspection));
    if let Some(folder) = &args.page {
        let page = page(&manifest, &inspection, folder, args.thumbnails)?;
        eprintln!("written: {}", page.display());
    }
    super::super::write_json(args.json.as_deref(), &inspection)
}

fn headers(manifest: &Manifest) -> BTreeMap<&str, FileReport> {
    let files: BTreeMap<&str, VideoFile> = manifest.rows().map(|row| (row.path(), row.video())).collect();
    let progress = Progress::new("headers", files.len() as u64);
    let options = ReadOptions::default();
    let reports = files
        .into_par_iter()
        .map(|(path, file)| (path, examine(path, &file, &options, Depth::Headers).0))
        .collect();
    progress.finish();
    reports
}

/// The split of rows that name none: "train" in a manifest without that column, as [`Manifest::split`] has it, else there is none.
fn unnamed_split(manifest: &Manifest) -> Option<&'static str> {
    (manifest.split_names().is_empty() && manifest.split("train").is_ok()).then_some("train")
}

fn inspect(manifest: &Manifest, reports: &BTreeMap<&str, FileReport>) -> Inspection {
    let mut splits: BTreeMap<String, Split> = BTreeMap::new();
    let mut paths: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    let mut classes: BTreeMap<&str, BTreeSet<u32>> = BTreeMap::new();
    let mut names: BTreeMap<String, BTreeSet<&str>> = BTreeMap::new();
    let (unnamed, mut no_split) = (unnamed_split(manifest), 0);
    for row in manifest.rows() {
        let Some(name) = row.split().or(unnamed) else {
            no_split += 1;
            continue;
        };
        let split = splits.entry(name.to_owned()).or_default();
        split.rows += 1;
        split.labelled += usize::from(row.label().is_some());
        split.captioned += usize::from(row.captions().next().is_some());
        classes.entry(name).or_default().extend(row.label());
        paths.entry(name).or_default().insert(row.path());
        // The same name in another folder, or in another container, may well be the same video.
        let stem = Path::new(row.path()).file_stem().unwrap_or_default();
        names.entry(stem.to_string_lossy().to_lowercase()).or_default().insert(name);
    }
    for (name, split) in &mut splits {
        let files: Vec<&FileReport> = paths[name.as_str()].iter().map(|path| &reports[path]).collect();
        split.files = files.len();
        split.classes = classes[name.as_str()].len();
        split.gigabytes = files.iter().map(|file| file.bytes).sum::<u64>() as f64 / 1e9;
        for file in files.iter().filter(|file| file.problem.is_none()) {
            *split.sizes.entry(format!("{}x{}", file.width, file.height)).or_default() += 1;
            *split.codecs.entry(file.codec.clone()).or_default() += 1;
            *split.fps.entry(format!("{:.0}", file.fps)).or_default() += 1;
        }
        let seconds: Vec<f64> = files.iter().filter_map(|file| file.seconds).collect();
        split.seconds = median(seconds.clone()).map(|middle| {
            [
                seconds.iter().copied().fold(f64::INFINITY, f64::min),
                middle,
                seconds.iter().copied().fold(0.0, f64::max),
            ]
        });
    }
    let shared = names.into_iter().filter(|(_, splits)| splits.len() > 1);
    let unreadable = reports.values().filter_map(|file| Some((file.path.clone(), file.problem.clone()?)));
    Inspection {
        rows: manifest.len(),
        classes: manifest.classes().len(),
        other_columns: manifest.other_columns().map(str::to_owned).collect(),
        splits,
        no_split,
        shared: shared
            .map(|(name, splits)| (name, splits.into_iter().map(str::to_owned).collect()))
            .collect(),
        unreadable: unreadable.collect(),
    }
}

/// Entries of a list that are printed before it is cut short.
const LISTED: usize = 8;

fn text(inspection: &Inspection) -> String {
    let mut text = String::new();
    let mut line = |parts: std::fmt::Arguments<'_>| {
        // Writing to a string does not fail.
        let _ = writeln!(text, "{parts}");
    };
    line(format_args!("{} rows, {} classes", inspection.rows, inspection.classes));
    if !inspection.other_columns.is_empty() {
        line(format_args!("columns without meaning here: {}", inspection.other_columns.join(", ")));
    }
    for (name, split) in &inspection.splits {
        line(format_args!("{name}: {} rows, {} videos, {:.3} GB", split.rows, split.files, split.gigabytes));
        line(format_args!("  labels    {} rows, {} classes", split.labelled, split.classes));
        line(format_args!("  captions  {} rows", split.captioned));
        if let Some([least, middle, most]) = split.seconds {
            line(format_args!("  seconds   {least:.2} to {most:.2}, median {middle:.2}"));
        }
        for (what, counts) in [("sizes", &split.sizes), ("codecs", &split.codecs), ("fps", &split.fps)] {
            line(format_args!("  {what:<9} {}", most_frequent(counts)));
        }
    }
    if inspection.no_split > 0 {
        line(format_args!("no split: {} rows, used by no command that names one", inspection.no_split));
    }
    let mut list = |title: &str, entries: Vec<String>| {
        if !entries.is_empty() {
            line(format_args!("{title}: {}", entries.len()));
        }
        entries.iter().take(LISTED).for_each(|entry| line(format_args!("  {entry}")));
        if entries.len() > LISTED {
            line(format_args!("  …"));
        }
    };
    let shared = inspection.shared.iter().map(|(name, splits)| format!("{name}: {}", splits.join(", ")));
    list("names of videos in more than one split", shared.collect());
    list("unreadable videos", inspection.unreadable.values().cloned().collect());
    text
}

fn most_frequent(counts: &BTreeMap<String, usize>) -> String {
    let mut sorted: Vec<_> = counts.iter().collect();
    sorted.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
    let shown = sorted.iter().take(LISTED).map(|(value, count)| format!("{value} ({count})"));
    let more = if sorted.len() > LISTED { ", …" } else { "" };
    shown.collect::<Vec<_>>().join(", ") + more
}

const THUMBNAIL: u32 = 160;

/// A page with the table and the middle frame of some videos of each split, evenly spread over its rows.
fn page(manifest: &Manifest, inspection: &Inspection, folder: &Path, count: usize) -> Result<PathBuf> {
    std::fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let mut html = String::from(concat!(
        "<!doctype html><meta charset=utf-8><title>data</title><style>body{font:14px sans-serif;margin:2em}",
        "figure{display:inline-block;width:170px;vertical-align:top;margin:4px;font-size:12px}",
        "figcaption{overflow-wrap:anywhere}</style>"
    ));
    html += &format!(
        "<h1>{}</h1><pre>{}</pre>",
        escape(&manifest.file().to_string_lossy()),
        escape(&text(inspection))
    );
    let unnamed = unnamed_split(manifest);
    for split in inspection.splits.keys() {
        let rows: Vec<Row<'_>> =
            manifest.rows().filter(|row| row.split().or(unnamed) == Some(split)).collect();
        html += &format!("<h2>{}</h2>", escape(split));
        for row in rows.iter().step_by(rows.len().div_ceil(count.max(1)).max(1)) {
            let name = format!("{:07}.png", row.index());
            let picture = match thumbnail(row, &folder.join(&name)) {
                Ok(()) => format!("<img src=\"{name}\" width={THUMBNAIL} height={THUMBNAIL} loading=lazy>"),
                Err(error) => format!("<p>{}</p>", escape(&error.to_string())),
            };
            let caption = row.captions().next().unwrap_or_default();
            html += &format!(
                "<figure>{picture}<figcaption>{}<br><b>{}</b> {}</figcaption></figure>",
                escape(row.path()),
                escape(row.label_name().unwrap_or_default()),
                escape(caption)
            );
        }
    }
    let index = folder.join("index.html");
    tgm_train::run_dir::write_atomically(&index, html.as_bytes())?;
    Ok(index)
}

fn thumbnail(row: &Row<'_>, picture: &Path) -> Result<()> {
    let mut reader = VideoReader::open(row.video(), &ReadOptions::default())?;
    let frames = reader.index().range(row.start().unwrap_or(0.0), row.end().unwrap_or(f64::INFINITY));
    let (width, height) = (reader.probe().width, reader.probe().height);
    let rng = &mut Streams::new(0).stream("crop", 0, 0);
    let crop = Crop::Center.choose(width, height, THUMBNAIL, rng)?;
    let view = View { crop, size: THUMBNAIL, flipped: false };
    let clip = reader.read_views(&[(frames.start + frames.end) / 2], &[view])?.clips.remove(0);
    Ok(write_png(picture, clip.data(), THUMBNAIL, THUMBNAIL)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is inspected of a manifest with these rows; its videos are not there.
    fn inspected(rows: &str) -> (Inspection, Manifest, tempfile::TempDir) {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("m.csv");
        std::fs::write(&file, rows).unwrap();
        let manifest = Manifest::load(&file).unwrap();
        (inspect(&manifest, &headers(&manifest)), manifest, dir)
    }

    /// They were counted as "train", which no command takes them for.
    #[test]
    fn rows_without_a_split_are_counted_apart() {
        for (rows, train, none) in [
            ("path,split\na.mp4,train\nb.mp4,\nb.mp4,\na/b.mp4,train\n", 2, 2),
            ("path,split\na.mp4,test\nb.mp4,\n", 0, 1),
            ("path,split\na.mp4,\nb.mp4,\n", 0, 2),
            ("path\na.mp4\nb.mp4\n", 2, 0),
        ] {
            let (inspection, manifest, _dir) = inspected(rows);
            assert_eq!(inspection.splits.get("train").map_or(0, |split| split.rows), train, "{rows}");
            assert_eq!(manifest.split("train").map_or(0, |rows| rows.len()), train, "{rows}");
            assert_eq!(inspection.no_split, none, "{rows}");
            assert!(inspection.shared.is_empty(), "{rows}");
            let line = format!("no split: {none} rows, used by no command that names one\n");
            assert_eq!(text(&inspection).contains(&line), none > 0, "{rows}");
        }
    }

    #[test]
    fn a_video_in_two_splits_is_named() {
        let (inspection, ..) = inspected("path,split\na/one.mp4,train\nb/One.avi,test\na/two.mp4,train\n");
        assert_eq!(inspection.shared.keys().collect::<Vec<_>>(), ["one"]);
        assert_eq!(inspection.unreadable.len(), 3);
        let text = text(&inspection);
        assert!(text.contains("one: test, train") && text.contains("train: 2 rows"), "{text}");
    }
}
