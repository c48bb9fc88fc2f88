//! Motion-guided masking by a rectangle that follows the motion.

use std::f64::consts::TAU;

use rand::{Rng, RngExt};
use serde::{Deserialize, Serialize};

use crate::{
    Cues, Grid, Mask, MaskError, MotionField,
    masking::{check, positive},
    select::top_k,
};

/// Settings of [`Masking::MotionBox`](crate::Masking::MotionBox).
///
/// After MGM (arXiv 2308.12962), whose code was not released: what the abstract does not say is decided here.
///
/// * **Size**: the same in all slots. The height is the one nearest to the aspect, the width the least that
///   makes room for the k tubelets to mask. k rarely fills a rectangle: the surplus, less than one column,
///   stays visible and is taken from the rectangle's border, the slowest tubelets first.
/// * **Place**: in each slot where the summed speed is largest; among equal places, nearest to the centre of
///   the motion, so that a small object is hidden with a margin around it.
/// * **No motion**: a slot in which all places are equal (nothing moves, all moves alike, or the frames are
///   intra-coded) keeps the place of the slot before. Such slots at the start of a clip take the first place
///   found in it, since what will move is already there; a clip without any gets one random place.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "kebab-case", deny_unknown_fields)]
pub struct MotionBoxConfig {
    /// Share of tubelets masked in each slot. Default 0.75 (MGM's, as TGM reports it).
    pub ratio: f64,
    /// Width / height of the rectangle in cells, where the grid is large enough for it. Default 1; MGM's is
    /// not known.
    pub aspect: f64,
    /// What moves the rectangle. Default `motion`, as in MGM.
    pub path: BoxPath,
    /// Whether the camera's motion ([`MotionField::without_global_motion`]) is left out. Default false: MGM
    /// is said to take the codec's vectors as they are. Before a panning background it is worth having: there the
    /// rectangle at ratio 0.25 hides 61 % of a moving object with it and 20 % without (`tgm bench localise`).
    pub remove_global_motion: bool,
    /// Greatest speed of the `simulated` path, in cells per slot; 0 keeps the rectangle where it is. Default
    /// 1; MGM's is not known.
    pub drift: f64,
}

impl Default for MotionBoxConfig {
    fn default() -> Self {
        Self { ratio: 0.75, aspect: 1.0, path: BoxPath::Motion, remove_global_motion: false, drift: 1.0 }
    }
}

/// What moves the rectangle.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BoxPath {
    /// The motion in the clip.
    #[default]
    Motion,
    /// Nothing in the clip: from a random place the rectangle drifts at a random constant velocity, and is
    /// reflected at the edges. The baseline that tells what following the motion is worth.
    Simulated,
}

impl MotionBoxConfig {
    pub(crate) const NAME: &'static str = "motion-box";

    pub(crate) const fn needs_motion(&self) -> bool {
        matches!(self.path, BoxPath::Motion)
    }

    pub(crate) fn validate(&self) -> Result<(), MaskError> {
        positive(Self::NAME, "aspect", self.aspect)?;
        let drift = self.drift;
        check(drift >= 0.0 && drift.is_finite(), Self::NAME, "drift", drift, "finite and not negative")
    }

    /// Masks `k` tubelets of each slot: the rectangle of that slot less its surplus.
    pub(crate) fn mask(
        &self,
        grid: Grid,
        k: usize,
        cues: &Cues<'_>,
        rng: &mut impl Rng,
    ) -> Result<Mask, MaskError> {
        let window = Window::new(grid, k, self.aspect);
        let (speeds, places) = match self.path {
            BoxPath::Motion => {
                let speeds = speeds(cues.motion_for(grid, Self::NAME)?, self.remove_global_motion);
                let places = speeds.chunks(grid.cells()).map(|slot| window.place_by_motion(slot)).collect();
                (speeds, fill_gaps(places, || window.random_place(rng)))
            }
            BoxPath::Simulated => (vec![0.0; grid.len()], window.drift(self.drift, rng)),
        };
        let masked = (0..grid.slots()).zip(places).flat_map(|(slot, place)| {
            let (border, interior) = window.cells(slot, place);
            let border_left = k - interior.len();
            interior.into_iter().chain(top_k(border, border_left, |i| speeds[i as usize], rng))
        });
        Mask::from_masked(grid, masked.collect())
    }
}

