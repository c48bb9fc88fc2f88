//! The one error type of the crate.

/// Why an evaluation was refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A set of features, scores or values has no rows, or its rows have no columns.
    #[error("{what}: nothing to evaluate (no {missing})")]
    Empty {
        /// What was empty.
        what: &'static str,
        /// What it lacks: rows, columns, classes or frames.
        missing: &'static str,
    },

    /// A buffer does not have the length that the other arguments imply.
    #[error("{what}: expected {expected} values, got {got}")]
    Length {
        /// Which buffer.
        what: &'static str,
        /// The length implied by the other arguments.
        expected: usize,
        /// The length it has.
        got: usize,
    },

    /// A feature is NaN or infinite, for example because training diverged.
    #[error("clip `{id}`: feature {column} is {value}; check the checkpoint that produced it")]
    NonFiniteFeature {
        /// The clip's identity.
        id: String,
        /// The column of the feature.
        column: usize,
        /// The value found.
        value: f32,
    },

    /// A class score or a bootstrapped value is NaN or infinite.
    #[error("{what}: value {index} is {value}, not a finite number")]
    NonFinite {
        /// Which values.
        what: &'static str,
        /// Flat index of the value.
        index: usize,
        /// The value found.
        value: f64,
    },

    /// A label does not belong to the classes: usually the wrong label file.
    #[error(
        "clip `{id}`: label {label} is not below the number of classes, {classes}; is this the right label file?"
    )]
    Label {
        /// The clip's identity, or its index where identities are unknown.
        id: String,
        /// The label found.
        label: u32,
        /// The number of classes.
        classes: usize,
    },

    /// Train and test features come from different models or label sets.
    #[error("train and test disagree: {what} is {train} in train and {test} in test")]
    Mismatch {
        /// What disagrees.
        what: &'static str,
        /// The train set's value.
        train: usize,
        /// The test set's value.
        test: usize,
    },

    /// A clip is in both train and test, so the score would be too good.
    #[error("clip `{id}` is in both train and test; remove it from one of the two lists")]
    Leak {
        /// The clip's identity.
        id: String,
    },

    /// A linear probe needs at least two classes in its train set.
    #[error("every train clip has label {label}: a classifier needs at least two classes")]
    OneClass {
        /// The only label.
        label: u32,
    },

    /// Several settings are to be compared, but no class can spare a clip for the comparison.
    #[error(
        "cannot choose among {candidates} values of {setting}: every class has one train clip, none can be held out; give one value"
    )]
    NoHoldout {
        /// The setting that is swept.
        setting: &'static str,
        /// How many values were to be compared.
        candidates: usize,
    },

    /// A setting has a value that makes no sense.
    #[error("setting `{name}` is {value}: {allowed}")]
    Setting {
        /// The setting's name, as in the config.
        name: &'static str,
        /// The value given.
        value: String,
        /// What is allowed.
        allowed: &'static str,
    },

    /// A row of the manifest has no label to score against.
    #[error("{path}: row without a label; evaluation needs the manifest's column `label`")]
    Unlabelled {
        /// The video.
        path: String,
    },

    /// A video cannot be read: evaluation skips none.
    #[error(transparent)]
    Data(#[from] tgm_data::loader::LoaderError),

    /// The encoder refused the clips.
    #[error(transparent)]
    Model(#[from] tgm_mae::MaeError),

    /// Views of one clip carry different labels.
    #[error("clip `{id}`: its views have the labels {} and {}; identities must be full paths", labels[0], labels[1])]
    ViewLabels {
        /// The clip's identity.
        id: String,
        /// Two of the labels.
        labels: [u32; 2],
    },
    /// A feature file or its journal cannot be read or written.
    #[error("{}: {source}", file.display())]
    Store {
        /// The file.
        file: std::path::PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// An interrupted feature file belongs to another encoder, other data or other settings.
    #[error("{}: was begun with another checkpoint, other data or other settings; delete it, or give another --out", file.display())]
    OtherFeatures {
        /// The journal.
        file: std::path::PathBuf,
    },
    /// A gradient is missing, or a saved optimiser state does not fit.
    #[error(transparent)]
    Optimizer(#[from] tgm_ops::AdamWError),
    /// A clip cannot be augmented.
    #[error(transparent)]
    Clip(#[from] tgm_video::VideoError),
    /// Fine-tuning or the attentive probe produced a loss or a gradient that is not finite.
    #[error("training diverged at step {step} with base_lr {base_lr}; give a smaller one, or a clip_norm")]
    LearnerDiverged {
        /// The step, from 0.
        step: u64,
        /// The base learning rate.
        base_lr: f64,
    },
    /// Stochastic gradient descent produced non-finite weights.
    #[error("the linear probe diverged in epoch {epoch} at base_lr {base_lr}; give a smaller one")]
    Diverged {
        /// The base learning rate.
        base_lr: f64,
        /// The epoch, from 0.
        epoch: usize,
    },
}

/// The result of this crate's functions.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl From<candle_core::Error> for Error {
    fn from(error: candle_core::Error) -> Self {
        Self::Model(error.into())
    }
}

impl Error {
    pub(crate) fn setting(name: &'static str, value: impl ToString, allowed: &'static str) -> Self {
        Self::Setting { name, value: value.to_string(), allowed }
    }
}

/// Fails with the first setting that is not valid, of `(name, value, valid, what is allowed)`.
pub(crate) fn first_invalid<const N: usize>(
    checks: [(&'static str, f64, bool, &'static str); N],
) -> Result<()> {
    match checks.into_iter().find(|&(_, _, valid, _)| !valid) {
        Some((name, value, _, allowed)) => Err(Error::setting(name, value, allowed)),
        None => Ok(()),
    }
}
