//! Exact random access to the frames of a file.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use video_rs::ffmpeg::codec::Id;
use video_rs::ffmpeg::picture;

use crate::clip::Resizer;
use crate::color::RgbConverter;
use crate::deadline::Deadline;
use crate::fetch::{Fetcher, Shot};
use crate::probe::{Depth, Probe, Source};
use crate::scan::scan;
use crate::vectors::motion_vectors;
use crate::{Clip, CropBox, Frame, FrameIndex, MotionVector, VideoError, VideoFile, View};

/// What to read from a file, and the limits that keep a bad one from taking the machine.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ReadOptions {
    /// Whether frames carry the codec's motion vectors. Costs a little time.
    pub motion_vectors: bool,
    /// Most pixels in a frame (default 8192 × 4320).
    pub max_pixels: u64,
    /// Most frames in a file (default 1,000,000).
    pub max_frames: usize,
    /// Most seconds that a video may last, from its first frame to the end of its last (default 86,400, a day).
    pub max_duration: f64,
    /// Longest time in seconds that opening a file, and each reading from it, may take (default 60).
    pub max_seconds: f64,
    /// Read what is there of a file that ends too early, instead of refusing it.
    pub allow_truncated: bool,
    /// Return frames whose damage the decoder concealed, marked, instead of refusing them.
    pub allow_damaged: bool,
}

impl Default for ReadOptions {
    fn default() -> Self {
        Self {
            motion_vectors: false,
            max_pixels: 8192 * 4320,
            max_frames: 1_000_000,
            max_duration: 86_400.0,
            max_seconds: 60.0,
            allow_truncated: false,
            allow_damaged: false,
        }
    }
}

impl ReadOptions {
    /// Refuses times that are none: they would be no limit at all, or one that every file breaks. Infinity is no limit.
    ///
    /// # Errors
    /// [`VideoError::Invalid`] naming the field.
    pub fn validate(&self) -> Result<(), VideoError> {
        for (what, seconds) in [("max_duration", self.max_duration), ("max_seconds", self.max_seconds)] {
            // No comparison holds for NaN.
            if !(0.0..=f64::INFINITY).contains(&seconds) {
                return Err(VideoError::invalid(
                    what,
                    seconds,
                    "it must be 0 s or more (`inf` for no limit)",
                ));
            }
        }
        Ok(())
    }

    pub(crate) fn check_size(&self, path: &Path, width: u32, height: u32) -> Result<(), VideoError> {
        if u64::from(width) * u64::from(height) <= self.max_pixels {
            return Ok(());
        }
        Err(VideoError::TooLarge { path: path.to_owned(), width, height, max_pixels: self.max_pixels })
    }

    fn check_duration(&self, path: &Path, index: &FrameIndex) -> Result<(), VideoError> {
        let seconds = index.duration().unwrap_or(0.0);
        // Time stamps at both ends of their range make a difference that is negative.
        if (0.0..=self.max_duration).contains(&seconds) {
            return Ok(());
        }
        Err(VideoError::TooLong { path: path.to_owned(), seconds, max_duration: self.max_duration })
    }
}

/// Reads any frames of a video file, byte for byte as decoding it from the beginning would return them.
///
/// A frame is found by its presentation time stamp, never by counting, so variable frame rates, edit lists and seeking
/// cannot shift it. One reader decodes on one thread; use several readers for several files.
pub struct VideoReader {
    fetcher: Fetcher,
    converter: RgbConverter,
    resizer: Resizer,
    /// The part of a frame that is being resized.
    part: Vec<u8>,
}

impl fmt::Debug for VideoReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Fetcher { source, options, index, .. } = &self.fetcher;
        f.debug_struct("VideoReader")
            .field("path", &source.path)
            .field("frames", &index.len())
            .field("options", options)
            .finish_non_exhaustive()
    }
}

/// Views of the same frames, made while they were decoded.
#[derive(Clone, Debug, PartialEq)]
pub struct ViewedFrames {
    /// One clip per view.
    pub clips: Vec<Clip>,
    /// The frames in the order asked, *without pixels*: numbers, times, sizes and motion vectors.
    pub frames: Vec<Frame>,
}

