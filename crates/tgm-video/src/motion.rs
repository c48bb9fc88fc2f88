//! How content moves over the tubelet grid, as the codec found it.

use crate::{Frame, MotionVector, TubeletShape, VideoError, View};

/// One displacement per tubelet.
#[derive(Clone, Debug, PartialEq)]
pub struct MotionGrid {
    /// Temporal slots.
    pub slots: usize,
    /// Rows of tubelets.
    pub rows: usize,
    /// Columns of tubelets.
    pub cols: usize,
    /// `[dx, dy]` per tubelet, `[slots * rows * cols]` time first: how far its content moves during one slot, forward in time,
    /// in cells (1 is one patch). Zero where nothing is known.
    pub vectors: Vec<[f32; 2]>,
}

/// Codec motion of the frames of a clip, on the clip's tubelet grid.
///
/// Each vector goes through the same `view` as the pixels. A tubelet takes the mean of the vectors that touch it in
/// the slot's frames, weighted by the area covered; blocks without vector (intra-coded) do not count, so a slot with one
/// intra frame keeps the other frame's motion. Per-frame displacements are multiplied by the number of source
/// frames in the slot, taken from the frame numbers, so that the slots of a clip padded with its last frame stand still.
///
/// # Errors
/// [`VideoError::Invalid`] when the tubelets do not tile the view, [`VideoError::SizeChanged`] when frames differ in
/// size.
pub fn motion_grid(frames: &[Frame], view: &View, shape: TubeletShape) -> Result<MotionGrid, VideoError> {
    let size = view.size as usize;
    let (slots, rows, cols) = shape.grid_of(frames.len(), size, size)?;
    view.crop.check(frames[0].width, frames[0].height)?;
    let mut vectors = Vec::with_capacity(slots * rows * cols);
    for slot in 0..slots {
        let mut sums = vec![[0.0f64; 3]; rows * cols];
        for frame in &frames[slot * shape.frames..][..shape.frames] {
            frame.same_size_as(&frames[0])?;
            for vector in frame.motion.iter().flatten() {
                let block = Block::through(view, vector);
                block.add_to(&mut sums, rows, cols, shape.patch as f32);
            }
        }
        let scale = source_frames(frames, slot, shape.frames) / shape.patch as f64;
        let mean = |[x, y, area]: [f64; 3]| {
            if area > 0.0 { [(x / area * scale) as f32, (y / area * scale) as f32] } else { [0.0; 2] }
        };
        vectors.extend(sums.into_iter().map(mean));
    }
    Ok(MotionGrid { slots, rows, cols, vectors })
}

/// Source frames that pass during a slot: from its first frame to the next slot's. The last slot, which has no next, lasts as
/// long as its own frames say, and a clip of single frames as long as the slot before.
fn source_frames(frames: &[Frame], slot: usize, per_slot: usize) -> f64 {
    let start = slot * per_slot;
    let between = |from: usize, to: usize| frames[to].number as f64 - frames[from].number as f64;
    if start + per_slot < frames.len() {
        between(start, start + per_slot)
    } else if per_slot > 1 {
        between(start, start + per_slot - 1) * per_slot as f64 / (per_slot - 1) as f64
    } else if start > 0 {
        between(start - 1, start)
    } else {
        1.0
    }
}

/// A codec block in clip pixels.
struct Block {
    left: f32,
    top: f32,
    right: f32,
    bottom: f32,
    dx: f32,
    dy: f32,
}

impl Block {
    fn through(view: &View, vector: &MotionVector) -> Self {
        let size = view.size as f32;
        let (sx, sy) = (size / view.crop.width as f32, size / view.crop.height as f32);
        let (x, y) = ((vector.x - view.crop.x as f32) * sx, (vector.y - view.crop.y as f32) * sy);
        let (x, dx) = if view.flipped { (size - x, -vector.dx) } else { (x, vector.dx) };
        let (w, h) = (vector.width * sx / 2.0, vector.height * sy / 2.0);
        Self { left: x - w, right: x + w, top: y - h, bottom: y + h, dx: dx * sx, dy: vector.dy * sy }
    }

    /// Adds `[dx, dy, 1]` times the covered area to every cell this block touches.
    fn add_to(&self, sums: &mut [[f64; 3]], rows: usize, cols: usize, patch: f32) {
        let cells = |low: f32, high: f32, count: usize| {
            // Casts saturate at zero, which cuts what lies left of or above the clip.
            let (first, last) = ((low / patch).floor() as usize, (high / patch).ceil() as usize);
            (first..last.min(count)).map(move |i| {
                let start = i as f32 * patch;
                (i, f64::from((high.min(start + patch) - low.max(start)).max(0.0)))
            })
        };
        for (row, covered_y) in cells(self.top, self.bottom, rows) {
            for (col, covered_x) in cells(self.left, self.right, cols) {
                let area = covered_x * covered_y;
                let sum = &mut sums[row * cols + col];
                sum[0] += f64::from(self.dx) * area;
                sum[1] += f64::from(self.dy) * area;
                sum[2] += area;
            }
        }
    }
}
