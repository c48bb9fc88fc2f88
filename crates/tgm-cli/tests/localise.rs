//! `tgm bench localise`: the guidance finds what matters.

mod common;

use std::collections::BTreeMap;

use common::{ok, shared_data, text};

/// The rows of a bench by name, and all of its file.
fn bench(arguments: &[&str]) -> (BTreeMap<String, f64>, serde_json::Value) {
    let dir = tempfile::tempdir().unwrap();
    let json = dir.path().join("localise.json");
    ok(&[&["bench", "localise", "--json", text(&json)][..], arguments].concat());
    let file: serde_json::Value = serde_json::from_slice(&std::fs::read(json).unwrap()).unwrap();
    let rows = file["rows"].as_array().unwrap().iter();
    let rows = rows.map(|row| (row["name"].as_str().unwrap().to_owned(), row["ours"].as_f64().unwrap()));
    (rows.collect(), file)
}

#[test]
fn text_finds_the_named_object_before_any_background_and_motion_only_before_a_still_one() {
    let (rows, file) = bench(&["--scenes", "48"]);
    assert!(file["machine"]["threads"].as_u64().unwrap() > 0 && file["commit"].is_string());
    // 38 and 16 of 64 tubelets.
    let chance = [38.0 / 64.0, 0.25];
    for features in ["plain", "value"] {
        let get = |group: &str| rows[&format!("localise/text/{features}/{group}")];
        for group in ["all", "still", "moving"] {
            assert!(get(&format!("{group}/0.6")) >= 0.8, "{features} {group}: {rows:?}");
            assert!(get(&format!("{group}/0.25")) >= 2.4 * chance[1], "{features} {group}: {rows:?}");
        }
        assert!(get("prefers-object") >= 0.9, "{features}: {rows:?}");
    }
    for (motion, ratio) in [("box/codec", "0.6"), ("box/blocks", "0.25"), ("warp/codec", "0.25")] {
        let motion = rows[&format!("localise/motion-{motion}/moving/{ratio}")];
        let text = rows[&format!("localise/text/plain/moving/{ratio}")];
        assert!(text > motion, "on moving backgrounds: text {text}, motion {motion}");
    }
    assert!(rows["localise/motion-box/codec/still/0.25"] > 2.0 * chance[1], "{rows:?}");
    assert!((rows["localise/random/all/0.6"] - chance[0]).abs() < 0.05, "{rows:?}");
}

#[test]
fn rectangles_that_follow_the_motion_cover_the_moving_hand() {
    let Some(manifest) = shared_data("egogestar/manifest.csv") else { return };
    // The held-out room; over all 349 clips it is 0.91 and 0.61.
    let (rows, _) = bench(&["--data", text(&manifest), "--split", "test"]);
    for source in ["codec", "blocks"] {
        let share = |ratio| rows[&format!("energy/motion-box/{source}/{ratio}")];
        eprintln!("{source}: {:.3} at 0.75, {:.3} at 0.25", share("0.75"), share("0.25"));
        assert!(share("0.75") >= 0.88 && share("0.25") >= 0.55, "{source}: {rows:?}");
    }
    assert!((rows["energy/random/0.25"] - 0.25).abs() < 0.03);
}
