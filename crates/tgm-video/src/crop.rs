//! Which part of a frame a clip shows.

use rand::{Rng, RngExt};
use serde::{Deserialize, Serialize};

use crate::VideoError;

/// A rectangle of the displayed frame, in whole source pixels, left-top origin.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct CropBox {
    /// Left edge.
    pub x: u32,
    /// Top edge.
    pub y: u32,
    /// Width, at least 1.
    pub width: u32,
    /// Height, at least 1.
    pub height: u32,
}

impl CropBox {
    /// The whole frame.
    pub fn whole(width: u32, height: u32) -> Self {
        Self { x: 0, y: 0, width, height }
    }

    /// The largest square in position `position` of 0, 1, 2 along the long side (1 is the centre).
    fn square(width: u32, height: u32, position: u32) -> Self {
        let side = width.min(height);
        let offset = (width.max(height) - side) * position / 2;
        let (x, y) = if width >= height { (offset, 0) } else { (0, offset) };
        Self { x, y, width: side, height: side }
    }

    /// Refuses boxes that are empty or reach outside a frame of this size.
    ///
    /// # Errors
    /// [`VideoError::Invalid`] with the box and the frame size.
    pub fn check(&self, width: u32, height: u32) -> Result<(), VideoError> {
        let inside = |start: u32, len: u32, size: u32| {
            len > 0 && start.checked_add(len).is_some_and(|end| end <= size)
        };
        if inside(self.x, self.width, width) && inside(self.y, self.height, height) {
            return Ok(());
        }
        let value = format!("{}x{} at ({}, {})", self.width, self.height, self.x, self.y);
        Err(VideoError::invalid("the crop", value, format!("it must lie inside the {width}x{height} frame")))
    }
}

/// How the [`CropBox`] of a clip is chosen. The box is then resized to the clip's square size.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
#[non_exhaustive]
pub enum Crop {
    /// VideoMAE's pre-training crop (TSN's "multi-scale crop"): sides are the short side times one of `scales`, width and
    /// height may differ by `max_distort` steps of that list, and the box sits at one of 13 fixed places (corners,
    /// mid-edges, centre, quarters). A side less than 3 pixels from the clip size snaps to it, unless it would leave
    /// the frame (the reference pads there with black).
    MultiScale {
        /// Sides as shares of the frame's short side.
        #[serde(default = "default_scales")]
        scales: Vec<f64>,
        /// Greatest distance in `scales` between width and height.
        #[serde(default = "default_distort")]
        max_distort: usize,
    },
    /// Random area and aspect ratio (Inception crop): VideoMAE's fine-tuning. Falls back to the largest centred box
    /// within the ratios after ten misses.
    RandomResized {
        /// Least and greatest share of the frame's area.
        #[serde(default = "default_area")]
        area: (f64, f64),
        /// Least and greatest width / height, drawn log-uniformly.
        #[serde(default = "default_ratio")]
        ratio: (f64, f64),
    },
    /// The centred square over the short side.
    Center,
    /// One of three squares over the short side: left or top (0), centre (1), right or bottom (2).
    ThreeCrop {
        /// 0, 1 or 2.
        position: u8,
    },
}

fn default_scales() -> Vec<f64> {
    vec![1.0, 0.875, 0.75, 0.66]
}

fn default_distort() -> usize {
    1
}

fn default_area() -> (f64, f64) {
    (0.08, 1.0)
}

fn default_ratio() -> (f64, f64) {
    (3.0 / 4.0, 4.0 / 3.0)
}

impl Crop {
    /// VideoMAE's multi-scale crop: scales 1, 0.875, 0.75, 0.66, neighbouring scales may be paired.
    pub fn multi_scale() -> Self {
        Self::MultiScale { scales: default_scales(), max_distort: default_distort() }
    }

    /// VideoMAE's fine-tuning crop: area 8 % to 100 %, ratio 3:4 to 4:3.
    pub fn random_resized() -> Self {
        Self::RandomResized { area: default_area(), ratio: default_ratio() }
    }

