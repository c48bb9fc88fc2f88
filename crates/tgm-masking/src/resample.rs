//! Score maps on another grid.
//!
//! Bilinear onto a finer grid. Onto a coarser one the triangle is as wide as a wanted cell, so that every cell counts
//! (`torch.nn.functional.interpolate(…, mode="bilinear", align_corners=False, antialias=True)`). Beyond the border the
//! outermost cells are repeated.

use crate::{Grid, MaskError, ScoreMap};

/// A part of the frame, in fractions of its width and height.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Region {
    /// Left edge; 0 is that of the frame.
    pub left: f64,
    /// Upper edge; 0 is that of the frame.
    pub top: f64,
    /// Width; 1 is that of the frame.
    pub width: f64,
    /// Height; 1 is that of the frame.
    pub height: f64,
}

impl Region {
    /// The whole frame.
    pub const WHOLE: Self = Self { left: 0.0, top: 0.0, width: 1.0, height: 1.0 };

    fn is_part_of_a_frame(&self) -> bool {
        // The end of a crop at the border, computed from pixels, may round to a little beyond 1.
        let inside = |start: f64, extent: f64| start >= 0.0 && extent > 0.0 && start + extent <= 1.0 + 1e-9;
        inside(self.left, self.width) && inside(self.top, self.height)
    }
}

impl ScoreMap {
    /// The same scores on `rows` × `cols` cells of each slot: bilinear onto a finer grid, averaged onto a coarser
    /// one. On its own grid a map stays what it is, to the bit.
    ///
    /// # Errors
    ///
    /// [`MaskError::Grid`] for a grid that cannot be, [`MaskError::NotANumber`] where infinite scores of both signs
    /// meet.
    ///
    /// ```
    /// use tgm_masking::{Grid, ScoreMap};
    ///
    /// let map = ScoreMap::new(Grid::new(1, 1, 2)?, vec![0.0, 1.0])?;
    /// assert_eq!(map.resampled(1, 4)?.values(), [0.0, 0.25, 0.75, 1.0]);
    /// # Ok::<(), tgm_masking::MaskError>(())
    /// ```
    pub fn resampled(&self, rows: usize, cols: usize) -> Result<Self, MaskError> {
        self.seen_through(&Region::WHOLE, false, rows, cols)
    }

    /// The scores of a part of the frame on `rows` × `cols` cells of each slot, as a crop of the pixels sees it: cut
    /// to the region, resampled and, if `mirrored`, turned from left to right.
    ///
    /// Cells beside the region take part; beyond the frame the outermost ones are repeated.
    ///
    /// # Errors
    ///
    /// [`MaskError::Region`] for a region that is no part of the frame, and as [`ScoreMap::resampled`].
    pub fn seen_through(
        &self,
        region: &Region,
        mirrored: bool,
        rows: usize,
        cols: usize,
    ) -> Result<Self, MaskError> {
        if !region.is_part_of_a_frame() {
            return Err(MaskError::Region { region: *region });
        }
        let (from, to) = (self.grid(), Grid::new(self.grid().slots(), rows, cols)?);
        let vertical = taps(from.rows(), region.top, region.height, rows);
        let mut horizontal = taps(from.cols(), region.left, region.width, cols);
        if mirrored {
            horizontal.reverse();
        }
        let mut values = Vec::with_capacity(to.len());
        for slot in self.values().chunks_exact(from.cells()) {
            append(slot, from.cols(), &vertical, &horizontal, &mut values);
        }
        Self::new(to, values)
    }
}

/// Appends the new map of one slot's map, whose rows are of `width` cells.
fn append(map: &[f32], width: usize, vertical: &[Taps], horizontal: &[Taps], to: &mut Vec<f32>) {
    let cols = horizontal.len();
    let narrowed: Vec<f32> = map
        .chunks_exact(width)
        .flat_map(|row| horizontal.iter().map(|taps| weigh(taps, |j| row[j])))
        .collect();
    for taps in vertical {
        to.extend((0..cols).map(|j| weigh(taps, |i| narrowed[i * cols + j])));
    }
}

/// Cells and their weights, which add up to 1.
type Taps = Vec<(usize, f32)>;

fn weigh(taps: &Taps, value: impl Fn(usize) -> f32) -> f32 {
    taps.iter().map(|&(i, weight)| value(i) * weight).sum()
}

