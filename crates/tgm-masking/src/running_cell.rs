//! Decoder masking: which of the masked tubelets are reconstructed at all.

use rand::{Rng, RngExt};
use serde::{Deserialize, Serialize};

use crate::{Mask, MaskError, masking::check, select::top_k};

/// Decoder masking by a running cell (VideoMAE V2, arXiv 2303.16727).
///
/// The decoder of a masked autoencoder costs as much as its encoder; reconstructing about half of the masked
/// tubelets saves most of that. Each slot is tiled by cells of 2×2 tubelets. The places of a cell take turns:
/// from one slot to the next the pattern moves on by one place, so that in four slots each place has had
/// every role. The first slot's pattern is random.
///
/// VideoMAE V2 keeps a fixed share of *all* tubelets, and so of the masked ones a number that varies from
/// clip to clip. Here the number of masked tubelets kept is exact in every slot: places are taken in the
/// order of their turn until the number is reached, those of the last turn taken at random. Any ratio and any
/// grid will do, not only quarters and even sides.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "kebab-case", deny_unknown_fields)]
pub struct RunningCell {
    /// Share of the masked tubelets that is *not* reconstructed, from 0 (all are) to below 1. Default 0.5, as
    /// in VideoMAE V2.
    pub ratio: f64,
}

impl Default for RunningCell {
    fn default() -> Self {
        Self { ratio: 0.5 }
    }
}

impl RunningCell {
    /// Number of tubelets reconstructed in each slot of which `masked` are masked: masked − ⌊ratio · masked⌋.
    /// That is at least 1, but 0 where none is masked (in no slot of a [`Mask`]).
    ///
    /// # Errors
    ///
    /// [`MaskError::Setting`] if the ratio is not at least 0 and below 1.
    pub fn kept_per_slot(&self, masked: usize) -> Result<usize, MaskError> {
        let possible = self.ratio >= 0.0 && self.ratio < 1.0;
        check(possible, "running-cell", "ratio", self.ratio, "at least 0 and below 1")?;
        let dropped = (self.ratio * masked as f64) as usize;
        Ok(masked - dropped.min(masked.saturating_sub(1)))
    }

    /// The masked tubelets that the decoder reconstructs, ascending: `[slots × kept_per_slot]`.
    ///
    /// # Errors
    ///
    /// As [`RunningCell::kept_per_slot`].
    pub fn targets(&self, mask: &Mask, rng: &mut impl Rng) -> Result<Vec<u32>, MaskError> {
        let grid = mask.grid();
        let kept = self.kept_per_slot(mask.masked_per_slot())?;
        let start = rng.random_range(0..4usize);
        // As in VideoMAE V2: place p of the cell has turn (p + start + slot) mod 4, and the highest turns are
        // kept.
        let turn = |index| {
            let (slot, row, col) = grid.position(index);
            ((2 * (row % 2) + col % 2 + start + slot) % 4) as f64
        };
        let mut targets: Vec<u32> = (0..grid.slots())
            .flat_map(|slot| top_k(mask.masked_in(slot).to_vec(), kept, turn, rng))
            .collect();
        targets.sort_unstable();
        Ok(targets)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::Grid;
    use tgm_random::Streams;

    /// Each slot of the mask holds every place of the 2×2 cell twice, so half of them is exactly two places.
    #[test]
    fn places_take_turns_in_the_order_of_videomae_v2() {
        let grid = Grid::new(6, 4, 4).unwrap();
        let masked = (0..6).flat_map(|slot| grid.slot(slot).take(8)).collect();
        let mask = Mask::from_masked(grid, masked).unwrap();
        // The places that the reference leaves unmasked when its queue pointer is at 0 to 3.
        let reference = [[2, 3], [1, 2], [0, 1], [0, 3]].map(BTreeSet::from);
        let mut starts = BTreeSet::new();
        for sample in 0..32 {
            let mut rng = Streams::new(1).stream("decoder", 0, sample);
            let targets = RunningCell::default().targets(&mask, &mut rng).unwrap();
            let places = |slot: usize| -> BTreeSet<usize> {
                let place = |(_, row, col)| 2 * (row % 2) + col % 2;
                targets[slot * 4..(slot + 1) * 4].iter().map(|&index| place(grid.position(index))).collect()
            };
            let start = reference.iter().position(|kept| &places(0) == kept).unwrap();
            for slot in 0..6 {
                assert_eq!(places(slot), reference[(start + slot) % 4]);
            }
            starts.insert(start);
        }
        assert_eq!(starts.len(), 4);
    }

    #[test]
    fn at_least_one_tubelet_is_reconstructed_and_a_ratio_of_0_keeps_all() {
        let kept = |ratio, masked| RunningCell { ratio }.kept_per_slot(masked).unwrap();
        assert_eq!(
            [kept(0.5, 176), kept(0.5, 117), kept(0.5, 1), kept(0.0, 9), kept(0.999, 9)],
            [88, 59, 1, 9, 1]
        );
        assert_eq!([kept(0.0, 0), kept(0.5, 0)], [0, 0], "of none, none");
    }

    #[test]
    fn a_ratio_that_drops_all_or_less_than_none_is_refused_with_what_is_allowed() {
        for ratio in [-0.1, 1.0, f64::NAN] {
            let error = RunningCell { ratio }.kept_per_slot(9).unwrap_err().to_string();
            let expected = format!(
                "running-cell masking: ratio = {ratio} is impossible: it must be at least 0 and below 1"
            );
            assert_eq!(error, expected);
        }
    }
}
