//! Exact random access to the frames of a file.

use std::path::Path;

use serde::{Deserialize, Serialize};
use video_rs::ffmpeg::codec::Id;
use video_rs::ffmpeg::frame::Video;
use video_rs::ffmpeg::picture;

use crate::color::RgbConverter;
use crate::decode::Decoding;
use crate::index::{EntryPoint, FrameIndex, Stamps};
use crate::probe::{Probe, Source};
use crate::scan::scan;
use crate::vectors::motion_vectors;
use crate::{Frame, MotionVector, VideoError};

/// What to read from a file, and the limits that keep a bad one from taking the machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ReadOptions {
    /// Whether frames carry the codec's motion vectors. Costs a little time.
    pub motion_vectors: bool,
    /// Most pixels in a frame (default 8192 × 4320).
    pub max_pixels: u64,
    /// Most frames in a file (default 1,000,000).
    pub max_frames: usize,
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
            allow_truncated: false,
            allow_damaged: false,
        }
    }
}

impl ReadOptions {
    pub(crate) fn check_size(&self, path: &Path, width: u32, height: u32) -> Result<(), VideoError> {
        if u64::from(width) * u64::from(height) <= self.max_pixels {
            return Ok(());
        }
        Err(VideoError::TooLarge { path: path.to_owned(), width, height, max_pixels: self.max_pixels })
    }
}

/// Reads any frames of a video file, byte for byte as decoding it from the beginning would return them.
///
/// A frame is found by its presentation time stamp, never by counting, so variable frame rates, edit lists and seeking
/// cannot shift it. One reader decodes on one thread; use several readers for several files.
pub struct VideoReader {
    source: Source,
    options: ReadOptions,
    index: FrameIndex,
    decoding: Decoding,
    converter: RgbConverter,
    place: Place,
    /// Packets that failed in decoders that have been replaced.
    past_errors: usize,
}

/// Where decoding stands.
#[derive(Clone, Copy, Debug)]
enum Place {
    /// The demuxer is somewhere else: seek or start again.
    Unknown,
    /// Frames from `entered` on decode; `last` was the last one to come out.
    Running { entered: usize, last: Option<usize> },
}

/// Ways to reach a frame, cheapest first.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Approach {
    Continue,
    Seek,
    Restart,
}

/// Packets that are decoded and thrown away sooner than seeking over them.
const SEEK_PAYS: u32 = 8;
/// Frames the H.264 decoder can hold back at most.
const MAX_REORDER: usize = 16;

impl VideoReader {
    /// Opens a file and indexes its frames.
    ///
    /// # Errors
    /// Whatever [`probe`](crate::probe) reports; [`VideoError::Decoder`], [`VideoError::TooLarge`],
    /// [`VideoError::TooManyFrames`], [`VideoError::NoFrames`], [`VideoError::Truncated`].
    pub fn open(path: &Path, options: &ReadOptions) -> Result<Self, VideoError> {
        let mut source = Source::open(path, options)?;
        let index = scan(&mut source, options)?;
        Self::with_source(source, index, options)
    }

    /// Opens a file whose index is known already, which saves the scan.
    ///
    /// The index must be that of this very file: of another one, frames are not found or are the wrong ones.
    ///
    /// # Errors
    /// As [`open`](Self::open), less those of the scan.
    pub fn open_with_index(
        path: &Path,
        index: FrameIndex,
        options: &ReadOptions,
    ) -> Result<Self, VideoError> {
        if index.is_empty() {
            return Err(VideoError::NoFrames { path: path.to_owned() });
        }
        Self::with_source(Source::open(path, options)?, index, options)
    }

    fn with_source(source: Source, index: FrameIndex, options: &ReadOptions) -> Result<Self, VideoError> {
        let decoding = Decoding::open(&source, options, reorder(&source, &index))?;
        Ok(Self {
            source,
            options: options.clone(),
            index,
            decoding,
            converter: RgbConverter::default(),
            place: Place::Unknown,
            past_errors: 0,
        })
    }

    /// What the file's headers say.
    pub fn probe(&self) -> &Probe {
        &self.source.probe
    }

    /// When each frame is shown.
    pub fn index(&self) -> &FrameIndex {
        &self.index
    }

    /// Packets that did not decode so far, over all reads.
    pub fn decode_errors(&self) -> usize {
        self.past_errors + self.decoding.errors()
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
        let mut wanted = frames.to_vec();
        wanted.sort_unstable();
        wanted.dedup();
        if let Some(&frame) = wanted.last().filter(|frame| **frame >= self.index.len()) {
            return Err(VideoError::FrameOutOfRange {
                path: self.path().to_owned(),
                frame,
                frames: self.index.len(),
            });
        }
        let mut made = Vec::with_capacity(wanted.len());
        for &number in &wanted {
            made.push((number, map(self.frame(number)?)?));
        }
        let position = |number: &usize| wanted.partition_point(|w| w < number);
        Ok(frames.iter().map(|number| made[position(number)].1.clone()).collect())
    }

