//! The strategies under one roof.

use rand::Rng;
use serde::{Deserialize, Serialize};

use crate::{
    Cues, Grid, Mask, MaskError, MotionBoxConfig, MotionWarpConfig, TextConfig,
    select::{top_k, top_k_per_slot},
};

/// A masking strategy and its settings; the part `[masking]` of a config file.
///
/// Every strategy masks ⌊ratio · rows · cols⌋ tubelets of each slot, as VideoMAE's `int(ratio * patches)`
/// does.
///
/// ```
/// # use tgm_masking::{Masking, TextConfig};
/// #[derive(serde::Deserialize)]
/// struct Config { masking: Masking }
///
/// let config: Config = toml::from_str("[masking]\nkind = 'text'\nratio = 0.75")?;
/// assert_eq!(config.masking, Masking::Text(TextConfig { ratio: 0.75, ..TextConfig::default() }));
/// # Ok::<(), toml::de::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Masking {
    /// Tubelets drawn anew for each slot.
    Random {
        /// Share of tubelets masked in each slot. Default 0.9, as VideoMAE's.
        #[serde(default = "videomae_ratio")]
        ratio: f64,
    },
    /// Places drawn once and masked in all slots (VideoMAE).
    Tube {
        /// Share of tubelets masked in each slot. Default 0.9 (VideoMAE's on Kinetics-400 and
        /// Something-Something V2).
        #[serde(default = "videomae_ratio")]
        ratio: f64,
    },
    /// A rectangle that follows the motion (MGM).
    MotionBox(MotionBoxConfig),
    /// A random map carried along by the motion (MGMAE).
    MotionWarp(MotionWarpConfig),
    /// The tubelets that match the caption best (TGM).
    Text(TextConfig),
}

const fn videomae_ratio() -> f64 {
    0.9
}

/// TGM's setting: the 60 % of each slot that match the caption best.
impl Default for Masking {
    fn default() -> Self {
        Self::Text(TextConfig::default())
    }
}

impl Masking {
    /// The strategy's name, as in a config file.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Random { .. } => "random",
            Self::Tube { .. } => "tube",
            Self::MotionBox(_) => MotionBoxConfig::NAME,
            Self::MotionWarp(_) => MotionWarpConfig::NAME,
            Self::Text(_) => TextConfig::NAME,
        }
    }

    /// The share of tubelets to mask in each slot, as configured.
    pub const fn ratio(&self) -> f64 {
        match self {
            Self::Random { ratio } | Self::Tube { ratio } => *ratio,
            Self::MotionBox(config) => config.ratio,
            Self::MotionWarp(config) => config.ratio,
            Self::Text(config) => config.ratio,
        }
    }

    /// The same strategy at another ratio.
    #[must_use]
    pub fn with_ratio(self, ratio: f64) -> Self {
        match self {
            Self::Random { .. } => Self::Random { ratio },
            Self::Tube { .. } => Self::Tube { ratio },
            Self::MotionBox(config) => Self::MotionBox(MotionBoxConfig { ratio, ..config }),
            Self::MotionWarp(config) => Self::MotionWarp(MotionWarpConfig { ratio, ..config }),
            Self::Text(config) => Self::Text(TextConfig { ratio, ..config }),
        }
    }

    /// Whether both are one strategy, whatever its settings.
    pub fn is_same_kind(&self, other: &Self) -> bool {
        std::mem::discriminant(self) == std::mem::discriminant(other)
    }

    /// Whether [`Masking::mask`] must be given a score map.
    pub const fn needs_scores(&self) -> bool {
        matches!(self, Self::Text(_))
    }

    /// Whether [`Masking::mask`] must be given a motion field.
    pub const fn needs_motion(&self) -> bool {
        match self {
            Self::MotionBox(config) => config.needs_motion(),
            Self::MotionWarp(_) => true,
            Self::Random { .. } | Self::Tube { .. } | Self::Text(_) => false,
        }
    }

    /// Number of tubelets masked in each slot of a grid: ⌊ratio · rows · cols⌋.
    ///
    /// # Errors
    ///
    /// [`MaskError::Ratio`] if the ratio is below 0, above 1 or NaN, [`MaskError::Count`] if it masks none of a
    /// slot's tubelets or all of them.
    pub fn masked_per_slot(&self, grid: &Grid) -> Result<usize, MaskError> {
        let ratio = self.ratio();
        if !(0.0..=1.0).contains(&ratio) {
            return Err(MaskError::Ratio { ratio });
        }
        let masked = (ratio * grid.cells() as f64) as usize;
        if masked == 0 || masked >= grid.cells() {
            return Err(MaskError::Count { ratio, masked, grid: *grid });
        }
        Ok(masked)
    }

    /// Checks the settings, as far as that can be done without a grid.
    ///
    /// # Errors
    ///
    /// [`MaskError::Ratio`] or [`MaskError::Setting`].
    pub fn validate(&self) -> Result<(), MaskError> {
        let ratio = self.ratio();
        if !(ratio > 0.0 && ratio < 1.0) {
            return Err(MaskError::Ratio { ratio });
        }
        match self {
            Self::Random { .. } | Self::Tube { .. } => Ok(()),
            Self::MotionBox(config) => config.validate(),
            Self::MotionWarp(config) => config.validate(),
            Self::Text(config) => config.validate(),
        }
    }

    /// Draws the mask of one clip. The same cues and the same state of the generator always give the same
    /// mask.
    ///
    /// Across platforms that holds but for `motion-warp` and the text `sample`: their `exp` and `ln` may
    /// differ in the last bit, which may decide between two almost equal tubelets.
    ///
    /// # Errors
    ///
    /// As [`Masking::masked_per_slot`] and [`Masking::validate`]; [`MaskError::MissingCue`] or
    /// [`MaskError::GridMismatch`] if a cue that the strategy needs is absent or was made for another grid.
    pub fn mask(&self, grid: &Grid, cues: &Cues<'_>, rng: &mut impl Rng) -> Result<Mask, MaskError> {
        let k = self.masked_per_slot(grid)?;
        self.validate()?;
        let grid = *grid;
        match self {
            Self::Random { .. } => Mask::from_masked(grid, top_k_per_slot(grid, k, |_| 0.0, rng)),
            Self::Tube { .. } => {
                let places = top_k(grid.slot(0).collect(), k, |_| 0.0, rng);
                let tubes =
                    (0..grid.slots()).flat_map(|slot| places.iter().map(move |i| i + grid.slot(slot).start));
                Mask::from_masked(grid, tubes.collect())
            }
            Self::MotionBox(config) => config.mask(grid, k, cues, rng),
            Self::MotionWarp(config) => config.mask(grid, k, cues.motion_for(grid, self.name())?, rng),
            Self::Text(config) => config.mask(grid, k, cues.scores_for(grid, self.name())?, rng),
        }
    }
}

/// Refuses a setting outside its range.
pub(crate) fn check(
    possible: bool,
    strategy: &'static str,
    name: &'static str,
    value: f64,
    expected: &'static str,
) -> Result<(), MaskError> {
    if possible { Ok(()) } else { Err(MaskError::Setting { strategy, name, value, expected }) }
}

/// Refuses a setting that is not positive and finite.
pub(crate) fn positive(strategy: &'static str, name: &'static str, value: f64) -> Result<(), MaskError> {
    check(value > 0.0 && value.is_finite(), strategy, name, value, "positive and finite")
}