/// The speed of each tubelet, in double precision so that the sum of large ones is still finite.
fn speeds(motion: &MotionField, remove_global_motion: bool) -> Vec<f64> {
    let local = remove_global_motion.then(|| motion.without_global_motion());
    let vectors = local.as_ref().unwrap_or(motion).vectors();
    // Not `hypot`, whose last bit depends on the platform; squares of f32 cannot overflow here.
    vectors.iter().map(|&[dx, dy]| (f64::from(dx).powi(2) + f64::from(dy).powi(2)).sqrt()).collect()
}

/// Row and column of a rectangle's first cell.
type Place = (usize, usize);

/// Gives each slot without a place that of the slot before, or else the first place there is, or else
/// `fallback`.
fn fill_gaps(places: Vec<Option<Place>>, fallback: impl FnOnce() -> Place) -> Vec<Place> {
    let mut current = places.iter().flatten().next().copied().unwrap_or_else(fallback);
    places
        .into_iter()
        .map(|place| {
            current = place.unwrap_or(current);
            current
        })
        .collect()
}

/// A rectangle of fixed size on the slots of a grid.
struct Window {
    grid: Grid,
    height: usize,
    width: usize,
}

impl Window {
    /// The rectangle of about this aspect that has room for `k` cells, and for less than one column more.
    fn new(grid: Grid, k: usize, aspect: f64) -> Self {
        // At least the height at which the rectangle is as wide as the grid: at most `rows`, for k < cells.
        let height =
            ((k as f64 / aspect).sqrt().round() as usize).clamp(k.div_ceil(grid.cols()), grid.rows());
        Self { grid, height, width: k.div_ceil(height) }
    }

    /// The last place the rectangle can take; the first is (0, 0).
    fn last_place(&self) -> Place {
        (self.grid.rows() - self.height, self.grid.cols() - self.width)
    }

    fn random_place(&self, rng: &mut impl Rng) -> Place {
        let (rows, cols) = self.last_place();
        (rng.random_range(0..=rows), rng.random_range(0..=cols))
    }

    /// One place per slot on a straight way from a random place, folded back at the edges.
    fn drift(&self, max_speed: f64, rng: &mut impl Rng) -> Vec<Place> {
        let (start, last) = (self.random_place(rng), self.last_place());
        let (speed, angle) = (max_speed * rng.random::<f64>(), TAU * rng.random::<f64>());
        let (dy, dx) = (speed * angle.sin(), speed * angle.cos());
        let at = |slot: usize| {
            let time = slot as f64;
            (fold(start.0 as f64 + dy * time, last.0), fold(start.1 as f64 + dx * time, last.1))
        };
        (0..self.grid.slots()).map(at).collect()
    }

    /// The place with the largest sum of speeds, or none if all places are equal.
    fn place_by_motion(&self, speeds: &[f64]) -> Option<Place> {
        let (sums, last) = (SummedArea::new(speeds, self.grid.cols()), self.last_place());
        let places = || (0..=last.0).flat_map(|row| (0..=last.1).map(move |col| (row, col)));
        let sum = |place: Place| sums.sum(place, self.height, self.width);
        let (least, most) = places()
            .map(sum)
            .fold((f64::INFINITY, 0.0f64), |(least, most), sum| (least.min(sum), most.max(sum)));
        // Far above the rounding of a sum, far below the least step of a motion vector.
        let tolerance = 1e-9 * sums.total();
        if most - least <= tolerance {
            return None;
        }
        let centre = self.centre_of_motion(speeds);
        let distance_squared = |(row, col): Place| {
            let (y, x) = (row as f64 + self.height as f64 / 2.0, col as f64 + self.width as f64 / 2.0);
            (y - centre.0).powi(2) + (x - centre.1).powi(2)
        };
        places()
            .filter(|&place| sum(place) >= most - tolerance)
            .min_by(|&a, &b| distance_squared(a).total_cmp(&distance_squared(b)))
    }

    /// The mean position of a slot's cells, weighted by speed.
    fn centre_of_motion(&self, speeds: &[f64]) -> (f64, f64) {
        let (mut y, mut x, mut total) = (0.0, 0.0, 0.0);
        for (cell, speed) in speeds.iter().enumerate() {
            y += speed * ((cell / self.grid.cols()) as f64 + 0.5);
            x += speed * ((cell % self.grid.cols()) as f64 + 0.5);
            total += speed;
        }
        (y / total, x / total)
    }

