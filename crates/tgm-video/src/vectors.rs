//! The codec's motion vectors in displayed pixels, forward in time.

use video_rs::ffmpeg::ffi::AVMotionVector;
use video_rs::ffmpeg::frame::Video;

use crate::MotionVector;
use crate::ffi;
use crate::orientation::Orientation;

/// The motion vectors of a decoded frame.
///
/// `distances` are the frames back to its past reference and on to its future one. FFmpeg does not export which
/// reference a block uses, so each is taken for the nearest: blocks predicted from an older one come out too fast.
pub(crate) fn motion_vectors(
    frame: &Video,
    distances: (usize, usize),
    orientation: Orientation,
) -> Vec<MotionVector> {
    let size = (frame.width() as f32, frame.height() as f32);
    ffi::motion_vectors(frame).iter().map(|vector| forward(vector, distances, size, orientation)).collect()
}

fn forward(
    vector: &AVMotionVector,
    (past, future): (usize, usize),
    (width, height): (f32, f32),
    orientation: Orientation,
) -> MotionVector {
    let scale = f32::from(vector.motion_scale.max(1));
    // `motion` leads from this block to where its content is in the reference: backwards in time for a past one.
    let frames = if vector.source < 0 { -(past as f32) } else { future as f32 };
    let to_reference = (vector.motion_x as f32 / scale, vector.motion_y as f32 / scale);
    let (dx, dy) = orientation.vector(to_reference.0 / frames, to_reference.1 / frames);
    let (x, y) = orientation.point(f32::from(vector.dst_x), f32::from(vector.dst_y), width, height);
    let (block_width, block_height) = orientation.size(vector.w.into(), vector.h.into());
    MotionVector { x, y, width: block_width as f32, height: block_height as f32, dx, dy }
}
