//! What can go wrong with the score cache.

use std::io;
use std::path::{Path, PathBuf};

/// Why the score cache could not be opened, read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CacheError {
    /// The operating system does not let us read or write a file of the cache, or the disk is full.
    #[error("score cache: {}: {source}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// The operating system's reason.
        source: io::Error,
    },

    /// A cache was opened for reading in a folder that has none.
    #[error("no score cache in {}: write one first", path.display())]
    Absent {
        /// The folder.
        path: PathBuf,
    },

    /// The maps were made by another model, with other options, for another grid or other frames.
    #[error(
        "{}: the scores were made otherwise: {}; choose another folder or delete this one",
        path.display(),
        differences.join("; ")
    )]
    OtherSpec {
        /// The description of the cache, or the shard, that differs.
        path: PathBuf,
        /// Each as `model: cached a, wanted b`.
        differences: Vec<String>,
    },

    /// The files are of a version that this program does not know.
    #[error("{}: format `{found}`, expected `{expected}`; choose another folder or delete this one", path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// Its format.
        found: String,
        /// The format of this program.
        expected: &'static str,
    },

    /// A file is cut off or altered. Of a shard that is noticed only when a map is read, because opening a cache for
    /// reading looks at headers and lengths.
    #[error("{} is damaged: {reason}; opening the cache for writing drops it and scores its videos again", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// How it shows.
        reason: String,
    },

    /// Another process, or this one, has the cache open for writing.
    #[error("{} is held by another writer: wait for it, or choose another folder", path.display())]
    Locked {
        /// The lock file.
        path: PathBuf,
    },

    /// A map was inserted into a cache that was opened for reading.
    #[error("the score cache in {} was opened for reading", path.display())]
    ReadOnly {
        /// The folder.
        path: PathBuf,
    },

    /// Maps, regions, grids or times that the call does not take.
    #[error("{what}: got {got}, expected {expected}")]
    Invalid {
        /// The argument.
        what: &'static str,
        /// Its value or shape.
        got: String,
        /// What the call takes.
        expected: String,
    },

    /// A crop that is no part of the frame, or a grid that cannot be.
    #[error(transparent)]
    Map(#[from] tgm_masking::MaskError),
}

impl CacheError {
    /// For `map_err`: the file that an operation of the operating system is about.
    pub(super) fn io(path: &Path) -> impl Fn(io::Error) -> Self + '_ {
        move |source| Self::Io { path: path.to_owned(), source }
    }
}
