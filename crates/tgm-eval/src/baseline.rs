//! Features that need no model, to be beaten by every model.

use crate::{Error, Result};

/// Frames that a clip is reduced to.
pub const THUMBNAIL_FRAMES: usize = 16;
/// Thumbnail height in pixels.
pub const THUMBNAIL_HEIGHT: usize = 18;
/// Thumbnail width in pixels.
pub const THUMBNAIL_WIDTH: usize = 24;

/// Where something moved: |frame − median over time| of small grey pictures, flattened `[16, 18, 24]`.
///
/// `clip` is RGB u8 `[T, H, W, 3]` and `shape` its `[T, H, W]`. 16 frames are taken evenly from first to last (a
/// shorter clip repeats frames), turned grey (BT.601 luma), averaged over areas down to 24×18 whatever the aspect
/// ratio, and compared with the pixel-wise median of the 16. Values lie between 0 and 1.
///
/// A nearest neighbour on these knows motion and position but no appearance, so a video model whose features do no
/// better has learnt nothing about motion.
///
/// # Errors
/// [`Error::Empty`] if a side of `shape` is 0, [`Error::Length`] if `clip` does not have that shape.
pub fn thumbnail_motion(clip: &[u8], shape: [usize; 3]) -> Result<Vec<f32>> {
    let [frames, height, width] = shape;
    let frame_len = frame_len(clip, shape)?;
    let (rows, columns) = (areas(height, THUMBNAIL_HEIGHT), areas(width, THUMBNAIL_WIDTH));
    let mut thumbnails = Vec::with_capacity(THUMBNAIL_FRAMES * THUMBNAIL_HEIGHT * THUMBNAIL_WIDTH);
    for index in 0..THUMBNAIL_FRAMES {
        // Rounded to the nearest frame.
        let frame = (2 * index * (frames - 1) + THUMBNAIL_FRAMES - 1) / (2 * (THUMBNAIL_FRAMES - 1));
        thumbnails.extend(thumbnail(&clip[frame * frame_len..][..frame_len], width, &rows, &columns));
    }
    subtract_median(&mut thumbnails);
    Ok(thumbnails)
}

/// The first frame alone as a small grey picture, flattened `[18, 24]`; arguments as for [`thumbnail_motion`].
///
/// A nearest neighbour on these tells how far a label can be read from a still.
///
/// # Errors
/// As [`thumbnail_motion`].
pub fn thumbnail_still(clip: &[u8], shape: [usize; 3]) -> Result<Vec<f32>> {
    let [_, height, width] = shape;
    let frame_len = frame_len(clip, shape)?;
    let (rows, columns) = (areas(height, THUMBNAIL_HEIGHT), areas(width, THUMBNAIL_WIDTH));
    Ok(thumbnail(&clip[..frame_len], width, &rows, &columns))
}

/// What the cosine can compare of a row of features: one that is flat, as of a clip without any motion, has no direction, and becomes a
/// constant, so that all such clips are alike.
#[must_use]
pub fn with_direction(mut row: Vec<f32>) -> Vec<f32> {
    if row.iter().all(|&value| value == 0.0) {
        row.fill(1.0);
    }
    row
}

/// Bytes of a frame of a clip that has the shape it is said to have.
fn frame_len(clip: &[u8], [frames, height, width]: [usize; 3]) -> Result<usize> {
    for (missing, side) in [("frames", frames), ("rows", height), ("columns", width)] {
        if side == 0 {
            return Err(Error::Empty { what: "clip", missing });
        }
    }
    // A product that overflows is no length either.
    let frame_len = height.saturating_mul(width).saturating_mul(3);
    let expected = frames.saturating_mul(frame_len);
    if clip.len() != expected {
        return Err(Error::Length { what: "clip", expected, got: clip.len() });
    }
    Ok(frame_len)
}

/// The source pixels under one target pixel: the first, and the share of each.
struct Area {
    start: usize,
    shares: Vec<f32>,
}

/// One axis of a resize that averages over areas.
fn areas(from: usize, to: usize) -> Vec<Area> {
    let scale = from as f64 / to as f64;
    let area = |target: usize| {
        let (low, high) = (target as f64 * scale, (target + 1) as f64 * scale);
        let start = (low as usize).min(from - 1);
        let end = (high.ceil() as usize).clamp(start + 1, from);
        let covered = |pixel: usize| high.min((pixel + 1) as f64) - low.max(pixel as f64);
        Area { start, shares: (start..end).map(|pixel| (covered(pixel).max(0.0) / scale) as f32).collect() }
    };
    (0..to).map(area).collect()
}

/// One frame `[H, W, 3]` as a grey thumbnail with values from 0 to 1.
fn thumbnail(frame: &[u8], width: usize, rows: &[Area], columns: &[Area]) -> Vec<f32> {
    let grey = |pixel: &[u8]| {
        (0.299 * f32::from(pixel[0]) + 0.587 * f32::from(pixel[1]) + 0.114 * f32::from(pixel[2])) / 255.0
    };
    let mut thumbnail = Vec::with_capacity(rows.len() * columns.len());
    for row in rows {
        let mut line = vec![0.0; width];
        for (y, share) in (row.start..).zip(&row.shares) {
            for (sum, pixel) in line.iter_mut().zip(frame[y * width * 3..].chunks_exact(3)) {
                *sum += share * grey(pixel);
            }
        }
        let average = |area: &Area| -> f32 {
            line[area.start..].iter().zip(&area.shares).map(|(x, share)| x * share).sum()
        };
        thumbnail.extend(columns.iter().map(average));
    }
    thumbnail
}

