//! Motion-guided masking by a random map that the motion carries along.

use rand::{Rng, RngExt};
use serde::{Deserialize, Serialize};

use crate::{
    Grid, Mask, MaskError, MotionField,
    masking::{check, positive},
    select::{top_k, top_k_per_slot},
};

/// Settings of [`Masking::MotionWarp`](crate::Masking::MotionWarp).
///
/// After MGMAE (arXiv 2308.10794 §3.1 and its released code). In a base slot as many cells as shall be
/// visible are chosen at random, and a Gaussian is put at each; the maximum of the Gaussians is the base map.
/// From slot to slot outwards the map is warped along the motion; places that come from outside the picture
/// take the base map's value. In each slot the cells with the highest sums stay visible, so that what is
/// visible, and what is not, moves with the content.
///
/// Differences from the released code:
///
/// * The field has one vector per tubelet, where MGMAE computes optical flow per pixel; the map has
///   [`samples_per_cell`](Self::samples_per_cell)² samples per cell instead of one per pixel.
/// * Backward warping asks at the *target* where its content comes from. The code does so forward in time,
///   but through a misspelt option goes in the wrong direction before the base frame. Here, a sample of slot
///   s takes the value at its place minus the vector forward in time, and plus the vector backward in time,
///   with slot s's own vectors both times.
/// * A hole is a sample whose source lies outside the picture, not one whose value happens to be 0.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "kebab-case", deny_unknown_fields)]
pub struct MotionWarpConfig {
    /// Share of tubelets masked in each slot. Default 0.9, as MGMAE's.
    pub ratio: f64,
    /// The slot in which the map is drawn. Default `middle`, as MGMAE's.
    pub base: BaseSlot,
    /// Radius σ of the Gaussians exp(−(d/σ)²), in cells. Default 1, as MGMAE's 16 pixels.
    pub sigma: f64,
    /// Samples of the map along each side of a cell, 1 to 16. More keep the map sharp when it is warped by
    /// fractions of a cell. Default 4; MGMAE's one per pixel would be 16.
    pub samples_per_cell: usize,
}

impl Default for MotionWarpConfig {
    fn default() -> Self {
        Self { ratio: 0.9, base: BaseSlot::Middle, sigma: 1.0, samples_per_cell: 4 }
    }
}

/// The slot from which the map is warped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BaseSlot {
    /// Slot 0.
    First,
    /// Slot ⌊slots / 2⌋.
    #[default]
    Middle,
    /// Drawn for each mask.
    Random,
}

impl MotionWarpConfig {
    pub(crate) const NAME: &'static str = "motion-warp";

    pub(crate) fn validate(&self) -> Result<(), MaskError> {
        positive(Self::NAME, "sigma", self.sigma)?;
        let samples = self.samples_per_cell;
        check((1..=16).contains(&samples), Self::NAME, "samples-per-cell", samples as f64, "from 1 to 16")
    }

    /// Masks `k` tubelets of each slot: all but those with the highest values of the warped map.
    pub(crate) fn mask(
        &self,
        grid: Grid,
        k: usize,
        motion: &MotionField,
        rng: &mut impl Rng,
    ) -> Result<Mask, MaskError> {
        let base_slot = match self.base {
            BaseSlot::First => 0,
            BaseSlot::Middle => grid.slots() / 2,
            BaseSlot::Random => rng.random_range(0..grid.slots()),
        };
        let visible = grid.cells() - k;
        let centres = top_k(grid.slot(0).collect(), visible, |_| 0.0, rng);
        let base = Map::gaussians(grid, self.samples_per_cell, self.sigma, &centres);

        let mut sums = vec![Vec::new(); grid.slots()];
        sums[base_slot] = base.cell_sums();
        let mut carry = |slots: &mut dyn Iterator<Item = usize>, direction: f32| {
            let mut map = base.clone();
            for slot in slots {
                map = map.warp(motion.slot(slot), direction, &base);
                sums[slot] = map.cell_sums();
            }
        };
        carry(&mut (base_slot + 1..grid.slots()), -1.0);
        carry(&mut (0..base_slot).rev(), 1.0);

        let sums = sums.concat();
        Mask::from_visible(grid, top_k_per_slot(grid, visible, |i| sums[i as usize], rng))
    }
}

/// How visible each place of a slot shall be, sampled at `per_cell²` points per cell.
#[derive(Clone)]
struct Map {
    grid: Grid,
    per_cell: usize,
    height: usize,
    width: usize,
    samples: Vec<f32>,
}

impl Map {
    /// The maximum of Gaussians exp(−(d/σ)²) around the given cells of slot 0, with `sigma` in cells.
    fn gaussians(grid: Grid, per_cell: usize, sigma: f64, centres: &[u32]) -> Self {
        let (height, width) = (grid.rows() * per_cell, grid.cols() * per_cell);
        let mut samples = vec![0.0f32; height * width];
        // A Gaussian is the product of its profiles along the two axes.
        let profile = |length: usize, cell: usize| -> Vec<f32> {
            let distance = |i: usize| (i as f64 + 0.5) / per_cell as f64 - (cell as f64 + 0.5);
            (0..length).map(|i| (-(distance(i) / sigma).powi(2)).exp() as f32).collect()
        };
        for &centre in centres {
            let (_, row, col) = grid.position(centre);
            let (vertical, horizontal) = (profile(height, row), profile(width, col));
            for (line, v) in samples.chunks_exact_mut(width).zip(vertical) {
                line.iter_mut().zip(&horizontal).for_each(|(sample, h)| *sample = sample.max(v * h));
            }
        }
        Self { grid, per_cell, height, width, samples }
    }

