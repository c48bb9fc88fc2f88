//! Config files, and what is refused.

use serde::{Deserialize, Serialize};
use tgm_masking::{
    BaseSlot, BoxPath, Cues, Grid, MaskError, Masking, MotionBoxConfig, MotionField, MotionWarpConfig,
    RunningCell, ScoreMap, Select, TextConfig,
};
use tgm_random::Streams;

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Config {
    masking: Masking,
}

fn parse(masking: &str) -> Result<Masking, toml::de::Error> {
    toml::from_str::<Config>(&format!("[masking]\n{masking}")).map(|config| config.masking)
}

#[test]
fn a_config_file_names_the_strategy_and_what_differs_from_its_defaults() {
    let text = parse("kind = 'text'\nratio = 0.6\nselect = 'top-k'").unwrap();
    assert_eq!(text, Masking::Text(TextConfig { ratio: 0.6, select: Select::TopK, ..Default::default() }));
    let motion_box = parse("kind = 'motion-box'\npath = 'simulated'\ndrift = 2").unwrap();
    let expected = MotionBoxConfig { path: BoxPath::Simulated, drift: 2.0, ..Default::default() };
    assert_eq!(motion_box, Masking::MotionBox(expected));
    let motion_warp = parse("kind = 'motion-warp'\nbase = 'first'\nsamples-per-cell = 8").unwrap();
    let expected = MotionWarpConfig { base: BaseSlot::First, samples_per_cell: 8, ..Default::default() };
    assert_eq!(motion_warp, Masking::MotionWarp(expected));
    assert_eq!(parse("kind = 'random'\nratio = 0.75").unwrap(), Masking::Random { ratio: 0.75 });
}

#[test]
fn each_strategy_has_the_ratio_of_its_source_by_default() {
    for (kind, ratio) in
        [("random", 0.9), ("tube", 0.9), ("motion-box", 0.75), ("motion-warp", 0.9), ("text", 0.6)]
    {
        let masking = parse(&format!("kind = '{kind}'")).unwrap();
        assert_eq!((masking.name(), masking.ratio()), (kind, ratio));
    }
}

#[test]
fn every_setting_survives_a_round_trip() {
    let all = [
        Masking::Random { ratio: 0.1 },
        Masking::Tube { ratio: 0.2 },
        Masking::MotionBox(MotionBoxConfig {
            ratio: 0.3,
            aspect: 1.5,
            path: BoxPath::Simulated,
            remove_global_motion: true,
            drift: 0.5,
        }),
        Masking::MotionWarp(MotionWarpConfig {
            ratio: 0.4,
            base: BaseSlot::Random,
            sigma: 2.0,
            samples_per_cell: 1,
        }),
        Masking::Text(TextConfig { ratio: 0.5, select: Select::Sample, temperature: 0.25 }),
    ];
    for masking in all {
        let config = Config { masking };
        let text = toml::to_string(&config).unwrap();
        assert_eq!(toml::from_str::<Config>(&text).unwrap(), config, "{text}");
    }
    let cell = RunningCell { ratio: 0.25 };
    assert_eq!(toml::from_str::<RunningCell>(&toml::to_string(&cell).unwrap()).unwrap(), cell);
}

#[test]
fn unknown_names_are_refused_and_named() {
    for (text, name) in [
        ("kind = 'cube'", "cube"),
        ("kind = 'text'\nselect = 'middle-k'", "middle-k"),
        ("kind = 'random'\nratoi = 0.5", "ratoi"),
        ("kind = 'tube'\nselect = 'top-k'", "select"),
        ("kind = 'motion-box'\nsigma = 1", "sigma"),
        ("kind = 'motion-warp'\nsamples_per_cell = 4", "samples_per_cell"),
        ("kind = 'text'\nratoi = 0.5", "ratoi"),
        ("ratio = 0.5", "kind"),
    ] {
        let error = parse(text).unwrap_err().to_string();
        assert!(error.contains(name), "{text}: {error}");
    }
}

#[test]
fn impossible_settings_are_refused_by_name() {
    for (text, message) in [
        ("kind = 'tube'\nratio = 1.0", "mask ratio 1 is impossible: it must lie above 0 and below 1"),
        ("kind = 'text'\nratio = nan", "mask ratio NaN is impossible: it must lie above 0 and below 1"),
        (
            "kind = 'text'\ntemperature = 0",
            "text masking: temperature = 0 is impossible: it must be positive and finite",
        ),
        (
            "kind = 'motion-box'\naspect = inf",
            "motion-box masking: aspect = inf is impossible: it must be positive and finite",
        ),
        (
            "kind = 'motion-box'\ndrift = -1",
            "motion-box masking: drift = -1 is impossible: it must be finite and not negative",
        ),
        (
            "kind = 'motion-warp'\nsigma = -2.5",
            "motion-warp masking: sigma = -2.5 is impossible: it must be positive and finite",
        ),
        (
            "kind = 'motion-warp'\nsamples-per-cell = 17",
            "motion-warp masking: samples-per-cell = 17 is impossible: it must be from 1 to 16",
        ),
    ] {
        assert_eq!(parse(text).unwrap().validate().unwrap_err().to_string(), message);
    }
    assert_eq!(Masking::default().validate(), Ok(()));
}