/// Replaces every value by its distance to the median of its pixel over the frames.
fn subtract_median(thumbnails: &mut [f32]) {
    let pixels = thumbnails.len() / THUMBNAIL_FRAMES;
    for pixel in 0..pixels {
        let mut times: Vec<f32> = thumbnails.iter().skip(pixel).step_by(pixels).copied().collect();
        times.sort_unstable_by(f32::total_cmp);
        let median = 0.5 * (times[THUMBNAIL_FRAMES / 2 - 1] + times[THUMBNAIL_FRAMES / 2]);
        for value in thumbnails.iter_mut().skip(pixel).step_by(pixels) {
            *value = (*value - median).abs();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PIXELS: usize = THUMBNAIL_HEIGHT * THUMBNAIL_WIDTH;

    /// A white square of a quarter of the thumbnail's cells on black, in the given column of cells at each time.
    fn moving(columns: &[usize], scale: usize) -> (Vec<u8>, [usize; 3]) {
        let (height, width) = (THUMBNAIL_HEIGHT * scale, THUMBNAIL_WIDTH * scale);
        let mut clip = Vec::new();
        for &column in columns {
            for y in 0..height {
                for x in 0..width {
                    let inside = x / scale == column && y / scale == 5;
                    clip.extend([if inside { 255 } else { 0 }; 3]);
                }
            }
        }
        (clip, [columns.len(), height, width])
    }

    #[test]
    fn clips_without_motion_are_alike_and_nothing_else_is_changed() {
        assert_eq!(with_direction(vec![0.0; 3]), [1.0; 3]);
        assert_eq!(with_direction(vec![0.0, 0.5, 0.0]), [0.0, 0.5, 0.0]);
    }

    #[test]
    fn what_moves_is_bright_at_its_place_and_time_and_the_rest_is_dark() {
        let path: Vec<usize> = (0..16).collect();
        let (clip, shape) = moving(&path, 4);
        let features = thumbnail_motion(&clip, shape).unwrap();
        for (time, frame) in features.chunks(PIXELS).enumerate() {
            for (pixel, &value) in frame.iter().enumerate() {
                let expected = if pixel == 5 * THUMBNAIL_WIDTH + time { 1.0 } else { 0.0 };
                assert!((value - expected).abs() < 1e-5, "time {time}, pixel {pixel}: {value}");
            }
        }
    }

    #[test]
    fn a_still_picture_is_dark_everywhere() {
        let (clip, shape) = moving(&[7; 9], 3);
        assert!(thumbnail_motion(&clip, shape).unwrap().iter().all(|&value| value == 0.0));
    }

    #[test]
    fn a_still_is_the_first_frame_whatever_moves_later() {
        let (clip, shape) = moving(&[7, 8, 9], 3);
        let features = thumbnail_still(&clip, shape).unwrap();
        let bright: Vec<usize> = (0..PIXELS).filter(|&pixel| features[pixel] > 0.5).collect();
        assert_eq!(bright, [5 * THUMBNAIL_WIDTH + 7]);
    }

    #[test]
    fn frames_are_taken_evenly_from_first_to_last() {
        let path: Vec<usize> = (0..46).map(|t| t / 2).collect();
        let (clip, shape) = moving(&path, 1);
        let features = thumbnail_motion(&clip, shape).unwrap();
        for (index, frame) in features.chunks(PIXELS).enumerate() {
            let bright = frame.iter().position(|&value| value > 0.5).unwrap() % THUMBNAIL_WIDTH;
            assert_eq!(bright, (3 * index) / 2, "index {index} shows frame {}", 3 * index);
        }
    }

    #[test]
    fn areas_cover_every_pixel_once_at_any_size() {
        for from in [1, 5, 18, 19, 24, 100, 241] {
            for to in [THUMBNAIL_HEIGHT, THUMBNAIL_WIDTH] {
                let mut covered = vec![0.0; from];
                for area in areas(from, to) {
                    assert!((area.shares.iter().sum::<f32>() - 1.0).abs() < 1e-5);
                    for (pixel, share) in (area.start..).zip(area.shares) {
                        covered[pixel] += share * from as f32 / to as f32;
                    }
                }
                assert!(
                    covered.iter().all(|share| (share - 1.0).abs() < 1e-4),
                    "{from} to {to}: {covered:?}"
                );
            }
        }
    }

    #[test]
    fn one_frame_of_one_pixel_is_a_clip_too() {
        assert_eq!(thumbnail_motion(&[1, 2, 3], [1, 1, 1]).unwrap(), vec![0.0; 16 * PIXELS]);
    }

    #[test]
    fn a_clip_of_another_shape_is_refused() {
        assert!(matches!(
            thumbnail_motion(&[0; 12], [1, 2, 1]),
            Err(Error::Length { expected: 6, got: 12, .. })
        ));
        assert!(matches!(thumbnail_motion(&[], [0, 2, 1]), Err(Error::Empty { missing: "frames", .. })));
        assert!(matches!(thumbnail_still(&[], [2, 1 << 40, 1 << 40]), Err(Error::Length { got: 0, .. })));
    }
}
