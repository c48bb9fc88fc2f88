//! What is behind the objects: muted patterns with a little unevenness, so that a pan is seen everywhere.

use std::f64::consts::TAU;

use rand::{Rng, RngExt};
use serde::{Deserialize, Serialize};

/// The pattern of a background.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[expect(missing_docs, reason = "the names say it")]
pub enum Pattern {
    Plain,
    Striped,
    Checkered,
    Dotted,
    Speckled,
}

/// How light a background is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[expect(missing_docs, reason = "the names say it")]
pub enum Tone {
    Dark,
    Grey,
    Pale,
}

/// A background and its pan.
#[derive(Clone, Debug)]
pub(crate) struct Background {
    pub pattern: Pattern,
    pub tone: Tone,
    /// Picture widths per clip.
    pub pan: [f64; 2],
    colours: [[f64; 3]; 2],
    /// Periods per picture width, and the direction they run in.
    frequency: f64,
    direction: [f64; 2],
    noise: u64,
}

impl Background {
    pub fn draw(moving: bool, rng: &mut impl Rng) -> Self {
        use Pattern::{Checkered, Dotted, Plain, Speckled, Striped};
        let patterns = [Striped, Checkered, Dotted, Speckled, Plain];
        // A plain background does not show that it moves.
        let pattern = patterns[rng.random_range(0..if moving { 4 } else { 5 })];
        let (tone, level) =
            [(Tone::Dark, 0.2), (Tone::Grey, 0.45), (Tone::Pale, 0.75)][rng.random_range(0..3)];
        let level = level + rng.random_range(-0.05..0.05);
        let contrast = rng.random_range(0.1..0.16);
        let mut muted = |level: f64| std::array::from_fn(|_| 255.0 * (level + rng.random_range(-0.03..0.03)));
        let colours = [muted(level - contrast / 2.0), muted(level + contrast / 2.0)];
        let (sin, cos) = (TAU * rng.random::<f64>()).sin_cos();
        let frequency = rng.random_range(3.0..6.0);
        let noise = rng.random();
        let speed = if moving { rng.random_range(0.5..1.0) } else { 0.0 };
        let heading = TAU * rng.random::<f64>();
        let pan = [speed * heading.cos(), speed * heading.sin()];
        Self { pattern, tone, pan, colours, frequency, direction: [cos, sin], noise }
    }

    /// The colour at a place of the picture (in picture widths) at a time of the clip.
    pub fn colour(&self, x: f64, y: f64, time: f64) -> [f64; 3] {
        let (x, y) = (x - self.pan[0] * time, y - self.pan[1] * time);
        let [cos, sin] = self.direction;
        let (u, v) = (self.frequency * (x * cos + y * sin), self.frequency * (y * cos - x * sin));
        // Steep waves instead of steps: edges without jagged pixels.
        let edge = |wave: f64| (0.5 + 2.0 * wave).clamp(0.0, 1.0);
        let figure = match self.pattern {
            Pattern::Plain => 0.5,
            Pattern::Striped => edge((TAU * u).sin()),
            Pattern::Checkered => edge(2.0 * (TAU * u / 2.0).sin() * (TAU * v / 2.0).sin()),
            Pattern::Dotted => edge(2.0 - 6.0 * (u - u.round()).hypot(v - v.round())),
            Pattern::Speckled => self.unevenness(2.5 * u, 2.5 * v),
        };
        let uneven = match self.pattern {
            Pattern::Plain | Pattern::Speckled => 0.0,
            _ => 0.6 * (self.unevenness(u / 2.0, v / 2.0) - 0.5),
        };
        let mix = figure + uneven;
        std::array::from_fn(|c| self.colours[0][c] + (self.colours[1][c] - self.colours[0][c]) * mix)
    }

    /// Value noise: random numbers 0 to 1 on the lattice of whole numbers, smoothly joined.
    fn unevenness(&self, u: f64, v: f64) -> f64 {
        let (column, row) = (u.floor(), v.floor());
        let ease = |t: f64| t * t * (3.0 - 2.0 * t);
        let (s, t) = (ease(u - column), ease(v - row));
        let at = |dx: i64, dy: i64| {
            let (x, y) = ((column as i64 + dx) as u64, (row as i64 + dy) as u64);
            let mut hash =
                self.noise ^ x.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ y.wrapping_mul(0xc2b2_ae3d_27d4_eb4f);
            hash = (hash ^ (hash >> 31)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            hash = (hash ^ (hash >> 29)).wrapping_mul(0x94d0_49bb_1331_11eb);
            (hash >> 40) as f64 / (1_u64 << 24) as f64
        };
        let upper = at(0, 0) + (at(1, 0) - at(0, 0)) * s;
        let lower = at(0, 1) + (at(1, 1) - at(0, 1)) * s;
        upper + (lower - upper) * t
    }
}
