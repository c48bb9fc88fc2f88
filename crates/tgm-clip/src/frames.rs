//! Frames of a video as bytes, and as what CLIP wants to see.

use candle_core::{Device, Tensor};
use fast_image_resize::images::{Image, ImageRef};
use fast_image_resize::{FilterType, PixelType, ResizeAlg, ResizeOptions, Resizer};

use crate::ClipError;

/// Mean and standard deviation of CLIP's training images, RGB in 0–1.
const MEAN: [f32; 3] = [0.481_454_66, 0.457_827_5, 0.408_210_73];
const STD: [f32; 3] = [0.268_629_54, 0.261_302_6, 0.275_777_1];

/// Borrowed RGB frames `[F, H, W, 3]`, `u8`.
#[derive(Clone, Copy, Debug)]
pub struct Frames<'a> {
    bytes: &'a [u8],
    height: usize,
    width: usize,
}

impl<'a> Frames<'a> {
    /// Checks that `bytes` holds a whole number of frames, at least one.
    ///
    /// # Errors
    /// [`ClipError::Shape`] otherwise.
    pub fn new(bytes: &'a [u8], height: usize, width: usize) -> Result<Self, ClipError> {
        let frame = height.saturating_mul(width).saturating_mul(3);
        if frame == 0 || bytes.is_empty() || !bytes.len().is_multiple_of(frame) {
            return Err(ClipError::Shape {
                what: "frames",
                got: format!("{} bytes", bytes.len()),
                expected: format!("one or more frames of {height}×{width} RGB, {frame} bytes each"),
            });
        }
        Ok(Self { bytes, height, width })
    }

    /// Number of frames, at least one.
    pub fn count(&self) -> usize {
        self.bytes.len() / self.frame_len()
    }

    fn frame_len(&self) -> usize {
        self.height * self.width * 3
    }

    /// The same frames in groups of at most `count`.
    pub(crate) fn chunks(self, count: usize) -> impl Iterator<Item = Self> {
        self.bytes.chunks(count * self.frame_len()).map(move |bytes| Self { bytes, ..self })
    }

    /// CLIP-normalised pixels `[F, 3, height, width]`. Frames of another size are resized, bicubic and antialiased as
    /// CLIP's own preprocessing does it, but whole: nothing is cropped and the sides are scaled independently, so that
    /// every patch of the frame gets a score.
    pub(crate) fn to_pixels(self, height: usize, width: usize, device: &Device) -> Result<Tensor, ClipError> {
        if height == 0 || width == 0 {
            return Err(ClipError::Shape {
                what: "size of pixels",
                got: format!("{height}×{width}"),
                expected: "at least 1×1".to_owned(),
            });
        }
        let count = self.count();
        let resized;
        let bytes = if (height, width) == (self.height, self.width) {
            self.bytes
        } else {
            resized = self.resized(height, width)?;
            &resized
        };
        let plane = height * width;
        let mut pixels = vec![0f32; count * 3 * plane];
        for (frame, planes) in bytes.chunks_exact(3 * plane).zip(pixels.chunks_exact_mut(3 * plane)) {
            for (c, channel) in planes.chunks_exact_mut(plane).enumerate() {
                let (scale, shift) = (1.0 / (255.0 * STD[c]), -MEAN[c] / STD[c]);
                for (value, rgb) in channel.iter_mut().zip(frame.chunks_exact(3)) {
                    *value = f32::from(rgb[c]) * scale + shift;
                }
            }
        }
        Ok(Tensor::from_vec(pixels, (count, 3, height, width), device)?)
    }

    fn resized(&self, height: usize, width: usize) -> Result<Vec<u8>, ClipError> {
        let shape = |reason: String| ClipError::Shape {
            what: "frame size",
            got: format!("{}×{} to {height}×{width}", self.height, self.width),
            expected: format!("sizes that can be resized ({reason})"),
        };
        let side = |pixels: usize| u32::try_from(pixels).map_err(|e| shape(e.to_string()));
        let (from, to) = ((side(self.width)?, side(self.height)?), (side(width)?, side(height)?));
        // Catmull-Rom is the bicubic kernel (a = −0.5) of Pillow and of torchvision with antialiasing.
        let options =
            ResizeOptions::new().resize_alg(ResizeAlg::Convolution(FilterType::CatmullRom)).use_alpha(false);
        let mut resizer = Resizer::new();
        let mut target = Image::new(to.0, to.1, PixelType::U8x3);
        let mut bytes = Vec::with_capacity(self.count() * height * width * 3);
        for frame in self.bytes.chunks_exact(self.frame_len()) {
            let source =
                ImageRef::new(from.0, from.1, frame, PixelType::U8x3).map_err(|e| shape(e.to_string()))?;
            resizer.resize(&source, &mut target, &options).map_err(|e| shape(e.to_string()))?;
            bytes.extend_from_slice(target.buffer());
        }
        Ok(bytes)
    }
}
