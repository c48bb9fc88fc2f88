//! The motion classes, and paths that show their class in no single frame.
//!
//! Position, size and angle of the object are each the sum of a uniformly drawn start and what the motion adds,
//! on a circle: what leaves the picture on one side comes back on the other, what has grown full starts small
//! again. A uniform start stays uniform whatever is added, so at every instant pose and class are
//! *independent*, not just hard to tell. Speeds are per clip, so that a longer clip is a slower one.

use std::f64::consts::TAU;

use rand::{Rng, RngExt};
use serde::{Deserialize, Serialize};

/// How the named object moves: the label of a clip.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[expect(missing_docs, reason = "the names say it")]
pub enum Motion {
    Left,
    Right,
    Up,
    Down,
    Diagonal,
    Clockwise,
    CounterClockwise,
    Zigzag,
    BackAndForth,
    Grow,
    Shrink,
    Spin,
}

impl Motion {
    /// All classes.
    pub const ALL: [Self; 12] = [
        Self::Left,
        Self::Right,
        Self::Up,
        Self::Down,
        Self::Diagonal,
        Self::Clockwise,
        Self::CounterClockwise,
        Self::Zigzag,
        Self::BackAndForth,
        Self::Grow,
        Self::Shrink,
        Self::Spin,
    ];

    /// The label in the manifest.
    pub fn name(self) -> &'static str {
        match self {
            Self::Left => "left",
            Self::Right => "right",
            Self::Up => "up",
            Self::Down => "down",
            Self::Diagonal => "diagonal",
            Self::Clockwise => "clockwise",
            Self::CounterClockwise => "counter-clockwise",
            Self::Zigzag => "zigzag",
            Self::BackAndForth => "back-and-forth",
            Self::Grow => "grow",
            Self::Shrink => "shrink",
            Self::Spin => "spin",
        }
    }
}

/// Where an object is, how large and how turned, in units of the picture's width.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Pose {
    pub x: f64,
    pub y: f64,
    pub radius: f64,
    /// Radians, clockwise on the screen.
    pub angle: f64,
}

/// The smallest and the largest radius of a named object.
pub(crate) const RADII: [f64; 2] = [0.09, 0.2];
/// Centres stay this far inside the picture, so that most of an object is always to be seen.
const MARGIN: f64 = 0.06;

/// An object's path through a clip.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Path {
    /// Uniform in [0, 1): x, y, size, angle.
    start: [f64; 4],
    shift: Shift,
    radii: [f64; 2],
}

/// What the motion adds to the start by time `t` of the clip, 0 to 1.
#[derive(Clone, Copy, Debug)]
enum Shift {
    Line {
        velocity: [f64; 2],
    },
    /// Positive turns are clockwise.
    Orbit {
        radius: f64,
        turns: f64,
        phase: f64,
    },
    Zigzag {
        drift: f64,
        amplitude: f64,
        teeth: f64,
        phase: f64,
    },
    Swing {
        amplitude: f64,
        swings: f64,
        phase: f64,
    },
    Size {
        rate: f64,
    },
    Angle {
        turns: f64,
    },
    /// Two waves in each direction: `[amplitude, frequency, phase]`.
    Wander {
        x: [[f64; 3]; 2],
        y: [[f64; 3]; 2],
    },
}

