//! Score maps of one video, and how a crop of the frames sees them.

use half::f16;

use super::CacheError;
use crate::resample::{Region, Resampling};

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
    /// * Space: as in [`ClipModel::score`](crate::ClipModel::score), bilinear where the region has fewer cells than the
    ///   wanted grid and averaged where it has more. Cells beside the region take part; beyond the frame the outermost are
    ///   repeated.
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
        let invalid =
            |what, got, expected: &str| CacheError::Invalid { what, got, expected: expected.to_owned() };
        if !region.is_part_of_a_frame() {
            let expected = "a part of the frame, in fractions of its sides";
            return Err(invalid("region", format!("{region:?}"), expected));
        }
        if rows == 0 || cols == 0 {
            return Err(invalid("score grid", format!("{rows}×{cols}"), "at least 1×1"));
        }
        let mut resampling = Resampling::new((self.rows, self.cols), region, (rows, cols));
        if flipped {
            resampling.mirror();
        }
        let mut scores = Vec::with_capacity(times.len() * rows * cols);
        for &time in times {
            if !time.is_finite() {
                return Err(invalid("time", time.to_string(), "seconds"));
            }
            resampling.append(&self.at(time), &mut scores);
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