    fn path(&self) -> &Path {
        &self.source.path
    }

    fn seconds(&self, frame: usize) -> f64 {
        self.index.seconds(frame).unwrap_or(f64::NAN)
    }

    fn frame(&mut self, number: usize) -> Result<Frame, VideoError> {
        let decoded = self.decode(number)?;
        let (width, height) = self.source.orientation.size(decoded.width(), decoded.height());
        self.options.check_size(self.path(), width, height)?;
        let rgb = self
            .converter
            .convert(&decoded, self.source.orientation)
            .map_err(|format| VideoError::PixelFormat { path: self.path().to_owned(), format })?;
        let motion = (self.options.motion_vectors && self.source.probe.has_codec_motion)
            .then(|| self.motion(&decoded, number));
        let pts = self.index.pts(number).unwrap_or_default();
        let seconds = self.seconds(number);
        Ok(Frame { rgb, width, height, number, pts, seconds, damaged: is_damaged(&decoded), motion })
    }

    fn motion(&self, decoded: &Video, number: usize) -> Vec<MotionVector> {
        // FFmpeg's H.263 family leaves the vectors of B-frames unset: what is exported is of some earlier frame.
        if decoded.kind() == picture::Type::B
            && !matches!(self.source.codec, Id::H264 | Id::MPEG1VIDEO | Id::MPEG2VIDEO)
        {
            return Vec::new();
        }
        motion_vectors(decoded, self.index.reference_distance(number), self.source.orientation)
    }

    /// Decodes one frame, by the cheapest approach that delivers it undamaged.
    fn decode(&mut self, number: usize) -> Result<Video, VideoError> {
        let entry = match self.index.stamps() {
            Stamps::Packets => self.index.entry_point(number),
            Stamps::Decoded => None,
        };
        for approach in [Approach::Continue, Approach::Seek, Approach::Restart] {
            let ready = match approach {
                Approach::Continue => self.can_continue(number, entry),
                Approach::Seek => entry.is_some_and(|entry| self.seek(entry)),
                Approach::Restart => self.restart().map(|()| true)?,
            };
            let Some(frame) = ready.then(|| self.run_to(number)).flatten() else { continue };
            if !is_damaged(&frame) || approach == Approach::Restart && self.options.allow_damaged {
                return Ok(frame);
            }
            if approach == Approach::Restart {
                let (path, seconds) = (self.path().to_owned(), self.seconds(number));
                return Err(VideoError::Damaged { path, frame: number, seconds });
            }
        }
        Err(VideoError::Undecodable {
            path: self.path().to_owned(),
            frame: number,
            seconds: self.seconds(number),
            errors: self.decode_errors(),
        })
    }

    /// Whether the frame is still to come, and no entry point on the way would save much decoding.
    fn can_continue(&self, number: usize, entry: Option<EntryPoint>) -> bool {
        let Place::Running { entered, last } = self.place else { return false };
        let comes = number >= entered && last.is_none_or(|last| number > last);
        let fed = self
            .decoding
            .fed()
            .and_then(|pts| self.index.find(pts))
            .map_or(0, |frame| self.index.order(frame));
        comes && entry.is_none_or(|entry| entry.order <= fed + SEEK_PAYS)
    }

    fn seek(&mut self, entry: EntryPoint) -> bool {
        let moved = self.decoding.seek(&mut self.source, &self.index, entry);
        self.place = if moved { Place::Running { entered: entry.frame, last: None } } else { Place::Unknown };
        moved
    }

    fn restart(&mut self) -> Result<(), VideoError> {
        self.place = Place::Unknown;
        self.source.reopen(&self.options)?;
        self.past_errors += self.decoding.errors();
        self.decoding = Decoding::open(&self.source, &self.options, reorder(&self.source, &self.index))?;
        self.place = Place::Running { entered: 0, last: None };
        Ok(())
    }

    /// Decodes on until this frame comes out; `None` if a later one or the end comes first.
    fn run_to(&mut self, number: usize) -> Option<Video> {
        while let Some(frame) = self.decoding.next_frame(&mut self.source) {
            let Place::Running { entered, last } = self.place else { return None };
            let current = match self.index.stamps() {
                Stamps::Packets => frame.pts().and_then(|pts| self.index.find(pts)),
                Stamps::Decoded => Some(last.map_or(0, |last| last + 1)),
            };
            let Some(current) = current else { continue };
            self.place = Place::Running { entered, last: Some(current) };
            match current.cmp(&number) {
                std::cmp::Ordering::Less => {}
                std::cmp::Ordering::Equal => return Some(frame),
                std::cmp::Ordering::Greater => return None,
            }
        }
        self.place = Place::Unknown;
        None
    }
}

fn reorder(source: &Source, index: &FrameIndex) -> usize {
    match (source.codec, index.stamps()) {
        (Id::H264, Stamps::Packets) => index.reorder_depth().min(MAX_REORDER),
        _ => 0,
    }
}

fn is_damaged(frame: &Video) -> bool {
    frame.is_corrupt() || frame.has_decode_errors()
}
