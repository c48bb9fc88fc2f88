//! The outcome: which tubelets are visible and which are masked.

use serde::{Deserialize, Serialize};

use crate::{Grid, MaskError};

/// A partition of a clip's tubelets into visible and masked ones.
///
/// Cannot be built unless every slot has the same number of masked tubelets, at least one of them masked and
/// at least one visible: code that is given a `Mask` may rely on it. Written as its grid and the masked
/// tubelets, and checked when it is read.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "Listed", into = "Listed")]
pub struct Mask {
    grid: Grid,
    visible: Vec<u32>,
    masked: Vec<u32>,
}

/// A mask as it is written and read, before it is checked.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Listed {
    grid: Grid,
    masked: Vec<u32>,
}

impl From<Mask> for Listed {
    fn from(Mask { grid, masked, .. }: Mask) -> Self {
        Self { grid, masked }
    }
}

impl TryFrom<Listed> for Mask {
    type Error = MaskError;

    fn try_from(Listed { grid, masked }: Listed) -> Result<Self, MaskError> {
        Self::from_masked(grid, masked)
    }
}

impl Mask {
    /// The mask that leaves exactly these tubelets visible. They may come in any order.
    ///
    /// # Errors
    ///
    /// [`MaskError::OutOfRange`], [`MaskError::Duplicate`], [`MaskError::UnequalCounts`] or
    /// [`MaskError::Degenerate`].
    pub fn from_visible(grid: Grid, visible: Vec<u32>) -> Result<Self, MaskError> {
        let listed = flags(grid, &visible)?;
        Self::from_bools(grid, &listed.iter().map(|&visible| !visible).collect::<Vec<_>>())
    }

    /// The mask that hides exactly these tubelets. They may come in any order.
    ///
    /// # Errors
    ///
    /// As [`Mask::from_visible`].
    pub fn from_masked(grid: Grid, masked: Vec<u32>) -> Result<Self, MaskError> {
        Self::from_bools(grid, &flags(grid, &masked)?)
    }

    /// The mask that hides the tubelets whose flag is true: the inverse of [`Mask::to_bools`].
    ///
    /// # Errors
    ///
    /// [`MaskError::Length`], [`MaskError::UnequalCounts`] or [`MaskError::Degenerate`].
    pub fn from_bools(grid: Grid, is_masked: &[bool]) -> Result<Self, MaskError> {
        if is_masked.len() != grid.len() {
            return Err(MaskError::Length { what: "a boolean mask", found: is_masked.len(), grid });
        }
        let mut counts =
            is_masked.chunks(grid.cells()).map(|slot| slot.iter().filter(|&&masked| masked).count());
        let expected = counts.next().unwrap_or(0);
        if let Some((slot, found)) = (1..).zip(counts).find(|&(_, found)| found != expected) {
            return Err(MaskError::UnequalCounts { slot, found, expected });
        }
        if expected == 0 || expected == grid.cells() {
            return Err(MaskError::Degenerate { masked: expected, grid });
        }
        let (masked, visible) = (0..grid.len() as u32).partition(|&index| is_masked[index as usize]);
        Ok(Self { grid, visible, masked })
    }

    /// The grid whose tubelets are masked.
    pub const fn grid(&self) -> Grid {
        self.grid
    }

    /// Flat indices of the visible tubelets, ascending: `[slots × visible_per_slot]`.
    pub fn visible(&self) -> &[u32] {
        &self.visible
    }

    /// Flat indices of the masked tubelets, ascending: `[slots × masked_per_slot]`.
    pub fn masked(&self) -> &[u32] {
        &self.masked
    }

    /// Number of visible tubelets in each slot.
    pub const fn visible_per_slot(&self) -> usize {
        self.visible.len() / self.grid.slots()
    }

    /// Number of masked tubelets in each slot.
    pub const fn masked_per_slot(&self) -> usize {
        self.masked.len() / self.grid.slots()
    }

    /// The visible tubelets of one slot, ascending, as flat indices into the whole grid.
    ///
    /// # Panics
    ///
    /// If the grid has no such slot.
    pub fn visible_in(&self, slot: usize) -> &[u32] {
        let count = self.visible_per_slot();
        &self.visible[slot * count..(slot + 1) * count]
    }