#[test]
fn counts_are_rounded_down_as_in_the_references() {
    let grid = Grid::new(8, 14, 14).unwrap();
    let count = |ratio| Masking::Random { ratio }.masked_per_slot(&grid).unwrap();
    assert_eq!([count(0.9), count(0.75), count(0.6), count(0.55)], [176, 147, 117, 107]);
}

#[test]
fn masking_none_or_all_of_a_slot_is_refused_with_ratio_and_grid() {
    let refused = |ratio, grid: Grid| {
        let rng = &mut Streams::new(0).stream("mask", 0, 0);
        Masking::Random { ratio }.mask(&grid, &Cues::default(), rng).unwrap_err()
    };
    let grid = Grid::new(8, 14, 14).unwrap();
    assert_eq!(refused(0.005, grid), MaskError::Count { ratio: 0.005, masked: 0, grid });
    assert_eq!(refused(0.0, grid), MaskError::Count { ratio: 0.0, masked: 0, grid });
    assert_eq!(refused(1.0, grid), MaskError::Count { ratio: 1.0, masked: 196, grid });
    let single = Grid::new(4, 1, 1).unwrap();
    assert_eq!(refused(0.99, single), MaskError::Count { ratio: 0.99, masked: 0, grid: single });
    assert_eq!(refused(-0.5, grid), MaskError::Ratio { ratio: -0.5 });
    assert!(matches!(refused(f64::NAN, grid), MaskError::Ratio { .. }));
    let message = refused(0.005, grid).to_string();
    assert!(
        message.contains("0.005") && message.contains("8×14×14") && message.contains("from 0.0052"),
        "{message}"
    );
    let message = refused(0.99, single).to_string();
    assert!(message.ends_with("use at least 2 tubelets per slot"), "{message}");
}

/// 1/196 was rounded down to 0.0051, which masks no tubelet of 14×14 either.
#[test]
fn the_ratio_that_a_refusal_recommends_is_accepted() {
    let squares = (2..=120).map(|side| (1, side, side));
    let others = [(8, 7, 7), (8, 8, 8), (8, 14, 14), (16, 16, 16), (8, 1, 2), (4, 25, 50), (1, 100, 1)];
    for (slots, rows, cols) in squares.chain(others) {
        let grid = Grid::new(slots, rows, cols).unwrap();
        let message = Masking::Tube { ratio: 0.0 }.masked_per_slot(&grid).unwrap_err().to_string();
        let (_, tail) = message.split_once("a ratio from ").expect(&message);
        let ratio = tail.strip_suffix(" to below 1").expect(&message).parse().unwrap();
        let masked = Masking::Tube { ratio }.masked_per_slot(&grid).expect(&message);
        // The least of four decimals: below 10,000 tubelets in a slot it masks one or two.
        assert!(masked <= 2.max(grid.cells() / 5_000), "{message}: masks {masked}");
    }
}

#[test]
fn cues_must_be_there_and_fit_the_grid() {
    let (grid, other) = (Grid::new(2, 4, 4).unwrap(), Grid::new(2, 7, 7).unwrap());
    let rng = &mut Streams::new(0).stream("mask", 0, 0);
    let text = Masking::default();
    let missing = text.mask(&grid, &Cues::default(), rng).unwrap_err();
    assert_eq!(missing.to_string(), "text masking needs a score map, and none was given");

    let scores = ScoreMap::new(other, vec![0.0; other.len()]).unwrap();
    let motion = MotionField::still(other);
    let cues = Cues { scores: Some(&scores), motion: Some(&motion) };
    let error = text.mask(&grid, &cues, rng).unwrap_err().to_string();
    assert!(
        error.starts_with("the score map is for grid 2×7×7, but the mask is for grid 2×4×4: "),
        "{error}"
    );
    assert!(text.mask(&grid, &Cues::from_scores(&scores.resampled(4, 4).unwrap()), rng).is_ok());
    let error = Masking::MotionWarp(MotionWarpConfig::default()).mask(&grid, &cues, rng).unwrap_err();
    assert_eq!(error, MaskError::GridMismatch { what: "the motion field", found: other, grid });
    assert!(
        Masking::Tube { ratio: 0.5 }.mask(&grid, &cues, rng).is_ok(),
        "cues that are not needed are ignored"
    );
}

#[test]
fn strategies_say_which_cues_they_need() {
    let needs = |text| {
        let masking = parse(text).unwrap();
        (masking.needs_scores(), masking.needs_motion())
    };
    assert_eq!(needs("kind = 'random'"), (false, false));
    assert_eq!(needs("kind = 'tube'"), (false, false));
    assert_eq!(needs("kind = 'motion-box'"), (false, true));
    assert_eq!(needs("kind = 'motion-box'\npath = 'simulated'"), (false, false));
    assert_eq!(needs("kind = 'motion-warp'"), (false, true));
    assert_eq!(needs("kind = 'text'"), (true, false));
}
