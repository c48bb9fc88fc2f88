//! From a row of the manifest to its clips.

use std::sync::Arc;

use rand::RngExt;
use tgm_masking::{Grid, MotionField};
use tgm_random::Streams;
use tgm_video::{
    Clip, Crop, CropBox, Frame, MotionGrid, ReadOptions, VideoError, VideoFile, View, block_motion,
    motion_grid,
};

use super::config::{ClipConfig, LoaderConfig, MotionSource, TestViews};
use super::sample::Sample;
use super::source::{Cache, Cut, frames_of_row};
use super::{LoaderError, RowError, Subset};
use crate::index_store::IndexStore;
use crate::manifest::Row;

/// Makes clips; shared by the workers.
pub(super) struct Maker {
    pub data: Subset,
    config: ClipConfig,
    grid: Grid,
    options: ReadOptions,
    cache: Cache,
}

impl Maker {
    pub fn new(data: &Subset, config: &ClipConfig, loader: &LoaderConfig) -> Result<Arc<Self>, LoaderError> {
        loader.validate()?;
        Ok(Arc::new(Self {
            data: data.clone(),
            config: config.clone(),
            grid: config.grid()?,
            options: config.read_options(),
            cache: Cache::new(
                loader.cache_mb << 20,
                IndexStore::load(data.manifest().file(), loader.index_mb << 20),
            ),
        }))
    }

    /// A training clip; all that is random comes from the streams of this epoch and number.
    pub fn train(
        &self,
        row: Row<'_>,
        streams: &Streams,
        epoch: u64,
        number: u64,
    ) -> Result<Sample, RowError> {
        let stream = |purpose| streams.stream(purpose, epoch, number);
        let file = row.video();
        let mut source = self.cache.open(row.path(), &file, &self.options)?;
        let range = frames_of_row(&row, source.index())?;
        let numbers = self.config.sampling.train(range.len(), &mut stream("sampling"));
        let numbers: Vec<usize> = numbers.iter().map(|number| range.start + number).collect();
        let size = self.config.size;
        let cut = source.read(&numbers, |width, height| {
            let crop = self.config.crop.choose(width, height, size, &mut stream("crop"))?;
            let flipped = stream("flip").random_bool(self.config.flip);
            Ok(self.with_whole(vec![View { crop, size, flipped }], width, height))
        })?;
        let mut sample = self.samples(row, &file, cut)?.remove(0);
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
    ) -> Result<Vec<Sample>, RowError> {
        let file = row.video();
        let mut source = self.cache.open(row.path(), &file, &self.options)?;
        let range = frames_of_row(&row, source.index())?;
        let times: Vec<Vec<usize>> = (0..views.views)
            .map(|time| self.config.sampling.test_view(range.len(), time, views.views))
            .map(|numbers| numbers.into_iter().map(|number| range.start + number).collect())
            .collect();
        // Views overlap and interleave: each frame is decoded once, in order, for all of them.
        let mut wanted: Vec<usize> = times.concat();
        wanted.sort_unstable();
        wanted.dedup();
        let size = self.config.size;
        let all = source.read(&wanted, |width, height| {
            // These crops draw nothing.
            let rng = &mut Streams::new(0).stream("crop", 0, 0);
            let view = |crop| View { crop, size, flipped: false };
            let chosen = crops.iter().map(|crop| crop.choose(width, height, size, rng).map(view));
            Ok(self.with_whole(chosen.collect::<Result<_, _>>()?, width, height))
        })?;
        let place = |number: &usize| wanted.partition_point(|other| other < number);
        let mut samples = Vec::with_capacity(views.views * crops.len());
        for (time, numbers) in times.iter().enumerate() {
            let cut = all.pick(&numbers.iter().map(place).collect::<Vec<_>>())?;
            for (space, sample) in self.samples(row, &file, cut)?.into_iter().enumerate() {
                let number = first + samples.len() as u64;
                samples.push(Sample { number, view: (time, space), ..sample });
            }
        }
        Ok(samples)
    }

