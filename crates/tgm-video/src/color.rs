//! Decoded pictures become upright full-range RGB.

use std::ffi::c_int;

use video_rs::ffmpeg::format::Pixel;
use video_rs::ffmpeg::frame::Video;
use video_rs::ffmpeg::software::scaling::Flags;

use crate::CropBox;
use crate::ffi::{self, Scaler};
use crate::orientation::Orientation;
use crate::yuv::{self, Lines, Yuv420};

/// Converts frames to RGB by the colour matrix and range that each frame states.
///
/// A frame that states no matrix is taken for BT.709 from 720 lines, else BT.601; one that states no range, for limited
/// range. Transfer functions are left alone (no HDR tone mapping), alpha is dropped. The conversion uses swscale's
/// accurate paths, or gives the same bytes faster, so that its result depends neither on the processor nor on the
/// frame's position in a buffer.
#[derive(Default)]
pub(crate) struct RgbConverter {
    lines: Lines,
    scaler: Option<(Key, Scaler, Video)>,
    /// Pixels as stored, before they are turned upright.
    stored: Vec<u8>,
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
    /// Writes a part of the displayed picture to `rgb`, `[height, width, 3]` of the part; the pixel format's name on
    /// failure. The part lies inside the displayed picture.
    pub(crate) fn convert(
        &mut self,
        frame: &Video,
        orientation: Orientation,
        part: CropBox,
        rgb: &mut [u8],
    ) -> Result<(), String> {
        let (space, range, format_name) = ffi::frame_color(frame);
        let key = Key {
            format: frame.format(),
            width: frame.width(),
            height: frame.height(),
            matrix: matrix(space, frame.height()),
            full_range: range == RANGE_FULL || format_name.starts_with("yuvj"),
        };
        let part = orientation.stored(part, key.width, key.height);
        let Some(picture) = simple_picture(frame, key) else {
            return self.convert_whole(frame, key, orientation, part, rgb).ok_or(format_name);
        };
        let matrix = yuv::Matrix::new(ffi::matrix_table(key.matrix), key.full_range);
        if orientation == Orientation::UPRIGHT {
            self.lines.convert(&picture, &matrix, part, rgb);
            return Ok(());
        }
        self.stored.resize(rgb.len(), 0);
        self.lines.convert(&picture, &matrix, part, &mut self.stored);
        let (width, height) = (part.width as usize, part.height as usize);
        orientation.upright(&self.stored, width * 3, width, height, rgb);
        Ok(())
    }

    /// By swscale, which takes whole pictures: cut out, they would get other neighbours.
    fn convert_whole(
        &mut self,
        frame: &Video,
        key: Key,
        orientation: Orientation,
        part: CropBox,
        rgb: &mut [u8],
    ) -> Option<()> {
        if self.scaler.as_ref().is_none_or(|(current, ..)| *current != key) {
            self.scaler = Some((key, rgb_scaler(key)?, Video::empty()));
        }
        let (_, scaler, whole) = self.scaler.as_mut()?;
        scaler.run(frame, whole).ok()?;
        let stride = whole.stride(0);
        let lines = &whole.data(0)[part.y as usize * stride + part.x as usize * 3..];
        orientation.upright(lines, stride, part.width as usize, part.height as usize, rgb);
        Some(())
    }
}

/// The planes of a picture that [`Lines`] converts.
fn simple_picture(frame: &Video, key: Key) -> Option<Yuv420<'_>> {
    let (width, height) = (key.width as usize, key.height as usize);
    let simple = matches!(key.format, Pixel::YUV420P | Pixel::YUVJ420P)
        && width.is_multiple_of(2)
        && height.is_multiple_of(2)
        && width.min(height) >= yuv::MIN_SIDE;
    let planes = simple.then(|| ffi::planes_420(frame)).flatten()?;
    Some(Yuv420 { planes, width, height })
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

#[cfg(test)]
mod tests {
    use super::*;

    /// A picture of noise, with full-range tag or without.
    fn noise(width: u32, height: u32, full: bool) -> Video {
        let mut frame = Video::new(Pixel::YUV420P, width, height);
        let mut state = 1u32;
        for plane in 0..3 {
            for byte in frame.data_mut(plane) {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                *byte = (state >> 24) as u8;
            }
        }
        frame.set_color_range(if full {
            video_rs::ffmpeg::color::Range::JPEG
        } else {
            video_rs::ffmpeg::color::Range::MPEG
        });
        frame
    }

    /// All matrices and ranges, sizes small and large, all parts at any offset: noise, which overflows every bound.
    #[test]
    fn parts_are_byte_for_byte_what_swscale_makes_of_the_whole() {
        for (width, height, space) in [(64, 48, 5), (64, 48, 1), (16, 16, 9), (34, 50, 7), (130, 18, 4)] {
            for full in [false, true] {
                let mut frame = noise(width, height, full);
                frame.set_color_space(match space {
                    1 => video_rs::ffmpeg::color::Space::BT709,
                    4 => video_rs::ffmpeg::color::Space::FCC,
                    7 => video_rs::ffmpeg::color::Space::SMPTE240M,
                    9 => video_rs::ffmpeg::color::Space::BT2020NCL,
                    _ => video_rs::ffmpeg::color::Space::BT470BG,
                });
                let key = Key {
                    format: Pixel::YUV420P,
                    width,
                    height,
                    matrix: matrix(space, height),
                    full_range: full,
                };
                let whole = CropBox::whole(width, height);
                let mut expected = vec![0; (width * height * 3) as usize];
                let mut converter = RgbConverter::default();
                converter.convert_whole(&frame, key, Orientation::UPRIGHT, whole, &mut expected).unwrap();
                let parts = [
                    whole,
                    CropBox { x: 1, y: 1, width: 1, height: 1 },
                    CropBox { x: 3, y: 5, width: 8, height: 9 },
                    CropBox { x: width - 5, y: height - 3, width: 5, height: 3 },
                    CropBox { x: 0, y: height - 1, width, height: 1 },
                    CropBox { x: width - 1, y: 0, width: 1, height },
                    CropBox { x: 2, y: 0, width: 2, height: 2 },
                ];
                for part in parts {
                    let mut rgb = vec![0; (part.width * part.height * 3) as usize];
                    converter.convert(&frame, Orientation::UPRIGHT, part, &mut rgb).unwrap();
                    for (line, out) in rgb.chunks_exact(part.width as usize * 3).enumerate() {
                        let at = ((part.y as usize + line) * width as usize + part.x as usize) * 3;
                        assert_eq!(
                            out,
                            &expected[at..][..out.len()],
                            "{width}x{height} {space} {full} {part:?} {line}"
                        );
                    }
                }
            }
        }
    }
}