/// For each of `to` cells that divide the part from `start` of length `extent` (in fractions of an axis of `from`
/// cells): what it is made of.
fn taps(from: usize, start: f64, extent: f64, to: usize) -> Vec<Taps> {
    let step = extent * from as f64 / to as f64;
    let support = step.max(1.0);
    let cell = |j: usize| {
        // In units of given cells, of which cell `i` has its centre at `i`.
        let centre = start * from as f64 + (j as f64 + 0.5) * step - 0.5;
        let (first, last) = ((centre - support).ceil() as i64, (centre + support).floor() as i64);
        let mut taps: Vec<(usize, f64)> = Vec::new();
        for i in first..=last {
            let weight = 1.0 - (i as f64 - centre).abs() / support;
            let inside = i.clamp(0, from as i64 - 1) as usize;
            match taps.last_mut() {
                Some((last, sum)) if *last == inside => *sum += weight,
                _ if weight > 0.0 => taps.push((inside, weight)),
                _ => {}
            }
        }
        let total: f64 = taps.iter().map(|(_, weight)| weight).sum();
        taps.into_iter().map(|(i, weight)| (i, (weight / total) as f32)).collect()
    };
    (0..to).map(cell).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A map of one slot.
    fn map(rows: usize, cols: usize, values: &[f32]) -> ScoreMap {
        ScoreMap::new(Grid::new(1, rows, cols).unwrap(), values.to_vec()).unwrap()
    }

    #[test]
    fn the_same_grid_has_one_tap_of_weight_one() {
        for cells in [1, 7, 14, 24] {
            let expected: Vec<Taps> = (0..cells).map(|i| vec![(i, 1.0)]).collect();
            assert_eq!(taps(cells, 0.0, 1.0, cells), expected);
        }
    }

    #[test]
    fn doubling_is_bilinear_with_flat_borders() {
        let expected =
            [vec![(0, 1.0)], vec![(0, 0.75), (1, 0.25)], vec![(0, 0.25), (1, 0.75)], vec![(1, 1.0)]];
        assert_eq!(taps(2, 0.0, 1.0, 4), expected);
    }

    #[test]
    fn rows_and_columns_are_not_mixed_up() {
        let map = map(2, 3, &[0.0, 1.0, 2.0, 4.0, 5.0, 6.0]);
        let finer = map.resampled(4, 3).unwrap();
        assert_eq!(finer.values(), [0.0, 1.0, 2.0, 1.0, 2.0, 3.0, 3.0, 4.0, 5.0, 4.0, 5.0, 6.0]);
        let mirrored = map.seen_through(&Region::WHOLE, true, 2, 3).unwrap();
        assert_eq!(mirrored.values(), [2.0, 1.0, 0.0, 6.0, 5.0, 4.0]);
    }

    #[test]
    fn each_slot_is_resampled_by_itself_and_a_map_on_its_own_grid_stays_as_it_is() {
        let values: Vec<f32> = (0..3 * 5 * 7).map(|i| (i as f32).sin()).collect();
        let map = ScoreMap::new(Grid::new(3, 5, 7).unwrap(), values).unwrap();
        assert_eq!(map.resampled(5, 7).unwrap(), map);
        let other = map.resampled(9, 4).unwrap();
        assert_eq!(other.grid(), Grid::new(3, 9, 4).unwrap());
        for slot in 0..3 {
            let alone = ScoreMap::new(Grid::new(1, 5, 7).unwrap(), map.slot(slot).to_vec()).unwrap();
            assert_eq!(other.slot(slot), alone.resampled(9, 4).unwrap().values());
        }
    }

    #[test]
    fn regions_outside_the_frame_empty_grids_and_opposite_infinities_are_refused() {
        let map = map(1, 2, &[f32::INFINITY, f32::NEG_INFINITY]);
        for (left, width) in [(-0.1, 0.5), (0.6, 0.5), (0.0, 0.0), (f64::NAN, 1.0)] {
            let region = Region { left, width, ..Region::WHOLE };
            let error = map.seen_through(&region, false, 1, 2).unwrap_err();
            assert!(matches!(error, MaskError::Region { .. }), "{error}");
        }
        assert_eq!(map.resampled(0, 2), Err(MaskError::Grid { slots: 1, rows: 0, cols: 2 }));
        assert_eq!(map.resampled(1, 2).unwrap(), map);
        assert!(matches!(map.resampled(1, 4), Err(MaskError::NotANumber { index: 1, .. })));
    }

    #[test]
    fn shrinking_counts_every_cell_and_weights_add_up_to_one() {
        for (from, start, extent, to) in
            [(14, 0.0, 1.0, 7), (24, 0.1, 0.8, 5), (9, 0.5, 0.5, 1), (3, 0.3, 0.1, 8)]
        {
            let all = taps(from, start, extent, to);
            assert_eq!(all.len(), to);
            for taps in &all {
                assert!((taps.iter().map(|(_, weight)| weight).sum::<f32>() - 1.0).abs() < 1e-6, "{taps:?}");
            }
            let (first, last) =
                ((start * from as f64).ceil() as usize, ((start + extent) * from as f64) as usize);
            for cell in first..last {
                assert!(all.iter().flatten().any(|&(i, weight)| i == cell && weight > 0.0), "cell {cell}");
            }
        }
    }
}
