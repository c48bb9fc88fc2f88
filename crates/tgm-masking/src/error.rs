//! What can go wrong.

use crate::{Grid, Region};

/// Why a mask, or what it is made from, was refused.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum MaskError {
    /// A grid has no tubelets, or more than a `u32` can index.
    #[error(
        "a grid of {slots}×{rows}×{cols} tubelets is impossible: each side must be at least 1, \
         the product below 2³²"
    )]
    Grid {
        /// Temporal slots asked for.
        slots: usize,
        /// Rows asked for.
        rows: usize,
        /// Columns asked for.
        cols: usize,
    },
    /// A mask ratio is NaN or outside its range.
    #[error("mask ratio {ratio} is impossible: it must lie above 0 and below 1")]
    Ratio {
        /// The ratio asked for.
        ratio: f64,
    },
    /// Ratio and grid leave no tubelet masked, or none visible, in a slot.
    #[error(
        "mask ratio {ratio} masks {masked} of the {} tubelets in each slot of grid {grid}, but a masked \
         autoencoder needs at least one masked and one visible: use {}",
        grid.cells(), remedy(grid)
    )]
    Count {
        /// The ratio asked for.
        ratio: f64,
        /// Tubelets it would mask in each slot.
        masked: usize,
        /// The grid.
        grid: Grid,
    },
    /// A strategy's setting is outside its range.
    #[error("{strategy} masking: {name} = {value} is impossible: it must be {expected}")]
    Setting {
        /// The strategy's name, as in a config file.
        strategy: &'static str,
        /// The setting's name, as in a config file.
        name: &'static str,
        /// The value given.
        value: f64,
        /// The values that are possible.
        expected: &'static str,
    },
    /// A score map, a motion field or a list of flags has another number of entries than its grid.
    #[error("{what} has {found} entries, but grid {grid} has {}", grid.len())]
    Length {
        /// What was given.
        what: &'static str,
        /// Its number of entries.
        found: usize,
        /// The grid it was given for.
        grid: Grid,
    },
    /// The scores of frames do not fill the slots of a grid.
    #[error(
        "{found} scores of frames do not fill grid {grid} with {frames_per_slot} frames per slot: at least one frame \
         is needed, and as many scores as frames × rows × columns"
    )]
    Frames {
        /// The number of scores.
        found: usize,
        /// Frames in each slot.
        frames_per_slot: usize,
        /// The grid.
        grid: Grid,
    },
    /// A part of the frame that is empty, or does not lie inside it.
    #[error("{region:?} is no part of a frame: its sides are fractions of the frame's, from 0 to 1")]
    Region {
        /// The part asked for.
        region: Region,
    },
    /// A score is NaN, or a motion vector is not finite.
    #[error("{what} at index {index} of grid {grid} is {value}")]
    NotANumber {
        /// What was given.
        what: &'static str,
        /// Flat index of the first such entry.
        index: usize,
        /// The value there.
        value: f32,
        /// The grid.
        grid: Grid,
    },
    /// A strategy was not given the cue it works from.
    #[error("{strategy} masking needs {cue}, and none was given")]
    MissingCue {
        /// The strategy's name, as in a config file.
        strategy: &'static str,
        /// The cue it needs.
        cue: &'static str,
    },
    /// A cue was made for another grid than the mask.
    #[error(
        "{what} is for grid {found}, but the mask is for grid {grid}: bring it to that grid first (scores: \
         `ScoreMap::from_frames` for the slots, `ScoreMap::resampled` for rows and columns)"
    )]
    GridMismatch {
        /// The cue.
        what: &'static str,
        /// The cue's grid.
        found: Grid,
        /// The mask's grid.
        grid: Grid,
    },
    /// An index given for a mask lies outside the grid.
    #[error("tubelet {index} lies outside grid {grid}, which has {} tubelets", grid.len())]
    OutOfRange {
        /// The index.
        index: u32,
        /// The grid.
        grid: Grid,
    },
    /// An index was given twice for a mask.
    #[error("tubelet {index} is listed twice")]
    Duplicate {
        /// The index.
        index: u32,
    },
    /// The slots of a mask would differ in their number of masked tubelets.
    #[error(
        "slot {slot} has {found} masked tubelets, but slot 0 has {expected}: all slots must have \
         the same number"
    )]
    UnequalCounts {
        /// The first slot that differs.
        slot: usize,
        /// Its number of masked tubelets.
        found: usize,
        /// The number in slot 0.
        expected: usize,
    },
    /// A mask would hide all tubelets of each slot, or none.
    #[error(
        "a mask of grid {grid} with {masked} masked tubelets per slot is useless: at least one must \
         be masked and one visible"
    )]
    Degenerate {
        /// Masked tubelets in each slot.
        masked: usize,
        /// The grid.
        grid: Grid,
    },
}

/// What to do about [`MaskError::Count`]. The ratio is the least of four decimals that masks a tubelet: rounded up, since one
/// rounded down would be refused again.
fn remedy(grid: &Grid) -> String {
    match grid.cells() {
        1 => "at least 2 tubelets per slot".into(),
        cells => format!("a ratio from {:.4} to below 1", 10_000_usize.div_ceil(cells) as f64 / 1e4),
    }
}