    /// Refuses settings from which no box can be drawn.
    ///
    /// # Errors
    /// [`VideoError::Invalid`] naming the field.
    pub fn validate(&self) -> Result<(), VideoError> {
        let range = |what, (low, high): (f64, f64), max: f64| {
            if low > 0.0 && low <= high && high <= max {
                return Ok(());
            }
            Err(VideoError::invalid(
                what,
                format!("({low}, {high})"),
                format!("it must be 0 < least <= greatest <= {max}"),
            ))
        };
        match self {
            Self::MultiScale { scales, .. } => {
                if !scales.is_empty() && scales.iter().all(|s| *s > 0.0 && *s <= 1.0) {
                    return Ok(());
                }
                Err(VideoError::invalid(
                    "crop.scales",
                    format!("{scales:?}"),
                    "it must list shares in (0, 1]",
                ))
            }
            Self::RandomResized { area, ratio } => {
                range("crop.area", *area, 1.0).and_then(|()| range("crop.ratio", *ratio, f64::MAX))
            }
            Self::Center => Ok(()),
            Self::ThreeCrop { position: 0..=2 } => Ok(()),
            Self::ThreeCrop { position } => {
                Err(VideoError::invalid("crop.position", position, "it must be 0, 1 or 2"))
            }
        }
    }

    /// Draws the box for a clip of `size` × `size` pixels from frames of `width` × `height`.
    ///
    /// `Center` and `ThreeCrop` draw nothing from `rng`.
    ///
    /// # Errors
    /// [`VideoError::Invalid`] when the frame or the clip has no pixels, or the settings fail [`Crop::validate`].
    pub fn choose(
        &self,
        width: u32,
        height: u32,
        size: u32,
        rng: &mut impl Rng,
    ) -> Result<CropBox, VideoError> {
        self.validate()?;
        if width == 0 || height == 0 || size == 0 {
            let value = format!("{width}x{height} to {size}x{size}");
            return Err(VideoError::invalid("the crop", value, "neither frame nor clip may be empty"));
        }
        Ok(match self {
            Self::MultiScale { scales, max_distort } => {
                multi_scale(scales, *max_distort, width, height, size, rng)
            }
            Self::RandomResized { area, ratio } => random_resized(*area, *ratio, width, height, rng),
            Self::Center => CropBox::square(width, height, 1),
            Self::ThreeCrop { position } => CropBox::square(width, height, u32::from(*position)),
        })
    }
}

/// The 13 fixed places of a multi-scale crop, in quarters of the free space along x and y.
const PLACES: [(u32, u32); 13] =
    [(0, 0), (4, 0), (0, 4), (4, 4), (2, 2), (0, 2), (4, 2), (2, 4), (2, 0), (1, 1), (3, 1), (1, 3), (3, 3)];

/// A side this close to the clip size is taken to be the clip size.
const SNAP: u32 = 3;

fn multi_scale(
    scales: &[f64],
    max_distort: usize,
    width: u32,
    height: u32,
    size: u32,
    rng: &mut impl Rng,
) -> CropBox {
    let short = width.min(height);
    let sides: Vec<u32> = scales
        .iter()
        .map(|scale| (f64::from(short) * scale) as u32)
        .map(|side| if side.abs_diff(size) < SNAP && size <= short { size } else { side.max(1) })
        .collect();
    let pairs: Vec<(u32, u32)> = (0..sides.len())
        .flat_map(|h| (0..sides.len()).map(move |w| (w, h)))
        .filter(|(w, h)| w.abs_diff(*h) <= max_distort)
        .map(|(w, h)| (sides[w], sides[h]))
        .collect();
    let (w, h) = pairs[rng.random_range(0..pairs.len())];
    let (px, py) = PLACES[rng.random_range(0..PLACES.len())];
    CropBox { x: (width - w) / 4 * px, y: (height - h) / 4 * py, width: w, height: h }
}

