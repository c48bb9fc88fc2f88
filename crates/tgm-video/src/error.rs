//! Everything that can go wrong between a video file and its tubelets.

use std::path::{Path, PathBuf};

use video_rs::ffmpeg;

/// An error of this crate. Messages name the file, the offending value and, where possible, what to do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum VideoError {
    /// The file is absent or cannot be read, or the output file cannot be created.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// The file is there, but no demuxer understands it: not a video, empty, or its header is cut off.
    #[error("{}: not a readable video file ({source}); check it with `ffprobe`", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// What FFmpeg said.
        source: ffmpeg::Error,
    },
    /// The file holds no video stream (audio only, or only a cover picture).
    #[error("{}: has no video stream", path.display())]
    NoVideoStream {
        /// The file.
        path: PathBuf,
    },
    /// The linked FFmpeg has no decoder for this stream, or refuses its parameters.
    #[error("{}: cannot decode codec `{codec}` ({source}); transcode the file to H.264", path.display())]
    Decoder {
        /// The file.
        path: PathBuf,
        /// The codec's FFmpeg name.
        codec: String,
        /// What FFmpeg said.
        source: ffmpeg::Error,
    },
    /// The stream asks for a display transformation other than quarter turns and mirroring.
    #[error("{}: the display matrix is not a multiple of 90 degrees; re-encode the file upright", path.display())]
    Rotation {
        /// The file.
        path: PathBuf,
    },
    /// Frames are larger than [`ReadOptions::max_pixels`](crate::ReadOptions).
    #[error("{}: frames of {width}x{height} exceed the limit of {max_pixels} pixels; raise `max_pixels` to read them", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// Frame width in pixels.
        width: u32,
        /// Frame height in pixels.
        height: u32,
        /// The limit in force.
        max_pixels: u64,
    },
    /// The file has more frames than [`ReadOptions::max_frames`](crate::ReadOptions).
    #[error("{}: has more than {max_frames} frames; raise `max_frames` or cut the file", path.display())]
    TooManyFrames {
        /// The file.
        path: PathBuf,
        /// The limit in force.
        max_frames: usize,
    },
    /// The video lasts longer than [`ReadOptions::max_duration`](crate::ReadOptions).
    #[error("{}: lasts {seconds:.0} s, longer than {max_duration} s; raise `max_duration` or cut the file", path.display())]
    TooLong {
        /// The file.
        path: PathBuf,
        /// Its length in seconds; negative when its time stamps are farther apart than can be counted.
        seconds: f64,
        /// The limit in force.
        max_duration: f64,
    },
    /// Opening the file, or reading frames from it, took longer than [`ReadOptions::max_seconds`](crate::ReadOptions).
    #[error("{}: takes longer to read than {max_seconds} s; raise `max_seconds`, or transcode or drop the file", path.display())]
    TooSlow {
        /// The file.
        path: PathBuf,
        /// The limit in force.
        max_seconds: f64,
    },
    /// The container opens, but there is no frame in it.
    #[error("{}: the video stream has no frames", path.display())]
    NoFrames {
        /// The file.
        path: PathBuf,
    },
    /// The file ends before the data that its own index or length promises. Containers that promise nothing, such as MPEG
    /// program and transport streams, cannot be told to be truncated.
    #[error("{}: truncated: {found} of {expected} video packets are there; fetch the file again, or set `allow_truncated`", path.display())]
    Truncated {
        /// The file.
        path: PathBuf,
        /// Packets the container's index lists; one more than found when it does not tell.
        expected: usize,
        /// Whole packets in the file.
        found: usize,
    },
    /// A frame number past the end was asked for.
    #[error("{}: frame {frame} was asked for, but there are {frames}", path.display())]
    FrameOutOfRange {
        /// The file.
        path: PathBuf,
        /// The number asked for.
        frame: usize,
        /// How many frames there are.
        frames: usize,
    },
    /// A frame is in the index, but the decoder does not deliver it.
    #[error("{}: frame {frame} (at {seconds:.3} s) does not decode ({errors} packets failed so far); transcode or drop the file", path.display())]
    Undecodable {
        /// The file.
        path: PathBuf,
        /// The frame's number in presentation order.
        frame: usize,
        /// Its time in seconds since the first frame.
        seconds: f64,
        /// Packets that this reader could not decode up to now.
        errors: usize,
    },
    /// The decoder delivers the frame, but only by concealing damage.
    #[error("{}: frame {frame} (at {seconds:.3} s) is damaged; drop the file, or set `allow_damaged`", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// The frame's number in presentation order.
        frame: usize,
        /// Its time in seconds since the first frame.
        seconds: f64,
    },
    /// A decoded frame cannot be converted to RGB.
    #[error("{}: cannot convert pixel format `{format}` to RGB", path.display())]
    PixelFormat {
        /// The file.
        path: PathBuf,
        /// The FFmpeg name of the pixel format.
        format: String,
    },
    /// The frames of one clip have different sizes, so that no common crop exists.
    #[error("frame {frame} is {width}x{height}, but the clip began with {first_width}x{first_height}")]
    SizeChanged {
        /// The frame's number in presentation order.
        frame: usize,
        /// Its width in pixels.
        width: u32,
        /// Its height in pixels.
        height: u32,
        /// Width of the clip's first frame.
        first_width: u32,
        /// Height of the clip's first frame.
        first_height: u32,
    },
    /// A value given by the caller makes no sense: a zero size, a crop outside the frame, a buffer of the wrong length.
    #[error("{what} is {value}, but {must}")]
    Invalid {
        /// What the value is.
        what: &'static str,
        /// The value.
        value: String,
        /// What it must be.
        must: String,
    },
    /// The encoder or muxer refused.
    #[error("{}: cannot {action}: {source}", path.display())]
    Encode {
        /// The file being written.
        path: PathBuf,
        /// What was being done.
        action: &'static str,
        /// What FFmpeg said.
        source: ffmpeg::Error,
    },
    /// The picture cannot be written.
    #[error("{}: cannot write the picture: {source}", path.display())]
    Png {
        /// The file being written.
        path: PathBuf,
        /// What the PNG encoder said.
        source: png::EncodingError,
    },
    /// FFmpeg itself did not start.
    #[error("FFmpeg does not initialise: {0}")]
    Init(String),
}

impl VideoError {
    pub(crate) fn invalid(what: &'static str, value: impl ToString, must: impl Into<String>) -> Self {
        Self::Invalid { what, value: value.to_string(), must: must.into() }
    }

    pub(crate) fn io(path: &Path, source: std::io::Error) -> Self {
        Self::Io { path: path.to_owned(), source }
    }
}