    /// The views, and behind them that of the whole frame if it is wanted.
    fn with_whole(&self, mut views: Vec<View>, width: u32, height: u32) -> Vec<View> {
        if self.config.whole_frames {
            let crop = CropBox::whole(width, height);
            views.push(View { crop, size: self.config.size, flipped: false });
        }
        views
    }

    /// One sample per view, but for that of the whole frame, which belongs to all of them.
    fn samples(&self, row: Row<'_>, file: &VideoFile, cut: Cut) -> Result<Vec<Sample>, RowError> {
        let Cut { mut clips, frames, views } = cut;
        let whole = if self.config.whole_frames { clips.pop() } else { None };
        let sample = |(clip, view): (Clip, &View)| {
            self.config.tubelet.grid(&clip)?;
            let (motion_source, motion) = self.motion(&frames, view, &clip, file)?;
            Ok(Sample {
                row: row.index() as u32,
                path: row.path().to_owned(),
                epoch: 0,
                number: 0,
                view: (0, 0),
                frames: frames.iter().map(|frame| frame.number).collect(),
                frame_size: frames.first().map_or((0, 0), |frame| (frame.width, frame.height)),
                crop: view.crop,
                flipped: view.flipped,
                clip,
                whole: whole.clone(),
                grid: self.grid,
                tubelet: self.config.tubelet,
                normalization: self.config.normalization,
                motion,
                motion_source,
                caption: row.captions().next().map(str::to_owned),
                label: row.label(),
            })
        };
        clips.into_iter().zip(&views).map(sample).collect()
    }

    fn motion(
        &self,
        frames: &[Frame],
        view: &View,
        clip: &Clip,
        file: &VideoFile,
    ) -> Result<(MotionSource, Option<MotionField>), RowError> {
        let shape = self.config.tubelet;
        let exported = frames.iter().any(|frame| frame.motion.is_some());
        let any = frames.iter().flat_map(|frame| &frame.motion).any(|vectors| !vectors.is_empty());
        let source = match self.config.motion {
            MotionSource::Codec if !exported => {
                return Err(RowError::NoCodecMotion { file: file.name().to_owned() });
            }
            MotionSource::Auto if any => MotionSource::Codec,
            MotionSource::Auto => MotionSource::Blocks,
            asked => asked,
        };
        let MotionGrid { vectors, .. } = match source {
            MotionSource::None => return Ok((source, None)),
            MotionSource::Codec => motion_grid(frames, view, shape)?,
            MotionSource::Auto | MotionSource::Blocks => block_motion(clip, shape, self.config.block_radius)?,
        };
        Ok((source, Some(MotionField::new(self.grid, vectors)?)))
    }
}

/// Reads from a video, once more if that took too long: a machine that stalled must not change what a run is trained on or
/// scored with.
///
/// # Errors
/// Those of the second time, or of the first for any other reason.
pub fn patiently<T>(mut make: impl FnMut() -> Result<T, RowError>) -> Result<T, RowError> {
    match make() {
        Err(RowError::Video(VideoError::TooSlow { .. })) => make(),
        done => done,
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[test]
    fn a_clip_that_took_too_long_once_is_made_again() {
        let slow = || RowError::Video(VideoError::TooSlow { path: "a.mp4".into(), max_seconds: 60.0 });
        let broken = || RowError::NoCodecMotion { file: "a.mp4".into() };
        // How often a clip is made whose first tries end like this, and whether there is one in the end.
        let made = |tries: [Option<fn() -> RowError>; 3]| {
            let times = Cell::new(0);
            let result = patiently(|| {
                times.set(times.get() + 1);
                tries[times.get() - 1].map_or(Ok(()), |error| Err(error()))
            });
            (times.get(), result.is_ok())
        };
        assert_eq!(made([None; 3]), (1, true));
        assert_eq!(made([Some(slow), None, None]), (2, true));
        assert_eq!(made([Some(slow); 3]), (2, false));
        assert_eq!(made([Some(broken), None, None]), (1, false));
    }
}
