//! What a clip is made of, and how many threads make it.

use serde::{Deserialize, Serialize};
use tgm_masking::Grid;
use tgm_video::{Crop, Normalization, ReadOptions, Sampling, TubeletShape};

use super::LoaderError;

/// From a video to the tubelets of a clip.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ClipConfig {
    /// Which frames. Default: 16 frames, 4 apart (VideoMAE on Kinetics).
    pub sampling: Sampling,
    /// Which part of the picture. Default: VideoMAE's multi-scale crop. Not used for evaluation, whose crops are
    /// those of [`TestViews`].
    pub crop: Crop,
    /// Probability of a mirrored clip. Default 0, as in VideoMAE's released pre-training. Leave it there where
    /// left and right make a difference to the label or the caption. Not used for evaluation.
    pub flip: f64,
    /// Width and height of the clip in pixels. Default 224.
    pub size: u32,
    /// The size of a tubelet. Default 2 frames of 16 × 16 pixels.
    pub tubelet: TubeletShape,
    /// What is subtracted from the pixels and what they are divided by. Default: ImageNet's statistics.
    pub normalization: Normalization,
    /// Hand over the whole frames, too, resized to `size`: for a guide that looks at all of the picture. Default false.
    /// `tgm` sets it for `text.view = "frame"`.
    pub whole_frames: bool,
    /// Where the motion of the tubelets comes from. Default: nowhere.
    pub motion: MotionSource,
    /// How far block matching looks, in pixels of the clip from one frame of it to the next; less than `size`. Default 8.
    pub block_radius: usize,
    /// A video with more pixels in a frame is bad. Default 8192 × 4320.
    pub max_pixels: u64,
    /// A video with more frames is bad. Default 1,000,000.
    pub max_frames: usize,
    /// A video that lasts longer than this is bad. Seconds; default 86,400, a day.
    pub max_duration: f64,
    /// A video that takes longer than this to open, or to read a clip from, is bad. Seconds; default 60. A training clip is
    /// tried twice. Runs are the same only as long as this does not strike: it depends on the machine. Raise it where it does
    /// on good videos.
    pub max_seconds: f64,
    /// Use what is there of a file that ends too early; by default it is bad.
    pub allow_truncated: bool,
    /// Use frames whose damage the decoder concealed; by default the video is bad.
    pub allow_damaged: bool,
}

impl Default for ClipConfig {
    fn default() -> Self {
        let ReadOptions {
            max_pixels,
            max_frames,
            max_duration,
            max_seconds,
            allow_truncated,
            allow_damaged,
            ..
        } = ReadOptions::default();
        Self {
            sampling: Sampling::Dense { frames: 16, stride: 4 },
            crop: Crop::multi_scale(),
            flip: 0.0,
            size: 224,
            tubelet: TubeletShape::default(),
            normalization: Normalization::IMAGENET,
            whole_frames: false,
            motion: MotionSource::None,
            block_radius: 8,
            max_pixels,
            max_frames,
            max_duration,
            max_seconds,
            allow_truncated,
            allow_damaged,
        }
    }
}

/// Where the motion of the tubelets comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MotionSource {
    /// It is not wanted.
    None,
    /// The codec's motion vectors; a video whose codec has none is a bad video.
    Codec,
    /// Block matching on the pixels of the clip.
    Blocks,
    /// The codec's vectors, or block matching for clips in which there are none.
    Auto,
}

impl ClipConfig {
    /// Refuses values from which no clip can be made. Loaders do so before they start.
    ///
    /// # Errors
    /// As [`Self::grid`].
    pub fn validate(&self) -> Result<(), LoaderError> {
        self.grid().map(drop)
    }

