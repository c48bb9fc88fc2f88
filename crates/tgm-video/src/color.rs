//! Decoded pictures become upright full-range RGB.

use std::ffi::c_int;

use video_rs::ffmpeg::format::Pixel;
use video_rs::ffmpeg::frame::Video;
use video_rs::ffmpeg::software::scaling::Flags;

use crate::ffi::{self, Scaler};
use crate::orientation::Orientation;

/// Converts frames to RGB by the colour matrix and range that each frame states.
///
/// A frame that states no matrix is taken for BT.709 from 720 lines, else BT.601; one that states no range, for limited
/// range. Transfer functions are left alone (no HDR tone mapping), alpha is dropped. The conversion uses swscale's
/// accurate paths, so that its result depends neither on the processor nor on the frame's position in a buffer.
#[derive(Default)]
pub(crate) struct RgbConverter {
    current: Option<(Key, Scaler, Video)>,
}

/// What a conversion depends on.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Key {
    format: Pixel,
    width: u32,
    height: u32,
    matrix: c_int,
    full_range: bool,
}

impl RgbConverter {
    /// The frame's pixels `[H, W, 3]` in displayed orientation; the pixel format's name on failure.
    pub(crate) fn convert(&mut self, frame: &Video, orientation: Orientation) -> Result<Vec<u8>, String> {
        let (space, range, format_name) = ffi::frame_color(frame);
        let key = Key {
            format: frame.format(),
            width: frame.width(),
            height: frame.height(),
            matrix: matrix(space, frame.height()),
            full_range: range == RANGE_FULL || format_name.starts_with("yuvj"),
        };
        if self.current.as_ref().is_none_or(|(current, ..)| *current != key) {
            let scaler = rgb_scaler(key).ok_or_else(|| format_name.clone())?;
            self.current = Some((key, scaler, Video::empty()));
        }
        let (_, scaler, rgb) = self.current.as_mut().ok_or_else(|| format_name.clone())?;
        scaler.run(frame, rgb).map_err(|_| format_name)?;
        Ok(orientation.upright(rgb.data(0), rgb.stride(0), key.width as usize, key.height as usize))
    }
}

fn rgb_scaler(key: Key) -> Option<Scaler> {
    let flags = Flags::BILINEAR | Flags::ACCURATE_RND | Flags::FULL_CHR_H_INT | Flags::BITEXACT;
    let Key { format, width, height, .. } = key;
    let mut scaler = Scaler::new(format, Pixel::RGB24, width, height, flags).ok()?;
    // Refused for RGB and palette sources, which need no matrix.
    scaler.set_color(key.matrix, key.full_range, true);
    Some(scaler)
}

/// `AVCOL_RANGE_JPEG`.
const RANGE_FULL: c_int = 2;
/// BT.709, both as `AVCOL_SPC_*` and as `SWS_CS_*`.
pub(crate) const BT709: c_int = 1;
/// BT.601, likewise.
pub(crate) const BT601: c_int = 5;
/// Least number of lines at which pictures without colour tags are taken for BT.709.
pub(crate) const HD_LINES: u32 = 720;

/// The `SWS_CS_*` matrix for an `AVCOL_SPC_*` value.
fn matrix(space: c_int, lines: u32) -> c_int {
    match space {
        1 => BT709,
        4 => 4, // FCC
        5 | 6 => BT601,
        7 => 7,      // SMPTE 240M
        9 | 10 => 9, // BT.2020
        _ if lines >= HD_LINES => BT709,
        _ => BT601,
    }
}
