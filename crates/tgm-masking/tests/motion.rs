//! Masks that follow what moves.

use std::collections::BTreeSet;

use tgm_masking::{
    BaseSlot, BoxPath, Cues, Grid, Mask, MaskError, Masking, MotionBoxConfig, MotionField, MotionWarpConfig,
};
use tgm_random::{Stream, Streams};

type Places = BTreeSet<(i32, i32)>;

fn stream(sample: u64) -> Stream {
    Streams::new(5).stream("mask", 0, sample)
}

fn grid() -> Grid {
    Grid::new(8, 14, 14).unwrap()
}

/// A square of 3×3 cells whose first cell is at row 2 + slot and column 9 − slot.
fn blob(slot: usize) -> Places {
    let (top, left) = (2 + slot as i32, 9 - slot as i32);
    (top..top + 3).flat_map(|row| (left..left + 3).map(move |col| (row, col))).collect()
}

/// The motion of that square before a background that moves by `camera`, in the slots for which it is
/// `known`.
fn blob_motion(camera: [f32; 2], known: impl Fn(usize) -> bool) -> MotionField {
    let vectors = (0..grid().len() as u32).map(|index| {
        let (slot, row, col) = grid().position(index);
        match (known(slot), blob(slot).contains(&(row as i32, col as i32))) {
            (false, _) => [0.0; 2],
            (true, true) => [-1.0, 1.0],
            (true, false) => camera,
        }
    });
    MotionField::new(grid(), vectors.collect()).unwrap()
}

/// `(row, col)` of the given tubelets of one slot.
fn places(indices: &[u32]) -> Places {
    let place = |&index: &u32| (grid().position(index).1 as i32, grid().position(index).2 as i32);
    indices.iter().map(place).collect()
}

fn draw(masking: &Masking, motion: &MotionField, sample: u64) -> Mask {
    masking.mask(&grid(), &Cues::from_motion(motion), &mut stream(sample)).unwrap()
}

fn motion_box(ratio: f64) -> MotionBoxConfig {
    MotionBoxConfig { ratio, ..Default::default() }
}

fn covers(mask: &Mask, slot: usize, part: &Places) -> bool {
    places(mask.masked_in(slot)).is_superset(part)
}

/// The masked rectangle: first row, first column, height and width.
fn bounds(mask: &Mask, slot: usize) -> [i32; 4] {
    let masked = places(mask.masked_in(slot));
    let (top, bottom) = (masked.first().unwrap().0, masked.last().unwrap().0);
    let cols: BTreeSet<i32> = masked.iter().map(|place| place.1).collect();
    let (left, right) = (*cols.first().unwrap(), *cols.last().unwrap());
    [top, left, bottom - top + 1, right - left + 1]
}

#[test]
fn a_box_covers_the_moving_blob_in_every_slot() {
    let motion = blob_motion([0.0; 2], |_| true);
    for ratio in [0.05, 0.1, 0.25, 0.6, 0.75] {
        for aspect in [0.7, 1.0, 1.4] {
            let masking = Masking::MotionBox(MotionBoxConfig { aspect, ..motion_box(ratio) });
            let mask = draw(&masking, &motion, 0);
            assert!((0..8).all(|slot| covers(&mask, slot, &blob(slot))), "ratio {ratio}, aspect {aspect}");
        }
    }
}

#[test]
fn a_box_leaves_an_equal_margin_around_a_small_blob() {
    // 49 cells are 7 rows by 7 columns.
    let mask = draw(&Masking::MotionBox(motion_box(0.25)), &blob_motion([0.0; 2], |_| true), 0);
    for slot in 0..7 {
        let &(top, left) = blob(slot).first().unwrap();
        assert_eq!(bounds(&mask, slot), [top - 2, left - 2, 7, 7], "slot {slot}");
    }
}

#[test]
fn a_box_is_a_rectangle_but_for_less_than_one_column_of_its_border() {
    let motion = blob_motion([0.0; 2], |_| true);
    for percent in 1..100 {
        let mask = draw(&Masking::MotionBox(motion_box(f64::from(percent) / 100.0)), &motion, 0);
        for slot in 0..8 {
            let masked = places(mask.masked_in(slot));
            let [top, left, height, width] = bounds(&mask, slot);
            assert!(height * width - (masked.len() as i32) < height.max(width), "{percent} %");
            for row in top + 1..top + height - 1 {
                assert!((left + 1..left + width - 1).all(|col| masked.contains(&(row, col))), "{percent} %");
            }
        }
    }
}

#[test]
fn a_box_stays_while_nothing_is_known_and_starts_where_something_becomes_known() {
    // 25 cells: a full square of 5×5, so that the bounds are the rectangle.
    let known = |slot| [2, 3, 6].contains(&slot);
    let mask = draw(&Masking::MotionBox(motion_box(0.13)), &blob_motion([0.0; 2], known), 0);
    for (slot, source) in [2, 2, 2, 3, 3, 3, 6, 6].into_iter().enumerate() {
        assert!(covers(&mask, slot, &blob(source)), "slot {slot}");
        assert_eq!(bounds(&mask, slot), bounds(&mask, source), "slot {slot}");
    }
}

