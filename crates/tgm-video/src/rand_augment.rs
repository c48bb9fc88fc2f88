//! RandAugment (Cubuk et al. 2020) as VideoMAE's fine-tuning uses it: `rand-m7-n4-mstd0.5-inc1`.
//!
//! `ops` operations are drawn per clip, each applied with probability `probability` at a magnitude near `magnitude` of 10,
//! with the *same* operation and magnitude for all frames. The set is timm's "increasing" one, in which a larger
//! magnitude is always a stronger change. Two differences, both of speed: the clip has been cropped and resized before (timm's
//! order for pictures; VideoMAE augments the whole frame), and geometry is bilinear instead of bicubic.

use rand::{Rng, RngExt};
use serde::{Deserialize, Serialize};

use crate::{Clip, VideoError};

/// Settings of the augmentation.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RandAugment {
    /// Operations drawn for a clip. Default 4.
    pub ops: usize,
    /// Mean magnitude, from 0 to 10. Default 7.
    pub magnitude: f64,
    /// Its standard deviation. Default 0.5.
    pub deviation: f64,
    /// With which each operation drawn is applied. Default 0.5.
    pub probability: f64,
}

impl Default for RandAugment {
    fn default() -> Self {
        Self { ops: 4, magnitude: 7.0, deviation: 0.5, probability: 0.5 }
    }
}

/// What is done to every frame.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Operation {
    /// Stretches each channel to 0 … 255.
    AutoContrast,
    /// Flattens each channel's histogram.
    Equalize,
    /// 255 − x.
    Invert,
    /// Keeps this many of the highest bits.
    Posterize(u8),
    /// Inverts values from this one on.
    Solarize(u16),
    /// Adds this to values below 128.
    SolarizeAdd(u8),
    /// Blends with grey: 0 is grey, 1 unchanged.
    Color(f64),
    /// Blends with the mean grey.
    Contrast(f64),
    /// Blends with black.
    Brightness(f64),
    /// Blends with a smoothed picture.
    Sharpness(f64),
    /// Turns by degrees about the centre.
    Rotate(f64),
    /// Moves each row by this times its number.
    ShearX(f64),
    /// Moves each column by this times its number.
    ShearY(f64),
    /// Moves by this share of the width.
    TranslateX(f64),
    /// Moves by this share of the height.
    TranslateY(f64),
}

/// Where geometry leaves the picture: ImageNet's mean, as timm fills.
const FILL: [f32; 3] = [124.0, 116.0, 104.0];

impl RandAugment {
    /// Augments a clip. All draws come from `rng`.
    ///
    /// # Errors
    /// [`VideoError::Invalid`] when a setting is out of range.
    pub fn apply(&self, clip: &Clip, rng: &mut impl Rng) -> Result<Clip, VideoError> {
        for (name, value, top) in [
            ("magnitude", self.magnitude, 10.0),
            ("probability", self.probability, 1.0),
            ("deviation", self.deviation, 10.0),
        ] {
            if !(0.0..=top).contains(&value) {
                return Err(VideoError::invalid(name, value, format!("it must lie between 0 and {top}")));
            }
        }
        let (height, width) = (clip.height(), clip.width());
        let mut data = clip.data().to_vec();
        for _ in 0..self.ops {
            let which = rng.random_range(0..15);
            let applied = rng.random_bool(self.probability);
            let level = self.level(rng);
            let sign = if rng.random_bool(0.5) { 1.0 } else { -1.0 };
            if applied {
                let operation = Operation::at(which, level, sign);
                for frame in data.chunks_exact_mut((height * width * 3).max(1)) {
                    operation.apply(frame, width, height);
                }
            }
        }
        Clip::new(data, height, width, clip.times().to_vec())
    }

    /// A magnitude from 0 to 1: normal about the mean, cut at the ends.
    fn level(&self, rng: &mut impl Rng) -> f64 {
        let (u, v): (f64, f64) = (1.0 - rng.random::<f64>(), rng.random());
        let normal = (-2.0 * u.ln()).sqrt() * (std::f64::consts::TAU * v).cos();
        (self.magnitude + self.deviation * normal).clamp(0.0, 10.0) / 10.0
    }
}

