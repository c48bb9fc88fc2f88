//! A video file becomes exact frames at exact times, augmented, then tubelets, and back.
#![deny(missing_docs)]

mod bitstream;
mod block_motion;
mod clip;
mod color;
mod container;
mod crop;
mod decode;
mod error;
mod ffi;
mod frame;
mod index;
mod motion;
mod orientation;
mod picture;
mod probe;
mod reader;
mod sampling;
mod tubelet;
mod vectors;
mod writer;

pub use block_motion::block_motion;
pub use clip::{Clip, View};
pub use crop::{Crop, CropBox};
pub use error::VideoError;
pub use frame::{Frame, MotionVector};
pub use index::FrameIndex;
pub use motion::{MotionGrid, motion_grid};
pub use orientation::Rotation;
pub use picture::write_png;
pub use probe::{Probe, probe};
pub use reader::{ReadOptions, VideoReader};
pub use sampling::Sampling;
pub use tubelet::{Normalization, TubeletShape, patchify, unpatchify};
pub use writer::{ColorMatrix, EncodeOptions, PixelFormat, VideoWriter};
