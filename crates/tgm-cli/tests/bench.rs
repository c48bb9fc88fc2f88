//! `tgm bench mask`: every strategy, measured.

mod common;

use common::{ok, text};

#[test]
fn every_strategy_has_a_row_of_masks_per_second() {
    let dir = tempfile::tempdir().unwrap();
    let json = dir.path().join("mask.json");
    ok(&["bench", "mask", "--clips", "4", "--rounds", "1", "--json", text(&json)]);
    let file: serde_json::Value = serde_json::from_slice(&std::fs::read(json).unwrap()).unwrap();
    let rows = file["rows"].as_array().unwrap();
    let names: Vec<&str> = rows.iter().map(|row| row["name"].as_str().unwrap()).collect();
    let strategies = ["random-0.9", "tube-0.9", "motion-box", "motion-warp", "text-0.6", "text-sampled-0.6"];
    assert_eq!(names, strategies.map(|strategy| format!("mask/{strategy}/8x14x14")));
    for row in rows {
        assert!(row["unit"] == "masks/s" && row["ours"].as_f64().unwrap() > 0.0, "{row}");
        assert!(row.get("peers").is_none(), "{row}");
    }
}
