//! The deterministic, prefetching clip loader.
//!
//! Workers run ahead of the consumer by a bounded number of clips; a reorder buffer gives the clips back in the
//! order of their numbers. Everything random comes from streams named by epoch and clip (`shuffle`, `sampling`,
//! `crop`, `flip`, `caption`, `replace`), so the same clips come whatever the number of workers and wherever a run
//! resumes. Only `max_seconds` looks at the clock: see [`ClipConfig::max_seconds`].

mod config;
mod error;
mod eval;
mod maker;
mod order;
mod pool;
mod sample;
mod source;
mod train;

use std::sync::Arc;

pub use config::{ClipConfig, LoaderConfig, MotionSource, TestViews};
pub use error::{LoaderError, RowError};
pub use eval::EvalLoader;
pub use maker::patiently;
use pool::PoolError;
pub use sample::{Batch, Sample, Skip};
pub use source::frames_of_row;
pub use train::{Batches, LoaderStats, TrainLoader};

use crate::manifest::Manifest;

/// Some rows of a manifest. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Subset {
    manifest: Arc<Manifest>,
    rows: Arc<[u32]>,
}

impl Subset {
    /// These rows, in this order.
    ///
    /// # Errors
    /// [`LoaderError::BadRows`] when there are none, or the manifest does not have one of them.
    pub fn new(manifest: Arc<Manifest>, rows: Vec<u32>) -> Result<Self, LoaderError> {
        let absent = rows.iter().find(|&&row| row as usize >= manifest.len());
        let problem = match absent {
            Some(row) => format!("there is no row {row}"),
            None if rows.is_empty() => "none of them was chosen".to_owned(),
            None => return Ok(Self { manifest, rows: rows.into() }),
        };
        Err(LoaderError::BadRows { manifest: manifest.file().to_owned(), rows: manifest.len(), problem })
    }

    /// All rows, of whatever split.
    pub fn all(manifest: &Arc<Manifest>) -> Self {
        Self { manifest: manifest.clone(), rows: (0..manifest.len() as u32).collect() }
    }

    /// The rows of a split, as [`Manifest::split`].
    ///
    /// # Errors
    /// [`LoaderError::Manifest`] when there is none of this name.
    pub fn split(manifest: &Arc<Manifest>, split: &str) -> Result<Self, LoaderError> {
        let rows = manifest.split(split)?.into();
        Ok(Self { manifest: manifest.clone(), rows })
    }

    /// The manifest.
    pub fn manifest(&self) -> &Arc<Manifest> {
        &self.manifest
    }

    /// The rows, as numbers within the manifest; at least one.
    pub fn rows(&self) -> &[u32] {
        &self.rows
    }
}

impl From<PoolError> for LoaderError {
    fn from(error: PoolError) -> Self {
        match error {
            PoolError::Panicked(message) => Self::Panicked { message },
            PoolError::Dead => Self::Dead,
        }
    }
}
