//! Which frames of a video make a clip.
//!
//! The rules are VideoMAE's: one dense window for pre-training, linearly spaced window for fine-tuning, TSN
//! segments (Wang et al., "Temporal Segment Networks") for data sets such as Something-Something.

use rand::{Rng, RngExt};
use serde::{Deserialize, Serialize};

use crate::VideoError;

/// How the frames of a clip are chosen among the `num_frames` frames of a video.
///
/// Both methods return exactly [`frames`](Sampling::frames) frame numbers, in order and below `num_frames`; the
/// last reachable frame repeats when the video is shorter than the clip. A video without frames gives none. What
/// [`validate`](Sampling::validate) refuses is drawn from, too: a stride of 0 is one of 1.
///
/// ```
/// use tgm_video::Sampling;
///
/// let sampling = Sampling::Dense { frames: 4, stride: 2 };
/// assert_eq!(sampling.test_view(20, 0, 3), [0, 2, 4, 6]);
/// assert_eq!(sampling.test_view(20, 2, 3), [12, 14, 16, 18]);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
#[non_exhaustive]
pub enum Sampling {
    /// `frames` frames, `stride` apart, from a random start: VideoMAE's pre-training.
    Dense {
        /// Frames in a clip (16).
        frames: usize,
        /// Source frames from one clip frame to the next (4 for Kinetics, 2 for Something-Something).
        stride: usize,
    },
    /// `frames` frames spread linearly over a random window of `frames * stride`: VideoMAE's fine-tuning on
    /// Kinetics, UCF101 and HMDB51. Test views are those of [`Sampling::Dense`].
    DenseWindow {
        /// Frames in a clip (16).
        frames: usize,
        /// Source frames from one clip frame to the next (4).
        stride: usize,
    },
    /// One frame from each of `frames` equal segments of the whole video (TSN).
    Uniform {
        /// Frames in a clip (16).
        frames: usize,
    },
}

impl Sampling {
    /// Frames in a clip.
    pub fn frames(&self) -> usize {
        match *self {
            Self::Dense { frames, .. } | Self::DenseWindow { frames, .. } | Self::Uniform { frames } => {
                frames
            }
        }
    }

    /// Refuses clips of no frames and strides of zero.
    ///
    /// # Errors
    /// [`VideoError::Invalid`] naming the field.
    pub fn validate(&self) -> Result<(), VideoError> {
        if self.frames() == 0 {
            return Err(VideoError::invalid("sampling.frames", 0, "a clip needs at least one frame"));
        }
        match *self {
            Self::Dense { stride: 0, .. } | Self::DenseWindow { stride: 0, .. } => {
                Err(VideoError::invalid("sampling.stride", 0, "it must be at least 1"))
            }
            _ => Ok(()),
        }
    }

    /// The frames of one training clip.
    ///
    /// * `Dense`: the start is uniform among those that leave room for `frames * stride` frames, else 0.
    /// * `DenseWindow`: a video of at most `frames * stride` frames is sampled linearly once per stride and padded
    ///   with its last frame; a longer one in a window with a random end.
    /// * `Uniform`: a random frame of each segment `[i*n/frames, (i+1)*n/frames)`; a segment without a whole frame
    ///   takes the frame it lies in.
    pub fn train(&self, num_frames: usize, rng: &mut impl Rng) -> Vec<usize> {
        if num_frames == 0 || self.frames() == 0 {
            return Vec::new();
        }
        match *self {
            Self::Dense { frames, stride } => {
                let stride = stride.max(1);
                let room = num_frames.saturating_add(1).saturating_sub(frames.saturating_mul(stride));
                let start = if room > 0 { rng.random_range(0..room) } else { 0 };
                strided(start, frames, stride, num_frames)
            }
            Self::DenseWindow { frames, stride } => window(num_frames, frames, stride.max(1), rng),
            Self::Uniform { frames } => (0..frames)
                .map(|i| {
                    let (start, end) = (share(num_frames, i, frames), share(num_frames, i + 1, frames));
                    if end > start { rng.random_range(start..end) } else { start }
                })
                .collect(),
        }
    }

