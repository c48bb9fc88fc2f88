//! What can be wrong with a manifest, always with the file and the line.

use std::path::PathBuf;

use crate::archive::ArchiveError;

/// Why a manifest could not be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ManifestError {
    /// A folder or archives were given instead of a manifest, and there is no video in them.
    #[error("{}: no videos in there ({}); give a manifest, or a folder or tar archives with videos", folder.display(), super::folder::endings())]
    NoVideos {
        /// The folder, or the pattern of the archives.
        folder: PathBuf,
    },
    /// A video or archive of a folder has a name that is not UTF-8, which no manifest could have in it.
    #[error("{}: the name of `{}` is not UTF-8; rename it, or give a manifest that leaves it out", folder.display(), path.display())]
    NotUtf8 {
        /// The folder.
        folder: PathBuf,
        /// The video or archive, relative to it.
        path: PathBuf,
    },
    /// The manifest is absent or cannot be read.
    #[error("cannot read the manifest {}: {source}", file.display())]
    Read {
        /// The manifest.
        file: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// An archive that rows are in cannot be used.
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    /// The rows together name more columns than a manifest may have.
    #[error("the manifest {} has more than {most} columns, such as `{column}`; put values that only few rows have elsewhere", file.display())]
    TooManyColumns {
        /// The manifest.
        file: PathBuf,
        /// One column too many.
        column: String,
        /// The limit.
        most: usize,
    },
    /// The manifest cannot be written.
    #[error("cannot write the manifest {}: {source}", file.display())]
    Write {
        /// The manifest.
        file: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The manifest has no rows.
    #[error("the manifest {} has no rows: it needs a header with `path` and one row for each video", file.display())]
    Empty {
        /// The manifest.
        file: PathBuf,
    },
    /// A column that the manifest must have for this use is absent, or empty in every row.
    #[error("the manifest {} has no column `{column}` (it has {})", file.display(), list(found))]
    MissingColumn {
        /// The manifest.
        file: PathBuf,
        /// The column.
        column: String,
        /// The columns that it has.
        found: Vec<String>,
    },
    /// Two columns have the same name.
    #[error("the manifest {} has two columns named `{column}`", file.display())]
    DuplicateColumn {
        /// The manifest.
        file: PathBuf,
        /// The name.
        column: String,
    },
    /// A row has more or fewer fields than the header.
    #[error(
        "{}:{line}: {found} fields, but the header has {expected}; quote fields that contain a comma", file.display()
    )]
    RaggedRow {
        /// The manifest.
        file: PathBuf,
        /// Line, from 1.
        line: u64,
        /// Fields in the header.
        expected: usize,
        /// Fields in the row.
        found: usize,
    },
    /// A line is not UTF-8, not CSV, or not a JSON object of plain values.
    #[error("{}:{line}: {message}", file.display())]
    Syntax {
        /// The manifest.
        file: PathBuf,
        /// Line, from 1.
        line: u64,
        /// What is wrong.
        message: String,
    },
    /// A value does not fit its column: no number, a negative time, an end before the start, an empty path.
    #[error("{}:{line}: column `{column}`: `{value}` {problem}", file.display())]
    BadValue {
        /// The manifest.
        file: PathBuf,
        /// Line, from 1.
        line: u64,
        /// The column.
        column: String,
        /// The value as written.
        value: String,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// A path is absolute or climbs out of the manifest's folder, and the options do not allow that.
    #[error(
        "{}:{line}: the path `{value}` leaves the manifest's folder; accept such paths with --allow-outside",
        file.display()
    )]
    PathOutside {
        /// The manifest.
        file: PathBuf,
        /// Line, from 1.
        line: u64,
        /// The path as written.
        value: String,
    },
    /// No row belongs to the split asked for.
    #[error("the manifest {} has no split `{split}` (it has {})", file.display(), list(found))]
    NoSuchSplit {
        /// The manifest.
        file: PathBuf,
        /// The split asked for.
        split: String,
        /// The splits that it has.
        found: Vec<String>,
    },
    /// A label is not among the classes prescribed by the caller.
    #[error("the manifest {} has the label `{label}`, which is none of the {classes} known classes", file.display())]
    UnknownClass {
        /// The manifest.
        file: PathBuf,
        /// The label.
        label: String,
        /// How many classes are known.
        classes: usize,
    },
    /// Files named by the manifest do not exist.
    #[error("{count} of {rows} videos of {} do not exist: {}{}", file.display(), list(first),
        if *count > first.len() { ", …" } else { "" })]
    MissingFiles {
        /// The manifest.
        file: PathBuf,
        /// How many are absent.
        count: usize,
        /// How many were looked for.
        rows: usize,
        /// The first few, as written.
        first: Vec<String>,
    },
}

fn list(names: &[String]) -> String {
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}
