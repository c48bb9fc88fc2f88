//! A clip: the same view of a few frames, as bytes.

use fast_image_resize as fir;
use serde::{Deserialize, Serialize};

use crate::{CropBox, Frame, VideoError};

/// From displayed frame to clip: cut out `crop`, resize it to `size` × `size`, mirror it if `flipped`.
///
/// Frames and motion vectors go through the same `View`, so that they stay aligned.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct View {
    /// The part of the frame to show.
    pub crop: CropBox,
    /// Width and height of the clip in pixels.
    pub size: u32,
    /// Whether the clip is mirrored left to right.
    pub flipped: bool,
}

impl View {
    /// Bytes of a clip of so many frames.
    pub(crate) fn bytes(&self, frames: usize) -> Result<usize, VideoError> {
        rgb_bytes(frames, self.size as usize, self.size as usize).ok_or_else(|| {
            VideoError::invalid(
                "the clip's size",
                self.size,
                format!("{frames} frames of it are too many bytes"),
            )
        })
    }

    /// Refuses views without pixels, and crops outside of a frame of this size.
    pub(crate) fn check(&self, width: u32, height: u32) -> Result<(), VideoError> {
        if self.size == 0 {
            return Err(VideoError::invalid("the clip's size", 0, "it must be at least 1 pixel"));
        }
        self.crop.check(width, height)
    }
}

/// Bytes of RGB frames `[T, H, W, 3]`, unless they are more than memory can have.
pub(crate) fn rgb_bytes(frames: usize, height: usize, width: usize) -> Option<usize> {
    let bytes = frames.checked_mul(height)?.checked_mul(width)?.checked_mul(3)?;
    (bytes <= isize::MAX as usize).then_some(bytes)
}

/// RGB frames of one size, u8 `[T, H, W, 3]`, with the time of each.
#[derive(Clone, Debug, PartialEq)]
pub struct Clip {
    data: Vec<u8>,
    frames: usize,
    height: usize,
    width: usize,
    times: Vec<f64>,
}

impl Clip {
    /// A clip from bytes `[T, H, W, 3]` and one time in seconds per frame.
    ///
    /// # Errors
    /// [`VideoError::Invalid`] when the number of bytes is not `times.len() * height * width * 3`.
    pub fn new(data: Vec<u8>, height: usize, width: usize, times: Vec<f64>) -> Result<Self, VideoError> {
        let frames = times.len();
        let needed = rgb_bytes(frames, height, width);
        if needed != Some(data.len()) {
            let needed = needed.map_or("more than memory can have".to_owned(), |needed| needed.to_string());
            let must = format!("{frames} RGB frames of {width}x{height} need {needed}");
            return Err(VideoError::invalid("the clip's length in bytes", data.len(), must));
        }
        Ok(Self { data, frames, height, width, times })
    }

    /// The `view` of these frames, in the order given.
    ///
    /// The crop is taken first, so nothing outside of it leaks in; the resize is bilinear and antialiased (the filter grows
    /// with the reduction, as in Pillow and torchvision).
    ///
    /// # Errors
    /// [`VideoError::SizeChanged`] when the frames differ in size, [`VideoError::Invalid`] when the crop leaves them, or one
    /// does not have the pixels of its size.
    pub fn from_frames(frames: &[Frame], view: &View) -> Result<Self, VideoError> {
        frames.first().map_or(Ok(()), |first| view.check(first.width, first.height))?;
        let size = view.size as usize;
        let mut resizer = Resizer::default();
        let mut data = vec![0; view.bytes(frames.len())?];
        for (frame, target) in frames.iter().zip(data.chunks_exact_mut((size * size * 3).max(1))) {
            frame.same_size_as(&frames[0])?;
            frame.check_pixels()?;
            resizer.resize(&frame.rgb, (frame.width, frame.height), view.crop, view, target)?;
        }
        Self::new(data, size, size, frames.iter().map(|frame| frame.seconds).collect())
    }

    /// All bytes, `[T, H, W, 3]`.
    pub fn data(&self) -> &[u8] {
        &self.data
    }

    /// Number of frames `T`.
    pub fn frames(&self) -> usize {
        self.frames
    }

    /// Height `H` in pixels.
    pub fn height(&self) -> usize {
        self.height
    }

    /// Width `W` in pixels.
    pub fn width(&self) -> usize {
        self.width
    }

    /// The time of each frame, in seconds since the first frame of its video.
    pub fn times(&self) -> &[f64] {
        &self.times
    }

    /// The bytes of frame `i`, `[H, W, 3]`.
    ///
    /// # Panics
    /// When there is no frame `i`.
    pub fn frame(&self, i: usize) -> &[u8] {
        let len = self.height * self.width * 3;
        &self.data[i * len..][..len]
    }

    /// Mirrors every frame left to right.
    pub fn flip_horizontal(&mut self) {
        for row in self.data.chunks_exact_mut((self.width * 3).max(1)) {
            mirror(row);
        }
    }
}

/// Reverses the pixels of one RGB row.
fn mirror(row: &mut [u8]) {
    let pixels = row.len() / 3;
    for left in 0..pixels / 2 {
        let right = pixels - 1 - left;
        for channel in 0..3 {
            row.swap(left * 3 + channel, right * 3 + channel);
        }
    }
}

/// Crops and resizes frames; keeps its filter tables and buffers from one frame to the next.
#[derive(Default)]
pub(crate) struct Resizer {
    inner: fir::Resizer,
}