    /// The frames of test view `view` of `views`; nothing is random.
    ///
    /// * Dense kinds: every `stride`-th frame of the whole video, padded to `frames` with its last; of that list, the
    ///   window at `int(view * (len - frames) / (views - 1))`. A single view is the middle window.
    /// * `Uniform`: each segment contributes `views` evenly spaced frames, and view `v` takes every `views`-th of the
    ///   sorted list, from the `v`-th. For two views these are `{int(tick*x)}` and `{int(tick/2 + tick*x)}` as in the
    ///   reference. A single view takes the segments' centres.
    ///
    /// A view past the last one is the last one.
    pub fn test_view(&self, num_frames: usize, view: usize, views: usize) -> Vec<usize> {
        if num_frames == 0 || self.frames() == 0 {
            return Vec::new();
        }
        let views = views.max(1);
        let view = view.min(views - 1);
        match *self {
            Self::Dense { frames, stride } | Self::DenseWindow { frames, stride } => {
                let stride = stride.max(1);
                let spare = num_frames.div_ceil(stride).saturating_sub(frames);
                let start = if views == 1 { spare / 2 } else { share(spare, view, views - 1) };
                strided(start * stride, frames, stride, num_frames)
            }
            Self::Uniform { frames } => {
                let tick = num_frames as f64 / frames as f64;
                let phase = if views == 1 { 0.5 } else { view as f64 / views as f64 };
                // That list is sorted: phases grow within a segment and segments follow one another.
                let at = |x: usize| (tick * phase + tick * x as f64) as usize;
                (0..frames).map(|x| at(x).min(num_frames - 1)).collect()
            }
        }
    }
}

/// `whole * part / parts`, rounded down, without the product in between that need not fit.
fn share(whole: usize, part: usize, parts: usize) -> usize {
    (whole as u128 * part as u128 / parts as u128) as usize
}

/// `frames` frame numbers from `start`, `stride` apart; the last one inside the video repeats.
fn strided(start: usize, frames: usize, stride: usize, num_frames: usize) -> Vec<usize> {
    let reachable = (num_frames - 1).saturating_sub(start) / stride;
    (0..frames).map(|i| start + i.min(reachable) * stride).collect()
}

fn window(num_frames: usize, frames: usize, stride: usize, rng: &mut impl Rng) -> Vec<usize> {
    let span = frames.saturating_mul(stride);
    if num_frames <= span {
        let whole = linspace(0, num_frames, num_frames / stride, num_frames - 1);
        return whole.chain(std::iter::repeat(num_frames - 1)).take(frames).collect();
    }
    let end = rng.random_range(span..num_frames);
    linspace(end - span, end, frames, end - 1).collect()
}