    /// The map one slot further: each sample takes the value at its place plus `direction` times its cell's
    /// vector, or its value in `base` if that lies outside.
    fn warp(&self, vectors: &[[f32; 2]], direction: f32, base: &Self) -> Self {
        let scale = direction * self.per_cell as f32;
        let mut samples = Vec::with_capacity(self.samples.len());
        for y in 0..self.height {
            for x in 0..self.width {
                let [dx, dy] = vectors[y / self.per_cell * self.grid.cols() + x / self.per_cell];
                let source = self.at(y as f32 + scale * dy, x as f32 + scale * dx);
                samples.push(source.unwrap_or(base.samples[y * self.width + x]));
            }
        }
        Self { samples, ..*self }
    }

    /// The value between samples by bilinear interpolation, with zeros around the map; none if no sample
    /// contributes.
    fn at(&self, y: f32, x: f32) -> Option<f32> {
        if !(y > -1.0 && y < self.height as f32 && x > -1.0 && x < self.width as f32) {
            return None;
        }
        let (top, left) = (y.floor(), x.floor());
        let (down, right) = (y - top, x - left);
        // One past the edge on either side is outside the map, and nothing further out occurs.
        let value = |y: f32, x: f32| {
            let inside = y >= 0.0 && x >= 0.0 && y < self.height as f32 && x < self.width as f32;
            if inside { self.samples[y as usize * self.width + x as usize] } else { 0.0 }
        };
        let above = (1.0 - right) * value(top, left) + right * value(top, left + 1.0);
        let below = (1.0 - right) * value(top + 1.0, left) + right * value(top + 1.0, left + 1.0);
        Some((1.0 - down) * above + down * below)
    }

    /// The sum over each cell: `[rows × cols]`.
    fn cell_sums(&self) -> Vec<f64> {
        let mut sums = vec![0.0; self.grid.cells()];
        for (i, &sample) in self.samples.iter().enumerate() {
            let (y, x) = (i / self.width, i % self.width);
            sums[y / self.per_cell * self.grid.cols() + x / self.per_cell] += f64::from(sample);
        }
        sums
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map() -> Map {
        Map::gaussians(Grid::new(1, 3, 5).unwrap(), 4, 1.0, &[7, 10])
    }

    #[test]
    fn gaussians_peak_at_their_cells_and_fall_off_by_their_radius() {
        let map = Map::gaussians(Grid::new(1, 3, 5).unwrap(), 1, 2.0, &[7]);
        assert_eq!(map.samples[7], 1.0);
        assert!((map.samples[8] - (-0.25f32).exp()).abs() < 1e-6);
        assert!((map.samples[3] - (-0.5f32).exp()).abs() < 1e-6);
    }

    #[test]
    fn a_warp_by_whole_cells_moves_the_map_and_fills_the_holes() {
        let map = map();
        // Forward in time, content that moves one cell to the right comes from one cell to the left.
        let warped = map.warp(&[[1.0, 0.0]; 15], -1.0, &map);
        for (y, x) in (0..12).flat_map(|y| (0..20).map(move |x| (y, x))) {
            let source = if x < 4 { x } else { x - 4 };
            assert_eq!(warped.samples[y * 20 + x], map.samples[y * 20 + source], "at {y}, {x}");
        }
    }

    #[test]
    fn warping_forward_and_back_restores_the_interior() {
        let map = map();
        let vectors = [[0.5, -0.25]; 15];
        let back = map.warp(&vectors, -1.0, &map).warp(&vectors, 1.0, &map);
        for (y, x) in (1..11).flat_map(|y| (0..18).map(move |x| (y, x))) {
            let (a, b) = (map.samples[y * 20 + x], back.samples[y * 20 + x]);
            assert!((a - b).abs() < 1e-6, "{a} became {b} at {y}, {x}");
        }
    }

    #[test]
    fn interpolation_is_bilinear_with_zeros_outside() {
        let map = Map {
            grid: Grid::new(1, 2, 2).unwrap(),
            per_cell: 1,
            height: 2,
            width: 2,
            samples: vec![1.0, 2.0, 3.0, 4.0],
        };
        assert_eq!(map.at(0.5, 0.5), Some(2.5));
        assert_eq!(map.at(1.0, 1.0), Some(4.0));
        assert_eq!(map.at(-0.5, 0.0), Some(0.5));
        assert_eq!(map.at(1.0, 1.75), Some(1.0));
        assert_eq!((map.at(-1.0, 0.0), map.at(0.0, 2.0), map.at(f32::MAX, 0.0)), (None, None, None));
    }

    #[test]
    fn cell_sums_add_up_to_the_whole_map() {
        let map = map();
        let total: f64 = map.samples.iter().map(|&sample| f64::from(sample)).sum();
        let sums = map.cell_sums();
        assert!((sums.iter().sum::<f64>() - total).abs() < 1e-9);
        assert!((0..15).all(|i| sums[7] >= sums[i]));
    }
}
