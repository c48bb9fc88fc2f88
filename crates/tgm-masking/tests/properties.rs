//! What holds for every strategy, on any grid, at any ratio, with any cues.

use proptest::prelude::*;
use tgm_masking::{
    BaseSlot, BoxPath, Cues, Grid, Mask, MaskError, Masking, MotionBoxConfig, MotionField, MotionWarpConfig,
    RunningCell, ScoreMap, Select, TextConfig,
};
use tgm_random::{Stream, Streams};

fn stream(sample: u64) -> Stream {
    Streams::new(3).stream("mask", 1, sample)
}

/// Every strategy in every mode.
fn strategies(ratio: f64) -> Vec<Masking> {
    let motion_box = |path, remove_global_motion| {
        Masking::MotionBox(MotionBoxConfig { ratio, path, remove_global_motion, ..Default::default() })
    };
    let motion_warp = |base| Masking::MotionWarp(MotionWarpConfig { ratio, base, ..Default::default() });
    let text = |select| Masking::Text(TextConfig { ratio, select, ..Default::default() });
    vec![
        Masking::Random { ratio },
        Masking::Tube { ratio },
        motion_box(BoxPath::Motion, false),
        motion_box(BoxPath::Motion, true),
        motion_box(BoxPath::Simulated, false),
        motion_warp(BaseSlot::First),
        motion_warp(BaseSlot::Middle),
        motion_warp(BaseSlot::Random),
        text(Select::TopK),
        text(Select::BottomK),
        text(Select::Sample),
    ]
}

fn grids() -> impl Strategy<Value = Grid> {
    (1..5usize, 1..10usize, 1..10usize).prop_map(|(slots, rows, cols)| Grid::new(slots, rows, cols).unwrap())
}

/// A grid with cues that have ties, extremes and still parts.
fn clips() -> impl Strategy<Value = (ScoreMap, MotionField)> {
    let score = prop_oneof![
        4 => -1.0f32..1.0,
        2 => Just(0.0f32),
        1 => prop::sample::select(vec![-0.0, f32::MAX, f32::MIN, f32::INFINITY, f32::NEG_INFINITY]),
    ];
    let vector = prop_oneof![
        4 => prop::array::uniform2(-3.0f32..3.0),
        4 => Just([0.0f32; 2]),
        1 => Just([f32::MAX, f32::MIN]),
    ];
    grids().prop_flat_map(move |grid| {
        let scores = prop::collection::vec(score.clone(), grid.len());
        let vectors = prop::collection::vec(vector.clone(), grid.len());
        (scores, vectors).prop_map(move |(scores, vectors)| {
            (ScoreMap::new(grid, scores).unwrap(), MotionField::new(grid, vectors).unwrap())
        })
    })
}

fn count(indices: &[u32], grid: Grid, slot: usize) -> usize {
    indices.iter().filter(|&i| grid.slot(slot).contains(i)).count()
}

