//! One decoded frame.

use crate::VideoError;
use crate::clip::rgb_bytes;

/// A decoded frame, upright and in RGB.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Frame {
    /// Pixels `[H, W, 3]`, full range, displayed orientation.
    pub rgb: Vec<u8>,
    /// Displayed width in pixels.
    pub width: u32,
    /// Displayed height in pixels.
    pub height: u32,
    /// Number of the frame in presentation order, from 0.
    pub number: usize,
    /// Presentation time stamp, in the stream's time base.
    pub pts: i64,
    /// Presentation time in seconds since the first frame of the video.
    pub seconds: f64,
    /// Whether the decoder concealed damage (only with [`ReadOptions::allow_damaged`](crate::ReadOptions)).
    pub damaged: bool,
    /// The codec's motion vectors, if they were asked for and the codec exports any. Empty for
    /// intra-coded frames, and for B-frames of MPEG-4 Part 2 and its relatives, whose vectors FFmpeg does not export.
    pub motion: Option<Vec<MotionVector>>,
}

impl Frame {
    /// Refuses a frame that does not have the pixels of its size, as those of [`ViewedFrames`](crate::ViewedFrames).
    pub(crate) fn check_pixels(&self) -> Result<(), VideoError> {
        let Self { number, width, height, .. } = *self;
        if rgb_bytes(1, height as usize, width as usize) == Some(self.rgb.len()) {
            return Ok(());
        }
        let must = format!("frame {number} of {width}x{height} needs 3 for each pixel");
        Err(VideoError::invalid("the frame's length in bytes", self.rgb.len(), must))
    }

    pub(crate) fn same_size_as(&self, first: &Frame) -> Result<(), VideoError> {
        if (self.width, self.height) == (first.width, first.height) {
            return Ok(());
        }
        Err(VideoError::SizeChanged {
            frame: self.number,
            width: self.width,
            height: self.height,
            first_width: first.width,
            first_height: first.height,
        })
    }
}

/// How the content of one block of a frame moves, as the encoder found it.
///
/// All lengths are displayed pixels. The displacement is *forward in time* whichever way the codec predicted, and
/// *per frame*: vectors to a reference several frames away are divided by that distance.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct MotionVector {
    /// Horizontal centre of the block.
    pub x: f32,
    /// Vertical centre of the block.
    pub y: f32,
    /// Width of the block.
    pub width: f32,
    /// Height of the block.
    pub height: f32,
    /// Displacement to the right, in pixels per frame.
    pub dx: f32,
    /// Displacement downwards, in pixels per frame.
    pub dy: f32,
}
