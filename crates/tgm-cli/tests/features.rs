//! `tgm features`: a file that other programs can read, and that survives interruption.

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use common::{fails, fixtures, ok, text, tgm, tiny, unlabelled, world};
use safetensors::SafeTensors;

/// A published layout: the random VideoMAE of the fixtures, in Hugging Face's folder.
fn checkpoint() -> PathBuf {
    fixtures().join("mae-plain")
}

fn shape(file: &Path, tensor: &str) -> Vec<usize> {
    let bytes = fs::read(file).unwrap();
    SafeTensors::deserialize(&bytes).unwrap().tensor(tensor).unwrap().shape().to_vec()
}

#[test]
fn features_of_an_import_have_a_row_per_video_and_a_column_of_views() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("f.safetensors");
    let (checkpoint, world) = (checkpoint(), world());
    let arguments = ["features", "--checkpoint", text(&checkpoint), "--data", &world, "--out", text(&out)];
    ok(&[&arguments[..], &["--split", "test", "--views", "2", "--crops", "3"]].concat());
    let videos = fs::read_to_string(&world).unwrap().lines().filter(|line| line.contains(",test,")).count();
    let features = shape(&out, "features");
    assert_eq!(features[..2], [videos, 6]);
    assert_eq!(shape(&out, "labels"), [videos]);
    assert!(!dir.path().join("f.safetensors.part").exists());
}

#[test]
fn an_interrupted_run_goes_on_and_ends_in_the_same_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let (whole, parts) = (dir.path().join("whole.safetensors"), dir.path().join("parts.safetensors"));
    let (checkpoint, world) = (checkpoint(), world());
    let run = |out: &Path| {
        let arguments = ["features", "--checkpoint", text(&checkpoint), "--data", &world, "--split", "test"];
        tgm(&[&arguments[..], &["--out", text(out)]].concat())
    };
    assert!(run(&whole).status.success());
    // What a run leaves that was killed after its third video: the head of the journal, taken from the whole file.
    let bytes = fs::read(&whole).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let features = file.tensor("features").unwrap();
    let record = features.shape()[1] * features.shape()[2] * 4;
    let (_, metadata) = SafeTensors::read_metadata(&bytes).unwrap();
    let about = metadata.metadata().as_ref().unwrap()["about"].clone();
    let journal = [about.as_bytes(), b"\n", &features.data()[..3 * record + 7]].concat();
    fs::write(dir.path().join("parts.safetensors.part"), journal).unwrap();
    let output = run(&parts);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && stderr.contains("going on after 3 of"), "{stderr}");
    let resumed = fs::read(&parts).unwrap();
    for name in ["features", "labels", "rows"] {
        let view =
            |bytes: &[u8]| SafeTensors::deserialize(bytes).unwrap().tensor(name).unwrap().data().to_vec();
        assert!(view(&bytes) == view(&resumed), "{name}");
    }
}

#[test]
fn two_lines_of_python_read_it() {
    let python =
        std::env::var_os("TGM_PYTHON").map(PathBuf::from).into_iter().chain([PathBuf::from("python3")]).find(
            |python| {
                let import = Command::new(python).args(["-c", "import numpy, safetensors.numpy"]).output();
                import.is_ok_and(|output| output.status.success())
            },
        );
    let Some(python) = python else {
        eprintln!("skipped: no python with numpy and safetensors");
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("features.safetensors");
    let (checkpoint, world) = (checkpoint(), world());
    let arguments = ["features", "--checkpoint", text(&checkpoint), "--data", &world, "--split", "test"];
    ok(&[&arguments[..], &["--out", text(&out)]].concat());
    let script = "from safetensors.numpy import load_file\n\
                  f = load_file(\"features.safetensors\"); x, y = f[\"features\"].mean(1), f[\"labels\"]\n\
                  print(x.shape[0] == len(y) and x.ndim == 2 and y.min() >= 0)";
    let output = Command::new(python).args(["-c", script]).current_dir(dir.path()).output().unwrap();
    let printed = String::from_utf8_lossy(&output.stdout);
    assert_eq!(printed.trim(), "True", "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn features_of_another_checkpoint_are_not_continued() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("f.safetensors");
    let journal = dir.path().join("f.safetensors.part");
    fs::write(&journal, "{\"encoder\":\"another\"}\n").unwrap();
    let (checkpoint, world) = (checkpoint(), world());
    let arguments = ["features", "--checkpoint", text(&checkpoint), "--data", &world, "--out", text(&out)];
    let output = tgm(&arguments);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr.contains("f.safetensors.part") && stderr.contains("--out"), "{stderr}");
}

#[test]
fn a_file_that_is_there_already_is_not_written_over() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("precious.txt");
    fs::write(&out, "mine").unwrap();
    let (checkpoint, world) = (checkpoint(), world());
    let arguments = ["features", "--checkpoint", text(&checkpoint), "--data", &world, "--out", text(&out)];
    let output = tgm(&arguments);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && stderr.contains("is there already"), "{stderr}");
    assert_eq!(fs::read_to_string(&out).unwrap(), "mine");
}

#[test]
fn a_split_of_data_without_splits_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (manifest, out) = (unlabelled(dir.path()), dir.path().join("run"));
    ok(&tiny(text(&manifest), &out, &["--masking", "tube", "--steps", "1"]));
    let features = dir.path().join("features.safetensors");
    let arguments = [
        "features",
        "--checkpoint",
        text(&out),
        "--data",
        text(&manifest),
        "--split",
        "test",
        "--out",
        text(&features),
    ];
    let error = fails(2, &arguments);
    assert!(error.contains("--split test") && error.contains("has no splits"), "{error}");
    assert!(!features.exists());
}

#[test]
fn another_stride_looks_at_other_frames() {
    let dir = tempfile::tempdir().unwrap();
    let (manifest, out) = (unlabelled(dir.path()), dir.path().join("run"));
    ok(&tiny(text(&manifest), &out, &["--masking", "tube", "--steps", "1"]));
    let bytes = |name: &str, more: &[&str]| {
        let features = dir.path().join(name);
        let arguments =
            ["features", "--checkpoint", text(&out), "--data", text(&manifest), "--out", text(&features)];
        ok(&[&arguments[..], more].concat());
        let file = fs::read(&features).unwrap();
        SafeTensors::deserialize(&file).unwrap().tensor("features").unwrap().data().to_vec()
    };
    let own = bytes("a", &[]);
    assert!(own == bytes("b", &["--stride", "2"]), "the demo's own");
    assert!(own != bytes("c", &["--stride", "1"]));
}
