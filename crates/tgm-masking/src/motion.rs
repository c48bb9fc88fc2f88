//! How the content of a clip moves, one vector per tubelet.

use crate::{Grid, MaskError};

/// How the content of each tubelet moves: `[dx, dy]` in cells per slot, pointing forward in time.
///
/// `[1.0, 0.0]` means that what is seen in this tubelet is one column further right one slot later. A tubelet
/// without known motion (in an intra-coded frame, say) has the zero vector.
#[derive(Clone, Debug, PartialEq)]
pub struct MotionField {
    grid: Grid,
    vectors: Vec<[f32; 2]>,
}

impl MotionField {
    /// A vector for each tubelet, in the order of the flat index.
    ///
    /// # Errors
    ///
    /// [`MaskError::Length`] if there is not one vector per tubelet, [`MaskError::NotANumber`] if one is not
    /// finite.
    pub fn new(grid: Grid, vectors: Vec<[f32; 2]>) -> Result<Self, MaskError> {
        if vectors.len() != grid.len() {
            return Err(MaskError::Length { what: "a motion field", found: vectors.len(), grid });
        }
        match vectors.iter().flatten().position(|component| !component.is_finite()) {
            Some(at) => {
                let (index, value) = (at / 2, vectors[at / 2][at % 2]);
                Err(MaskError::NotANumber { what: "the motion vector", index, value, grid })
            }
            None => Ok(Self { grid, vectors }),
        }
    }

    /// The field of a clip in which nothing moves, or of whose motion nothing is known.
    pub fn still(grid: Grid) -> Self {
        Self { grid, vectors: vec![[0.0; 2]; grid.len()] }
    }

    /// The grid whose tubelets move.
    pub const fn grid(&self) -> Grid {
        self.grid
    }

    /// All vectors, in the order of the flat index.
    pub fn vectors(&self) -> &[[f32; 2]] {
        &self.vectors
    }

    /// The vectors of one slot: `[rows × cols]`.
    ///
    /// # Panics
    ///
    /// If the grid has no such slot.
    pub fn slot(&self, slot: usize) -> &[[f32; 2]] {
        &self.vectors[slot * self.grid.cells()..(slot + 1) * self.grid.cells()]
    }

    /// The speed of the tubelet with this flat index, in cells per slot.
    ///
    /// # Panics
    ///
    /// If the grid has no such tubelet.
    pub fn magnitude(&self, index: usize) -> f32 {
        let [dx, dy] = self.vectors[index];
        dx.hypot(dy).min(f32::MAX)
    }

    /// Whether no tubelet moves.
    pub fn is_still(&self) -> bool {
        self.vectors.iter().flatten().all(|&component| component == 0.0)
    }

    /// The motion that remains when each slot's median vector (taken per component) is subtracted.
    ///
    /// The median stands for the motion of the camera as long as less than half of the picture moves by
    /// itself.
    #[must_use]
    pub fn without_global_motion(&self) -> Self {
        let mut vectors = self.vectors.clone();
        for slot in vectors.chunks_mut(self.grid.cells()) {
            for axis in 0..2 {
                let global = median(slot.iter().map(|vector| vector[axis]).collect());
                // Clamped: the difference of two huge vectors overflows, and a field is finite.
                slot.iter_mut().for_each(|v| v[axis] = (v[axis] - global).clamp(f32::MIN, f32::MAX));
            }
        }
        Self { grid: self.grid, vectors }
    }
}

/// The middle value, or the mean of the two middle ones. Finite for finite input; the list must not be empty.
fn median(mut values: Vec<f32>) -> f32 {
    values.sort_by(f32::total_cmp);
    let (low, high) = (values[(values.len() - 1) / 2], values[values.len() / 2]);
    low / 2.0 + high / 2.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn global_motion_is_removed_slot_by_slot_and_local_motion_stays() {
        let grid = Grid::new(2, 1, 5).unwrap();
        let mut vectors = vec![[1.0, -2.0]; 5];
        vectors.extend([[0.5, 0.0]; 5]);
        vectors[3] = [3.0, -2.0];
        let field = MotionField::new(grid, vectors).unwrap();
        let local = field.without_global_motion();
        assert_eq!(local.slot(0), [[0.0; 2], [0.0; 2], [0.0; 2], [2.0, 0.0], [0.0; 2]]);
        assert_eq!(local.slot(1), [[0.0; 2]; 5]);
        assert_eq!(local.magnitude(3), 2.0);
        assert!(!local.is_still());
    }

    #[test]
    fn a_pure_camera_motion_leaves_nothing() {
        let grid = Grid::new(3, 2, 2).unwrap();
        let field = MotionField::new(grid, vec![[0.25, 7.0]; 12]).unwrap();
        assert!(field.without_global_motion().is_still());
        assert!(MotionField::still(grid).is_still());
    }

    #[test]
    fn vectors_that_are_not_finite_are_refused_and_huge_ones_stay_finite() {
        let grid = Grid::new(1, 1, 2).unwrap();
        let error = MotionField::new(grid, vec![[0.0; 2], [0.0, f32::INFINITY]]).unwrap_err();
        assert_eq!(error.to_string(), "the motion vector at index 1 of grid 1×1×2 is inf");
        let field = MotionField::new(grid, vec![[f32::MAX; 2], [f32::MIN; 2]]).unwrap();
        assert!(field.magnitude(0).is_finite());
        assert!(field.without_global_motion().vectors().iter().flatten().all(|v| v.is_finite()));
    }
}
