//! What a file's headers say.

use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use serde::Serialize;
use video_rs::ffmpeg::codec::Id;
use video_rs::ffmpeg::ffi::AV_TIME_BASE;
use video_rs::ffmpeg::{Error, Packet, Rational, Stream, media};

use crate::deadline::Deadline;
use crate::ffi::{self, Demuxer, StreamFacts, Unpacker};
use crate::orientation::Orientation;
use crate::{ReadOptions, Rotation, VideoError, VideoFile, container};

/// What a video file's headers say, without decoding it. Headers may lie: only decoding tells what is there.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Probe {
    /// Number of the video stream in the file; of several, the one FFmpeg takes for the best.
    pub stream: usize,
    /// Displayed width in pixels, after rotation. The pixel aspect ratio is not applied.
    pub width: u32,
    /// Displayed height in pixels, after rotation.
    pub height: u32,
    /// How stored pictures are turned for display.
    pub rotation: Rotation,
    /// Whether stored pictures are mirrored left to right for display, after the rotation.
    pub mirrored: bool,
    /// FFmpeg's name of the container formats, such as `mov,mp4,m4a,3gp,3g2,mj2`.
    pub container: String,
    /// FFmpeg's name of the codec, such as `h264`.
    pub codec: String,
    /// FFmpeg's name of the stored pixel format, such as `yuv420p`.
    pub pixel_format: String,
    /// Average frames per second; 0 if unknown.
    pub average_fps: f64,
    /// Length in seconds, if the container says.
    pub duration: Option<f64>,
    /// Number of frames, if the container says. A hint: truncated files still claim all.
    pub frames_hint: Option<u64>,
    /// Time of the first frame in seconds, as the container says; may be negative.
    pub start_time: Option<f64>,
    /// Whether FFmpeg exports this codec's motion vectors.
    pub has_codec_motion: bool,
    /// Whether frames are, or may be, stored as two interlaced fields.
    pub interlaced: bool,
}

/// Reads a file's headers, within the limits on size and time that reading it would have.
///
/// # Errors
/// [`VideoError::Io`], [`VideoError::Open`], [`VideoError::NoVideoStream`], [`VideoError::Rotation`], [`VideoError::TooLarge`] or
/// [`VideoError::TooSlow`]; [`VideoError::Invalid`] for options that fail [`ReadOptions::validate`].
pub fn probe(file: impl Into<VideoFile>, options: &ReadOptions) -> Result<Probe, VideoError> {
    let deadline = Arc::new(Deadline::after(options.max_seconds));
    Ok(Source::open(file.into(), options, deadline, Depth::Streams)?.probe)
}

/// Sets FFmpeg up, once per process; its messages go to `tracing`.
pub(crate) fn init() -> Result<(), VideoError> {
    static DONE: OnceLock<Result<(), String>> = OnceLock::new();
    DONE.get_or_init(|| video_rs::init().map_err(|error| error.to_string())).clone().map_err(VideoError::Init)
}

/// An open file and its one video stream.
pub(crate) struct Source {
    file: VideoFile,
    /// What messages call the file.
    pub path: PathBuf,
    pub input: Demuxer,
    /// Gives packed B-frames packets of their own.
    unpacker: Option<Unpacker>,
    /// When the call in progress has taken too long.
    pub deadline: Arc<Deadline>,
    pub stream: usize,
    pub time_base: Rational,
    pub codec: Id,
    pub facts: StreamFacts,
    /// The file is shorter than its container says.
    pub cut: bool,
    pub orientation: Orientation,
    pub probe: Probe,
}

/// How much of a file is read when it is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Depth {
    /// Its headers, and what else it takes to know its streams.
    Streams,
    /// The container's header only, where that describes the streams and leaves no choice between them: for files that are
    /// known already.
    Header,
}

/// Containers whose header describes the streams well enough to decode them.
const DESCRIBED_CONTAINERS: [&str; 2] = ["mov", "matroska"];

/// Opens the demuxer and learns about its streams.
fn demux(
    file: &VideoFile,
    options: &ReadOptions,
    deadline: &Arc<Deadline>,
    depth: Depth,
) -> Result<Demuxer, VideoError> {
    let path = || file.name().to_owned();
    let failed = |source| match deadline.is_past() {
        true => VideoError::TooSlow { path: path(), max_seconds: options.max_seconds },
        false => VideoError::Open { path: path(), source },
    };
    let mut input = ffi::open_input(file, deadline).map_err(failed)?;
    let described = input.format().name().split(',').any(|name| DESCRIBED_CONTAINERS.contains(&name));
    // Of several films FFmpeg takes the one of which it read more frames: that of the header alone may be another one.
    let several = input.streams().filter(is_film).count() > 1;
    if depth == Depth::Streams || !described || several {
        ffi::find_stream_info(&mut input, options.max_pixels).map_err(failed)?;
    }
    Ok(input)
}

/// FFmpeg counts a cover picture as a video stream, and may even prefer it.
fn is_film(stream: &Stream<'_>) -> bool {
    stream.parameters().medium() == media::Type::Video && !ffi::stream_facts(stream).attached_picture
}

