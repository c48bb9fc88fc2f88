//! Score maps on another grid.
//!
//! Bilinear onto a finer grid. Onto a coarser one the triangle is as wide as a wanted cell, so that every cell counts
//! (`torch.nn.functional.interpolate(…, mode="bilinear", align_corners=False, antialias=True)`). Beyond the border the
//! outermost cells are repeated.

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

    pub(crate) fn is_part_of_a_frame(&self) -> bool {
        // The end of a crop at the border, computed from pixels, may round to a little beyond 1.
        let inside = |start: f64, extent: f64| start >= 0.0 && extent > 0.0 && start + extent <= 1.0 + 1e-9;
        inside(self.left, self.width) && inside(self.top, self.height)
    }
}

/// From maps of one grid to the cells of another one that divides a region.
pub(crate) struct Resampling {
    cols: usize,
    vertical: Vec<Taps>,
    horizontal: Vec<Taps>,
}

impl Resampling {
    /// From grids of `from` to `to` (rows, columns).
    pub fn new(from: (usize, usize), region: &Region, to: (usize, usize)) -> Self {
        Self {
            cols: from.1,
            vertical: taps(from.0, region.top, region.height, to.0),
            horizontal: taps(from.1, region.left, region.width, to.1),
        }
    }

    /// Left becomes right.
    pub fn mirror(&mut self) {
        self.horizontal.reverse();
    }

    /// Appends the new map of a map. The whole of a map on its own grid is that map, to the bit.
    pub fn append(&self, map: &[f32], to: &mut Vec<f32>) {
        let cols = self.horizontal.len();
        let narrowed: Vec<f32> = map
            .chunks_exact(self.cols)
            .flat_map(|row| self.horizontal.iter().map(|taps| weigh(taps, |j| row[j])))
            .collect();
        for taps in &self.vertical {
            to.extend((0..cols).map(|j| weigh(taps, |i| narrowed[i * cols + j])));
        }
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
        let mut map = Vec::new();
        Resampling::new((2, 3), &Region::WHOLE, (4, 3)).append(&[0.0, 1.0, 2.0, 4.0, 5.0, 6.0], &mut map);
        assert_eq!(map, [0.0, 1.0, 2.0, 1.0, 2.0, 3.0, 3.0, 4.0, 5.0, 4.0, 5.0, 6.0]);
        let mut mirrored = Resampling::new((2, 3), &Region::WHOLE, (2, 3));
        mirrored.mirror();
        map.clear();
        mirrored.append(&[0.0, 1.0, 2.0, 4.0, 5.0, 6.0], &mut map);
        assert_eq!(map, [2.0, 1.0, 0.0, 6.0, 5.0, 4.0]);
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