/// `count` numbers from `start` to `end` inclusive, rounded down and cut at `last`.
fn linspace(start: usize, end: usize, count: usize, last: usize) -> impl Iterator<Item = usize> {
    let steps = count.saturating_sub(1).max(1);
    (0..count).map(move |i| (start + share(end - start, i, steps)).min(last))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use tgm_random::Streams;

    fn any_sampling() -> impl Strategy<Value = Sampling> {
        prop_oneof![
            (1..40usize, 1..9usize).prop_map(|(frames, stride)| Sampling::Dense { frames, stride }),
            (1..40usize, 1..9usize).prop_map(|(frames, stride)| Sampling::DenseWindow { frames, stride }),
            (1..40usize).prop_map(|frames| Sampling::Uniform { frames }),
        ]
    }

    proptest! {
        #[test]
        fn clips_have_the_asked_length_and_stay_inside_in_order(
            sampling in any_sampling(), n in 1..400usize, seed: u64, views in 1..7usize, view in 0..7usize,
        ) {
            let train = sampling.train(n, &mut Streams::new(seed).stream("frames", 0, 0));
            for clip in [train, sampling.test_view(n, view, views)] {
                prop_assert_eq!(clip.len(), sampling.frames());
                prop_assert!(clip.is_sorted());
                prop_assert!(clip.iter().all(|&f| f < n));
            }
        }

        #[test]
        fn dense_clips_keep_their_stride_when_there_is_room(n in 64..400usize, seed: u64) {
            let clip = Sampling::Dense { frames: 16, stride: 4 }.train(n, &mut Streams::new(seed).stream("frames", 0, 0));
            prop_assert!(clip.windows(2).all(|w| w[1] - w[0] == 4));
            prop_assert!(clip[0] + 64 <= n);
        }
    }

    #[test]
    fn a_short_video_repeats_its_last_reachable_frame() {
        let rng = &mut Streams::new(0).stream("frames", 0, 0);
        assert_eq!(Sampling::Dense { frames: 6, stride: 3 }.train(8, rng), [0, 3, 6, 6, 6, 6]);
        assert_eq!(Sampling::DenseWindow { frames: 6, stride: 3 }.train(8, rng), [0, 7, 7, 7, 7, 7]);
        assert_eq!(Sampling::Uniform { frames: 6 }.train(3, rng), [0, 0, 1, 1, 2, 2]);
    }

    #[test]
    fn every_dense_start_is_possible() {
        let mut starts: Vec<usize> = (0..400)
            .map(|i| {
                Sampling::Dense { frames: 4, stride: 2 }
                    .train(12, &mut Streams::new(3).stream("frames", 0, i))[0]
            })
            .collect();
        starts.sort_unstable();
        starts.dedup();
        assert_eq!(starts, [0, 1, 2, 3, 4]);
    }

    #[test]
    fn dense_test_views_start_at_even_points_of_the_strided_video() {
        let sampling = Sampling::Dense { frames: 16, stride: 4 };
        // 300 frames: 75 strided ones, 59 to spare.
        let starts: Vec<usize> = (0..5).map(|v| sampling.test_view(300, v, 5)[0] / 4).collect();
        assert_eq!(starts, [0, 14, 29, 44, 59]);
        assert_eq!(sampling.test_view(300, 4, 5)[15], 296);
    }

    #[test]
    fn two_uniform_test_views_are_segment_starts_and_centres() {
        let sampling = Sampling::Uniform { frames: 16 };
        let tick = 100.0 / 16.0;
        let starts: Vec<usize> = (0..16).map(|x| (tick * x as f64) as usize).collect();
        let centres: Vec<usize> = (0..16).map(|x| (tick / 2.0 + tick * x as f64) as usize).collect();
        assert_eq!(sampling.test_view(100, 0, 2), starts);
        assert_eq!(sampling.test_view(100, 1, 2), centres);
        assert_eq!(sampling.test_view(100, 0, 1), centres);
    }

    /// A stride of 0 reached the frame behind the last one, and large products overflowed.
    #[test]
    fn impossible_settings_stay_inside_the_video_too() {
        let rng = &mut Streams::new(0).stream("frames", 0, 0);
        for frames in [0, 4] {
            for stride in [0, 1, usize::MAX / 2, usize::MAX] {
                for sampling in [
                    Sampling::Dense { frames, stride },
                    Sampling::DenseWindow { frames, stride },
                    Sampling::Uniform { frames },
                ] {
                    for n in [1, 10, usize::MAX] {
                        let views = [(0, 1), (2, 3), (usize::MAX, usize::MAX)]
                            .map(|(view, views)| sampling.test_view(n, view, views));
                        let train = (0..200).map(|_| sampling.train(n, rng));
                        for clip in train.chain(views) {
                            assert_eq!(clip.len(), frames, "{sampling:?}");
                            assert!(
                                clip.is_sorted() && clip.iter().all(|&f| f < n),
                                "{sampling:?}: {clip:?}"
                            );
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn a_config_is_tagged_by_kind_and_knows_its_keys() {
        let parsed: Sampling = serde_json::from_str(r#"{"kind":"dense","frames":16,"stride":4}"#).unwrap();
        assert_eq!(parsed, Sampling::Dense { frames: 16, stride: 4 });
        assert!(serde_json::from_str::<Sampling>(r#"{"kind":"uniform","frames":16,"stride":4}"#).is_err());
        assert!(Sampling::Dense { frames: 0, stride: 4 }.validate().is_err());
        assert!(Sampling::Dense { frames: 1, stride: 0 }.validate().is_err());
    }
}
