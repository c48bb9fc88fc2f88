//! Real clips with variable frame rates, where they are at hand (`TGM_SHARED_DATA`, or `shared/data` beside the repository).

use std::path::{Path, PathBuf};
use std::process::Command;

fn manifest() -> Option<PathBuf> {
    let folder = match std::env::var_os("TGM_SHARED_DATA") {
        Some(folder) => PathBuf::from(folder),
        None => Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data"),
    };
    let manifest = folder.join("egogestar/manifest.csv");
    if manifest.is_file() {
        return Some(manifest);
    }
    eprintln!("skipped: shared data not found ({} is absent; set TGM_SHARED_DATA)", manifest.display());
    None
}

#[test]
fn gestures_train_with_motion_masking_and_resume_to_the_same_weights() {
    let Some(manifest) = manifest() else { return };
    let dir = tempfile::tempdir().unwrap();
    let run = |out: &Path, arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tgm"));
        command.arg("pretrain").arg("--out").arg(out).args(arguments);
        let output = command.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    };
    // No test split: the probes at the end would decode all clips.
    let fresh = [
        "--data",
        manifest.to_str().unwrap(),
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
    for file in ["model", "contrastive", "optimizer"] {
        let bytes = |out: &Path| {
            std::fs::read(out.join(format!("checkpoints/step-00000004/{file}.safetensors"))).unwrap()
        };
        assert!(bytes(&whole) == bytes(&parts), "{file} differs");
    }
}