impl VideoReader {
    /// Opens a file and indexes its frames.
    ///
    /// # Errors
    /// Whatever [`probe`](crate::probe) reports; [`VideoError::Decoder`], [`VideoError::TooManyFrames`],
    /// [`VideoError::TooLong`], [`VideoError::NoFrames`], [`VideoError::Truncated`].
    pub fn open(file: impl Into<VideoFile>, options: &ReadOptions) -> Result<Self, VideoError> {
        let deadline = Arc::new(Deadline::after(options.max_seconds));
        let mut source = Source::open(file.into(), options, deadline, Depth::Streams)?;
        let index = scan(&mut source, options)?;
        Self::with_source(source, index, options, false)
    }

    /// Opens a file whose index is known already, which saves the scan.
    ///
    /// The index must be that of this very file: of another one, frames are not found or are the wrong ones.
    ///
    /// # Errors
    /// As [`open`](Self::open), less those of the scan.
    pub fn open_with_index(
        file: impl Into<VideoFile>,
        index: FrameIndex,
        options: &ReadOptions,
    ) -> Result<Self, VideoError> {
        let file = file.into();
        if index.is_empty() {
            return Err(VideoError::NoFrames { path: file.name().to_owned() });
        }
        let deadline = Arc::new(Deadline::after(options.max_seconds));
        let source = Source::open(file, options, deadline, Depth::Header)?;
        Self::with_source(source, index, options, true)
    }

    fn with_source(
        source: Source,
        index: FrameIndex,
        options: &ReadOptions,
        at_start: bool,
    ) -> Result<Self, VideoError> {
        options.check_duration(&source.path, &index)?;
        Ok(Self {
            fetcher: Fetcher::new(source, index, options, at_start)?,
            converter: RgbConverter::default(),
            resizer: Resizer::default(),
            part: Vec::new(),
        })
    }

    /// What the file's headers say.
    pub fn probe(&self) -> &Probe {
        &self.fetcher.source.probe
    }

    /// When each frame is shown.
    pub fn index(&self) -> &FrameIndex {
        &self.fetcher.index
    }

    /// Packets that did not decode so far, over all reads.
    pub fn decode_errors(&self) -> usize {
        self.fetcher.errors()
    }

    /// The frames with these numbers in presentation order, in the order asked; numbers may repeat.
    ///
    /// # Errors
    /// [`VideoError::FrameOutOfRange`], [`VideoError::Undecodable`], [`VideoError::Damaged`], [`VideoError::TooLarge`]
    /// and [`VideoError::PixelFormat`], each with the file and the frame.
    pub fn read(&mut self, frames: &[usize]) -> Result<Vec<Frame>, VideoError> {
        self.read_map(frames, Ok)
    }

    /// As [`read`](Self::read), but only what `map` makes of each frame is kept: for clips of large frames.
    ///
    /// `map` sees every distinct frame once, in presentation order.
    ///
    /// # Errors
    /// As [`read`](Self::read), and those of `map`.
    pub fn read_map<T: Clone>(
        &mut self,
        frames: &[usize],
        mut map: impl FnMut(Frame) -> Result<T, VideoError>,
    ) -> Result<Vec<T>, VideoError> {
        let wanted = in_order(frames);
        let mut made = Vec::with_capacity(wanted.len());
        let converter = &mut self.converter;
        self.fetcher.each(&wanted, |shot| {
            let mut frame = shot.without_pixels()?;
            frame.rgb = vec![0; frame.width as usize * frame.height as usize * 3];
            shot.convert(converter, CropBox::whole(frame.width, frame.height), &mut frame.rgb)?;
            made.push(map(frame)?);
            Ok(())
        })?;
        if frames == wanted {
            return Ok(made);
        }
        Ok(frames.iter().map(|frame| made[position(&wanted, *frame)].clone()).collect())
    }

    /// Decodes these frames and throws them away: whether they are all there, undamaged.
    ///
    /// # Errors
    /// As [`read`](Self::read), for the first frame that fails.
    pub fn verify(&mut self, frames: &[usize]) -> Result<(), VideoError> {
        self.fetcher.each(&in_order(frames), |shot| shot.without_pixels().map(drop))
    }