    /// The rectangle's tubelets at a place of a slot: those on its border, and those inside.
    ///
    /// The border alone has more cells than the surplus, which is less than the height.
    fn cells(&self, slot: usize, (top, left): Place) -> (Vec<u32>, Vec<u32>) {
        let (bottom, right) = (top + self.height - 1, left + self.width - 1);
        (top..=bottom)
            .flat_map(|row| (left..=right).map(move |col| self.grid.index(slot, row, col)))
            .partition(|&index| {
                let (_, row, col) = self.grid.position(index);
                row == top || row == bottom || col == left || col == right
            })
    }
}

/// The cell nearest to a real coordinate that runs to and fro between 0 and `last`.
fn fold(coordinate: f64, last: usize) -> usize {
    if last == 0 {
        return 0;
    }
    let last = last as f64;
    let phase = coordinate.rem_euclid(2.0 * last);
    phase.min(2.0 * last - phase).round() as usize
}

/// Sums over any rectangle of a slot in constant time.
struct SummedArea {
    sums: Vec<f64>,
    stride: usize,
}

impl SummedArea {
    fn new(values: &[f64], cols: usize) -> Self {
        let stride = cols + 1;
        let mut sums = vec![0.0; (values.len() / cols + 1) * stride];
        for (cell, value) in values.iter().enumerate() {
            let at = (cell / cols + 1) * stride + cell % cols + 1;
            sums[at] = value + sums[at - 1] + sums[at - stride] - sums[at - stride - 1];
        }
        Self { sums, stride }
    }

    fn sum(&self, (row, col): Place, height: usize, width: usize) -> f64 {
        let at = |row, col| self.sums[row * self.stride + col];
        at(row + height, col + width) + at(row, col) - at(row, col + width) - at(row + height, col)
    }

    fn total(&self) -> f64 {
        self.sums[self.sums.len() - 1]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_window_has_room_for_k_cells_and_for_less_than_a_column_more() {
        for (rows, cols) in [(14, 14), (1, 9), (9, 1), (3, 7), (7, 3)] {
            let grid = Grid::new(1, rows, cols).unwrap();
            for k in 1..grid.cells() {
                for aspect in [1e-9, 0.5, 1.0, 16.0 / 9.0, 1e9] {
                    let Window { height, width, .. } = Window::new(grid, k, aspect);
                    assert!(height <= rows && width <= cols, "{height}×{width} on {grid}");
                    assert!((k..k + height).contains(&(height * width)), "{height}×{width} for {k}");
                }
            }
        }
    }

    #[test]
    fn the_window_has_the_aspect_asked_for_where_the_grid_allows() {
        let size = |aspect| {
            let window = Window::new(Grid::new(1, 14, 14).unwrap(), 72, aspect);
            (window.height, window.width)
        };
        assert_eq!([size(1.0), size(2.0), size(0.5), size(100.0)], [(8, 9), (6, 12), (12, 6), (6, 12)]);
    }

    #[test]
    fn sums_over_rectangles_are_those_of_their_cells() {
        let values: Vec<f64> = (0..35).map(|i| f64::from(i * i % 11)).collect();
        let sums = SummedArea::new(&values, 7);
        let naive = |row: usize, col: usize, height, width| -> f64 {
            (row..row + height)
                .flat_map(|r| (col..col + width).map(move |c| r * 7 + c))
                .map(|i| values[i])
                .sum()
        };
        assert_eq!(sums.total(), naive(0, 0, 5, 7));
        assert_eq!(sums.sum((1, 2), 3, 4), naive(1, 2, 3, 4));
        assert_eq!(sums.sum((4, 6), 1, 1), naive(4, 6, 1, 1));
    }

    #[test]
    fn a_folded_coordinate_runs_to_and_fro() {
        let path: Vec<_> = (-2..8).map(|t| fold(f64::from(t), 3)).collect();
        assert_eq!(path, [2, 1, 0, 1, 2, 3, 2, 1, 0, 1]);
        assert_eq!(fold(1e300, 0), 0);
    }

    #[test]
    fn slots_without_a_place_take_the_one_before_or_the_first_known_or_the_fallback() {
        let (a, b) = (Some((1, 1)), Some((2, 2)));
        let filled = fill_gaps(vec![None, a, None, b, None], || (0, 0));
        assert_eq!(filled, [(1, 1), (1, 1), (1, 1), (2, 2), (2, 2)]);
        assert_eq!(fill_gaps(vec![None, None], || (3, 3)), [(3, 3); 2]);
    }
}