    /// The tubelet grid of every clip.
    ///
    /// # Errors
    /// [`LoaderError::BadConfig`] or [`LoaderError::Video`], with key and value, when a value is impossible or the tubelets do not
    /// tile the clip; [`LoaderError::Grid`] when they are too many.
    pub fn grid(&self) -> Result<Grid, LoaderError> {
        self.sampling.validate()?;
        self.crop.validate()?;
        self.normalization.validate()?;
        self.read_options().validate()?;
        if !(0.0..=1.0).contains(&self.flip) {
            return Err(bad("flip", self.flip, "a probability, 0 to 1"));
        }
        let (frames, size, tubelet) = (self.sampling.frames(), self.size as usize, self.tubelet);
        if tubelet.frames == 0 || !frames.is_multiple_of(tubelet.frames) {
            return Err(bad(
                "tubelet.frames",
                tubelet.frames,
                format!("a divisor of the clip's {frames} frames"),
            ));
        }
        if size == 0 || tubelet.patch == 0 || !size.is_multiple_of(tubelet.patch) {
            return Err(bad(
                "tubelet.patch",
                tubelet.patch,
                format!("a divisor of the clip's {size} pixels"),
            ));
        }
        let matched = matches!(self.motion, MotionSource::Blocks | MotionSource::Auto);
        if matched && self.block_radius >= size {
            let allowed = format!("below the clip's {size} pixels");
            return Err(bad("block_radius", self.block_radius, allowed));
        }
        let side = size / tubelet.patch;
        Ok(Grid::new(frames / tubelet.frames, side, side)?)
    }

    /// How videos are opened and read for these clips.
    pub fn read_options(&self) -> ReadOptions {
        ReadOptions {
            motion_vectors: matches!(self.motion, MotionSource::Codec | MotionSource::Auto),
            max_pixels: self.max_pixels,
            max_frames: self.max_frames,
            max_duration: self.max_duration,
            max_seconds: self.max_seconds,
            allow_truncated: self.allow_truncated,
            allow_damaged: self.allow_damaged,
        }
    }
}

/// How the loader works. None of this changes what it yields.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LoaderConfig {
    /// Threads that decode; 0 (the default) for one per core.
    pub workers: usize,
    /// Batches (training) or videos per worker (evaluation) that are made ahead. Default 2. A clip of 16 frames of
    /// 224 × 224 takes 12 MB.
    pub prefetch: usize,
    /// Memory for decoded videos, in MiB. A video that fits in what is left of it is decoded whole once and
    /// stays; the others are decoded for each clip. Default 0.
    pub cache_mb: usize,
    /// Memory for the frame indices of videos, in MiB: a video whose index is known opens faster. `data check` keeps
    /// indices beside the manifest. Default 64, enough for ten million frames.
    pub index_mb: usize,
    /// Training stops when more than this share of the videos it tried is bad. Default 0.1.
    pub max_bad_share: f64,
    /// How many other rows may stand in for a bad one before training stops. Default 16.
    pub max_replacements: u32,
}

impl Default for LoaderConfig {
    fn default() -> Self {
        Self { workers: 0, prefetch: 2, cache_mb: 0, index_mb: 64, max_bad_share: 0.1, max_replacements: 16 }
    }
}

/// More threads or views than anybody has use for; what they take is memory.
const MAX_WORKERS: usize = 1024;
const MAX_VIEWS: usize = 100;

/// More batches ahead than any memory has room for; the list of jobs alone takes as much time and memory as it is long.
const MAX_PREFETCH: usize = 10_000;

impl LoaderConfig {
    /// Refuses values with which no loader can work. Loaders do so before they start.
    ///
    /// # Errors
    /// [`LoaderError::BadConfig`] with key and value.
    pub fn validate(&self) -> Result<(), LoaderError> {
        if self.workers > MAX_WORKERS {
            return Err(bad(
                "workers",
                self.workers,
                format!("at most {MAX_WORKERS}, or 0 for one per core"),
            ));
        }
        if self.prefetch > MAX_PREFETCH {
            return Err(bad("prefetch", self.prefetch, format!("at most {MAX_PREFETCH}")));
        }
        for (key, mebibytes) in [("cache_mb", self.cache_mb), ("index_mb", self.index_mb)] {
            if mebibytes > usize::MAX >> 20 {
                return Err(bad(key, mebibytes, format!("at most {}", usize::MAX >> 20)));
            }
        }
        if !(0.0..=1.0).contains(&self.max_bad_share) {
            return Err(bad("max_bad_share", self.max_bad_share, "a share, 0 to 1"));
        }
        Ok(())
    }

    pub(crate) fn threads(&self) -> usize {
        match self.workers {
            0 => std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
            workers => workers,
        }
    }
}

/// The clips that evaluation takes from each video: `views` in time times `crops` in space.
///
/// VideoMAE tests Kinetics with 5 × 3 and Something-Something with 2 × 3.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TestViews {
    /// Clips in time, at least 1.
    pub views: usize,
    /// Crops of each: 1 (centre) or 3 (along the long side).
    pub crops: usize,
}

