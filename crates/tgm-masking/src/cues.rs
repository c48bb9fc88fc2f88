//! What a strategy may look at: how well tubelets match a caption, and how they move.

use crate::{Grid, MaskError, MotionField};

/// How well each tubelet matches the caption: the higher, the better.
///
/// Only the order within a slot matters to top-k and bottom-k, so any scale will do. Infinite scores are
/// allowed: they come before, or after, every other score. NaN has no place in an order and is refused.
#[derive(Clone, Debug, PartialEq)]
pub struct ScoreMap {
    grid: Grid,
    values: Vec<f32>,
}

impl ScoreMap {
    /// A score for each tubelet, in the order of the flat index.
    ///
    /// # Errors
    ///
    /// [`MaskError::Length`] if there is not one score per tubelet, [`MaskError::NotANumber`] if one is NaN.
    pub fn new(grid: Grid, values: Vec<f32>) -> Result<Self, MaskError> {
        if values.len() != grid.len() {
            return Err(MaskError::Length { what: "a score map", found: values.len(), grid });
        }
        match values.iter().position(|score| score.is_nan()) {
            Some(index) => {
                Err(MaskError::NotANumber { what: "the score", index, value: values[index], grid })
            }
            None => Ok(Self { grid, values }),
        }
    }

    /// The scores of frames, `[slots × frames_per_slot, rows, cols]`, for tubelets of several frames: each gets the
    /// mean over its frames.
    ///
    /// # Errors
    ///
    /// [`MaskError::Frames`] unless the scores fill the slots, [`MaskError::NotANumber`] if one is NaN.
    ///
    /// ```
    /// use tgm_masking::{Grid, ScoreMap};
    ///
    /// let two_frames_of_three_cells = [0.0, 1.0, 2.0, 4.0, 1.0, 0.0];
    /// let map = ScoreMap::from_frames(Grid::new(1, 1, 3)?, 2, &two_frames_of_three_cells)?;
    /// assert_eq!(map.values(), [2.0, 1.0, 1.0]);
    /// # Ok::<(), tgm_masking::MaskError>(())
    /// ```
    pub fn from_frames(grid: Grid, frames_per_slot: usize, scores: &[f32]) -> Result<Self, MaskError> {
        let expected = grid.len().checked_mul(frames_per_slot);
        if frames_per_slot == 0 || expected != Some(scores.len()) {
            return Err(MaskError::Frames { found: scores.len(), frames_per_slot, grid });
        }
        let cells = grid.cells();
        let mean = |slot: &[f32], cell: usize| {
            slot.iter().skip(cell).step_by(cells).sum::<f32>() / frames_per_slot as f32
        };
        let slots = scores.chunks_exact(cells * frames_per_slot);
        Self::new(grid, slots.flat_map(|slot| (0..cells).map(move |cell| mean(slot, cell))).collect())
    }

    /// The grid whose tubelets are scored.
    pub const fn grid(&self) -> Grid {
        self.grid
    }

    /// All scores, in the order of the flat index.
    pub fn values(&self) -> &[f32] {
        &self.values
    }

    /// All scores, in the order of the flat index, without a copy.
    pub fn into_values(self) -> Vec<f32> {
        self.values
    }

    /// The scores of one slot: `[rows × cols]`.
    ///
    /// # Panics
    ///
    /// If the grid has no such slot.
    pub fn slot(&self, slot: usize) -> &[f32] {
        &self.values[slot * self.grid.cells()..(slot + 1) * self.grid.cells()]
    }
}

/// The cues at hand for one clip. A strategy takes those it [needs](crate::Masking::needs_scores) and ignores
/// the rest.
#[derive(Clone, Copy, Debug, Default)]
pub struct Cues<'a> {
    /// How well each tubelet matches the caption.
    pub scores: Option<&'a ScoreMap>,
    /// How each tubelet moves.
    pub motion: Option<&'a MotionField>,
}

impl<'a> Cues<'a> {
    /// Scores alone.
    pub const fn from_scores(scores: &'a ScoreMap) -> Self {
        Self { scores: Some(scores), motion: None }
    }

    /// Motion alone.
    pub const fn from_motion(motion: &'a MotionField) -> Self {
        Self { scores: None, motion: Some(motion) }
    }

    /// The scores, if they are there and made for this grid.
    pub(crate) fn scores_for(&self, grid: Grid, strategy: &'static str) -> Result<&'a ScoreMap, MaskError> {
        let scores = self.scores.ok_or(MaskError::MissingCue { strategy, cue: "a score map" })?;
        if scores.grid() == grid {
            Ok(scores)
        } else {
            Err(MaskError::GridMismatch { what: "the score map", found: scores.grid(), grid })
        }
    }

    /// The motion field, if it is there and made for this grid.
    pub(crate) fn motion_for(
        &self,
        grid: Grid,
        strategy: &'static str,
    ) -> Result<&'a MotionField, MaskError> {
        let motion = self.motion.ok_or(MaskError::MissingCue { strategy, cue: "a motion field" })?;
        if motion.grid() == grid {
            Ok(motion)
        } else {
            Err(MaskError::GridMismatch { what: "the motion field", found: motion.grid(), grid })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nan_scores_are_refused_with_their_index_and_infinite_ones_are_not() {
        let grid = Grid::new(1, 2, 2).unwrap();
        let error = ScoreMap::new(grid, vec![0.0, 1.0, f32::NAN, f32::NAN]).unwrap_err();
        assert_eq!(error.to_string(), "the score at index 2 of grid 1×2×2 is NaN");
        let scores = ScoreMap::new(grid, vec![0.0, f32::INFINITY, f32::NEG_INFINITY, 1.0]).unwrap();
        assert_eq!(scores.slot(0), scores.values());
    }

    #[test]
    fn scores_of_frames_that_do_not_fill_the_slots_are_refused() {
        let grid = Grid::new(2, 2, 2).unwrap();
        let refused = |frames_per_slot, found| {
            let error = ScoreMap::from_frames(grid, frames_per_slot, &vec![0.0; found]).unwrap_err();
            assert_eq!(error, MaskError::Frames { found, frames_per_slot, grid });
        };
        for (frames_per_slot, found) in [(0, 0), (0, 8), (2, 0), (2, 15), (3, 16), (usize::MAX, 8)] {
            refused(frames_per_slot, found);
        }
        assert!(ScoreMap::from_frames(grid, 2, &[0.5; 16]).is_ok());
    }

    #[test]
    fn a_score_map_of_another_size_is_refused() {
        let grid = Grid::new(1, 2, 2).unwrap();
        let error = ScoreMap::new(grid, vec![0.0; 3]).unwrap_err();
        assert_eq!(error.to_string(), "a score map has 3 entries, but grid 1×2×2 has 4");
    }
}
