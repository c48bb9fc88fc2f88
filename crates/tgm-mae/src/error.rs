//! What can go wrong with a model and its files.

use std::path::PathBuf;

use thiserror::Error;

use crate::CheckpointKind;

/// Errors of this crate.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum MaeError {
    /// The sizes of a model contradict each other.
    #[error("model config: {0}")]
    Config(String),
    /// An input does not fit the model.
    #[error("{0}")]
    Input(String),
    /// The samples of a batch have different numbers of visible, masked or reconstructed tubelets.
    #[error(
        "sample {sample} {verb} {found} tubelets, sample 0 {verb} {expected}: the count must be the same in a batch"
    )]
    UnequalMasks {
        /// Position in the batch.
        sample: usize,
        /// What the sample does with the tubelets that are counted: `shows`, `hides` or `reconstructs` them.
        verb: &'static str,
        /// How many the first sample has.
        expected: usize,
        /// How many this one has.
        found: usize,
    },
    /// A file of a checkpoint cannot be read or written.
    #[error("{path}: {reason}")]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The path holds nothing that looks like a checkpoint.
    #[error(
        "{0}: no checkpoint here (expected a folder with config.json and model.safetensors, or a .pth or .safetensors file)"
    )]
    NoCheckpoint(PathBuf),
    /// The tensors of a file follow none of the known naming schemes.
    #[error(
        "{path}: the tensor names follow no known layout (Hugging Face VideoMAE, original VideoMAE, tgm); the first is `{first}`"
    )]
    UnknownLayout {
        /// The file.
        path: PathBuf,
        /// Its first key.
        first: String,
    },
    /// The checkpoint is not of the kind that was asked for.
    #[error("{path}: holds {holds}, no {part}: give a {wanted} checkpoint")]
    Lacks {
        /// The checkpoint.
        path: PathBuf,
        /// What it is.
        holds: CheckpointKind,
        /// What it does not have.
        part: &'static str,
        /// The kind that has it.
        wanted: &'static str,
    },
    /// The weights do not fit the model.
    #[error(transparent)]
    Params(#[from] tgm_ops::ParamError),
    /// candle refused a tensor operation.
    #[error(transparent)]
    Candle(#[from] candle_core::Error),
}

impl MaeError {
    pub(crate) fn file(path: impl Into<PathBuf>, reason: impl std::fmt::Display) -> Self {
        Self::File { path: path.into(), reason: reason.to_string() }
    }
}
