//! Objects: shapes, colours, and where their outlines are.

use std::f64::consts::TAU;

use serde::{Deserialize, Serialize};

/// The shape of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[expect(missing_docs, reason = "the names say it")]
pub enum Shape {
    Circle,
    Square,
    Triangle,
    Star,
    Cross,
    Ring,
    Heart,
    Crescent,
}

impl Shape {
    /// All shapes.
    pub const ALL: [Self; 8] = [
        Self::Circle,
        Self::Square,
        Self::Triangle,
        Self::Star,
        Self::Cross,
        Self::Ring,
        Self::Heart,
        Self::Crescent,
    ];

    /// The commonest word for it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Circle => "circle",
            Self::Square => "square",
            Self::Triangle => "triangle",
            Self::Star => "star",
            Self::Cross => "cross",
            Self::Ring => "ring",
            Self::Heart => "heart",
            Self::Crescent => "crescent",
        }
    }

    pub(crate) fn outline(self) -> Outline {
        match self {
            Self::Circle => Outline::Disc,
            Self::Ring => Outline::Ring,
            Self::Crescent => Outline::Crescent,
            Self::Square => Outline::Polygon(star_polygon(4, 1.0)),
            Self::Triangle => Outline::Polygon(star_polygon(3, 1.0)),
            Self::Star => Outline::Polygon(star_polygon(5, 0.42)),
            Self::Cross => {
                let (long, short) = (0.95, 0.32);
                let arm = [[long, -short], [long, short], [short, short]];
                let turned = |quarter: i32| {
                    let (sin, cos) = (TAU / 4.0 * f64::from(quarter)).sin_cos();
                    arm.map(|[x, y]| [x * cos - y * sin, x * sin + y * cos])
                };
                Outline::Polygon((0..4).flat_map(turned).collect())
            }
            Self::Heart => Outline::Polygon(
                (0..32)
                    .map(|i| {
                        // The classical heart curve, scaled into the unit circle, its lobes towards -y.
                        let t = TAU * f64::from(i) / 32.0;
                        let y =
                            13.0 * t.cos() - 5.0 * (2.0 * t).cos() - 2.0 * (3.0 * t).cos() - (4.0 * t).cos();
                        [t.sin().powi(3) * 16.0 / 18.0, -(y + 2.5) / 18.0]
                    })
                    .collect(),
            ),
        }
    }

    /// The centre of the dark spot that every object carries, so that even a circle is seen to spin.
    pub(crate) fn spot(self) -> [f64; 2] {
        match self {
            Self::Ring => [0.75, 0.0],
            Self::Crescent => [-0.72, 0.0],
            Self::Triangle | Self::Star => [0.45, 0.0],
            Self::Circle | Self::Square | Self::Cross => [0.55, 0.0],
            Self::Heart => [0.0, 0.3],
        }
    }
}

/// A polygon of `points` corners on the unit circle, with `inner` as the radius of the points between them;
/// `inner` 1 leaves those out.
fn star_polygon(points: u32, inner: f64) -> Vec<[f64; 2]> {
    let corners = if inner < 1.0 { 2 * points } else { points };
    let corner = |i: u32| {
        let (sin, cos) = (TAU * f64::from(i) / f64::from(corners)).sin_cos();
        let radius = if inner < 1.0 && i % 2 == 1 { inner } else { 1.0 };
        [radius * cos, radius * sin]
    };
    (0..corners).map(corner).collect()
}

/// A shape's outline within the unit circle.
pub(crate) enum Outline {
    Disc,
    Ring,
    Crescent,
    Polygon(Vec<[f64; 2]>),
}

impl Outline {
    /// The distance of a point to the outline, negative inside (near the outline exact, farther off a bound).
    pub fn distance(&self, [x, y]: [f64; 2]) -> f64 {
        match self {
            Self::Disc => x.hypot(y) - 1.0,
            Self::Ring => (x.hypot(y) - 0.75).abs() - 0.25,
            Self::Crescent => (x.hypot(y) - 1.0).max(0.85 - (x - 0.5).hypot(y)),
            Self::Polygon(corners) => polygon_distance(corners, [x, y]),
        }
    }
}