fn random_resized(
    area: (f64, f64),
    ratio: (f64, f64),
    width: u32,
    height: u32,
    rng: &mut impl Rng,
) -> CropBox {
    let pixels = f64::from(width) * f64::from(height);
    let log_ratio = (ratio.0.ln(), ratio.1.ln());
    for _ in 0..10 {
        let target = pixels * rng.random_range(area.0..=area.1);
        let aspect = rng.random_range(log_ratio.0..=log_ratio.1).exp();
        let w = (target * aspect).sqrt().round() as u32;
        let h = (target / aspect).sqrt().round() as u32;
        if (1..=width).contains(&w) && (1..=height).contains(&h) {
            return CropBox {
                x: rng.random_range(0..=width - w),
                y: rng.random_range(0..=height - h),
                width: w,
                height: h,
            };
        }
    }
    let aspect = (f64::from(width) / f64::from(height)).clamp(ratio.0, ratio.1);
    let w = ((f64::from(height) * aspect).round() as u32).clamp(1, width);
    let h = ((f64::from(width) / aspect).round() as u32).clamp(1, height);
    CropBox { x: (width - w) / 2, y: (height - h) / 2, width: w, height: h }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashSet;
    use tgm_random::Streams;

    fn any_crop() -> impl Strategy<Value = Crop> {
        prop_oneof![
            Just(Crop::multi_scale()),
            Just(Crop::random_resized()),
            (0.01..1.0f64, 0.1..1.0f64)
                .prop_map(|(a, r)| Crop::RandomResized { area: (a, 1.0), ratio: (r, 2.0 * r) }),
            Just(Crop::Center),
            (0..3u8).prop_map(|position| Crop::ThreeCrop { position }),
        ]
    }

    proptest! {
        #[test]
        fn every_box_lies_inside_the_frame(
            crop in any_crop(), width in 1..800u32, height in 1..800u32, size in 1..300u32, seed: u64,
        ) {
            let chosen = crop.choose(width, height, size, &mut Streams::new(seed).stream("crop", 0, 0)).unwrap();
            prop_assert!(chosen.check(width, height).is_ok(), "{chosen:?}");
        }

        #[test]
        fn multi_scale_sides_are_neighbouring_scales_at_fixed_places(seed: u64) {
            let b = Crop::multi_scale().choose(340, 256, 224, &mut Streams::new(seed).stream("crop", 0, 0)).unwrap();
            // 256 * 0.875 = 224; 192; 168.96 rounds down.
            let sides = [256, 224, 192, 168];
            let at = |side| sides.iter().position(|s| *s == side).unwrap();
            prop_assert!(at(b.width).abs_diff(at(b.height)) <= 1);
            let place = |offset: u32, free: u32| offset.checked_div(free / 4).unwrap_or(0);
            prop_assert!(place(b.x, 340 - b.width) <= 4 && place(b.y, 256 - b.height) <= 4);
        }
    }

    #[test]
    fn multi_scale_reaches_all_ten_pairs_and_thirteen_places() {
        let boxes: HashSet<CropBox> = (0..4000)
            .map(|i| {
                Crop::multi_scale().choose(400, 300, 1, &mut Streams::new(1).stream("crop", 0, i)).unwrap()
            })
            .collect();
        let pairs: HashSet<(u32, u32)> = boxes.iter().map(|b| (b.width, b.height)).collect();
        assert_eq!(pairs.len(), 10);
        let places = boxes.iter().filter(|b| (b.width, b.height) == (225, 225)).count();
        assert_eq!(places, 13);
    }

    #[test]
    fn a_side_within_three_pixels_snaps_to_the_clip_size_only_if_it_fits() {
        let only = |scale| Crop::MultiScale { scales: vec![scale], max_distort: 0 };
        let side = |crop: Crop, short| {
            crop.choose(short, short, 224, &mut Streams::new(0).stream("crop", 0, 0)).unwrap().width
        };
        assert_eq!(side(only(1.0), 226), 224);
        assert_eq!(side(only(1.0), 227), 227);
        assert_eq!(side(only(1.0), 222), 222);
        assert_eq!(side(only(0.875), 254), 224);
    }

    #[test]
    fn three_crops_cover_the_long_side_evenly() {
        let at = |position, w, h| {
            Crop::ThreeCrop { position }.choose(w, h, 224, &mut Streams::new(0).stream("crop", 0, 0)).unwrap()
        };
        assert_eq!([0, 1, 2].map(|p| at(p, 340, 256).x), [0, 42, 84]);
        assert_eq!([0, 1, 2].map(|p| at(p, 256, 341).y), [0, 42, 85]);
    }

    #[test]
    fn settings_that_allow_no_box_are_refused() {
        for crop in [
            Crop::MultiScale { scales: vec![], max_distort: 1 },
            Crop::MultiScale { scales: vec![1.5], max_distort: 1 },
            Crop::RandomResized { area: (0.5, 0.2), ratio: (1.0, 1.0) },
            Crop::RandomResized { area: (0.5, 1.0), ratio: (f64::NAN, 1.0) },
            Crop::ThreeCrop { position: 3 },
        ] {
            assert!(crop.choose(10, 10, 4, &mut Streams::new(0).stream("crop", 0, 0)).is_err(), "{crop:?}");
        }
    }

    #[test]
    fn defaults_may_be_left_out_of_a_config() {
        assert_eq!(serde_json::from_str::<Crop>(r#"{"kind":"multi-scale"}"#).unwrap(), Crop::multi_scale());
        assert!(serde_json::from_str::<Crop>(r#"{"kind":"random-resized","aera":[0.1,1]}"#).is_err());
    }
}