impl Operation {
    /// Operation number `which` of the 15 of timm's increasing set, at a level from 0 to 1.
    fn at(which: usize, level: f64, sign: f64) -> Self {
        let enhance = 1.0 + 0.9 * level * sign;
        match which {
            0 => Self::AutoContrast,
            1 => Self::Equalize,
            2 => Self::Invert,
            3 => Self::Rotate(30.0 * level * sign),
            4 => Self::Posterize(4 - (4.0 * level) as u8),
            5 => Self::Solarize(256 - (256.0 * level) as u16),
            6 => Self::SolarizeAdd((110.0 * level) as u8),
            7 => Self::Color(enhance),
            8 => Self::Contrast(enhance),
            9 => Self::Brightness(enhance),
            10 => Self::Sharpness(enhance),
            11 => Self::ShearX(0.3 * level * sign),
            12 => Self::ShearY(0.3 * level * sign),
            13 => Self::TranslateX(0.45 * level * sign),
            14 => Self::TranslateY(0.45 * level * sign),
            _ => unreachable!("operation {which} of 15"),
        }
    }

    /// Changes a frame `[H, W, 3]`.
    fn apply(self, frame: &mut [u8], width: usize, height: usize) {
        let each = |frame: &mut [u8], of: &dyn Fn(u8) -> u8| frame.iter_mut().for_each(|v| *v = of(*v));
        match self {
            Self::AutoContrast => per_channel(frame, auto_contrast),
            Self::Equalize => per_channel(frame, equalize),
            Self::Invert => each(frame, &|v| 255 - v),
            Self::Posterize(bits) => {
                each(frame, &|v| if bits == 0 { 0 } else { v & (0xff_u8 << (8 - bits.min(8))) })
            }
            Self::Solarize(from) => each(frame, &|v| if u16::from(v) < from { v } else { 255 - v }),
            Self::SolarizeAdd(add) => each(frame, &|v| if v < 128 { v.saturating_add(add) } else { v }),
            Self::Brightness(factor) => each(frame, &|v| blend(0.0, v, factor)),
            Self::Contrast(factor) => {
                let sum: u64 = frame.chunks_exact(3).map(|p| u64::from(grey(p))).sum();
                let mean = (sum as f64 / (width * height) as f64 + 0.5).floor() as f32;
                each(frame, &|v| blend(mean, v, factor));
            }
            Self::Color(factor) => {
                for pixel in frame.chunks_exact_mut(3) {
                    let grey = f32::from(grey(pixel));
                    pixel.iter_mut().for_each(|v| *v = blend(grey, *v, factor));
                }
            }
            Self::Sharpness(factor) => {
                let smooth = smoothed(frame, width, height);
                frame.iter_mut().zip(smooth).for_each(|(v, smooth)| *v = blend(smooth, *v, factor));
            }
            Self::Rotate(degrees) => {
                let (sin, cos) = degrees.to_radians().sin_cos();
                let (cx, cy) = ((width as f64 - 1.0) / 2.0, (height as f64 - 1.0) / 2.0);
                warp(frame, width, height, |x, y| {
                    let (dx, dy) = (x - cx, y - cy);
                    (cos * dx - sin * dy + cx, sin * dx + cos * dy + cy)
                });
            }
            Self::ShearX(by) => warp(frame, width, height, |x, y| (x + by * y, y)),
            Self::ShearY(by) => warp(frame, width, height, |x, y| (x, y + by * x)),
            Self::TranslateX(by) => warp(frame, width, height, |x, y| (x + by * width as f64, y)),
            Self::TranslateY(by) => warp(frame, width, height, |x, y| (x, y + by * height as f64)),
        }
    }
}

/// `factor` of the value, the rest of what it degenerates to.
fn blend(degenerate: f32, value: u8, factor: f64) -> u8 {
    (f64::from(degenerate) + factor * (f64::from(value) - f64::from(degenerate))).clamp(0.0, 255.0) as u8
}

/// ITU-R 601 luma, as Pillow rounds it.
fn grey(pixel: &[u8]) -> u8 {
    let [r, g, b] = [0, 1, 2].map(|c| u32::from(pixel[c]));
    ((r * 19595 + g * 38470 + b * 7471 + 0x8000) >> 16) as u8
}