proptest! {
    #[test]
    fn every_slot_has_exactly_the_promised_counts_or_the_mask_is_refused(
        (scores, motion) in clips(),
        ratio in prop_oneof![8 => 0.001f64..0.999, 1 => Just(1e-12), 1 => Just(1.0 - 1e-12)],
        sample: u64,
    ) {
        let (grid, cues) = (scores.grid(), Cues { scores: Some(&scores), motion: Some(&motion) });
        let expected = (ratio * grid.cells() as f64).floor() as usize;
        for masking in strategies(ratio) {
            match masking.mask(&grid, &cues, &mut stream(sample)) {
                Ok(mask) => {
                    prop_assert_eq!(masking.masked_per_slot(&grid), Ok(expected));
                    prop_assert_eq!((mask.grid(), mask.masked_per_slot()), (grid, expected));
                    for slot in 0..grid.slots() {
                        prop_assert_eq!(count(mask.masked(), grid, slot), expected);
                        prop_assert_eq!(count(mask.visible(), grid, slot), grid.cells() - expected);
                    }
                    prop_assert!(mask.visible().is_sorted() && mask.masked().is_sorted());
                    prop_assert!(mask.visible().iter().all(|i| mask.masked().binary_search(i).is_err()));
                }
                Err(error) => {
                    prop_assert_eq!(error, MaskError::Count { ratio, masked: expected, grid });
                    prop_assert!(expected == 0 || expected == grid.cells());
                }
            }
        }
    }

    #[test]
    fn a_named_stream_always_gives_the_same_mask((scores, motion) in clips(), sample: u64) {
        let (grid, cues) = (scores.grid(), Cues { scores: Some(&scores), motion: Some(&motion) });
        for masking in strategies(0.6) {
            let draw = || masking.mask(&grid, &cues, &mut stream(sample));
            prop_assert_eq!(draw(), draw());
        }
    }

    #[test]
    fn a_tube_hides_the_same_places_in_all_slots(grid in grids(), sample: u64) {
        prop_assume!(grid.cells() > 1);
        let mask = Masking::Tube { ratio: 0.5 }.mask(&grid, &Cues::default(), &mut stream(sample)).unwrap();
        for slot in 0..grid.slots() {
            let shifted: Vec<u32> = mask.masked_in(0).iter().map(|i| i + grid.slot(slot).start).collect();
            prop_assert_eq!(mask.masked_in(slot), &shifted[..]);
        }
    }

    /// With distinct scores neither the draws nor the order of the tubelets matter.
    #[test]
    fn permuting_the_tubelets_of_each_slot_permutes_the_text_mask(
        order in Just((0..35u32).collect::<Vec<_>>()).prop_shuffle(),
        permutation in Just((0..35usize).collect::<Vec<_>>()).prop_shuffle(),
        ratio in 0.03f64..0.99, samples: (u64, u64),
    ) {
        let grid = Grid::new(2, 5, 7).unwrap();
        let scores: Vec<f32> = order.iter().chain(&order).map(|&rank| rank as f32 - 17.0).collect();
        let permuted = (0..70).map(|i| scores[i / 35 * 35 + permutation[i % 35]]).collect();
        for select in [Select::TopK, Select::BottomK] {
            let masking = Masking::Text(TextConfig { ratio, select, ..Default::default() });
            let draw = |scores: Vec<f32>, sample| {
                let scores = ScoreMap::new(grid, scores).unwrap();
                masking.mask(&grid, &Cues::from_scores(&scores), &mut stream(sample)).unwrap().to_bools()
            };
            let (plain, moved) = (draw(scores.clone(), samples.0), draw(Vec::clone(&permuted), samples.1));
            for i in 0..70 {
                prop_assert_eq!(moved[i], plain[i / 35 * 35 + permutation[i % 35]]);
            }
        }
    }

    #[test]
    fn masked_scores_are_never_below_visible_ones((scores, _) in clips(), ratio in 0.1f64..0.9, sample: u64) {
        let grid = scores.grid();
        prop_assume!((1.0 / grid.cells() as f64) <= ratio);
        for (select, sign) in [(Select::TopK, 1.0), (Select::BottomK, -1.0)] {
            let masking = Masking::Text(TextConfig { ratio, select, ..Default::default() });
            let mask = masking.mask(&grid, &Cues::from_scores(&scores), &mut stream(sample)).unwrap();
            for slot in 0..grid.slots() {
                let score = |&i: &u32| sign * scores.values()[i as usize];
                let least_masked = mask.masked_in(slot).iter().map(score).fold(f32::INFINITY, f32::min);
                let most_visible = mask.visible_in(slot).iter().map(score).fold(f32::NEG_INFINITY, f32::max);
                prop_assert!(least_masked >= most_visible);
            }
        }
    }

    #[test]
    fn the_decoder_reconstructs_an_exact_number_of_masked_tubelets_per_slot(
        grid in grids(), ratio in 0.05f64..0.95, dropped in 0.0f64..1.0, sample: u64,
    ) {
        let Ok(mask) = Masking::Random { ratio }.mask(&grid, &Cues::default(), &mut stream(sample)) else {
            return Ok(());
        };
        let cell = RunningCell { ratio: dropped };
        let kept = mask.masked_per_slot() - (dropped * mask.masked_per_slot() as f64).floor() as usize;
        prop_assert_eq!(cell.kept_per_slot(mask.masked_per_slot()), Ok(kept));
        let targets = cell.targets(&mask, &mut stream(sample)).unwrap();
        prop_assert!(targets.is_sorted());
        prop_assert!(targets.iter().all(|i| mask.masked().binary_search(i).is_ok()));
        for slot in 0..grid.slots() {
            prop_assert_eq!(count(&targets, grid, slot), kept);
        }
    }
}

fn large() -> Grid {
    Grid::new(8, 14, 14).unwrap()
}

#[test]
fn other_samples_get_other_masks() {
    let scores = ScoreMap::new(large(), vec![0.5; large().len()]).unwrap();
    let motion = MotionField::still(large());
    let cues = Cues { scores: Some(&scores), motion: Some(&motion) };
    for masking in strategies(0.6) {
        let masks: Vec<Mask> =
            (0..8).map(|sample| masking.mask(&large(), &cues, &mut stream(sample)).unwrap()).collect();
        assert!(masks[1..].iter().any(|mask| mask != &masks[0]), "{}", masking.name());
    }
}

