//! Strips of pictures: one frame for each temporal slot, and what is drawn over them.

use tgm_data::loader::Sample;
use tgm_masking::{Grid, Mask, MotionField, ScoreMap};

/// Pixels between pictures, white in PNG files.
const GAP: usize = 2;
/// Small pictures are enlarged to at least this many pixels, so that arrows have room.
const MIN_SIDE: usize = 128;

/// RGB pixels `[height, width, 3]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Strip {
    /// The bytes.
    pub rgb: Vec<u8>,
    /// Width in pixels.
    pub width: usize,
    /// Height in pixels.
    pub height: usize,
}

/// The first frame of every slot side by side, enlarged by a whole number if it is small.
#[derive(Clone, Debug)]
pub struct Canvas {
    grid: Grid,
    strip: Strip,
    /// Height and width of one picture.
    side: (usize, usize),
}

impl Canvas {
    /// The frames of a clip.
    pub fn of_frames(sample: &Sample) -> Self {
        let per_slot = sample.clip.frames() / sample.grid.slots();
        let frames: Vec<&[u8]> =
            (0..sample.grid.slots()).map(|slot| sample.clip.frame(slot * per_slot)).collect();
        Self::new(sample.grid, &frames, sample.clip.height(), sample.clip.width())
    }

    /// One picture `[height, width, 3]` for each slot.
    pub fn new(grid: Grid, frames: &[&[u8]], height: usize, width: usize) -> Self {
        let factor = MIN_SIDE.div_ceil(height.min(width).max(1)).max(1);
        let (h, w) = (height * factor, width * factor);
        let total = frames.len() * (w + GAP) - GAP;
        let mut rgb = vec![255; total * h * 3];
        for (i, frame) in frames.iter().enumerate() {
            for y in 0..h {
                let line = &frame[y / factor * width * 3..][..width * 3];
                let start = (y * total + i * (w + GAP)) * 3;
                for (x, pixel) in rgb[start..start + w * 3].chunks_exact_mut(3).enumerate() {
                    pixel.copy_from_slice(&line[x / factor * 3..][..3]);
                }
            }
        }
        Self { grid, strip: Strip { rgb, width: total, height: h }, side: (h, w) }
    }

    /// Dark blue for the lowest score of the clip, over red to yellow for the highest, over the frames in grey.
    pub fn heat(mut self, scores: &ScoreMap) -> Strip {
        let finite = scores.values().iter().copied().filter(|v| v.is_finite());
        let (low, high) = finite.fold((f32::MAX, f32::MIN), |(l, h), v| (l.min(v), h.max(v)));
        let range = (high - low).max(1e-9);
        self.each_pixel(|token, pixel| {
            let colour = heat_colour(((scores.values()[token] - low) / range).clamp(0.0, 1.0));
            blend(pixel, colour, 0.65);
        });
        self.strip
    }

    /// What is hidden is dark, what is visible stays.
    pub fn masked(mut self, mask: &Mask) -> Strip {
        let hidden = mask.to_bools();
        self.each_pixel(|token, pixel| {
            if hidden[token] {
                blend(pixel, [28.0, 30.0, 38.0], 0.86);
            }
        });
        self.strip
    }

    /// Arrows from the middle of each tubelet to where its content is one slot later, on darkened frames. The longest is
    /// drawn at most one and a half cells long; the colour tells the direction.
    pub fn arrows(mut self, motion: &MotionField) -> Strip {
        self.each_pixel(|_, pixel| blend(pixel, [0.0; 3], 0.45));
        let longest = (0..self.grid.len()).map(|i| motion.magnitude(i)).fold(0f32, f32::max);
        let scale = if longest > 1.5 { 1.5 / longest } else { 1.0 };
        let (cell_h, cell_w) = self.cell();
        for token in 0..self.grid.len() {
            let [dx, dy] = motion.vectors()[token];
            if motion.magnitude(token) * scale < 0.05 {
                continue;
            }
            let (slot, row, col) = self.grid.position(token as u32);
            let (x, y) = ((col as f32 + 0.5) * cell_w, (row as f32 + 0.5) * cell_h);
            let to = (x + dx * scale * cell_w, y + dy * scale * cell_h);
            self.arrow(slot, (x, y), to, direction_colour(dx, dy));
        }
        self.strip
    }

    /// The pictures as they are.
    pub fn plain(self) -> Strip {
        self.strip
    }

    fn cell(&self) -> (f32, f32) {
        (self.side.0 as f32 / self.grid.rows() as f32, self.side.1 as f32 / self.grid.cols() as f32)
    }

    fn each_pixel(&mut self, mut draw: impl FnMut(usize, &mut [u8])) {
        let (h, w) = self.side;
        for slot in 0..self.grid.slots() {
            for y in 0..h {
                let start = (y * self.strip.width + slot * (w + GAP)) * 3;
                let row = y * self.grid.rows() / h;
                for (x, pixel) in self.strip.rgb[start..start + w * 3].chunks_exact_mut(3).enumerate() {
                    draw(self.grid.index(slot, row, x * self.grid.cols() / w) as usize, pixel);
                }
            }
        }
    }

