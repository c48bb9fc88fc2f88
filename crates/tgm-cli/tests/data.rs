//! `tgm data` as its users meet it.

mod common;

use std::path::{Path, PathBuf};
use std::process::Command;

use common::{error_of, fails, fixtures, said, stderr, text, tgm, world};
use tgm_data::index_store::IndexStore;
use tgm_data::manifest::Manifest;
use tgm_video::{ReadOptions, VideoReader};

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

/// Only the last bad row of a video was told, and not where it is.
#[test]
fn check_names_every_bad_row_by_its_line() {
    let (dir, manifest) = dataset();
    let mut rows = std::fs::read_to_string(&manifest).unwrap();
    rows += "train-00000.mp4,test,a0,,50\ntext.mp4,test,b,,\n";
    std::fs::write(&manifest, rows).unwrap();
    let json = dir.path().join("check.json");
    let (out, err) = ok(&["data", "check", text(&manifest), "--depth", "ends", "--json", text(&json)]);
    assert!(err.contains("5 of 10 rows are good"), "{err}");
    assert_eq!(out.lines().count(), 4, "{out}");
    let file = manifest.display();
    for line in [
        format!("{file}:8: train-00000.mp4: the row starts at 99 s"),
        format!("{file}:10: train-00000.mp4: the row starts at 50 s"),
    ] {
        assert!(out.contains(&line), "{line}: {out}");
    }
    let found: serde_json::Value = serde_json::from_slice(&std::fs::read(&json).unwrap()).unwrap();
    let places: Vec<(&str, Option<u64>)> = found["problems"]
        .as_array()
        .unwrap()
        .iter()
        .map(|problem| {
            (problem["path"].as_str().unwrap(), problem.get("line").and_then(|line| line.as_u64()))
        })
        .collect();
    let expected =
        [("cut.mp4", None), ("text.mp4", None), ("train-00000.mp4", Some(8)), ("train-00000.mp4", Some(10))];
    assert_eq!(places, expected);
}

