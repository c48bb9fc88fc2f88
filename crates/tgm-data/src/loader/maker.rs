//! From a row of the manifest to its clips.

use std::path::Path;
use std::sync::Arc;

use rand::{Rng, RngExt};
use tgm_masking::{Grid, MotionField};
use tgm_random::Streams;
use tgm_video::{
    Clip, Crop, CropBox, Frame, MotionGrid, ReadOptions, View, block_motion, motion_grid, patchify,
};

use super::config::{ClipConfig, LoaderConfig, MotionSource, TestViews};
use super::sample::Sample;
use super::source::Cache;
use super::{ClipError, LoaderError, Subset};
use crate::manifest::Row;

/// Makes clips; shared by the workers.
pub(super) struct Maker {
    pub data: Subset,
    config: ClipConfig,
    grid: Grid,
    options: ReadOptions,
    cache: Cache,
}

/// What is taken from a video: these frames, seen so.
struct Cut<'a> {
    frames: &'a [Frame],
    view: View,
}

impl Maker {
    pub fn new(data: &Subset, config: &ClipConfig, loader: &LoaderConfig) -> Result<Arc<Self>, LoaderError> {
        loader.validate()?;
        Ok(Arc::new(Self {
            data: data.clone(),
            config: config.clone(),
            grid: config.grid()?,
            options: config.read_options(),
            cache: Cache::new(loader.cache_mb << 20),
        }))
    }

    /// A training clip; all that is random comes from the streams of this epoch and number.
    pub fn train(
        &self,
        row: Row<'_>,
        streams: &Streams,
        epoch: u64,
        number: u64,
    ) -> Result<Sample, ClipError> {
        let stream = |purpose| streams.stream(purpose, epoch, number);
        let file = row.file();
        let mut source = self.cache.open(row.path(), &file, &self.options)?;
        let range = source.range(&file, row.start(), row.end())?;
        let numbers = self.config.sampling.train(range.len(), &mut stream("sampling"));
        let frames = source.read(&numbers.iter().map(|number| range.start + number).collect::<Vec<_>>())?;
        let crop = self.crop(&self.config.crop, &frames, &mut stream("crop"))?;
        let flipped = stream("flip").random_bool(self.config.flip);
        let view = View { crop, size: self.config.size, flipped };
        let mut sample = self.sample(row, &file, &Cut { frames: &frames, view })?;
        let captions: Vec<&str> = row.captions().collect();
        if !captions.is_empty() {
            sample.caption = Some(captions[stream("caption").random_range(0..captions.len())].to_owned());
        }
        Ok(Sample { epoch, number, ..sample })
    }

    /// All test clips of a row, time before space. `first` is the number of the first.
    pub fn test(
        &self,
        row: Row<'_>,
        views: TestViews,
        crops: &[Crop],
        first: u64,
    ) -> Result<Vec<Sample>, ClipError> {
        let file = row.file();
        let mut source = self.cache.open(row.path(), &file, &self.options)?;
        let range = source.range(&file, row.start(), row.end())?;
        let mut samples = Vec::with_capacity(views.views * crops.len());
        for time in 0..views.views {
            let numbers = self.config.sampling.test_view(range.len(), time, views.views);
            let frames =
                source.read(&numbers.iter().map(|number| range.start + number).collect::<Vec<_>>())?;
            for (space, crop) in crops.iter().enumerate() {
                // These crops draw nothing.
                let crop = self.crop(crop, &frames, &mut Streams::new(0).stream("crop", 0, 0))?;
                let view = View { crop, size: self.config.size, flipped: false };
                let sample = self.sample(row, &file, &Cut { frames: &frames, view })?;
                let number = first + samples.len() as u64;
                samples.push(Sample { number, view: (time, space), ..sample });
            }
        }
        Ok(samples)
    }

    fn crop(&self, crop: &Crop, frames: &[Frame], rng: &mut impl Rng) -> Result<CropBox, ClipError> {
        // The range is not empty, and sampling from it gives at least one frame.
        let (width, height) = frames.first().map_or((0, 0), |frame| (frame.width, frame.height));
        Ok(crop.choose(width, height, self.config.size, rng)?)
    }

    fn sample(&self, row: Row<'_>, file: &Path, cut: &Cut<'_>) -> Result<Sample, ClipError> {
        let clip = Clip::from_frames(cut.frames, &cut.view)?;
        let tubelets = patchify(&clip, self.config.tubelet, &self.config.normalization)?;
        let motion = self.motion(cut, &clip, file)?;
        Ok(Sample {
            row: row.index() as u32,
            path: row.path().to_owned(),
            epoch: 0,
            number: 0,
            view: (0, 0),
            frames: cut.frames.iter().map(|frame| frame.number).collect(),
            frame_size: cut.frames.first().map_or((0, 0), |frame| (frame.width, frame.height)),
            crop: cut.view.crop,
            flipped: cut.view.flipped,
            clip,
            grid: self.grid,
            tubelets,
            motion,
            caption: row.captions().next().map(str::to_owned),
            label: row.label(),
        })
    }

    fn motion(&self, cut: &Cut<'_>, clip: &Clip, file: &Path) -> Result<Option<MotionField>, ClipError> {
        let shape = self.config.tubelet;
        let exported = cut.frames.iter().any(|frame| frame.motion.is_some());
        let any = cut.frames.iter().flat_map(|frame| &frame.motion).any(|vectors| !vectors.is_empty());
        let codec = || motion_grid(cut.frames, &cut.view, shape);
        let blocks = || block_motion(clip, shape, self.config.block_radius);
        let MotionGrid { vectors, .. } = match self.config.motion {
            MotionSource::None => return Ok(None),
            MotionSource::Codec if !exported => {
                return Err(ClipError::NoCodecMotion { file: file.to_owned() });
            }
            MotionSource::Codec => codec()?,
            MotionSource::Auto if any => codec()?,
            MotionSource::Auto | MotionSource::Blocks => blocks()?,
        };
        Ok(Some(MotionField::new(self.grid, vectors)?))
    }
}
