//! CLIP's patch features on the command line.

use clap::ValueEnum;
use tgm_clip::PatchFeatures;

/// The values of `--features`.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(super) enum FeaturesName {
    /// The last block's patch tokens, projected: the paper's likely reading.
    Plain,
    /// The value path of the last block (MaskCLIP).
    Value,
    /// The second path of CLIP Surgery, less what every caption matches.
    Surgery,
}

impl From<FeaturesName> for PatchFeatures {
    fn from(name: FeaturesName) -> Self {
        match name {
            FeaturesName::Plain => Self::Plain,
            FeaturesName::Value => Self::Value,
            FeaturesName::Surgery => Self::Surgery,
        }
    }
}