/// Applies a table that depends on the channel's histogram.
fn per_channel(frame: &mut [u8], table: fn(&[u32; 256]) -> [u8; 256]) {
    for channel in 0..3 {
        let mut histogram = [0; 256];
        frame.iter().skip(channel).step_by(3).for_each(|&v| histogram[usize::from(v)] += 1);
        let table = table(&histogram);
        frame.iter_mut().skip(channel).step_by(3).for_each(|v| *v = table[usize::from(*v)]);
    }
}

fn auto_contrast(histogram: &[u32; 256]) -> [u8; 256] {
    let low = histogram.iter().position(|&count| count > 0).unwrap_or(0);
    let high = histogram.iter().rposition(|&count| count > 0).unwrap_or(255);
    if high <= low {
        return std::array::from_fn(|v| v as u8);
    }
    let scale = 255.0 / (high - low) as f64;
    std::array::from_fn(|v| ((v as f64 - low as f64) * scale).clamp(0.0, 255.0) as u8)
}

/// Pillow's `ImageOps.equalize`.
fn equalize(histogram: &[u32; 256]) -> [u8; 256] {
    let unchanged = std::array::from_fn(|v| v as u8);
    let Some(last) = histogram.iter().rposition(|&count| count > 0) else { return unchanged };
    let step = (histogram.iter().sum::<u32>() - histogram[last]) / 255;
    if step == 0 {
        return unchanged;
    }
    let mut sum = step / 2;
    std::array::from_fn(|v| {
        let value = (sum / step).min(255) as u8;
        sum += histogram[v];
        value
    })
}

/// Pillow's SMOOTH filter; the border stays as it is.
fn smoothed(frame: &[u8], width: usize, height: usize) -> Vec<f32> {
    let mut smooth: Vec<f32> = frame.iter().map(|&v| f32::from(v)).collect();
    for y in 1..height.saturating_sub(1) {
        for x in 1..width.saturating_sub(1) {
            for c in 0..3 {
                let at = |dy: usize, dx: usize| f32::from(frame[((y + dy - 1) * width + x + dx - 1) * 3 + c]);
                let ring: f32 = (0..9).filter(|i| *i != 4).map(|i| at(i / 3, i % 3)).sum();
                smooth[(y * width + x) * 3 + c] = ((ring + 5.0 * at(1, 1)) / 13.0).round();
            }
        }
    }
    smooth
}

