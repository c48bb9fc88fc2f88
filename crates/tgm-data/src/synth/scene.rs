//! One clip of the world: what is in it, and its pictures.

use rand::{Rng, RngExt};
use serde::{Deserialize, Serialize};

use super::background::{Background, Pattern, Tone};
use super::config::Setting;
use super::motion::{Motion, Path, Pose};
use super::shape::{Colour, Outline, Shape};

/// Shape and colour of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Look {
    /// The shape.
    pub shape: Shape,
    /// The colour.
    pub colour: Colour,
}

impl Look {
    pub(super) fn draw(rng: &mut impl Rng) -> Self {
        let shape = Shape::ALL[rng.random_range(0..Shape::ALL.len())];
        let colour = Colour::ALL[rng.random_range(0..Colour::ALL.len())];
        Self { shape, colour }
    }

    /// A look that differs in shape *and* colour.
    pub(super) fn draw_other(self, rng: &mut impl Rng) -> Self {
        loop {
            let other = Self::draw(rng);
            if other.shape != self.shape && other.colour != self.colour {
                return other;
            }
        }
    }
}

/// A box in pixels: left, top, right, bottom; right and bottom are the first pixels outside.
pub type PixelBox = [u32; 4];

/// Everything that is in one clip.
#[derive(Clone, Debug)]
pub struct Scene {
    pub(super) setting: Setting,
    pub(super) motion: Motion,
    pub(super) object: Actor,
    pub(super) distractor: Option<Actor>,
    pub(super) background: Background,
}

/// An object with its path.
#[derive(Clone, Debug)]
pub(super) struct Actor {
    pub look: Look,
    pub path: Path,
}

/// The pictures of a scene and where its objects are in them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rendered {
    /// One RGB picture for each frame, `[size, size, 3]`.
    pub frames: Vec<Vec<u8>>,
    /// The named object's visible extent in each frame.
    pub object: Vec<PixelBox>,
    /// The distractor's extent (parts behind the named object included); empty when there is none.
    pub distractor: Vec<PixelBox>,
}

impl Scene {
    /// A scene of this class and setting, everything else drawn.
    pub fn draw(motion: Motion, setting: Setting, rng: &mut impl Rng) -> Self {
        let look = Look::draw(rng);
        let object = Actor { look, path: Path::draw(motion, rng) };
        let background = Background::draw(setting.background_moves(), rng);
        let distractor = setting
            .has_distractor()
            .then(|| Actor { look: look.draw_other(rng), path: Path::draw_distractor(rng) });
        Self { setting, motion, object, distractor, background }
    }

    /// The setting.
    pub fn setting(&self) -> Setting {
        self.setting
    }

    /// The motion of the named object.
    pub fn motion(&self) -> Motion {
        self.motion
    }

    /// The named object.
    pub fn object(&self) -> Look {
        self.object.look
    }

    /// The second object.
    pub fn distractor(&self) -> Option<Look> {
        self.distractor.as_ref().map(|actor| actor.look)
    }

    /// The background's pattern and tone.
    pub fn background(&self) -> (Pattern, Tone) {
        (self.background.pattern, self.background.tone)
    }

    /// The named object's radius at a time of the clip (0 to 1), in picture widths.
    pub(super) fn object_radius(&self, time: f64) -> f64 {
        self.object.path.pose(time).radius
    }

    /// Draws the pictures: `frames` of them, `size` pixels wide and high.
    pub fn render(&self, frames: u32, size: u32) -> Rendered {
        let moves = self.background.pan != [0.0, 0.0];
        let times: Vec<f64> =
            (0..frames).map(|frame| f64::from(frame) / f64::from((frames - 1).max(1))).collect();
        let mut rendered = Rendered { frames: Vec::new(), object: Vec::new(), distractor: Vec::new() };
        let mut backdrop = backdrop(&self.background, 0.0, size);
        let object = Sprite::new(self.object.look);
        let distractor = self.distractor.as_ref().map(|actor| (Sprite::new(actor.look), &actor.path));
        for time in times {
            if moves && time > 0.0 {
                backdrop = self::backdrop(&self.background, time, size);
            }
            let mut picture = Picture { rgb: backdrop.clone(), size };
            if let Some((sprite, path)) = &distractor {
                rendered.distractor.push(picture.draw(sprite, path.pose(time)));
            }
            rendered.object.push(picture.draw(&object, self.object.path.pose(time)));
            rendered.frames.push(picture.rgb);
        }
        rendered
    }
}

fn backdrop(background: &Background, time: f64, size: u32) -> Vec<u8> {
    let unit = 1.0 / f64::from(size);
    let mut rgb = Vec::with_capacity((size * size * 3) as usize);
    for y in 0..size {
        for x in 0..size {
            let colour = background.colour((f64::from(x) + 0.5) * unit, (f64::from(y) + 0.5) * unit, time);
            rgb.extend(colour.map(|value| value.round().clamp(0.0, 255.0) as u8));
        }
    }
    rgb
}

/// An object ready to be drawn anywhere.
struct Sprite {
    outline: Outline,
    spot: [f64; 2],
    colour: [f64; 3],
}

const SPOT_RADIUS: f64 = 0.2;
/// The spot's brightness against the object's.
const SPOT_SHADE: f64 = 0.3;

impl Sprite {
    fn new(look: Look) -> Self {
        Self { outline: look.shape.outline(), spot: look.shape.spot(), colour: look.colour.rgb() }
    }
}

struct Picture {
    rgb: Vec<u8>,
    size: u32,
}