impl Path {
    /// A path of a motion class.
    pub fn draw(motion: Motion, rng: &mut impl Rng) -> Self {
        let start = std::array::from_fn(|_| rng.random());
        let sign = if rng.random() { 1.0 } else { -1.0 };
        let phase = rng.random();
        let line = |heading: f64, rng: &mut dyn FnMut() -> f64| {
            let (heading, speed) = (heading + (rng() - 0.5) * 0.35, 0.55 + 0.35 * rng());
            Shift::Line { velocity: [speed * heading.cos(), speed * heading.sin()] }
        };
        let quarter = rng.random_range(0..4_u32);
        let mut unit = || rng.random::<f64>();
        let shift = match motion {
            Motion::Right => line(0.0, &mut unit),
            Motion::Down => line(TAU / 4.0, &mut unit),
            Motion::Left => line(TAU / 2.0, &mut unit),
            Motion::Up => line(TAU * 0.75, &mut unit),
            Motion::Diagonal => line(TAU * (0.125 + 0.25 * f64::from(quarter)), &mut unit),
            Motion::Clockwise => orbit(1.0, phase, &mut unit),
            Motion::CounterClockwise => orbit(-1.0, phase, &mut unit),
            Motion::Zigzag => Shift::Zigzag {
                drift: sign * (0.5 + 0.3 * unit()),
                amplitude: 0.1 + 0.05 * unit(),
                teeth: 2.5 + unit(),
                phase,
            },
            Motion::BackAndForth => {
                Shift::Swing { amplitude: 0.15 + 0.1 * unit(), swings: 1.5 + 0.5 * unit(), phase }
            }
            Motion::Grow => Shift::Size { rate: 0.7 + 0.3 * unit() },
            Motion::Shrink => Shift::Size { rate: -0.7 - 0.3 * unit() },
            Motion::Spin => Shift::Angle { turns: sign * (1.0 + 0.5 * unit()) },
        };
        Self { start, shift, radii: RADII }
    }

    /// The path of a distractor: it wanders without a class, farther and faster than the named object, and is larger.
    pub fn draw_distractor(rng: &mut impl Rng) -> Self {
        let start = std::array::from_fn(|_| rng.random());
        let mut waves = || {
            [0.3, 0.2].map(|amplitude| [amplitude, rng.random_range(0.7..1.6), rng.random_range(0.0..1.0)])
        };
        let shift = Shift::Wander { x: waves(), y: waves() };
        Self { start, shift, radii: [0.17, 0.23] }
    }

    /// The pose at a time of the clip, 0 (first frame) to 1.
    pub fn pose(&self, time: f64) -> Pose {
        let added = self.shift.at(time);
        let [x, y, size, turn]: [f64; 4] =
            std::array::from_fn(|i| (self.start[i] + added[i]).rem_euclid(1.0));
        let [smallest, largest] = self.radii;
        Pose {
            x: MARGIN + (1.0 - 2.0 * MARGIN) * x,
            y: MARGIN + (1.0 - 2.0 * MARGIN) * y,
            radius: smallest * (largest / smallest).powf(size),
            angle: TAU * turn,
        }
    }
}

fn orbit(direction: f64, phase: f64, unit: &mut impl FnMut() -> f64) -> Shift {
    Shift::Orbit { radius: 0.14 + 0.06 * unit(), turns: direction * (0.9 + 0.4 * unit()), phase }
}

