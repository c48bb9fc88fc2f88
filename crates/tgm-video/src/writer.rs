//! A small H.264 encoder, for rendered data and test clips.

use std::fmt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use video_rs::ffmpeg::codec::{self, encoder};
use video_rs::ffmpeg::format::Pixel;
use video_rs::ffmpeg::format::context::Output;
use video_rs::ffmpeg::software::scaling;
use video_rs::ffmpeg::{Dictionary, Error, Packet, Rational, color, frame};

use crate::VideoError;
use crate::color::{BT601, BT709, HD_LINES};
use crate::ffi::{self, Scaler};

/// How the encoder stores pictures.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PixelFormat {
    /// 8 bits, colour at half resolution; plays everywhere. Width and height must be even.
    #[default]
    Yuv420p,
    /// 8 bits, colour at full resolution.
    Yuv444p,
}

/// The matrix between RGB and YUV; it is written into the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ColorMatrix {
    /// ITU-R BT.601, for standard definition.
    Bt601,
    /// ITU-R BT.709, for high definition.
    Bt709,
}

impl ColorMatrix {
    /// The matrix of frames of so many lines, as stored, that state none.
    pub fn unstated(lines: u32) -> Self {
        if lines >= HD_LINES { Self::Bt709 } else { Self::Bt601 }
    }
}

/// How a [`VideoWriter`] encodes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EncodeOptions {
    /// Frames per second, as a fraction.
    pub fps: (u32, u32),
    /// Constant rate factor: 0 is lossless in YUV, 18 looks so, 23 is x264's default, 51 the worst.
    pub crf: u8,
    /// Most frames from one key frame to the next.
    pub gop: u32,
    /// Most B-frames in a row.
    pub b_frames: u32,
    /// x264 preset: speed against size.
    pub preset: String,
    /// How pictures are stored.
    pub pixel_format: PixelFormat,
    /// Colour matrix; `None` is BT.709 from 720 lines, else BT.601.
    pub matrix: Option<ColorMatrix>,
    /// Whether stored values use all of 0..=255.
    pub full_range: bool,
    /// Further x264 parameters, `key=value` separated by colons, such as `open-gop=1:ref=3`.
    pub x264: String,
}

impl Default for EncodeOptions {
    fn default() -> Self {
        Self {
            fps: (25, 1),
            crf: 18,
            gop: 50,
            b_frames: 2,
            preset: "veryfast".to_owned(),
            pixel_format: PixelFormat::default(),
            matrix: None,
            full_range: false,
            x264: String::new(),
        }
    }
}

/// Ticks per frame, so that frames may lie off the nominal rate.
const TICKS: i64 = 1000;

/// Encodes RGB frames to a file, in the container its extension names.
///
/// The same frames and options give the same bytes: one thread, no dates, no version strings of the muxer. A writer that
/// is dropped before [`finish`](Self::finish) leaves an unreadable file.
///
/// ```
/// use tgm_video::{EncodeOptions, ReadOptions, VideoReader, VideoWriter};
///
/// let folder = tempfile::tempdir()?;
/// let path = folder.path().join("grey.mp4");
/// let mut writer = VideoWriter::create(&path, 32, 16, &EncodeOptions::default())?;
/// for level in 0..10 {
///     writer.write(&vec![20 * level; 32 * 16 * 3])?;
/// }
/// writer.finish()?;
/// assert_eq!(VideoReader::open(&path, &ReadOptions::default())?.index().len(), 10);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct VideoWriter {
    path: PathBuf,
    output: Output,
    encoder: encoder::Video,
    stream_time_base: Rational,
    scaler: Scaler,
    rgb: frame::Video,
    frames: i64,
    last_tick: Option<i64>,
}

impl fmt::Debug for VideoWriter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VideoWriter")
            .field("path", &self.path)
            .field("width", &self.rgb.width())
            .field("height", &self.rgb.height())
            .field("frames", &self.frames)
            .finish_non_exhaustive()
    }
}

