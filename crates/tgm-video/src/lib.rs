//! A video file becomes exact frames at exact times, augmented, then tubelets, and back.
//!
//! The way of the data, one module each:
//!
//! ```text
//! file ─ probe ─ index ─▶ VideoReader ─▶ Frame ─ Crop, View ─▶ Clip ─ patchify ─▶ tubelets [N, t·p·p·3]
//!                Sampling ──┘              └ codec vectors ─ the same View ─▶ MotionGrid
//! ```
//!
//! **Frames are identified by time stamp.** Opening a file scans its packets once for the presentation time of every
//! frame; a frame is whatever decodes to that time, so random access returns byte for byte what decoding in order would,
//! with B-frames, open groups of pictures, variable frame rates and edit lists alike. Where a container's time stamps
//! cannot be trusted the file is decoded once, which shows what AVI packets become, or always from its beginning: exactness
//! comes before speed.
//!
//! **Only what a clip needs is done.** Frames with gaps between them are decoded without the pictures in between that nothing
//! refers to, and [`VideoReader::read_views`] converts only what a view shows; the bytes are the same.
//!
//! **Pixels are what the stream says they are**: its colour matrix and range are honoured, and pictures are turned
//! upright, motion vectors with them. Nothing is resampled in time.
//!
//! FFmpeg is reached through `video-rs`, which links and initialises it; reading goes to the `ffmpeg-next` beneath, because
//! video-rs' own seeking, time stamps, colours and rotation are not exact. Each reader decodes on one thread: decode many
//! files in parallel rather than one file with many threads.
//!
//! ```
//! use tgm_video::*;
//!
//! # let folder = tempfile::tempdir()?;
//! # let path = folder.path().join("grey.mp4");
//! # let mut writer = VideoWriter::create(&path, 96, 64, &EncodeOptions::default())?;
//! # for level in 0..40u8 { writer.write(&vec![5 * level; 96 * 64 * 3])?; }
//! # writer.finish()?;
//! let rng = &mut tgm_random::Streams::new(0).stream("clip", 0, 0);
//! let mut reader = VideoReader::open(&path, &ReadOptions { motion_vectors: true, ..Default::default() })?;
//! let numbers = Sampling::Dense { frames: 4, stride: 2 }.train(reader.index().len(), rng);
//!
//! let crop = Crop::multi_scale().choose(reader.probe().width, reader.probe().height, 48, rng)?;
//! let view = View { crop, size: 48, flipped: false };
//! let ViewedFrames { clips, frames } = reader.read_views(&numbers, &[view])?;
//! let clip = &clips[0];
//!
//! let shape = TubeletShape { frames: 2, patch: 16 };
//! let tubelets = patchify(clip, shape, &Normalization::IMAGENET)?;
//! let motion = motion_grid(&frames, &view, shape)?;
//! assert_eq!(tubelets.len(), motion.vectors.len() * shape.len());
//! assert_eq!((motion.slots, motion.rows, motion.cols), (2, 3, 3));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
#![deny(missing_docs)]

mod bitstream;
mod block_motion;
mod clip;
mod color;
mod compact;
mod container;
mod crop;
mod deadline;
mod decode;
mod error;
mod fetch;
mod ffi;
mod file;
mod frame;
mod index;
mod motion;
mod orientation;
mod picture;
mod probe;
mod rand_augment;
mod reader;
mod sampling;
mod scan;
mod tubelet;
mod vectors;
mod writer;
mod yuv;

/// Where the generators come from that [`Sampling`], [`Crop`] and [`RandAugment`] draw from: whoever uses this crate needs no
/// other one for them.
pub use tgm_random;

pub use block_motion::block_motion;
pub use clip::{Clip, View};
pub use crop::{Crop, CropBox};
pub use error::VideoError;
pub use file::VideoFile;
pub use frame::{Frame, MotionVector};
pub use index::FrameIndex;
pub use motion::{MotionGrid, motion_grid};
pub use orientation::Rotation;
pub use picture::write_png;
pub use probe::{Probe, probe};
pub use rand_augment::RandAugment;
pub use reader::{ReadOptions, VideoReader, ViewedFrames};
pub use sampling::Sampling;
pub use scan::scanner_version;
pub use tubelet::{Normalization, TubeletShape, patchify, patchify_into, unpatchify};
pub use writer::{ColorMatrix, EncodeOptions, PixelFormat, VideoWriter};

#[cfg(test)]
mod tests {
    #[test]
    fn readers_and_writers_move_between_threads() {
        fn assert_send<T: Send>() {}
        assert_send::<super::VideoReader>();
        assert_send::<super::VideoWriter>();
    }
}
