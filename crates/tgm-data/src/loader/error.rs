//! Why there is no clip, and why there are no more batches.

use std::path::PathBuf;

use tgm_masking::MaskError;
use tgm_video::VideoError;

use crate::manifest::ManifestError;

/// Why a row of the manifest gave no clip.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RowError {
    /// The file cannot be opened or decoded.
    #[error(transparent)]
    Video(#[from] VideoError),
    /// The row begins after the end of its video.
    #[error("{}: the row starts at {start} s, but the video ends at {duration:.3} s", file.display())]
    AfterEnd {
        /// The file.
        file: PathBuf,
        /// The row's start in seconds.
        start: f64,
        /// The video's duration in seconds.
        duration: f64,
    },
    /// Codec motion is wanted, but the codec has no motion vectors.
    #[error("{}: the codec exports no motion vectors; use motion = \"auto\" or \"blocks\"", file.display())]
    NoCodecMotion {
        /// The file.
        file: PathBuf,
    },
    /// The motion does not fit the grid.
    #[error(transparent)]
    Motion(#[from] MaskError),
}

/// Why a loader could not start or go on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LoaderError {
    /// A value of the configuration is impossible.
    #[error("`{key} = {value}` is not possible: it must be {allowed}")]
    BadConfig {
        /// The key.
        key: &'static str,
        /// Its value.
        value: String,
        /// What would be possible.
        allowed: String,
    },
    /// Sampling, crop, normalization or a limit have an impossible setting.
    #[error(transparent)]
    Video(#[from] VideoError),
    /// The grid of the clip is impossible.
    #[error(transparent)]
    Grid(#[from] MaskError),
    /// The manifest does not have the split asked for.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// There are no rows to load, or a row that the manifest does not have.
    #[error("the manifest {} has {rows} rows: {problem}", manifest.display())]
    BadRows {
        /// The manifest.
        manifest: PathBuf,
        /// How many rows it has.
        rows: usize,
        /// What is wrong with the choice of rows.
        problem: String,
    },
    /// The system starts no more threads.
    #[error("cannot start the loader's threads: {0}; lower `workers`")]
    Threads(#[source] std::io::Error),
    /// A video cannot be evaluated. Leaving it out would falsify the result.
    #[error("{}:{line}: {source}", manifest.display())]
    BadVideo {
        /// The manifest.
        manifest: PathBuf,
        /// The row's line in it.
        line: u64,
        /// What is wrong.
        source: RowError,
    },
    /// A row and all rows drawn to stand in for it are bad.
    #[error("{tried} videos in a row are bad ({reasons}); check the data, or raise `max_replacements`")]
    NoReplacement {
        /// How many were tried.
        tried: usize,
        /// The most frequent reasons.
        reasons: String,
    },
    /// More videos are bad than allowed.
    #[error(
        "{bad} of {tried} videos are bad ({reasons}); check the data, or raise `max_bad_share` (now {limit})"
    )]
    TooManyBad {
        /// Bad ones.
        bad: u64,
        /// All that were tried.
        tried: u64,
        /// The limit in force.
        limit: f64,
        /// The most frequent reasons.
        reasons: String,
    },
    /// The loader has failed before, and would go on with the clips of another batch.
    #[error("the loader has stopped in batch {step} after an error; make another one that begins there")]
    Stopped {
        /// The batch's number in the run.
        step: u64,
    },
    /// A worker panicked: a defect of the program.
    #[error("a loader thread panicked: {message}")]
    Panicked {
        /// What it said.
        message: String,
    },
    /// All workers are gone.
    #[error("all loader threads are gone")]
    Dead,
}

impl LoaderError {
    /// Whether one video is at fault, so that others can still be loaded.
    pub fn is_bad_video(&self) -> bool {
        matches!(self, Self::BadVideo { .. })
    }
}
