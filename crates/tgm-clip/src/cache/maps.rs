//! Score maps of one video, and how a crop of the frames sees them.

use half::f16;
use tgm_masking::{Grid, Region, ScoreMap};

use super::CacheError;

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
    /// * Space: [`ScoreMap::seen_through`], bilinear where the region has fewer cells than the wanted grid and averaged
    ///   where it has more, as in [`ClipModel::score`](crate::ClipModel::score).
    /// * Time: linear between the two cached frames around a time; before the first and after the last frame, that frame.
    ///
    /// The whole frame on the cached grid at a cached time is the stored map, to the bit. What CLIP would see in the
    /// *cropped* picture differs from this by the context that the crop removes.
    ///
    /// # Errors
    /// [`CacheError::Map`] for a region outside the frame or an empty grid, [`CacheError::Invalid`] for a time that is no
    /// number.
    pub fn crop(
        &self,
        region: &Region,
        flipped: bool,
        (rows, cols): (usize, usize),
        times: &[f64],
    ) -> Result<Vec<f32>, CacheError> {
        if let Some(time) = times.iter().find(|time| !time.is_finite()) {
            let expected = "seconds".to_owned();
            return Err(CacheError::Invalid { what: "time", got: time.to_string(), expected });
        }
        if times.is_empty() {
            return Ok(Vec::new());
        }
        let whole = times.iter().flat_map(|&time| self.at(time)).collect();
        let whole = ScoreMap::new(Grid::new(times.len(), self.rows, self.cols)?, whole)?;
        Ok(whole.seen_through(region, flipped, rows, cols)?.into_values())
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