    /// Clips of these frames, one for each view: only what a view shows is converted, and no whole frame is ever made.
    ///
    /// The result is the same bytes as [`read`](Self::read) and [`Clip::from_frames`] give. Several views, as for repeated
    /// augmentation or test crops, share one decoding. Numbers may repeat.
    ///
    /// # Errors
    /// As [`read`](Self::read); [`VideoError::SizeChanged`] when frames differ in size, [`VideoError::Invalid`] when a view
    /// leaves them.
    pub fn read_views(&mut self, frames: &[usize], views: &[View]) -> Result<ViewedFrames, VideoError> {
        let wanted = in_order(frames);
        let frame_bytes = |view: &View| view.size as usize * view.size as usize * 3;
        let blank = |view: &View| Ok(vec![0; view.bytes(wanted.len())?]);
        let mut made: Vec<Vec<u8>> = views.iter().map(blank).collect::<Result<_, VideoError>>()?;
        let mut facts: Vec<Frame> = Vec::with_capacity(wanted.len());
        let Self { fetcher, converter, resizer, part } = self;
        fetcher.each(&wanted, |shot| {
            let frame = shot.without_pixels()?;
            if let Some(first) = facts.first() {
                frame.same_size_as(first)?;
            }
            for (view, made) in views.iter().zip(&mut made) {
                view.check(frame.width, frame.height)?;
                let CropBox { width, height, .. } = view.crop;
                part.resize(width as usize * height as usize * 3, 0);
                shot.convert(converter, view.crop, part)?;
                let target = &mut made[facts.len() * frame_bytes(view)..][..frame_bytes(view)];
                resizer.resize(part, (width, height), CropBox::whole(width, height), view, target)?;
            }
            facts.push(frame);
            Ok(())
        })?;
        let places: Vec<usize> = frames.iter().map(|frame| position(&wanted, *frame)).collect();
        let repeats = frames != wanted;
        let clips = views.iter().zip(made).map(|(view, made)| {
            let data = match repeats {
                true => {
                    let bytes = frame_bytes(view);
                    places.iter().flat_map(|at| &made[at * bytes..][..bytes]).copied().collect()
                }
                false => made,
            };
            let times = places.iter().map(|at| facts[*at].seconds).collect();
            Clip::new(data, view.size as usize, view.size as usize, times)
        });
        let clips = clips.collect::<Result<_, _>>()?;
        Ok(ViewedFrames { clips, frames: places.iter().map(|at| facts[*at].clone()).collect() })
    }
}

/// The distinct numbers, in order.
fn in_order(frames: &[usize]) -> Vec<usize> {
    let mut wanted = frames.to_vec();
    wanted.sort_unstable();
    wanted.dedup();
    wanted
}

fn position(wanted: &[usize], frame: usize) -> usize {
    wanted.partition_point(|wanted| *wanted < frame)
}

impl Shot<'_> {
    /// Everything about the frame but its pixels.
    fn without_pixels(&self) -> Result<Frame, VideoError> {
        let (width, height) = self.source.orientation.size(self.video.width(), self.video.height());
        self.options.check_size(&self.source.path, width, height)?;
        let motion =
            (self.options.motion_vectors && self.source.probe.has_codec_motion).then(|| self.motion());
        let pts = self.index.pts(self.number).unwrap_or_default();
        let seconds = self.index.seconds(self.number).unwrap_or(f64::NAN);
        Ok(Frame {
            rgb: Vec::new(),
            width,
            height,
            number: self.number,
            pts,
            seconds,
            damaged: self.damaged,
            motion,
        })
    }

    fn convert(&self, converter: &mut RgbConverter, part: CropBox, rgb: &mut [u8]) -> Result<(), VideoError> {
        converter
            .convert(self.video, self.source.orientation, part, rgb)
            .map_err(|format| VideoError::PixelFormat { path: self.source.path.clone(), format })
    }

    fn motion(&self) -> Vec<MotionVector> {
        // FFmpeg's H.263 family leaves the vectors of B-frames unset: what is exported is of some earlier frame.
        if self.video.kind() == picture::Type::B
            && !matches!(self.source.codec, Id::H264 | Id::MPEG1VIDEO | Id::MPEG2VIDEO)
        {
            return Vec::new();
        }
        motion_vectors(self.video, self.index.reference_distance(self.number), self.source.orientation)
    }
}