impl Source {
    pub(crate) fn open(
        file: VideoFile,
        options: &ReadOptions,
        deadline: Arc<Deadline>,
        depth: Depth,
    ) -> Result<Self, VideoError> {
        options.validate()?;
        init()?;
        let path = file.name();
        // FFmpeg reports every failure to open as the same few codes; the system says which it is.
        let cut = container::is_cut(&file).map_err(|source| VideoError::io(path, source))?;
        let mut input = demux(&file, options, &deadline, depth)?;
        let none = || VideoError::NoVideoStream { path: path.to_owned() };
        let mut videos = input.streams().best(media::Type::Video).into_iter().chain(input.streams());
        let stream = videos.find(is_film).ok_or_else(none)?;
        let facts = ffi::stream_facts(&stream);
        let orientation = match facts.display_matrix {
            Some(matrix) => Orientation::from_matrix(matrix)
                .ok_or_else(|| VideoError::Rotation { path: path.to_owned() })?,
            None => Orientation::UPRIGHT,
        };
        let (width, height) = orientation.size(facts.width, facts.height);
        options.check_size(path, width, height)?;
        let (time_base, codec, index) = (stream.time_base(), stream.parameters().id(), stream.index());
        let fps = [stream.avg_frame_rate(), stream.rate()].map(f64::from);
        let seconds = |ticks: i64| (ticks != NO_TIME).then(|| ticks as f64 * f64::from(time_base));
        let container_duration = || {
            let duration = input.duration();
            (duration > 0).then(|| duration as f64 / f64::from(AV_TIME_BASE))
        };
        let probe = Probe {
            stream: index,
            width,
            height,
            rotation: orientation.rotation(),
            mirrored: orientation.mirrored(),
            container: input.format().name().to_owned(),
            codec: codec.name().to_owned(),
            pixel_format: facts.pixel_format.clone(),
            average_fps: fps.into_iter().find(|fps| fps.is_finite() && *fps > 0.0).unwrap_or(0.0),
            duration: seconds(stream.duration()).filter(|d| *d > 0.0).or_else(container_duration),
            frames_hint: u64::try_from(stream.frames()).ok().filter(|n| *n > 0),
            start_time: seconds(stream.start_time()),
            has_codec_motion: exports_motion(codec),
            interlaced: facts.interlaced,
        };
        ffi::discard_others(&mut input, index);
        Ok(Self {
            path: path.to_owned(),
            file,
            input,
            unpacker: None,
            deadline,
            stream: index,
            time_base,
            codec,
            facts,
            cut,
            orientation,
            probe,
        })
    }

    /// Opens the file again, to read it from its first packet.
    pub(crate) fn reopen(&mut self, options: &ReadOptions) -> Result<(), VideoError> {
        let unpacks = self.unpacker.is_some();
        *self = Self::open(self.file.clone(), options, self.deadline.clone(), Depth::Streams)?;
        self.unpack(unpacks)
    }

    /// Sets whether packed B-frames (DivX, XviD) come in packets of their own.
    pub(crate) fn unpack(&mut self, on: bool) -> Result<(), VideoError> {
        let stream = self.input.stream(self.stream).filter(|_| on);
        self.unpacker = stream.map(|stream| Unpacker::new(&stream)).transpose().map_err(|source| {
            VideoError::Decoder { path: self.path.clone(), codec: self.codec.name().to_owned(), source }
        })?;
        Ok(())
    }

    pub(crate) fn unpacker(&self) -> Option<&Unpacker> {
        self.unpacker.as_ref()
    }

    /// The next packet of the video stream; `None` at the end.
    pub(crate) fn next_packet(&mut self) -> Result<Option<Packet>, Error> {
        loop {
            let mut packet = Packet::empty();
            match packet.read(&mut self.input) {
                // Not every demuxer looks at the clock itself.
                Ok(()) if self.deadline.is_past() => return Err(Error::Exit),
                Ok(()) if packet.stream() != self.stream => {}
                Ok(()) => match &mut self.unpacker {
                    Some(unpacker) => return unpacker.pass(packet).map(Some),
                    None => return Ok(Some(packet)),
                },
                Err(Error::Eof) => return Ok(None),
                Err(error) => return Err(error),
            }
        }
    }

    /// Moves to the last key frame at or before `time_stamp`, in the stream's own time base.
    pub(crate) fn seek(&mut self, time_stamp: i64) -> Result<(), Error> {
        if let Some(unpacker) = &mut self.unpacker {
            unpacker.flush();
        }
        ffi::seek_backward(&mut self.input, self.stream, time_stamp)
    }

    /// Fails once the call in progress has taken too long.
    pub(crate) fn check_deadline(&self, options: &ReadOptions) -> Result<(), VideoError> {
        if self.deadline.is_past() {
            return Err(VideoError::TooSlow { path: self.path.clone(), max_seconds: options.max_seconds });
        }
        Ok(())
    }
}

/// FFmpeg's `AV_NOPTS_VALUE`.
pub(crate) const NO_TIME: i64 = i64::MIN;

/// The decoders that fill in motion vectors: H.264 and those built on FFmpeg's `mpegvideo`.
fn exports_motion(codec: Id) -> bool {
    use Id::*;
    matches!(
        codec,
        H264 | MPEG1VIDEO
            | MPEG2VIDEO
            | MPEG4
            | H263
            | H263P
            | H263I
            | FLV1
            | MSMPEG4V1
            | MSMPEG4V2
            | MSMPEG4V3
            | WMV1
            | WMV2
            | RV10
            | RV20
    )
}