fn polygon_distance(corners: &[[f64; 2]], [x, y]: [f64; 2]) -> f64 {
    let mut nearest = f64::INFINITY;
    let mut inside = false;
    let mut from = corners[corners.len() - 1];
    for &to in corners {
        let edge = [to[0] - from[0], to[1] - from[1]];
        let along =
            ((x - from[0]) * edge[0] + (y - from[1]) * edge[1]) / (edge[0] * edge[0] + edge[1] * edge[1]);
        let along = along.clamp(0.0, 1.0);
        let off = [x - from[0] - along * edge[0], y - from[1] - along * edge[1]];
        nearest = nearest.min(off[0] * off[0] + off[1] * off[1]);
        // Even-odd rule: count the edges that a ray towards +x crosses.
        if (from[1] > y) != (to[1] > y) && x < from[0] + (y - from[1]) / edge[1] * edge[0] {
            inside = !inside;
        }
        from = to;
    }
    if inside { -nearest.sqrt() } else { nearest.sqrt() }
}

/// The colour of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[expect(missing_docs, reason = "the names say it")]
pub enum Colour {
    Red,
    Green,
    Blue,
    Yellow,
    Orange,
    Purple,
    Pink,
    Cyan,
}

impl Colour {
    /// All colours: far apart from each other, and from the muted backgrounds.
    pub const ALL: [Self; 8] = [
        Self::Red,
        Self::Green,
        Self::Blue,
        Self::Yellow,
        Self::Orange,
        Self::Purple,
        Self::Pink,
        Self::Cyan,
    ];

    /// The word for it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Red => "red",
            Self::Green => "green",
            Self::Blue => "blue",
            Self::Yellow => "yellow",
            Self::Orange => "orange",
            Self::Purple => "purple",
            Self::Pink => "pink",
            Self::Cyan => "cyan",
        }
    }

    pub(crate) fn rgb(self) -> [f64; 3] {
        match self {
            Self::Red => [215.0, 30.0, 35.0],
            Self::Green => [40.0, 165.0, 55.0],
            Self::Blue => [40.0, 80.0, 225.0],
            Self::Yellow => [245.0, 225.0, 40.0],
            Self::Orange => [245.0, 135.0, 20.0],
            Self::Purple => [130.0, 50.0, 180.0],
            Self::Pink => [255.0, 140.0, 195.0],
            Self::Cyan => [30.0, 205.0, 220.0],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Share of the unit circle's bounding square that lies inside.
    fn area(shape: Shape) -> f64 {
        let outline = shape.outline();
        let grid = || (0..200).map(|i| (f64::from(i) + 0.5) / 100.0 - 1.0);
        let inside = grid().flat_map(|y| grid().map(move |x| [x, y])).filter(|p| outline.distance(*p) < 0.0);
        inside.count() as f64 / 10_000.0
    }

    #[test]
    fn outlines_enclose_their_known_areas() {
        let pi = TAU / 2.0;
        for (shape, exact) in [
            (Shape::Circle, pi),
            (Shape::Square, 2.0),
            (Shape::Triangle, 3.0 * 3.0_f64.sqrt() / 4.0),
            (Shape::Ring, pi * 0.75),
            (Shape::Cross, 2.0 * 1.9 * 0.64 - 0.64 * 0.64),
            (Shape::Star, 10.0 * 0.5 * 0.42 * (pi / 5.0).sin()),
        ] {
            assert!((area(shape) - exact).abs() < 0.02, "{shape:?}: {} instead of {exact}", area(shape));
        }
        assert!(area(Shape::Heart) > 1.1 && area(Shape::Crescent) > 0.8);
    }

    #[test]
    fn shapes_stay_in_the_unit_circle_and_carry_their_spot() {
        for shape in Shape::ALL {
            let outline = shape.outline();
            for i in 0..720 {
                let (sin, cos) = (TAU * f64::from(i) / 720.0).sin_cos();
                assert!(outline.distance([1.02 * cos, 1.02 * sin]) > 0.0, "{shape:?} at {i}");
            }
            assert!(outline.distance(shape.spot()) < -0.1, "{shape:?}");
        }
    }
}