impl VideoWriter {
    /// Creates the file and opens the encoder.
    ///
    /// # Errors
    /// [`VideoError::Io`] when the file cannot be created, [`VideoError::Invalid`] for sizes or options that cannot be,
    /// [`VideoError::Encode`] when FFmpeg has no H.264 encoder (libx264) or refuses the options.
    pub fn create(
        path: impl AsRef<Path>,
        width: u32,
        height: u32,
        options: &EncodeOptions,
    ) -> Result<Self, VideoError> {
        let path = path.as_ref();
        crate::probe::init()?;
        options.check(width, height)?;
        std::fs::File::create(path).map_err(|source| VideoError::io(path, source))?;
        let failed = |action| move |source| VideoError::Encode { path: path.to_owned(), action, source };
        let mut output = ffi::open_output(path).map_err(failed("open the container"))?;
        let encoder = open_encoder(width, height, options).map_err(failed("open the H.264 encoder"))?;
        let mut stream = output.add_stream_with(&encoder).map_err(failed("add a stream"))?;
        stream.set_avg_frame_rate(options.rate());
        stream.set_time_base(options.time_base());
        output.write_header().map_err(failed("write the header"))?;
        let stream_time_base = output.stream(0).map_or(options.time_base(), |stream| stream.time_base());
        let scaler = rgb_to_yuv(width, height, options).map_err(failed("convert colours"))?;
        let rgb = frame::Video::new(Pixel::RGB24, width, height);
        Ok(Self {
            path: path.to_owned(),
            output,
            encoder,
            stream_time_base,
            scaler,
            rgb,
            frames: 0,
            last_tick: None,
        })
    }

    /// Appends a frame, RGB `[H, W, 3]`, one frame interval after the one before.
    ///
    /// # Errors
    /// [`VideoError::Invalid`] when the number of bytes does not fit, [`VideoError::Encode`].
    pub fn write(&mut self, rgb: &[u8]) -> Result<(), VideoError> {
        let tick = self.last_tick.map_or(0, |tick| tick + TICKS);
        self.write_tick(rgb, tick)
    }

    /// Appends a frame at a time of its own, in frame intervals since the start (2.5 is half-way from the third frame to the
    /// fourth): for variable frame rates. Times are rounded to thousandths and must increase.
    ///
    /// # Errors
    /// As [`write`](Self::write), and [`VideoError::Invalid`] when the time does not increase.
    pub fn write_at(&mut self, rgb: &[u8], intervals: f64) -> Result<(), VideoError> {
        let tick = (intervals * TICKS as f64).round();
        // The upper bound keeps the tick, and the muxer's scaled copy of it, far from overflow.
        if !(0.0..1e12).contains(&tick) || self.last_tick.is_some_and(|last| tick as i64 <= last) {
            return Err(VideoError::invalid("the frame's time", intervals, "times must increase from 0"));
        }
        self.write_tick(rgb, tick as i64)
    }

    fn write_tick(&mut self, rgb: &[u8], tick: i64) -> Result<(), VideoError> {
        let (line, lines) = (self.rgb.width() as usize * 3, self.rgb.height() as usize);
        if rgb.len() != line * lines {
            let must =
                format!("a {}x{} RGB frame needs {}", self.rgb.width(), self.rgb.height(), line * lines);
            return Err(VideoError::invalid("the frame's length in bytes", rgb.len(), must));
        }
        let stride = self.rgb.stride(0);
        for (target, source) in self.rgb.data_mut(0).chunks_mut(stride).zip(rgb.chunks_exact(line)) {
            target[..line].copy_from_slice(source);
        }
        let mut yuv = frame::Video::empty();
        self.scaler.run(&self.rgb, &mut yuv).map_err(|source| self.failed("convert colours", source))?;
        yuv.set_pts(Some(tick));
        self.encoder.send_frame(&yuv).map_err(|source| self.failed("encode a frame", source))?;
        (self.frames, self.last_tick) = (self.frames + 1, Some(tick));
        self.drain()
    }

    /// Encodes what is left and closes the file.
    ///
    /// # Errors
    /// [`VideoError::Invalid`] when no frame was written, [`VideoError::Encode`].
    pub fn finish(mut self) -> Result<(), VideoError> {
        if self.frames == 0 {
            return Err(VideoError::invalid("the number of frames", 0, "a video needs at least one"));
        }
        self.encoder.send_eof().map_err(|source| self.failed("finish encoding", source))?;
        self.drain()?;
        let Self { path, output, .. } = self;
        ffi::close_output(output).map_err(|source| VideoError::Encode {
            path,
            action: "finish the file",
            source,
        })
    }

