//! Score maps of one video, and how a crop of the frames sees them.

use half::f16;

use super::CacheError;

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

    fn check(&self) -> Result<(), CacheError> {
        // The end of a crop at the border, computed from pixels, may round to a little beyond 1.
        let inside = |start: f64, extent: f64| start >= 0.0 && extent > 0.0 && start + extent <= 1.0 + 1e-9;
        if inside(self.left, self.width) && inside(self.top, self.height) {
            return Ok(());
        }
        Err(CacheError::Invalid {
            what: "region",
            got: format!("{self:?}"),
            expected: "a part of the frame, in fractions of its sides".into(),
        })
    }
}

/// Score maps `[frames, rows, cols]` of whole frames, stored as f16 (scores lie in ±2, so that they are off by 2⁻¹¹ at
/// most), and the time of each frame.
#[derive(Clone, Debug, PartialEq)]
pub struct Maps {
    pub(super) times: Vec<f64>,
    pub(super) rows: usize,
    pub(super) cols: usize,
    pub(super) values: Vec<f16>,
}

impl Maps {
    /// Maps from the scores `[frames, rows, cols]` that [`ClipModel::score`](crate::ClipModel::score) gives for whole
    /// frames, and the times of these frames in seconds.
    ///
    /// # Errors
    /// [`CacheError::Invalid`] unless there is at least one frame, times increase, every frame has `rows · cols` scores,
    /// and all of them are finite in f16.
    pub fn new(times: Vec<f64>, (rows, cols): (usize, usize), scores: &[f32]) -> Result<Self, CacheError> {
        let values = scores.iter().map(|&score| f16::from_f32(score)).collect();
        Self { times, rows, cols, values }.checked()
    }

    pub(super) fn checked(self) -> Result<Self, CacheError> {
        let invalid =
            |what, got, expected: &str| Err(CacheError::Invalid { what, got, expected: expected.to_owned() });
        let increasing =
            self.times.windows(2).all(|pair| pair[0] < pair[1]) && self.times.iter().all(|t| t.is_finite());
        if self.times.is_empty() || !increasing {
            return invalid("times of frames", format!("{:?}", self.times), "one or more, increasing");
        }
        let expected = self.rows.checked_mul(self.cols).and_then(|n| n.checked_mul(self.times.len()));
        if self.values.is_empty() || expected != Some(self.values.len()) {
            let expected = format!("{} frames of {}×{}", self.times.len(), self.rows, self.cols);
            return invalid("scores", format!("{} values", self.values.len()), &expected);
        }
        if let Some(value) = self.values.iter().find(|value| !value.is_finite()) {
            return invalid("score", value.to_string(), "a finite number");
        }
        Ok(self)
    }

    /// Times of the frames in seconds, increasing.
    pub fn times(&self) -> &[f64] {
        &self.times
    }

    /// Rows and columns of each map.
    pub fn grid(&self) -> (usize, usize) {
        (self.rows, self.cols)
    }

    /// All scores `[frames, rows, cols]` as stored.
    pub fn to_f32(&self) -> Vec<f32> {
        self.values.iter().map(|value| value.to_f32()).collect()
    }

    /// The scores `[times, rows, cols]` of a view of the video: the maps go through the same steps as the pixels, which
    /// are cut to `region`, resized to the grid and, if `flipped`, mirrored left to right.
    ///
    /// * Space: bilinear where the region has fewer cells than the wanted grid, and with the triangle widened to the
    ///   size of a wanted cell where it has more, so that every cached cell counts (`antialias=True` in PyTorch). Cells
    ///   beside the region take part; beyond the frame the outermost are repeated.
    /// * Time: linear between the two cached frames around a time; before the first and after the last frame, that frame.
    ///
    /// The whole frame on the cached grid at a cached time is the stored map, to the bit. What CLIP would see in the
    /// *cropped* picture differs from this by the context that the crop removes.
    ///
    /// # Errors
    /// [`CacheError::Invalid`] for a region outside the frame, an empty grid or a time that is no number.
    pub fn crop(
        &self,
        region: &Region,
        flipped: bool,
        (rows, cols): (usize, usize),
        times: &[f64],
    ) -> Result<Vec<f32>, CacheError> {
        region.check()?;
        let invalid =
            |what, got, expected: &str| CacheError::Invalid { what, got, expected: expected.to_owned() };
        if rows == 0 || cols == 0 {
            return Err(invalid("score grid", format!("{rows}×{cols}"), "at least 1×1"));
        }
        let vertical = taps(self.rows, region.top, region.height, rows);
        let mut horizontal = taps(self.cols, region.left, region.width, cols);
        if flipped {
            horizontal.reverse();
        }
        let mut scores = Vec::with_capacity(times.len() * rows * cols);
        for &time in times {
            if !time.is_finite() {
                return Err(invalid("time", time.to_string(), "seconds"));
            }
            let map = self.at(time);
            let narrowed: Vec<f32> = map
                .chunks_exact(self.cols)
                .flat_map(|row| horizontal.iter().map(|taps| weigh(taps, |j| row[j])))
                .collect();
            for taps in &vertical {
                scores.extend((0..cols).map(|j| weigh(taps, |i| narrowed[i * cols + j])));
            }
        }
        Ok(scores)
    }

    /// The map at a time, `[rows, cols]`.
    fn at(&self, time: f64) -> Vec<f32> {
        let after = self.times.partition_point(|&t| t <= time);
        let frame = |i: usize| {
            let cells = self.rows * self.cols;
            self.values[i * cells..][..cells].iter().map(|value| value.to_f32())
        };
        if after == 0 {
            return frame(0).collect();
        }
        let before = after - 1;
        if after == self.times.len() || self.times[before] == time {
            return frame(before).collect();
        }
        let share = (time - self.times[before]) / (self.times[after] - self.times[before]);
        let share = share as f32;
        frame(before).zip(frame(after)).map(|(a, b)| a + (b - a) * share).collect()
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
        // In units of cached cells, of which cell `i` has its centre at `i`.
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
