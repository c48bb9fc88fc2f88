//! `tgm data` as its users meet it.

mod common;

use std::path::{Path, PathBuf};
use std::process::Command;

use common::{fixtures, said, stderr, text, tgm, world};

/// What it prints, on standard output and on standard error.
fn ok(arguments: &[&str]) -> (String, String) {
    let output = tgm(arguments);
    (said(&output), stderr(&output))
}

/// Four good videos, one that is none, one that is cut, and a row that starts after its video's end.
fn dataset() -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let videos = fixtures().join("world/videos");
    let mut rows = String::from("path,split,label,caption,start\n");
    for i in 0..4 {
        let name = format!("train-{i:05}.mp4");
        std::fs::copy(videos.join(&name), dir.path().join(&name)).unwrap();
        rows += &format!("{name},train,a{i},caption {i},\n");
    }
    std::fs::write(dir.path().join("text.mp4"), "no video").unwrap();
    let whole = std::fs::read(videos.join("test-00000.mp4")).unwrap();
    std::fs::write(dir.path().join("cut.mp4"), &whole[..whole.len() / 2]).unwrap();
    rows +=
        "text.mp4,train,b,,\ncut.mp4,test,b,,\ntrain-00000.mp4,test,a0,,99\ntrain-00001.mp4,test,a1,,0.5\n";
    let manifest = dir.path().join("clips.csv");
    std::fs::write(&manifest, rows).unwrap();
    (dir, manifest)
}

#[test]
fn check_names_bad_files_and_writes_a_manifest_without_them() {
    let (dir, manifest) = dataset();
    for depth in ["ends", "frames"] {
        let (out, err) = ok(&["data", "check", text(&manifest), "--depth", depth]);
        assert_eq!(out.lines().count(), 3, "{out}");
        for part in ["text.mp4: not a readable video", "cut.mp4", "train-00000.mp4: the row starts at 99 s"] {
            assert!(out.contains(part), "{out}");
        }
        assert!(err.contains("6 files, 2 of them bad; 5 of 8 rows are good"), "{err}");
        let clean = std::fs::read_to_string(dir.path().join("clips.clean.csv")).unwrap();
        assert_eq!(clean.lines().count(), 6, "{clean}");
        assert!(clean.contains("train-00001.mp4,test,a1,,0.5"), "{clean}");
    }
}

#[test]
fn check_goes_on_where_it_was_and_sees_what_changed() {
    let (dir, manifest) = dataset();
    let check = || ok(&["data", "check", text(&manifest)]).1;
    assert!(!check().contains("did not change"));
    assert!(check().contains("6 files did not change"));
    // A record that was cut off in the middle of a line.
    let record = dir.path().join("clips.csv.check.jsonl");
    let written = std::fs::read_to_string(&record).unwrap();
    std::fs::write(&record, &written[..written.len() - 20]).unwrap();
    assert!(check().contains("5 files did not change"));
    std::fs::copy(dir.path().join("train-00002.mp4"), dir.path().join("text.mp4")).unwrap();
    assert!(check().contains("6 files, 1 of them bad"));
    assert!(!ok(&["data", "check", text(&manifest), "--fresh"]).1.contains("did not change"));
}

#[test]
fn other_limits_are_another_check() {
    let (_dir, manifest) = dataset();
    let check = |limit: &str| ok(&["data", "check", text(&manifest), "--max-duration", limit]);
    assert!(check("100").1.contains("6 files, 2 of them bad"));
    // All of them last two seconds: none is left.
    let output = tgm(&["data", "check", text(&manifest), "--max-duration", "1.5"]);
    let out = String::from_utf8_lossy(&output.stdout);
    assert!(!output.status.success() && out.contains("longer than 1.5 s"), "{out}");
    assert!(check("100").1.contains("6 files, 2 of them bad"));
}