/// Moves pixels: `source` says where each pixel of the result comes from. Bilinear.
fn warp(frame: &mut [u8], width: usize, height: usize, source: impl Fn(f64, f64) -> (f64, f64)) {
    let old = frame.to_vec();
    for y in 0..height {
        for x in 0..width {
            let (sx, sy) = source(x as f64, y as f64);
            let inside = sx > -0.5 && sy > -0.5 && sx < width as f64 - 0.5 && sy < height as f64 - 0.5;
            let place = (y * width + x) * 3;
            if !inside {
                FILL.iter().enumerate().for_each(|(c, &fill)| frame[place + c] = fill as u8);
                continue;
            }
            let (sx, sy) = (sx.clamp(0.0, (width - 1) as f64), sy.clamp(0.0, (height - 1) as f64));
            let (x0, y0) = (sx as usize, sy as usize);
            let (x1, y1) = ((x0 + 1).min(width - 1), (y0 + 1).min(height - 1));
            let (fx, fy) = (sx - x0 as f64, sy - y0 as f64);
            for c in 0..3 {
                let at = |x: usize, y: usize| f64::from(old[(y * width + x) * 3 + c]);
                let top = at(x0, y0) * (1.0 - fx) + at(x1, y0) * fx;
                let bottom = at(x0, y1) * (1.0 - fx) + at(x1, y1) * fx;
                frame[place + c] = (top * (1.0 - fy) + bottom * fy).round() as u8;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tgm_random::Streams;

    const SIZE: usize = 24;

    /// In colour, with a range of values and some texture: smoothing leaves a plain ramp as it is.
    fn frame() -> Vec<u8> {
        let value = |i: usize| {
            let (x, y, c) = (i / 3 % SIZE, i / 3 / SIZE, i % 3);
            (40 + 4 * x + 2 * y + 20 * c + 3 * (x * y % 5)) as u8
        };
        (0..SIZE * SIZE * 3).map(value).collect()
    }

    fn applied(operation: Operation) -> Vec<u8> {
        let mut changed = frame();
        operation.apply(&mut changed, SIZE, SIZE);
        changed
    }

    fn distance(a: &[u8], b: &[u8]) -> f64 {
        a.iter().zip(b).map(|(&a, &b)| (f64::from(a) - f64::from(b)).abs()).sum::<f64>() / a.len() as f64
    }

    #[test]
    fn a_larger_magnitude_is_a_stronger_change_for_every_operation_that_has_one() {
        for which in 3..15 {
            for sign in [1.0, -1.0] {
                let change = |level: f64| distance(&applied(Operation::at(which, level, sign)), &frame());
                let (weak, strong) = (change(0.2), change(0.9));
                assert!(weak < strong + 1e-9, "operation {which}: {weak} at 0.2, {strong} at 0.9");
                assert!(strong > 0.0, "operation {which} does nothing");
            }
        }
    }

    #[test]
    fn at_level_zero_only_posterize_changes_anything() {
        for which in (3..15).filter(|which| *which != 4) {
            assert_eq!(applied(Operation::at(which, 0.0, 1.0)), frame(), "operation {which}");
        }
        assert_eq!(
            Operation::at(4, 0.0, 1.0),
            Operation::Posterize(4),
            "timm's increasing set keeps at most 4 bits"
        );
    }

    #[test]
    fn magnitudes_are_those_of_timm() {
        assert_eq!(Operation::at(3, 1.0, -1.0), Operation::Rotate(-30.0));
        assert_eq!(Operation::at(4, 0.7, 1.0), Operation::Posterize(2));
        assert_eq!(Operation::at(5, 0.7, 1.0), Operation::Solarize(256 - 179));
        assert_eq!(Operation::at(6, 0.7, 1.0), Operation::SolarizeAdd(77));
        assert_eq!(Operation::at(9, 1.0, 1.0), Operation::Brightness(1.9));
        assert_eq!(Operation::at(11, 1.0, 1.0), Operation::ShearX(0.3));
        assert_eq!(Operation::at(13, 1.0, 1.0), Operation::TranslateX(0.45));
    }

    #[test]
    fn inverting_twice_and_a_full_turn_change_nothing() {
        let mut twice = applied(Operation::Invert);
        Operation::Invert.apply(&mut twice, SIZE, SIZE);
        assert_eq!(twice, frame());
        assert!(distance(&applied(Operation::Rotate(360.0)), &frame()) < 0.01);
    }

    #[test]
    fn translation_moves_the_picture_and_fills_what_it_leaves() {
        let moved = applied(Operation::TranslateX(0.25));
        for y in 0..SIZE {
            for x in 0..SIZE {
                let pixel = &moved[(y * SIZE + x) * 3..][..3];
                let expected = if x + 6 < SIZE {
                    frame()[(y * SIZE + x + 6) * 3..][..3].to_vec()
                } else {
                    vec![124, 116, 104]
                };
                assert_eq!(pixel, expected, "{x} {y}");
            }
        }
    }

    #[test]
    fn auto_contrast_uses_the_whole_range() {
        let changed = applied(Operation::AutoContrast);
        let channel = |c: usize| changed.iter().skip(c).step_by(3);
        for c in 0..3 {
            assert_eq!((channel(c).min(), channel(c).max()), (Some(&0), Some(&255)));
        }
    }

    #[test]
    fn all_frames_of_a_clip_are_changed_alike_and_a_seed_decides_how() {
        let data = frame().repeat(4);
        let clip = Clip::new(data, SIZE, SIZE, vec![0.0, 1.0, 2.0, 3.0]).unwrap();
        let settings = RandAugment { probability: 1.0, ..RandAugment::default() };
        let augmented =
            |seed| settings.apply(&clip, &mut Streams::new(seed).stream("augment", 0, 0)).unwrap();
        let one = augmented(1);
        assert!((1..4).all(|i| one.frame(i) == one.frame(0)));
        assert_eq!(one, augmented(1));
        assert!((2..8).any(|seed| augmented(seed) != one));
        let none = RandAugment { probability: 0.0, ..settings };
        assert_eq!(none.apply(&clip, &mut Streams::new(1).stream("augment", 0, 0)).unwrap(), clip);
    }
}