/// The index was beside the manifest that was checked only: training on the good rows read every file again.
#[test]
fn the_manifest_of_good_rows_has_the_index_of_every_video() {
    let (dir, manifest) = dataset();
    let assert_known = |clean: &Path, videos: usize| {
        let indices = IndexStore::load(clean, 1 << 20);
        assert_eq!(indices.len(), videos, "{}", clean.display());
        for row in Manifest::load(clean).unwrap().rows() {
            let frames = indices.get(row.path(), &row.video()).map(|index| index.len());
            assert_eq!(frames, Some(20), "{}", row.path());
        }
    };
    let clean = dir.path().join("clips.clean.csv");
    let beside = dir.path().join("clips.clean.csv.index");
    ok(&["data", "check", text(&manifest), "--depth", "headers"]);
    assert!(!beside.exists(), "headers alone have no index");
    ok(&["data", "check", text(&manifest), "--depth", "ends"]);
    assert_known(&clean, 4);
    // Nothing is looked at again, and the index is there all the same.
    std::fs::remove_file(&beside).unwrap();
    assert!(ok(&["data", "check", text(&manifest), "--depth", "ends"]).1.contains("6 files did not change"));
    assert_known(&clean, 4);
    // Nor when both are gone, as after an update of the program.
    for index in [&beside, &dir.path().join("clips.csv.index")] {
        std::fs::remove_file(index).unwrap();
    }
    assert!(ok(&["data", "check", text(&manifest), "--depth", "ends"]).1.contains("6 files did not change"));
    assert_known(&clean, 4);
    assert_eq!(IndexStore::load(&manifest, 1 << 20).len(), 4);
    // Beside a folder its videos have other paths than within it.
    let videos = dir.path().join("videos");
    std::fs::create_dir(&videos).unwrap();
    std::fs::rename(dir.path().join("train-00000.mp4"), videos.join("a.mp4")).unwrap();
    std::fs::rename(dir.path().join("cut.mp4"), videos.join("b.mp4")).unwrap();
    ok(&["data", "check", text(&videos), "--depth", "ends"]);
    let clean = dir.path().join("videos.clean.csv");
    assert_eq!(Manifest::load(&clean).unwrap().row(0).path(), "videos/a.mp4");
    assert_known(&clean, 1);
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
fn a_check_by_another_decoder_is_made_again() {
    let (dir, manifest) = dataset();
    let check = || ok(&["data", "check", text(&manifest)]).1;
    check();
    let record = dir.path().join("clips.csv.check.jsonl");
    let written = std::fs::read_to_string(&record).unwrap();
    let scanner = serde_json::to_string(&tgm_video::scanner_version()).unwrap();
    assert_eq!(written.matches(&scanner).count(), 6, "{written}");
    std::fs::write(&record, written.replace(&scanner, "\"another\"")).unwrap();
    assert!(!check().contains("did not change"));
    assert!(check().contains("6 files did not change"));
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
    let number = |key: &str| numbers[key].as_f64().unwrap();
    assert_eq!((number("clips"), number("bad")), (30.0, 0.0));
    // Cores that are busy for so many milliseconds a clip, a hundred times a second.
    let cores = 100.0 * number("cpu_ms_per_clip") / 1e3;
    assert!((number("cores_needed") / cores - 1.0).abs() < 1e-6, "{numbers}");
    // No core works more than all of the time: what it makes in a second of work is the least that it may be said to make.
    let all = std::thread::available_parallelism().unwrap().get() as f64;
    assert!(number("clips_per_second") < 1.1 * all * number("clips_per_second_and_core"), "{numbers}");
}

/// Whether there are the programs that videos are transcoded with.
fn can_transcode() -> bool {
    let starts = |program: &&str| Command::new(program).arg("-version").output().is_ok();
    let missing = ["ffmpeg", "ffprobe"].into_iter().find(|program| !starts(program));
    if let Some(program) = missing {
        eprintln!("skipped: no {program} program");
    }
    missing.is_none()
}

#[test]
fn transcode_keeps_frames_and_times() {
    if !can_transcode() {
        return;
    }
    let (dir, manifest) = dataset();
    let fast = dir.path().join("fast");
    let (out, _) = ok(&["data", "transcode", text(&manifest), text(&fast), "--short-side", "48"]);
    assert!(out.contains("6 videos, 2 could not be transcoded") && out.contains("text.mp4: "), "{out}");
    let rows = std::fs::read_to_string(fast.join("manifest.csv")).unwrap();
    assert_eq!(rows.lines().count(), 7, "{rows}");
    let index = |path: &Path| {
        let reader = VideoReader::open(path, &ReadOptions::default()).unwrap();
        (reader.probe().width, reader.index().len(), reader.index().seconds(13).unwrap())
    };
    assert_eq!(index(&dir.path().join("train-00001.mp4")), (64, 20, 1.3));
    let (width, frames, seconds) = index(&fast.join("train-00001.mp4"));
    assert_eq!((width, frames), (48, 20));
    assert!((seconds - 1.3).abs() < 1e-3);
    // Again: nothing is left to do.
    let copied = || std::fs::metadata(fast.join("train-00001.mp4")).unwrap().modified().unwrap();
    let made = copied();
    ok(&["data", "transcode", text(&manifest), text(&fast), "--short-side", "48"]);
    assert_eq!(copied(), made);
}

/// The first frame's mean red, green and blue.
fn mean_colour(video: &Path) -> [f64; 3] {
    let mut reader = VideoReader::open(video, &ReadOptions::default()).unwrap();
    let rgb = reader.read(&[0]).unwrap().remove(0).rgb;
    [0, 1, 2].map(|channel| {
        let values = rgb.iter().skip(channel).step_by(3);
        values.map(|&value| f64::from(value)).sum::<f64>() / (rgb.len() / 3) as f64
    })
}

/// Frames that state no colour matrix were taken for BT.709 before they were made small, and for BT.601 afterwards.
#[test]
fn untagged_hd_clips_keep_their_colours() {
    if !can_transcode() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let ffmpeg = |arguments: &[&str], video: &str| {
        let output = Command::new("ffmpeg")
            .args(["-v", "error", "-nostdin"])
            .args(arguments)
            .arg(dir.path().join(video))
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", stderr(&output));
    };
    let mut rows = String::from("path\n");
    let untagged = ["-c:v", "libx264", "-pix_fmt", "yuv420p"];
    for (video, size, encoding) in [
        ("wide.mp4", "1280x720", &untagged[..]),
        ("tall.mp4", "404x720", &untagged[..]),
        ("small.mp4", "640x480", &untagged[..]),
        // 540 lines, shown as 960: the lines that count are the stored ones.
        ("lying.mp4", "960x540", &untagged[..]),
        ("tagged.mp4", "1280x720", &[&untagged[..], &["-x264-params", "colormatrix=smpte170m"]].concat()),
        ("rgb.mp4", "1280x720", &["-c:v", "libx264rgb"]),
        ("png.mov", "1280x720", &["-c:v", "png"]),
    ] {
        let source = format!("color=c=0xC02040:s={size}:r=10:d=0.5");
        ffmpeg(&[&["-f", "lavfi", "-i", &source][..], encoding].concat(), video);
        rows += &format!("{video}\n");
    }
    let lying = dir.path().join("lying.mp4");
    ffmpeg(&["-i", text(&lying), "-c", "copy", "-metadata:s:v", "rotate=90"], "turned.mp4");
    rows += "turned.mp4\n";
    let manifest = dir.path().join("clips.csv");
    std::fs::write(&manifest, &rows).unwrap();
    // So large that an untagged copy of the turned clip would have the lines of another matrix.
    for side in ["256", "540"] {
        let fast = dir.path().join(side);
        ok(&["data", "transcode", text(&manifest), text(&fast), "--short-side", side]);
        for video in rows.lines().skip(1) {
            let copy = fast.join(video).with_extension("mp4");
            let (before, after) = (mean_colour(&dir.path().join(video)), mean_colour(&copy));
            let shift = before.iter().zip(after).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
            assert!(shift < 3.0, "{video}, {side}: {before:?} became {after:?}");
        }
    }
}

/// Their copies were kept, and a gain was told as if they were new.
#[test]
fn a_folder_of_copies_takes_no_others() {
    if !can_transcode() {
        return;
    }
    let (dir, manifest) = dataset();
    let fast = dir.path().join("fast");
    let transcode = ["data", "transcode", text(&manifest), text(&fast)];
    ok(&[&transcode[..], &["--short-side", "48"]].concat());
    for (other, told) in [
        (&[][..], "--short-side 256 --gop 30 --crf 20"),
        (&["--short-side", "48", "--gop", "12"], "--short-side 48 --gop 12 --crf 20"),
        (&["--short-side", "48", "--crf", "30"], "--short-side 48 --gop 30 --crf 30"),
    ] {
        let error = fails(2, &[&transcode[..], other].concat());
        let had = "fast has copies of --short-side 48 --gop 30 --crf 20, and not of";
        assert!(error.contains(&format!("{had} {told}; give another folder, or delete this one")), "{error}");
    }
    // A folder from before the settings were kept.
    std::fs::remove_file(fast.join("transcode.toml")).unwrap();
    ok(&[&transcode[..], &["--short-side", "48"]].concat());
    fails(2, &transcode);
}

/// The error said to raise a limit that could not be given.
#[test]
fn transcode_gives_files_the_time_that_it_is_told() {
    if !can_transcode() {
        return;
    }
    let (dir, manifest) = dataset();
    let fast = dir.path().join("fast");
    let transcode = ["data", "transcode", text(&manifest), text(&fast)];
    let output = tgm(&[&transcode[..], &["--short-side", "48", "--max-seconds", "0"]].concat());
    assert!(error_of(&output, 1).contains("not one video could be transcoded"));
    let out = String::from_utf8_lossy(&output.stdout);
    assert!(out.contains("takes longer to read than 0 s; raise `max_seconds`"), "{out}");
    // Nothing was made, so other settings are no others.
    ok(&[&transcode[..], &["--max-seconds", "120"]].concat());
}

#[test]
fn short_sides_that_no_encoder_takes_are_refused() {
    let (dir, manifest) = dataset();
    let fast = dir.path().join("fast");
    for side in ["0", "1", "14", "255"] {
        let error = fails(2, &["data", "transcode", text(&manifest), text(&fast), "--short-side", side]);
        assert!(error.contains(&format!("--short-side {side}: it must be even, and at least 16")), "{error}");
    }
    assert!(!fast.exists());
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

#[test]
fn copies_never_take_the_place_of_originals_or_of_another_manifest() {
    let (dir, manifest) = dataset();
    let before = std::fs::read(&manifest).unwrap();
    let into = |folder: &Path| {
        let output = tgm(&["data", "transcode", text(&manifest), text(folder)]);
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let (code, error) = into(dir.path());
    assert!(code == Some(2) && error.contains("the originals are there"), "{error}");

    let other = dir.path().join("other");
    std::fs::create_dir(&other).unwrap();
    std::fs::write(other.join("manifest.csv"), "path,note\nunrelated.mp4,an annotation\n").unwrap();
    let (code, error) = into(&other);
    assert!(code == Some(2) && error.contains("manifest of other videos (unrelated.mp4)"), "{error}");
    assert!(std::fs::read_to_string(other.join("manifest.csv")).unwrap().contains("an annotation"));
    assert_eq!(std::fs::read(&manifest).unwrap(), before);
    assert!(!dir.path().join("transcode.toml").exists());
}