    /// Writes every packet the encoder has ready.
    fn drain(&mut self) -> Result<(), VideoError> {
        loop {
            let mut packet = Packet::empty();
            match self.encoder.receive_packet(&mut packet) {
                Ok(()) => {}
                Err(Error::Eof | Error::Other { errno: video_rs::ffmpeg::error::EAGAIN }) => return Ok(()),
                Err(source) => return Err(self.failed("encode a frame", source)),
            }
            packet.set_stream(0);
            packet.set_duration(TICKS);
            packet.rescale_ts(self.encoder.time_base(), self.stream_time_base);
            packet
                .write_interleaved(&mut self.output)
                .map_err(|source| self.failed("write a frame", source))?;
        }
    }

    fn failed(&self, action: &'static str, source: Error) -> VideoError {
        VideoError::Encode { path: self.path.clone(), action, source }
    }
}

impl EncodeOptions {
    fn check(&self, width: u32, height: u32) -> Result<(), VideoError> {
        let even = self.pixel_format == PixelFormat::Yuv420p;
        if width == 0 || height == 0 || even && (width % 2 == 1 || height % 2 == 1) {
            let must = "it must be positive, and even unless the pixel format is yuv444p";
            return Err(VideoError::invalid("the video size", format!("{width}x{height}"), must));
        }
        if self.fps.0 == 0 || self.fps.1 == 0 || self.fps.0.max(self.fps.1) > 1_000_000 {
            let value = format!("{}/{}", self.fps.0, self.fps.1);
            return Err(VideoError::invalid("fps", value, "both parts must be in 1..=1000000"));
        }
        Ok(())
    }

    fn rate(&self) -> Rational {
        Rational(self.fps.0 as i32, self.fps.1 as i32)
    }

    fn time_base(&self) -> Rational {
        Rational(self.fps.1 as i32, self.fps.0 as i32 * TICKS as i32)
    }

    fn matrix(&self, height: u32) -> ColorMatrix {
        self.matrix.unwrap_or_else(|| ColorMatrix::unstated(height))
    }

    fn pixel(&self) -> Pixel {
        match self.pixel_format {
            PixelFormat::Yuv420p => Pixel::YUV420P,
            PixelFormat::Yuv444p => Pixel::YUV444P,
        }
    }
}

fn open_encoder(width: u32, height: u32, options: &EncodeOptions) -> Result<encoder::Video, Error> {
    let codec = encoder::find_by_name("libx264").ok_or(Error::EncoderNotFound)?;
    let mut context = codec::Context::new_with_codec(codec);
    context.set_threading(codec::threading::Config { count: 1, ..Default::default() });
    // In the container's header, where seeking needs no help from the first packet.
    context.set_flags(codec::Flags::GLOBAL_HEADER | codec::Flags::BITEXACT);
    let mut video = context.encoder().video()?;
    video.set_width(width);
    video.set_height(height);
    video.set_format(options.pixel());
    video.set_time_base(options.time_base());
    video.set_frame_rate(Some(options.rate()));
    video.set_gop(options.gop);
    video.set_max_b_frames(options.b_frames as usize);
    let (space, primaries, transfer) = match options.matrix(height) {
        ColorMatrix::Bt601 => {
            (color::Space::SMPTE170M, color::Primaries::SMPTE170M, color::TransferCharacteristic::SMPTE170M)
        }
        ColorMatrix::Bt709 => {
            (color::Space::BT709, color::Primaries::BT709, color::TransferCharacteristic::BT709)
        }
    };
    video.set_colorspace(space);
    video.set_color_primaries(primaries);
    video.set_color_transfer_characteristic(transfer);
    video.set_color_range(if options.full_range { color::Range::JPEG } else { color::Range::MPEG });
    let crf = options.crf.to_string();
    let mut settings: Dictionary<'_> = [("preset", &*options.preset), ("crf", &crf)].into_iter().collect();
    if !options.x264.is_empty() {
        settings.set("x264-params", &options.x264);
    }
    video.open_as_with(codec, settings)
}

fn rgb_to_yuv(width: u32, height: u32, options: &EncodeOptions) -> Result<Scaler, Error> {
    let flags = scaling::Flags::BICUBIC | scaling::Flags::ACCURATE_RND | scaling::Flags::BITEXACT;
    let mut scaler = Scaler::new(Pixel::RGB24, options.pixel(), width, height, flags)?;
    let matrix = match options.matrix(height) {
        ColorMatrix::Bt601 => BT601,
        ColorMatrix::Bt709 => BT709,
    };
    if scaler.set_color(matrix, true, options.full_range) { Ok(scaler) } else { Err(Error::InvalidData) }
}
