//! What can go wrong with CLIP and its files.

use std::path::PathBuf;

/// Why a CLIP or a captioner could not be loaded, or could not do what it was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClipError {
    /// The text that names a model is neither a folder nor `hub:OWNER/NAME@REVISION`.
    #[error("model source `{value}`: {reason}; expected a folder, or hub:OWNER/NAME@REVISION")]
    Source {
        /// The text as given.
        value: String,
        /// What is wrong with it.
        reason: &'static str,
    },

    /// The checkpoint folder has none of the files that could serve one purpose (weights, tokenizer, …).
    #[error("{}: not a model folder: no {files}", folder.display())]
    MissingFile {
        /// The checkpoint folder.
        folder: PathBuf,
        /// The file names that were looked for.
        files: String,
    },

    /// A file exists but the operating system does not let us read it.
    #[error("cannot read {}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The operating system's reason.
        source: std::io::Error,
    },

    /// `config.json` is the configuration of another kind of model, or asks for something that this crate does not have.
    #[error("{model}: config.json: {reason}")]
    Config {
        /// The model, as its source was given.
        model: String,
        /// What is wrong.
        reason: String,
    },

    /// The weight file is cut off, damaged or of another format.
    #[error("{model}: cannot read the weights: {reason}; the file may be incomplete: fetch it again")]
    Weights {
        /// The model, as its source was given.
        model: String,
        /// What the reader says.
        reason: String,
    },

    /// The weights do not fill the model that `config.json` describes, or hold more than it.
    #[error(
        "{model}: the weights do not fit config.json: {}",
        list_mismatches(missing, wrong_shape, unexpected)
    )]
    WeightNames {
        /// The model, as its source was given.
        model: String,
        /// Parameters that the weights lack.
        missing: Vec<String>,
        /// Parameters of another shape, as `name: found [2, 3], expected [3, 3]`.
        wrong_shape: Vec<String>,
        /// Weights that belong to no parameter.
        unexpected: Vec<String>,
    },

    /// The tokenizer is unreadable, or does not belong to the text tower beside it.
    #[error("{model}: tokenizer: {reason}")]
    Tokenizer {
        /// The model, as its source was given.
        model: String,
        /// What is wrong.
        reason: String,
    },

    /// A model named by repository is not in the local cache, and cannot be downloaded (no network, wrong name, …).
    #[error(
        "model {repo} at revision {revision} is not complete in the cache {} and cannot be downloaded: {reason}; \
         with network access it is downloaded once, without it point to a folder that holds config.json, \
         model.safetensors and tokenizer.json (in training: --set text.model=FOLDER, elsewhere: --model FOLDER)",
        cache.display()
    )]
    Hub {
        /// `OWNER/NAME` on the hub.
        repo: String,
        /// The pinned revision.
        revision: String,
        /// The cache folder that was searched.
        cache: PathBuf,
        /// Why the download failed.
        reason: String,
    },

    /// A model is named by repository, and this program cannot ask for it.
    #[error(
        "model {model}: this program has tgm-clip without its feature `hub` and knows no models by name; point to a \
         folder that holds config.json, model.safetensors and tokenizer.json"
    )]
    WithoutHub {
        /// The model, as its source was given.
        model: String,
    },

    /// Pixels, frames, grids or text of a shape that the call does not take.
    #[error("{what}: got {got}, expected {expected}")]
    Shape {
        /// The argument.
        what: &'static str,
        /// Its shape or size.
        got: String,
        /// What the call takes.
        expected: String,
    },

    /// A setting has a value that the call does not take.
    #[error("{name}: got {got}, expected {expected}")]
    Setting {
        /// The setting.
        name: &'static str,
        /// Its value.
        got: String,
        /// What the call takes.
        expected: String,
    },

    /// A grid of scores that cannot be, or a score that is NaN.
    #[error(transparent)]
    Map(#[from] tgm_masking::MaskError),

    /// A tensor operation failed: out of memory, or a device error.
    #[error("tensor operation failed: {0}")]
    Tensor(#[from] candle_core::Error),
}

fn list_mismatches(missing: &[String], wrong_shape: &[String], unexpected: &[String]) -> String {
    [("missing", missing), ("of another shape", wrong_shape), ("unexpected", unexpected)]
        .into_iter()
        .filter(|(_, names)| !names.is_empty())
        .map(|(what, names)| format!("{} {what}: {}", names.len(), names.join(", ")))
        .collect::<Vec<_>>()
        .join("; ")
}
