//! Real clips with variable frame rates, where they are at hand (`TGM_SHARED_DATA`, or `shared/data` beside the repository).

mod common;

use std::path::Path;

use common::{learnt, ok, shared_data, text};

#[test]
fn gestures_train_with_motion_masking_and_resume_to_the_same_weights() {
    let Some(manifest) = shared_data("egogestar/manifest.csv") else { return };
    let dir = tempfile::tempdir().unwrap();
    let run = |out: &Path, arguments: &[&str]| {
        ok(&[&["pretrain", "--out", text(out)][..], arguments].concat());
    };
    // No test split: the probes at the end would decode all clips.
    let fresh = [
        "--data",
        text(&manifest),
        "--masking",
        "motion",
        "--contrastive",
        "on",
        "--set",
        "data.test_split=none",
        "--set",
        "train.batch=4",
        "--set",
        "output.pictures=0",
    ];
    let (whole, parts) = (dir.path().join("whole"), dir.path().join("parts"));
    run(&whole, &[&fresh[..], &["--steps", "4"]].concat());
    run(&parts, &[&fresh[..], &["--steps", "2"]].concat());
    run(&parts, &["--resume", "--steps", "4"]);
    assert!(learnt(&whole) == learnt(&parts), "other weights");
}