impl Resizer {
    /// Writes the part `crop` of a picture to `target`, `[size, size, 3]` of the view, mirrored if the view is.
    pub(crate) fn resize(
        &mut self,
        rgb: &[u8],
        (picture_width, picture_height): (u32, u32),
        crop: CropBox,
        view: &View,
        target: &mut [u8],
    ) -> Result<(), VideoError> {
        let CropBox { x, y, width, height } = crop;
        let refuse = |error: &dyn std::fmt::Display| {
            VideoError::invalid("the view", format!("{view:?}"), format!("it cannot be resized: {error}"))
        };
        let source = fir::images::ImageRef::new(picture_width, picture_height, rgb, fir::PixelType::U8x3)
            .map_err(|error| refuse(&error))?;
        let source =
            fir::images::CroppedImage::new(&source, x, y, width, height).map_err(|error| refuse(&error))?;
        let options =
            fir::ResizeOptions::new().resize_alg(fir::ResizeAlg::Convolution(fir::FilterType::Bilinear));
        let mut image = fir::images::Image::from_slice_u8(view.size, view.size, target, fir::PixelType::U8x3)
            .map_err(|error| refuse(&error))?;
        self.inner.resize(&source, &mut image, &options).map_err(|error| refuse(&error))?;
        if view.flipped {
            target.chunks_exact_mut(view.size as usize * 3).for_each(mirror);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A frame whose pixel (x, y) is (10x, 10y, 7).
    fn ramp(width: u32, height: u32) -> Frame {
        let pixel = |i: u32| [(i % width * 10) as u8, (i / width * 10) as u8, 7];
        Frame { rgb: (0..width * height).flat_map(pixel).collect(), width, height, ..Frame::default() }
    }

    fn view(x: u32, y: u32, side: u32, size: u32, flipped: bool) -> View {
        View { crop: CropBox { x, y, width: side, height: side }, size, flipped }
    }

    #[test]
    fn a_crop_of_the_clip_size_is_the_same_bytes() {
        let clip = Clip::from_frames(&[ramp(8, 6)], &view(3, 2, 4, 4, false)).unwrap();
        let expected: Vec<u8> = (2..6).flat_map(|y| (3..7).flat_map(move |x| [x * 10, y * 10, 7])).collect();
        assert_eq!(clip.data(), expected);
    }

    #[test]
    fn pixels_outside_the_crop_do_not_leak_in() {
        let mut frame = ramp(8, 8);
        for (i, byte) in frame.rgb.iter_mut().enumerate() {
            let (x, y) = (i / 3 % 8, i / 24);
            *byte = if (2..6).contains(&x) && (2..6).contains(&y) { 100 } else { 255 };
        }
        let clip = Clip::from_frames(&[frame], &view(2, 2, 4, 3, false)).unwrap();
        assert!(clip.data().iter().all(|&v| v == 100));
    }

    #[test]
    fn halving_averages_with_an_antialiased_filter() {
        let mut frame = ramp(8, 8);
        frame.rgb = (0..64u32).flat_map(|i| [if i % 2 == 0 { 0 } else { 200 }; 3]).collect();
        let clip = Clip::from_frames(&[frame], &view(0, 0, 8, 4, false)).unwrap();
        let inner = clip.frame(0)[3..9].to_vec();
        assert!(inner.iter().all(|v| (90..=110).contains(v)), "{inner:?}");
    }

    #[test]
    fn a_flipped_view_is_the_flipped_clip_and_two_flips_are_none() {
        let frames = [ramp(9, 7)];
        let mut plain = Clip::from_frames(&frames, &view(1, 1, 6, 5, false)).unwrap();
        let flipped = Clip::from_frames(&frames, &view(1, 1, 6, 5, true)).unwrap();
        assert_ne!(plain, flipped);
        plain.flip_horizontal();
        assert_eq!(plain, flipped);
    }

    #[test]
    fn frames_of_different_sizes_and_crops_outside_are_errors() {
        let whole = view(0, 0, 6, 4, false);
        let mixed = [ramp(8, 6), ramp(6, 8)];
        assert!(matches!(Clip::from_frames(&mixed, &whole), Err(VideoError::SizeChanged { .. })));
        assert!(matches!(
            Clip::from_frames(&mixed[1..], &view(1, 0, 6, 4, false)),
            Err(VideoError::Invalid { .. })
        ));
        assert!(Clip::from_frames(&mixed[..1], &view(0, 0, 6, 0, false)).is_err());
        assert!(Clip::new(vec![0; 5], 1, 1, vec![0.0]).is_err());
    }

    /// The number of bytes came out as 0 in release builds, and the clip was accepted.
    #[test]
    fn sizes_whose_product_does_not_fit_are_refused() {
        let side = 1 << (usize::BITS / 2);
        let error = Clip::new(Vec::new(), side, side, vec![0.0]).unwrap_err().to_string();
        assert!(error.contains("the clip's length in bytes is 0"), "{error}");
        let huge = view(0, 0, 6, u32::MAX, false);
        assert!(matches!(Clip::from_frames(&[ramp(8, 6)], &huge), Err(VideoError::Invalid { .. })));
    }

    /// It was the view that could not be resized.
    #[test]
    fn a_frame_without_all_of_its_pixels_is_named() {
        let short = Frame { rgb: vec![0; 5], number: 7, ..ramp(8, 6) };
        let error = Clip::from_frames(&[short], &view(0, 0, 6, 4, false)).unwrap_err().to_string();
        assert_eq!(error, "the frame's length in bytes is 5, but frame 7 of 8x6 needs 3 for each pixel");
    }
}