    /// The masked tubelets of one slot, ascending, as flat indices into the whole grid.
    ///
    /// # Panics
    ///
    /// If the grid has no such slot.
    pub fn masked_in(&self, slot: usize) -> &[u32] {
        let count = self.masked_per_slot();
        &self.masked[slot * count..(slot + 1) * count]
    }

    /// One flag per tubelet in the order of the flat index, true where it is masked (`bool_masked_pos` in
    /// VideoMAE).
    pub fn to_bools(&self) -> Vec<bool> {
        let mut is_masked = vec![false; self.grid.len()];
        self.masked.iter().for_each(|&index| is_masked[index as usize] = true);
        is_masked
    }

    /// The share of tubelets that is really masked: the ratio asked for, rounded down to whole tubelets per
    /// slot.
    pub fn ratio(&self) -> f64 {
        self.masked.len() as f64 / self.grid.len() as f64
    }
}

/// One flag per tubelet, true where it is listed.
fn flags(grid: Grid, indices: &[u32]) -> Result<Vec<bool>, MaskError> {
    let mut listed = vec![false; grid.len()];
    for &index in indices {
        let flag = listed.get_mut(index as usize).ok_or(MaskError::OutOfRange { index, grid })?;
        if std::mem::replace(flag, true) {
            return Err(MaskError::Duplicate { index });
        }
    }
    Ok(listed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grid() -> Grid {
        Grid::new(2, 2, 2).unwrap()
    }

    #[test]
    fn visible_and_masked_tubelets_are_sorted_and_complement_each_other() {
        let mask = Mask::from_visible(grid(), vec![6, 3]).unwrap();
        assert_eq!(mask.visible(), [3, 6]);
        assert_eq!(mask.masked(), [0, 1, 2, 4, 5, 7]);
        assert_eq!((mask.visible_per_slot(), mask.masked_per_slot()), (1, 3));
        assert_eq!((mask.visible_in(1), mask.masked_in(0)), (&[6][..], &[0, 1, 2][..]));
        assert_eq!(mask.ratio(), 0.75);
        assert_eq!(Mask::from_masked(grid(), vec![7, 5, 4, 2, 1, 0]).unwrap(), mask);
        assert_eq!(Mask::from_bools(grid(), &mask.to_bools()).unwrap(), mask);
    }

    #[test]
    fn a_mask_that_is_read_is_checked_as_a_new_one() {
        let mask = Mask::from_masked(grid(), vec![1, 2, 4, 7]).unwrap();
        let written = toml::to_string(&mask).unwrap();
        assert_eq!(toml::from_str::<Mask>(&written).unwrap(), mask, "{written}");
        let read = |masked: &str| {
            let text = format!("masked = {masked}\n[grid]\nslots = 2\nrows = 2\ncols = 2");
            toml::from_str::<Mask>(&text).unwrap_err().to_string()
        };
        assert!(read("[0, 1, 4]").contains("slot 1 has 1 masked tubelets, but slot 0 has 2"));
        assert!(read("[0, 8]").contains("tubelet 8 lies outside grid 2×2×2"));
        assert!(read("[]").contains("at least one must be masked"));
    }

    #[test]
    fn wrong_lists_are_refused_by_name() {
        let masked = |list: &[u32]| Mask::from_masked(grid(), list.to_vec()).unwrap_err();
        assert_eq!(masked(&[0, 8]), MaskError::OutOfRange { index: 8, grid: grid() });
        assert_eq!(masked(&[5, 0, 5]), MaskError::Duplicate { index: 5 });
        assert_eq!(masked(&[0, 1, 4]), MaskError::UnequalCounts { slot: 1, found: 1, expected: 2 });
        assert_eq!(masked(&[4]), MaskError::UnequalCounts { slot: 1, found: 1, expected: 0 });
        assert_eq!(masked(&[]), MaskError::Degenerate { masked: 0, grid: grid() });
        let none_masked = Mask::from_visible(grid(), vec![0]).unwrap_err();
        assert_eq!(none_masked, MaskError::UnequalCounts { slot: 1, found: 4, expected: 3 });
        let all_masked = Mask::from_visible(grid(), vec![]).unwrap_err();
        assert_eq!(all_masked, MaskError::Degenerate { masked: 4, grid: grid() });
        let short = Mask::from_bools(grid(), &[true, false]).unwrap_err();
        assert_eq!(short, MaskError::Length { what: "a boolean mask", found: 2, grid: grid() });
    }
}
