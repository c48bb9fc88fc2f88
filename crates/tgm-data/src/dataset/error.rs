//! What can be wrong with a data set's folder.

use std::path::PathBuf;

use crate::manifest::ManifestError;

/// Why a data set cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DatasetError {
    /// No file of the annotations is where it could be.
    #[error("{}: no {what}; looked for {}", folder.display(), tried.join(", "))]
    Missing {
        /// The folder of the data set.
        folder: PathBuf,
        /// What is missing.
        what: String,
        /// Paths that were tried, relative to the folder.
        tried: Vec<String>,
    },
    /// A file cannot be read.
    #[error("cannot read {}: {source}", file.display())]
    Read {
        /// The file.
        file: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// A file is not in the format of this data set.
    #[error("{}:{line}: {problem}", file.display())]
    Format {
        /// The file.
        file: PathBuf,
        /// The line or the entry, from 1; 0 for the whole file.
        line: usize,
        /// What is wrong.
        problem: String,
    },
    /// There is no such split.
    #[error("{dataset} has {splits} official split(s), there is no split {split}")]
    NoSplit {
        /// The data set.
        dataset: &'static str,
        /// The split asked for.
        split: usize,
        /// How many there are.
        splits: usize,
    },
    /// The folder has Diving48's first labels, which its authors replaced.
    #[error(
        "{}: these are Diving48's first labels, many of which are wrong; download the V2 lists (Diving48_V2_train.json, \
         Diving48_V2_test.json)", file.display()
    )]
    Diving48V1 {
        /// The list found.
        file: PathBuf,
    },
    /// A clip is in the list that is trained on and in the one that is scored.
    #[error("{}: `{path}` is in both {train} and {test}; one of the two lists is the wrong file", folder.display())]
    Overlap {
        /// The folder of the data set.
        folder: PathBuf,
        /// The clip.
        path: String,
        /// The part trained on.
        train: &'static str,
        /// The part scored.
        test: &'static str,
    },
    /// The entries do not make a manifest.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
}

impl DatasetError {
    pub(super) fn format(file: &std::path::Path, line: usize, problem: impl Into<String>) -> Self {
        Self::Format { file: file.to_owned(), line, problem: problem.into() }
    }
}