#[test]
fn random_masking_draws_each_slot_anew() {
    let mask = Masking::Random { ratio: 0.9 }.mask(&large(), &Cues::default(), &mut stream(0)).unwrap();
    let places = |slot: usize| mask.visible_in(slot).iter().map(|i| i % 196).collect::<Vec<_>>();
    assert!((1..8).all(|slot| places(slot) != places(0)));
}

/// How often each tubelet is masked by strategies that have nothing to go by.
#[test]
fn constant_scores_prefer_no_tubelet() {
    let grid = Grid::new(1, 3, 4).unwrap();
    let scores = ScoreMap::new(grid, vec![0.25; 12]).unwrap();
    for select in [Select::TopK, Select::BottomK, Select::Sample] {
        let masking = Masking::Text(TextConfig { ratio: 0.5, select, ..Default::default() });
        let mut masked = [0i32; 12];
        for sample in 0..4_000 {
            let mask = masking.mask(&grid, &Cues::from_scores(&scores), &mut stream(sample)).unwrap();
            mask.masked().iter().for_each(|&i| masked[i as usize] += 1);
        }
        // Binomial with n = 4000 and p = 1/2: five standard deviations are 158.
        assert!(masked.iter().all(|n| (n - 2_000).abs() < 158), "{select:?}: {masked:?}");
    }
}

#[test]
fn a_sample_follows_the_scores_as_its_temperature_says() {
    // Scores ln 1 … ln 4 at temperature 1: the chances of being drawn first are 1/10 … 4/10.
    let grid = Grid::new(1, 2, 2).unwrap();
    let scores = ScoreMap::new(grid, (1..5u8).map(|n| f32::from(n).ln()).collect()).unwrap();
    let counts = |temperature| {
        let config = TextConfig { ratio: 0.25, select: Select::Sample, temperature };
        let mut counts = [0i32; 4];
        for sample in 0..10_000 {
            let masking = Masking::Text(config.clone());
            let mask = masking.mask(&grid, &Cues::from_scores(&scores), &mut stream(sample)).unwrap();
            counts[mask.masked()[0] as usize] += 1;
        }
        counts
    };
    let near =
        |counts: [i32; 4], expected: [i32; 4]| counts.iter().zip(expected).all(|(a, b)| (a - b).abs() < 245);
    assert!(near(counts(1.0), [1_000, 2_000, 3_000, 4_000]));
    assert!(near(counts(1e6), [2_500; 4]));
    assert_eq!(counts(1e-3), [0, 0, 0, 10_000]);
}

#[test]
fn a_sample_always_takes_infinite_scores_and_never_negative_infinite_ones() {
    let grid = Grid::new(1, 1, 4).unwrap();
    let scores = ScoreMap::new(grid, vec![0.0, f32::NEG_INFINITY, f32::INFINITY, 0.0]).unwrap();
    let masking = Masking::Text(TextConfig { ratio: 0.5, select: Select::Sample, temperature: 1.0 });
    for sample in 0..100 {
        let mask = masking.mask(&grid, &Cues::from_scores(&scores), &mut stream(sample)).unwrap();
        assert!(mask.masked().contains(&2) && mask.visible().contains(&1));
    }
}

/// A run resumed by a newer release must draw the masks it would have drawn. Only strategies that compute
/// exactly on every platform.
#[test]
fn masks_never_change_between_releases() {
    let scores = (0..large().len()).map(|i| (i * 7_919 % 31) as f32).collect();
    let scores = ScoreMap::new(large(), scores).unwrap();
    let motion = MotionField::still(large());
    let cues = Cues { scores: Some(&scores), motion: Some(&motion) };
    let fnv = |indices: &[u32]| {
        let step = |hash: u64, index: &u32| (hash ^ u64::from(*index)).wrapping_mul(0x0100_0000_01b3);
        indices.iter().fold(0xcbf2_9ce4_8422_2325, step)
    };
    let draw = |masking: Masking| masking.mask(&large(), &cues, &mut stream(0)).unwrap();
    let tube = draw(Masking::Tube { ratio: 0.9 });
    let found = [
        fnv(draw(Masking::Random { ratio: 0.9 }).masked()),
        fnv(tube.masked()),
        fnv(draw(Masking::MotionBox(MotionBoxConfig::default())).masked()),
        fnv(draw(Masking::default()).masked()),
        fnv(&RunningCell::default().targets(&tube, &mut stream(1)).unwrap()),
    ];
    assert_eq!(found, GOLDEN);
}

const GOLDEN: [u64; 5] = [
    13_776_745_141_791_536_423,
    12_405_597_100_382_947_973,
    14_344_039_326_575_365_733,
    562_509_648_927_453_952,
    18_316_030_622_508_774_863,
];
