//! How content moves over the tubelet grid, found from the pixels.

use crate::{Clip, MotionGrid, TubeletShape, VideoError};

/// Motion found by matching blocks of each frame of the clip in the next one: for codecs that export no vectors.
///
/// Each cell takes the displacement with the least sum of absolute luma differences within `radius` pixels per clip frame,
/// the shorter one of equals. Standing still wins unless moving saves at least `ZERO_BIAS` grey levels per pixel, so
/// noise and flat areas do not move. Cells smaller than 8 pixels are matched over the 8 × 8 pixels around them.
///
/// # Errors
/// [`VideoError::Invalid`] when the tubelets do not tile the clip, or `radius` leads out of the frame from everywhere in it.
pub fn block_motion(clip: &Clip, shape: TubeletShape, radius: usize) -> Result<MotionGrid, VideoError> {
    let (slots, rows, cols) = shape.grid(clip)?;
    let side = clip.width().max(clip.height());
    if radius >= side {
        return Err(VideoError::invalid(
            "the radius of block matching",
            radius,
            format!("it must be below the frame's {side} pixels"),
        ));
    }
    let luma: Vec<Luma> = (0..clip.frames()).map(|i| Luma::of(clip, i)).collect();
    let offsets = offsets_by_length(radius as i32);
    let mut vectors = Vec::with_capacity(slots * rows * cols);
    for slot in 0..slots {
        let first = slot * shape.frames;
        let pairs: Vec<_> =
            (first..first + shape.frames).filter_map(|t| Some((&luma[t], luma.get(t + 1)?))).collect();
        for cell in 0..rows * cols {
            let window = Window::around(cell / cols, cell % cols, shape.patch, clip);
            let mut sum = [0i32; 2];
            for (now, next) in &pairs {
                let (dx, dy) = window.best_match(now, next, &offsets);
                sum = [sum[0] + dx, sum[1] + dy];
            }
            let scale = shape.frames as f32 / (pairs.len().max(1) * shape.patch) as f32;
            vectors.push(sum.map(|d| d as f32 * scale));
        }
    }
    Ok(MotionGrid { slots, rows, cols, vectors })
}

/// Grey levels per pixel that a displacement must save against standing still.
const ZERO_BIAS: u32 = 2;
/// Smallest side, in pixels, of the window that is matched.
const MIN_WINDOW: usize = 8;

/// Every displacement within `radius`, shortest first.
fn offsets_by_length(radius: i32) -> Vec<(i32, i32)> {
    let mut all: Vec<(i32, i32)> =
        (-radius..=radius).flat_map(|y| (-radius..=radius).map(move |x| (x, y))).collect();
    all.sort_by_key(|&(x, y)| i64::from(x) * i64::from(x) + i64::from(y) * i64::from(y));
    all
}

/// The brightness of one frame.
struct Luma {
    data: Vec<u8>,
    width: usize,
    height: usize,
}

impl Luma {
    fn of(clip: &Clip, frame: usize) -> Self {
        // BT.601 weights in 1/256.
        let grey =
            |p: &[u8]| ((77 * u32::from(p[0]) + 150 * u32::from(p[1]) + 29 * u32::from(p[2])) >> 8) as u8;
        let data = clip.frame(frame).chunks_exact(3).map(grey).collect();
        Self { data, width: clip.width(), height: clip.height() }
    }
}

/// The pixels of one cell, enlarged to at least [`MIN_WINDOW`] where the clip has room.
struct Window {
    x: usize,
    y: usize,
    width: usize,
    height: usize,
}

impl Window {
    fn around(row: usize, col: usize, patch: usize, clip: &Clip) -> Self {
        let grow = |cell: usize, size: usize| {
            let len = patch.max(MIN_WINDOW).min(size);
            let start = (cell * patch).saturating_sub((len - patch) / 2).min(size - len);
            (start, len)
        };
        let ((x, width), (y, height)) = (grow(col, clip.width()), grow(row, clip.height()));
        Self { x, y, width, height }
    }

    fn best_match(&self, now: &Luma, next: &Luma, offsets: &[(i32, i32)]) -> (i32, i32) {
        let still = self.difference(now, next, (0, 0), u32::MAX).unwrap_or(u32::MAX);
        let (mut best, mut least) =
            ((0, 0), still.saturating_sub(ZERO_BIAS * (self.width * self.height) as u32));
        for &offset in offsets {
            if let Some(difference) = self.difference(now, next, offset, least) {
                (best, least) = (offset, difference);
            }
        }
        best
    }

    /// Sum of absolute differences at this displacement, if it stays inside the frame and below `limit`.
    fn difference(&self, now: &Luma, next: &Luma, (dx, dy): (i32, i32), limit: u32) -> Option<u32> {
        let x = self.x.checked_add_signed(dx as isize).filter(|x| x + self.width <= next.width)?;
        let y = self.y.checked_add_signed(dy as isize).filter(|y| y + self.height <= next.height)?;
        let mut sum = 0;
        for line in 0..self.height {
            let a = &now.data[(self.y + line) * now.width + self.x..][..self.width];
            let b = &next.data[(y + line) * next.width + x..][..self.width];
            sum += line_difference(a, b);
            if sum >= limit {
                return None;
            }
        }
        Some(sum)
    }
}

/// Sum of absolute differences of two lines of equal length. Whole eights become one instruction each.
fn line_difference(a: &[u8], b: &[u8]) -> u32 {
    let difference =
        |a: &[u8], b: &[u8]| a.iter().zip(b).map(|(a, b)| u32::from(a.abs_diff(*b))).sum::<u32>();
    let ((a16, a), (b16, b)) = (a.as_chunks::<16>(), b.as_chunks::<16>());
    let ((a8, a), (b8, b)) = (a.as_chunks::<8>(), b.as_chunks::<8>());
    let sixteens: u32 = a16.iter().zip(b16).map(|(a, b)| difference(a, b)).sum();
    let eights: u32 = a8.iter().zip(b8).map(|(a, b)| difference(a, b)).sum();
    sixteens + eights + difference(a, b)
}