impl Picture {
    /// Blends an object in, each pixel by the share of it that the object covers, and gives the box of the
    /// pixels that are covered by half or more.
    fn draw(&mut self, sprite: &Sprite, pose: Pose) -> PixelBox {
        let size = f64::from(self.size);
        let (x, y, radius) = (pose.x * size, pose.y * size, pose.radius * size);
        let (sin, cos) = pose.angle.sin_cos();
        let range = |centre: f64| {
            let low = (centre - radius - 1.0).floor().clamp(0.0, size) as u32;
            low..(centre + radius + 1.0).ceil().clamp(0.0, size) as u32
        };
        let mut extent = [self.size, self.size, 0, 0];
        for row in range(y) {
            for column in range(x) {
                let offset = [(f64::from(column) + 0.5 - x) / radius, (f64::from(row) + 0.5 - y) / radius];
                let local = [offset[0] * cos + offset[1] * sin, offset[1] * cos - offset[0] * sin];
                let coverage = (0.5 - sprite.outline.distance(local) * radius).clamp(0.0, 1.0);
                if coverage == 0.0 {
                    continue;
                }
                if coverage >= 0.5 {
                    extent = [
                        extent[0].min(column),
                        extent[1].min(row),
                        extent[2].max(column + 1),
                        extent[3].max(row + 1),
                    ];
                }
                let off_spot = (local[0] - sprite.spot[0]).hypot(local[1] - sprite.spot[1]) - SPOT_RADIUS;
                let spot = (0.5 - off_spot * radius).clamp(0.0, 1.0);
                let shade = 1.0 - (1.0 - SPOT_SHADE) * spot;
                let at = 3 * (row * self.size + column) as usize;
                for (value, colour) in self.rgb[at..at + 3].iter_mut().zip(sprite.colour) {
                    let blended = f64::from(*value) + (colour * shade - f64::from(*value)) * coverage;
                    *value = blended.round() as u8;
                }
            }
        }
        extent
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tgm_random::Streams;

    fn scenes(setting: Setting) -> impl Iterator<Item = Scene> {
        (0..60_u64).map(move |i| {
            let motion = Motion::ALL[i as usize % Motion::ALL.len()];
            Scene::draw(motion, setting, &mut Streams::new(3).stream("scene", 0, i))
        })
    }

    /// Pixels next to the box may be covered a little.
    fn near(&[left, top, right, bottom]: &PixelBox, x: u32, y: u32) -> bool {
        x + 4 >= left && x < right + 4 && y + 4 >= top && y < bottom + 4
    }

    #[test]
    fn the_named_object_is_to_be_seen_in_every_frame() {
        for scene in scenes(Setting::MovingDistractor) {
            let rendered = scene.render(20, 64);
            for [left, top, right, bottom] in rendered.object {
                assert!(right - left >= 4 && bottom - top >= 4, "{:?} {:?}", scene.object(), scene.motion());
                assert!(right <= 64 && bottom <= 64);
            }
            assert!(
                rendered.distractor.iter().all(|[left, top, right, bottom]| left < right && top < bottom)
            );
        }
    }

    #[test]
    fn pixels_outside_of_the_box_are_the_objects_by_less_than_half() {
        for scene in scenes(Setting::Static) {
            let rendered = scene.render(6, 64);
            let backdrop = backdrop(&scene.background, 0.0, 64);
            let colour = scene.object().colour.rgb();
            for (frame, &[left, top, right, bottom]) in rendered.frames.iter().zip(&rendered.object) {
                for (at, (&drawn, &behind)) in frame.iter().zip(&backdrop).enumerate() {
                    let (x, y) = (at as u32 / 3 % 64, at as u32 / 3 / 64);
                    let inside = (left..right).contains(&x) && (top..bottom).contains(&y);
                    let full =
                        [1.0, SPOT_SHADE].map(|shade| (colour[at % 3] * shade - f64::from(behind)).abs());
                    let change = f64::from(drawn.abs_diff(behind));
                    assert!(inside || change <= full[0].max(full[1]) / 2.0 + 1.0, "{change} at {x},{y}");
                }
            }
        }
    }

    #[test]
    fn the_object_has_its_colour() {
        for scene in scenes(Setting::Moving) {
            let rendered = scene.render(1, 128);
            let [left, top, right, bottom] = rendered.object[0];
            let colour = scene.object().colour.rgb();
            let matches =
                |pixel: &[u8]| pixel.iter().zip(colour).all(|(a, b)| (f64::from(*a) - b).abs() < 1.0);
            let hits = (top..bottom)
                .flat_map(|y| (left..right).map(move |x| 3 * (y * 128 + x) as usize))
                .filter(|&at| matches(&rendered.frames[0][at..at + 3]));
            let area = (right - left) * (bottom - top);
            assert!(hits.count() as f64 > 0.15 * f64::from(area), "{:?}", scene.object());
        }
    }

    #[test]
    fn settings_differ_in_what_moves() {
        let far_corner_moves = |setting| {
            let changed = scenes(setting).filter(|scene| {
                let rendered = scene.render(8, 64);
                let outside = |x, y| {
                    !rendered.object.iter().chain(&rendered.distractor).any(|extent| near(extent, x, y))
                };
                (0..64 * 64).filter(|i| outside(i % 64, i / 64)).any(|i| {
                    let at = 3 * i as usize;
                    rendered.frames.iter().any(|frame| frame[at..at + 3] != rendered.frames[0][at..at + 3])
                })
            });
            changed.count()
        };
        assert_eq!(far_corner_moves(Setting::Static), 0);
        assert_eq!(far_corner_moves(Setting::Distractor), 0);
        assert_eq!(far_corner_moves(Setting::Moving), 60);
        for scene in scenes(Setting::Distractor) {
            let (object, other) = (scene.object(), scene.distractor().unwrap());
            assert!(object.shape != other.shape && object.colour != other.colour);
        }
        assert!(scenes(Setting::Moving).all(|scene| scene.distractor().is_none()));
    }
}