impl Default for TestViews {
    /// One clip, one crop.
    fn default() -> Self {
        Self { views: 1, crops: 1 }
    }
}

impl TestViews {
    /// Whether there are such views.
    ///
    /// # Errors
    /// [`LoaderError::BadConfig`].
    pub fn validate(&self) -> Result<(), LoaderError> {
        self.crops().map(drop)
    }

    pub(crate) fn crops(&self) -> Result<Vec<Crop>, LoaderError> {
        if !(1..=MAX_VIEWS).contains(&self.views) {
            return Err(bad("views", self.views, format!("1 to {MAX_VIEWS}")));
        }
        match self.crops {
            1 => Ok(vec![Crop::Center]),
            3 => Ok((0..3).map(|position| Crop::ThreeCrop { position }).collect()),
            other => Err(bad("crops", other, "1 or 3")),
        }
    }
}

fn bad(key: &'static str, value: impl ToString, allowed: impl Into<String>) -> LoaderError {
    LoaderError::BadConfig { key, value: value.to_string(), allowed: allowed.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// They made a loader that asked for 51 GB, had no limit, or found every video bad.
    #[test]
    fn values_from_which_no_clip_can_be_made_are_refused_by_name() {
        let (good, none) = (ClipConfig::default(), Normalization::NONE);
        let blocks = ClipConfig { motion: MotionSource::Blocks, ..good.clone() };
        for (config, says) in [
            (ClipConfig { block_radius: 224, ..blocks.clone() }, "`block_radius = 224`"),
            (ClipConfig { block_radius: 1 << 32, ..blocks.clone() }, "`block_radius = 4294967296`"),
            (ClipConfig { max_seconds: -1.0, ..good.clone() }, "max_seconds is -1"),
            (ClipConfig { max_seconds: f64::NAN, ..good.clone() }, "max_seconds is NaN"),
            (ClipConfig { max_duration: f64::NAN, ..good.clone() }, "max_duration is NaN"),
            (
                ClipConfig { normalization: Normalization { mean: [f32::NAN; 3], ..none }, ..good.clone() },
                "normalization.mean is [NaN, NaN, NaN]",
            ),
            (
                ClipConfig { normalization: Normalization { std: [1.0, 0.0, 1.0], ..none }, ..good.clone() },
                "normalization.std is [1.0, 0.0, 1.0]",
            ),
        ] {
            let error = config.validate().unwrap_err().to_string();
            assert!(error.contains(says), "{error}");
        }
        for config in [good.clone(), ClipConfig { block_radius: 223, ..blocks }] {
            config.validate().unwrap();
        }
        // What nothing looks at is as good as any other.
        ClipConfig { block_radius: 1 << 32, ..good }.validate().unwrap();
    }

    #[test]
    fn memory_that_cannot_be_counted_and_endless_queues_are_refused_by_name() {
        for (config, says) in [
            (LoaderConfig { prefetch: usize::MAX, ..LoaderConfig::default() }, "`prefetch = "),
            (LoaderConfig { cache_mb: usize::MAX, ..LoaderConfig::default() }, "`cache_mb = "),
            (LoaderConfig { index_mb: usize::MAX, ..LoaderConfig::default() }, "`index_mb = "),
            (LoaderConfig { max_bad_share: f64::NAN, ..LoaderConfig::default() }, "`max_bad_share = NaN`"),
        ] {
            let error = config.validate().unwrap_err().to_string();
            assert!(error.contains(says), "{error}");
        }
        LoaderConfig::default().validate().unwrap();
    }

    #[test]
    fn configurations_survive_toml_and_unknown_keys_do_not() {
        let clips = ClipConfig { motion: MotionSource::Auto, ..ClipConfig::default() };
        assert_eq!(toml::from_str::<ClipConfig>(&toml::to_string(&clips).unwrap()).unwrap(), clips);
        let loader = LoaderConfig::default();
        assert_eq!(toml::from_str::<LoaderConfig>(&toml::to_string(&loader).unwrap()).unwrap(), loader);
        assert_eq!(toml::from_str::<ClipConfig>("").unwrap(), ClipConfig::default());
        let error = toml::from_str::<LoaderConfig>("worker = 2").unwrap_err().to_string();
        assert!(error.contains("worker"), "{error}");
    }
}
