//! The tubelet grid of a clip.

use std::{fmt, ops::Range};

use serde::{Deserialize, Serialize};

use crate::MaskError;

/// The tubelets of a clip: temporal slots × rows × columns.
///
/// Flat indices run over columns first, then rows, then slots: `(slot * rows + row) * cols + col`. Sixteen
/// frames of 224×224 pixels in tubelets of 2×16×16 make a grid of 8×14×14.
///
/// A slot, row or column that the grid does not have is a mistake of the caller: where debug assertions are on,
/// [`Grid::slot`], [`Grid::index`] and [`Grid::position`] panic; elsewhere they answer with numbers that
/// mean nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "Sides")]
pub struct Grid {
    slots: usize,
    rows: usize,
    cols: usize,
}

/// A grid as it is read, before it is checked.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Sides {
    slots: usize,
    rows: usize,
    cols: usize,
}

impl TryFrom<Sides> for Grid {
    type Error = MaskError;

    fn try_from(Sides { slots, rows, cols }: Sides) -> Result<Self, MaskError> {
        Self::new(slots, rows, cols)
    }
}

impl Grid {
    /// A grid of `slots × rows × cols` tubelets.
    ///
    /// # Errors
    ///
    /// [`MaskError::Grid`] if a side is 0 or the tubelets cannot be numbered by a `u32`.
    pub fn new(slots: usize, rows: usize, cols: usize) -> Result<Self, MaskError> {
        match slots.checked_mul(rows).and_then(|n| n.checked_mul(cols)) {
            Some(1..=0xffff_ffff) => Ok(Self { slots, rows, cols }),
            _ => Err(MaskError::Grid { slots, rows, cols }),
        }
    }

    /// Number of temporal slots.
    pub const fn slots(&self) -> usize {
        self.slots
    }

    /// Number of rows.
    pub const fn rows(&self) -> usize {
        self.rows
    }

    /// Number of columns.
    pub const fn cols(&self) -> usize {
        self.cols
    }

    /// Number of tubelets in a slot: rows × columns.
    pub const fn cells(&self) -> usize {
        self.rows * self.cols
    }

    /// Number of tubelets in the clip.
    #[expect(clippy::len_without_is_empty, reason = "a grid is never empty")]
    pub const fn len(&self) -> usize {
        self.slots * self.cells()
    }

    /// The flat indices of one slot's tubelets. The slot is below [`Grid::slots`].
    pub const fn slot(&self, slot: usize) -> Range<u32> {
        debug_assert!(slot < self.slots, "the grid has no such slot");
        // `new` has checked that every index fits.
        (slot * self.cells()) as u32..((slot + 1) * self.cells()) as u32
    }

    /// The flat index of the tubelet at `(slot, row, col)`, each below its side of the grid.
    pub const fn index(&self, slot: usize, row: usize, col: usize) -> u32 {
        debug_assert!(
            slot < self.slots && row < self.rows && col < self.cols,
            "the grid has no tubelet at this place"
        );
        ((slot * self.rows + row) * self.cols + col) as u32
    }

    /// The `(slot, row, col)` of a flat index below [`Grid::len`].
    pub const fn position(&self, index: u32) -> (usize, usize, usize) {
        let index = index as usize;
        debug_assert!(index < self.len(), "the grid has no tubelet of this index");
        (index / self.cells(), index / self.cols % self.rows, index % self.cols)
    }
}

impl fmt::Display for Grid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}×{}×{}", self.slots, self.rows, self.cols)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn indices_run_over_columns_then_rows_then_slots() {
        let grid = Grid::new(3, 2, 5).unwrap();
        let mut expected = 0;
        for slot in 0..3 {
            assert_eq!(grid.slot(slot), expected..expected + 10);
            for row in 0..2 {
                for col in 0..5 {
                    assert_eq!(grid.index(slot, row, col), expected);
                    assert_eq!(grid.position(expected), (slot, row, col));
                    expected += 1;
                }
            }
        }
        assert_eq!(grid.len(), expected as usize);
    }

    #[test]
    fn empty_and_unindexable_grids_are_refused() {
        for (slots, rows, cols) in
            [(0, 1, 1), (1, 0, 1), (1, 1, 0), (1 << 16, 1 << 8, 1 << 8), (usize::MAX, 2, 2)]
        {
            assert_eq!(Grid::new(slots, rows, cols), Err(MaskError::Grid { slots, rows, cols }));
        }
        assert!(Grid::new(1 << 16, 1 << 8, 255).is_ok());
    }

    #[test]
    fn a_grid_that_is_read_is_checked_as_a_new_one() {
        let grid = Grid::new(8, 14, 14).unwrap();
        assert_eq!(toml::from_str::<Grid>(&toml::to_string(&grid).unwrap()).unwrap(), grid);
        let error = toml::from_str::<Grid>("slots = 8\nrows = 0\ncols = 14").unwrap_err().to_string();
        assert!(error.contains("a grid of 8×0×14 tubelets is impossible"), "{error}");
    }

    #[test]
    #[cfg(debug_assertions)]
    fn places_outside_the_grid_are_noticed_in_debug_builds() {
        let grid = Grid::new(2, 3, 4).unwrap();
        let panics = |of: &dyn Fn()| std::panic::catch_unwind(std::panic::AssertUnwindSafe(of)).is_err();
        assert!(panics(&|| _ = grid.slot(2)));
        assert!(panics(&|| _ = grid.index(0, 0, 4)));
        assert!(panics(&|| _ = grid.position(24)));
    }
}