    /// A line with a dot at its end, which points the way better than a head of three pixels. Short ones have a small dot.
    fn arrow(&mut self, slot: usize, from: (f32, f32), to: (f32, f32), colour: [f32; 3]) {
        let length = (to.0 - from.0).hypot(to.1 - from.1);
        let dot = if length > 5.0 { 2 } else { i64::from(length > 2.0) };
        let steps = (length * 2.0).ceil().max(1.0) as usize;
        for step in 0..=steps {
            let t = step as f32 / steps as f32;
            let (x, y) = (from.0 + (to.0 - from.0) * t, from.1 + (to.1 - from.1) * t);
            let radius = if step == steps { dot } else { 0 };
            for (dx, dy) in (-radius..=radius).flat_map(|dy| (-radius..=radius).map(move |dx| (dx, dy))) {
                self.dot(slot, x as i64 + dx, y as i64 + dy, colour);
            }
        }
    }

    fn dot(&mut self, slot: usize, x: i64, y: i64, colour: [f32; 3]) {
        let (h, w) = self.side;
        if (0..w as i64).contains(&x) && (0..h as i64).contains(&y) {
            let at = (y as usize * self.strip.width + slot * (w + GAP) + x as usize) * 3;
            self.strip.rgb[at..at + 3].iter_mut().zip(colour).for_each(|(p, c)| *p = c as u8);
        }
    }
}

fn blend(pixel: &mut [u8], colour: [f32; 3], share: f32) {
    for (p, c) in pixel.iter_mut().zip(colour) {
        *p = (f32::from(*p) * (1.0 - share) + c * share) as u8;
    }
}

/// Five stops of a map that grows in brightness, so that it is read without colour, too.
fn heat_colour(value: f32) -> [f32; 3] {
    const STOPS: [[f32; 3]; 5] = [
        [10.0, 8.0, 60.0],
        [90.0, 18.0, 110.0],
        [190.0, 50.0, 80.0],
        [245.0, 130.0, 25.0],
        [252.0, 250.0, 160.0],
    ];
    let at = value * 4.0;
    let (low, share) = ((at as usize).min(3), at - (at as usize).min(3) as f32);
    std::array::from_fn(|c| STOPS[low][c] + (STOPS[low + 1][c] - STOPS[low][c]) * share)
}

/// The colour wheel: right is red, down is yellow-green, left is cyan, up is violet.
fn direction_colour(dx: f32, dy: f32) -> [f32; 3] {
    let hue = dy.atan2(dx) / std::f32::consts::TAU * 6.0;
    std::array::from_fn(|c| {
        let k = (hue + [0.0, 4.0, 2.0][c]).rem_euclid(6.0);
        let value = ((k - 3.0).abs() - 1.0).clamp(0.0, 1.0);
        255.0 * (0.35 + 0.65 * value)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn canvas() -> Canvas {
        let grid = Grid::new(2, 2, 2).unwrap();
        let (black, white) = (vec![0; 4 * 4 * 3], vec![200; 4 * 4 * 3]);
        Canvas::new(grid, &[&black, &white], 4, 4)
    }

    fn pixel(strip: &Strip, x: usize, y: usize) -> [u8; 3] {
        strip.rgb[(y * strip.width + x) * 3..][..3].try_into().unwrap()
    }

    #[test]
    fn small_pictures_are_enlarged_and_stand_side_by_side() {
        let strip = canvas().plain();
        assert_eq!((strip.width, strip.height), (2 * 128 + GAP, 128));
        assert_eq!(pixel(&strip, 127, 5), [0; 3]);
        assert_eq!(pixel(&strip, 128, 5), [255; 3], "the gap");
        assert_eq!(pixel(&strip, 130, 127), [200; 3]);
    }

    #[test]
    fn hidden_tubelets_are_dark_and_visible_ones_untouched() {
        let grid = Grid::new(2, 2, 2).unwrap();
        let mask = Mask::from_masked(grid, vec![1, 4]).unwrap();
        let strip = canvas().masked(&mask);
        assert_eq!(pixel(&strip, 130 + 100, 10), [200; 3]);
        assert!(pixel(&strip, 130 + 10, 10)[0] < 80);
        assert_ne!(pixel(&strip, 100, 10), [0; 3], "upper right of slot 0");
    }

    #[test]
    fn the_best_score_is_the_brightest() {
        let grid = Grid::new(2, 2, 2).unwrap();
        let scores = ScoreMap::new(grid, vec![0.1, 0.9, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1]).unwrap();
        let strip = canvas().heat(&scores);
        let brightness = |x, y| pixel(&strip, x, y).iter().map(|v| u32::from(*v)).sum::<u32>();
        assert!(brightness(100, 10) > 2 * brightness(10, 10));
    }

    #[test]
    fn arrows_begin_in_the_middle_of_a_moving_tubelet_and_nowhere_else() {
        let grid = Grid::new(2, 2, 2).unwrap();
        let mut vectors = vec![[0.0; 2]; 8];
        vectors[0] = [0.5, 0.0];
        let strip = canvas().arrows(&MotionField::new(grid, vectors).unwrap());
        assert!(pixel(&strip, 45, 32)[0] > 200, "to the right is red");
        assert_eq!(pixel(&strip, 20, 32), [0; 3]);
        assert_eq!(pixel(&strip, 100, 96), [0; 3]);
    }
}