impl Shift {
    /// x, y, size and angle, each in turns of its circle.
    fn at(&self, time: f64) -> [f64; 4] {
        let wave = |waves: &[[f64; 3]; 2]| {
            waves
                .iter()
                .map(|[amplitude, frequency, phase]| amplitude * (TAU * (frequency * time + phase)).sin())
                .sum()
        };
        match self {
            Self::Line { velocity } => [velocity[0] * time, velocity[1] * time, 0.0, 0.0],
            Self::Orbit { radius, turns, phase } => {
                // The y axis points down, so a growing angle turns clockwise.
                let angle = TAU * (turns * time + phase);
                [radius * angle.cos(), radius * angle.sin(), 0.0, 0.0]
            }
            Self::Zigzag { drift, amplitude, teeth, phase } => {
                let tooth = (teeth * time + phase).rem_euclid(1.0);
                [drift * time, amplitude * (1.0 - (2.0 * tooth - 1.0).abs() * 2.0), 0.0, 0.0]
            }
            Self::Swing { amplitude, swings, phase } => {
                [amplitude * (TAU * (swings * time + phase)).sin(), 0.0, 0.0, 0.0]
            }
            Self::Size { rate } => [0.0, 0.0, rate * time, 0.0],
            Self::Angle { turns } => [0.0, 0.0, 0.0, turns * time],
            Self::Wander { x, y } => [wave(x), wave(y), 0.0, 0.0],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tgm_random::Streams;

    const DRAWS: u64 = 4000;

    /// The largest gap between the distribution of these values and the uniform one (Kolmogorov–Smirnov).
    fn gap_to_uniform(mut values: Vec<f64>) -> f64 {
        values.sort_by(f64::total_cmp);
        let n = values.len() as f64;
        values.iter().enumerate().map(|(i, v)| (v - (i as f64 + 0.5) / n).abs()).fold(0.0, f64::max)
    }

    #[test]
    fn in_every_frame_the_pose_is_distributed_alike_for_every_class() {
        for motion in Motion::ALL {
            for time in [0.0, 0.3, 0.5, 1.0] {
                let poses: Vec<Pose> = (0..DRAWS)
                    .map(|draw| {
                        Path::draw(motion, &mut Streams::new(5).stream(motion.name(), 0, draw)).pose(time)
                    })
                    .collect();
                let [low, high] = RADII;
                let unit: [fn(&Pose) -> f64; 3] = [
                    |pose| (pose.x - MARGIN) / (1.0 - 2.0 * MARGIN),
                    |pose| (pose.y - MARGIN) / (1.0 - 2.0 * MARGIN),
                    |pose| pose.angle / TAU,
                ];
                for (name, value) in ["x", "y", "angle"].iter().zip(unit) {
                    let gap = gap_to_uniform(poses.iter().map(value).collect());
                    // Passed by chance with probability 0.9999 for each of these 192 comparisons.
                    assert!(
                        gap < 2.23 / (DRAWS as f64).sqrt(),
                        "{} at {time}: {name} is off by {gap}",
                        motion.name()
                    );
                }
                let sizes = poses.iter().map(|pose| (pose.radius / low).ln() / (high / low).ln()).collect();
                let gap = gap_to_uniform(sizes);
                assert!(
                    gap < 2.23 / (DRAWS as f64).sqrt(),
                    "{} at {time}: size is off by {gap}",
                    motion.name()
                );
            }
        }
    }

    /// The shortest way from `a` to `b` in the wrapped picture.
    fn step(a: f64, b: f64) -> f64 {
        let width = 1.0 - 2.0 * MARGIN;
        let difference = (b - a) / width;
        (difference - difference.round()) * width
    }

    #[test]
    fn motions_go_where_their_names_say() {
        for draw in 0..50 {
            let path = |motion: Motion| Path::draw(motion, &mut Streams::new(1).stream("test", 0, draw));
            let moved = |motion| {
                let (a, b) = (path(motion).pose(0.2), path(motion).pose(0.3));
                (step(a.x, b.x), step(a.y, b.y))
            };
            assert!(moved(Motion::Left).0 < -0.03 && moved(Motion::Right).0 > 0.03);
            assert!(moved(Motion::Up).1 < -0.03 && moved(Motion::Down).1 > 0.03);
            let (dx, dy) = moved(Motion::Diagonal);
            assert!(dx.abs() > 0.02 && dy.abs() > 0.02);
            // On a screen a clockwise turn bends to the right: the cross product of successive steps is positive.
            for (motion, sign) in [(Motion::Clockwise, 1.0), (Motion::CounterClockwise, -1.0)] {
                let [a, b, c] = [0.2, 0.25, 0.3].map(|time| path(motion).pose(time));
                let cross = step(a.x, b.x) * step(b.y, c.y) - step(a.y, b.y) * step(b.x, c.x);
                assert!(cross * sign > 0.0, "{}", motion.name());
            }
            assert_eq!(moved(Motion::Spin), (0.0, 0.0));
            assert_eq!(moved(Motion::Grow), (0.0, 0.0));
        }
    }

    #[test]
    fn growing_and_shrinking_jump_back_at_most_once() {
        for draw in 0..200 {
            for (motion, sign) in [(Motion::Grow, 1.0), (Motion::Shrink, -1.0)] {
                let path = Path::draw(motion, &mut Streams::new(2).stream("test", 0, draw));
                let radii: Vec<f64> =
                    (0..=20).map(|frame| path.pose(f64::from(frame) / 20.0).radius).collect();
                let against = radii.windows(2).filter(|pair| (pair[1] - pair[0]) * sign < 0.0).count();
                assert!(against <= 1, "{radii:?}");
            }
        }
    }
}