#[test]
fn a_box_without_any_motion_has_one_random_place() {
    // 49 cells: a full square of 7×7, so that the bounds are the rectangle.
    let masking = Masking::MotionBox(motion_box(0.25));
    for motion in
        [MotionField::still(grid()), MotionField::new(grid(), vec![[0.3, -0.1]; grid().len()]).unwrap()]
    {
        let mut seen = BTreeSet::new();
        for sample in 0..400 {
            let mask = draw(&masking, &motion, sample);
            assert!((1..8).all(|slot| bounds(&mask, slot) == bounds(&mask, 0)));
            seen.insert(bounds(&mask, 0));
        }
        assert!(seen.len() > 60, "only {} of 64 places", seen.len());
    }
}

#[test]
fn a_box_follows_the_camera_unless_told_to_leave_its_motion_out() {
    // The camera is faster than the blob: what moves most is everything else.
    let motion = blob_motion([3.0, 0.0], |_| true);
    let plain = motion_box(0.1);
    let local = MotionBoxConfig { remove_global_motion: true, ..motion_box(0.1) };
    let plain = draw(&Masking::MotionBox(plain), &motion, 0);
    let local = draw(&Masking::MotionBox(local), &motion, 0);
    assert!((0..8).all(|slot| places(plain.masked_in(slot)).is_disjoint(&blob(slot))));
    assert!((0..8).all(|slot| covers(&local, slot, &blob(slot))));
}

#[test]
fn a_simulated_box_drifts_without_any_cue() {
    let config = MotionBoxConfig { path: BoxPath::Simulated, drift: 2.0, ..motion_box(0.25) };
    let mut moved = 0;
    for sample in 0..50 {
        let masking = Masking::MotionBox(config.clone());
        let mask = masking.mask(&grid(), &Cues::default(), &mut stream(sample)).unwrap();
        for slot in 1..8 {
            let ([y0, x0, ..], [y1, x1, height, width]) = (bounds(&mask, slot - 1), bounds(&mask, slot));
            assert_eq!((height, width), (7, 7));
            assert!((y1 - y0).abs() <= 3 && (x1 - x0).abs() <= 3);
            moved += i32::from((y0, x0) != (y1, x1));
        }
    }
    assert!(moved > 150, "moved {moved} of 350 times");
    let still = Masking::MotionBox(MotionBoxConfig { drift: 0.0, ..config });
    let mask = still.mask(&grid(), &Cues::default(), &mut stream(0)).unwrap();
    assert!((1..8).all(|slot| bounds(&mask, slot) == bounds(&mask, 0)));
}

fn motion_warp(ratio: f64, base: BaseSlot) -> Masking {
    Masking::MotionWarp(MotionWarpConfig { ratio, base, ..Default::default() })
}

/// Exact counts make the set of visible places a cut through an order. The order travels with the content but
/// the cut may shift, so what is visible of one and the same content in two slots is nested, not equal.
fn nested(a: &Places, b: &Places) -> bool {
    a.is_subset(b) || b.is_subset(a)
}

#[test]
fn a_warped_map_follows_a_uniform_translation_forward_and_backward_in_time() {
    for [dx, dy] in [[1, 0], [0, -1], [-1, 1]] {
        let motion = MotionField::new(grid(), vec![[dx as f32, dy as f32]; grid().len()]).unwrap();
        for (base, base_slot) in [(BaseSlot::First, 0), (BaseSlot::Middle, 4)] {
            let mask = draw(&motion_warp(0.8, base), &motion, 1);
            let visible_in_base = places(mask.visible_in(base_slot));
            for slot in 0..8 {
                let time = slot as i32 - base_slot as i32;
                let content = |&(row, col): &(i32, i32)| (row - dy * time, col - dx * time);
                let inside = |&(row, col): &(i32, i32)| (0..14).contains(&row) && (0..14).contains(&col);
                let followed: Places =
                    places(mask.visible_in(slot)).iter().map(content).filter(|place| inside(place)).collect();
                // Content that has left the picture since the base slot cannot be visible any more.
                let still_seen = |&(row, col): &(i32, i32)| inside(&(row + dy * time, col + dx * time));
                let expected: Places = visible_in_base.iter().copied().filter(still_seen).collect();
                assert!(nested(&followed, &expected), "motion {dx}, {dy}, base {base_slot}, slot {slot}");
                assert!(!followed.is_empty());
            }
        }
    }
}

#[test]
fn a_warped_map_follows_a_moving_blob_before_a_still_background() {
    let motion = blob_motion([0.0; 2], |_| true);
    for sample in 0..20 {
        let mask = draw(&motion_warp(0.6, BaseSlot::Middle), &motion, sample);
        let visible_in_blob = |slot: usize| -> Places {
            let visible = places(mask.visible_in(slot));
            let &(top, left) = blob(slot).first().unwrap();
            blob(slot).intersection(&visible).map(|(row, col)| (row - top, col - left)).collect()
        };
        for slot in 0..8 {
            assert!(nested(&visible_in_blob(slot), &visible_in_blob(4)), "sample {sample}, slot {slot}");
        }
    }
}

#[test]
fn a_warped_map_without_motion_is_a_tube() {
    let mask = draw(&motion_warp(0.9, BaseSlot::Random), &MotionField::still(grid()), 0);
    assert!((1..8).all(|slot| places(mask.visible_in(slot)) == places(mask.visible_in(0))));
}

#[test]
fn a_missing_motion_field_is_refused() {
    for (masking, strategy) in [
        (Masking::MotionBox(MotionBoxConfig::default()), "motion-box"),
        (Masking::MotionWarp(MotionWarpConfig::default()), "motion-warp"),
    ] {
        let error = masking.mask(&grid(), &Cues::default(), &mut stream(0)).unwrap_err();
        assert_eq!(error, MaskError::MissingCue { strategy, cue: "a motion field" });
    }
}