#[test]
fn a_check_that_can_keep_nothing_still_checks() {
    let (dir, manifest) = dataset();
    // Folders in the places of all that would be written: for whoever may write everywhere, too.
    for name in ["clips.csv.check.jsonl", "clips.csv.index", "clips.clean.csv", "clips.clean.csv.tmp"] {
        std::fs::create_dir(dir.path().join(name)).unwrap();
    }
    let (out, err) = ok(&["data", "check", text(&manifest)]);
    assert_eq!(out.lines().count(), 3, "{out}");
    for part in ["is not kept for the next time", "5 of 8 rows are good", "clips.clean.csv", "--out FILE"] {
        assert!(err.contains(part), "{part}: {err}");
    }
    let elsewhere = dir.path().join("good.csv");
    let (_, err) = ok(&["data", "check", text(&manifest), "--out", text(&elsewhere)]);
    assert!(err.contains("written: ") && elsewhere.exists(), "{err}");
    // A place that was asked for is another matter.
    let nowhere = dir.path().join("no/good.csv");
    let output = tgm(&["data", "check", text(&manifest), "--out", text(&nowhere)]);
    assert_eq!(output.status.code(), Some(1));
}

#[test]
fn inspect_counts_and_makes_a_page() {
    let (dir, manifest) = dataset();
    let page = dir.path().join("page");
    let (out, _) = ok(&["data", "inspect", text(&manifest), "--page", text(&page)]);
    for part in [
        "8 rows, 5 classes",
        "train: 5 rows, 5 videos",
        "64x64 (4)",
        "h264 (4)",
        "captions  4 rows",
        "names of videos in more than one split: 2",
        "train-00001: test, train",
        "unreadable videos: ",
    ] {
        assert!(out.contains(part), "{part}: {out}");
    }
    let html = std::fs::read_to_string(page.join("index.html")).unwrap();
    assert!(html.contains("caption 3") && html.contains("0000000.png"));
    assert!(std::fs::metadata(page.join("0000000.png")).unwrap().len() > 500);
}

#[test]
fn bench_counts_clips_and_cores() {
    let world = world();
    let json = tempfile::NamedTempFile::new().unwrap();
    let arguments = ["data", "bench", &world, "--clips", "30", "--size", "64", "--stride", "1"];
    let (out, _) = ok(&[&arguments[..], &["--consumer", "100", "--json", text(json.path())]].concat());
    assert!(out.contains("clips/s a core") && out.contains("100 clips/s need"), "{out}");
    let numbers: serde_json::Value = serde_json::from_slice(&std::fs::read(json.path()).unwrap()).unwrap();
    let [per_core, cores] =
        ["clips_per_second_and_core", "cores_needed"].map(|key| numbers[key].as_f64().unwrap());
    assert!((per_core * cores - 100.0).abs() < 1e-6 && per_core > 1.0, "{numbers}");
}

#[test]
fn transcode_keeps_frames_and_times() {
    if Command::new("ffmpeg").arg("-version").output().is_err() {
        eprintln!("skipped: no ffmpeg program");
        return;
    }
    let (dir, manifest) = dataset();
    let fast = dir.path().join("fast");
    let (out, _) = ok(&["data", "transcode", text(&manifest), text(&fast), "--short-side", "48"]);
    assert!(out.contains("6 videos, 2 could not be transcoded") && out.contains("text.mp4: "), "{out}");
    let rows = std::fs::read_to_string(fast.join("manifest.csv")).unwrap();
    assert_eq!(rows.lines().count(), 7, "{rows}");
    let index = |path: &Path| {
        let reader = tgm_video::VideoReader::open(path, &tgm_video::ReadOptions::default()).unwrap();
        (reader.probe().width, reader.index().len(), reader.index().seconds(13).unwrap())
    };
    assert_eq!(index(&dir.path().join("train-00001.mp4")), (64, 20, 1.3));
    let (width, frames, seconds) = index(&fast.join("train-00001.mp4"));
    assert_eq!((width, frames), (48, 20));
    assert!((seconds - 1.3).abs() < 1e-3);
    // Again: nothing is left to do.
    ok(&["data", "transcode", text(&manifest), text(&fast)]);
    assert_eq!(index(&fast.join("train-00001.mp4")).0, 48);
}

#[test]
fn wrong_usage_is_told_in_one_line() {
    let (_dir, manifest) = dataset();
    for (arguments, code) in [
        (vec!["data", "bench", text(&manifest), "--clips", "0"], 2),
        (vec!["data", "check", "no-such.csv"], 1),
        (vec!["data", "inspect", "no-such.csv"], 1),
    ] {
        let output = tgm(&arguments);
        let err = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{err}");
        assert_eq!(err.lines().filter(|line| line.starts_with("error: ")).count(), 1, "{err}");
    }
}
