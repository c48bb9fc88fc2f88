//! Options of `tgm pretrain` that bear on each other, and runs that are gone on with in other ways than they were begun.

mod common;

use std::fs;
use std::path::Path;

use common::{
    command, error_of, fails, fixtures, newest, ok, said, stderr, text, tgm, tiny, unlabelled, world,
};

const PLAIN: [&str; 4] = ["--contrastive", "off", "--steps", "1"];

fn stored(run: &Path) -> String {
    fs::read_to_string(run.join("config.toml")).unwrap()
}

#[test]
fn a_setting_of_the_masking_holds_beside_the_option_that_names_it() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("run");
    let half = ["--masking", "tube", "--set", "masking.ratio=0.5"];
    ok(&tiny(&world(), &out, &[&half[..], &PLAIN].concat()));
    let config = stored(&out);
    assert!(config.contains("kind = \"tube\"") && config.contains("ratio = 0.5"), "{config}");

    let both = ["--masking", "tube", "--set", "masking={ kind = 'random', ratio = 0.5 }"];
    let error = fails(2, &tiny(&world(), &dir.path().join("two"), &[&both[..], &PLAIN].concat()));
    assert!(error.contains("--masking tube") && error.contains("different strategies"), "{error}");
}

#[test]
fn a_run_that_ends_within_its_warm_up_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let run = |name: &str, steps| {
        let options = ["--masking", "tube", "--contrastive", "off", "--steps", steps];
        stderr(&tgm(&tiny(&world(), &dir.path().join(name), &options)))
    };
    assert!(run("a", "2").contains("within its warm-up of 2") && !run("b", "3").contains("warm-up of 2:"));
}

/// The option won, whatever the setting was.
#[test]
fn an_option_beside_a_setting_of_the_same_key_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    for (option, value, setting) in [
        ("--masking", "tube", "masking.kind=random"),
        ("--contrastive", "off", "contrastive.enabled=true"),
        ("--steps", "1", "schedule.stop_at=2"),
    ] {
        let options = [option, value, "--set", setting];
        let error = fails(2, &tiny(&world(), &dir.path().join("run"), &options));
        assert!(error.contains(option) && error.contains("give one of them"), "{error}");
    }
}

#[test]
fn a_run_goes_on_from_another_folder_although_its_paths_were_given_from_where_it_began() {
    let dir = tempfile::tempdir().unwrap();
    let (home, away) = (dir.path().join("home"), dir.path().join("away"));
    fs::create_dir(&home).unwrap();
    fs::create_dir(&away).unwrap();
    unlabelled(&home);
    let score = ["score", "--model", "builtin", "--data", "clips.csv", "--out", "scores"];
    said(&command(&score).current_dir(&home).output().unwrap());
    let arguments = tiny("clips.csv", Path::new("run"), &["--set", "text.cache=scores", "--steps", "1"]);
    said(&command(&arguments).current_dir(&home).output().unwrap());
    let run = home.join("run");
    let resumed = ["pretrain", "--out", text(&run), "--resume", "--steps", "2"];
    said(&command(&resumed).current_dir(&away).output().unwrap());
    assert!(newest(&run).ends_with("step-00000002"));

    // The cache may be moved, as the manifest may.
    fs::rename(home.join("scores"), away.join("scores")).unwrap();
    let moved = format!("text.cache={}", away.join("scores").display());
    ok(&["pretrain", "--out", text(&run), "--resume", "--steps", "3", "--set", &moved]);
}

#[test]
fn a_folder_that_is_missing_for_the_json_file_is_said_before_the_work() {
    let dir = tempfile::tempdir().unwrap();
    let (out, json) = (dir.path().join("run"), dir.path().join("absent/result.json"));
    let more = ["--masking", "tube", "--json", text(&json)];
    let output = tgm(&tiny(&world(), &out, &[&more[..], &PLAIN].concat()));
    let error = error_of(&output, 2);
    assert!(error.contains("there is no folder") && !out.exists(), "{error}");
}

#[test]
fn one_clip_without_a_caption_is_named_before_the_first_step() {
    let dir = tempfile::tempdir().unwrap();
    let manifest = unlabelled(dir.path());
    let lines = fs::read_to_string(&manifest).unwrap().replace("clip number 7\n", "\n");
    fs::write(&manifest, lines).unwrap();
    let out = dir.path().join("run");
    let error = fails(1, &tiny(text(&manifest), &out, &["--masking", "text", "--steps", "1"]));
    assert!(error.contains("clips.csv:9: row without a caption") && error.contains("are 1 of 24"), "{error}");
    assert!(!out.join("metrics.jsonl").exists());
    ok(&tiny(text(&manifest), &dir.path().join("tube"), &[&["--masking", "tube"][..], &PLAIN].concat()));
}

#[test]
fn a_probe_that_meets_a_bad_video_costs_no_step() {
    let dir = tempfile::tempdir().unwrap();
    let video = fs::read_dir(fixtures().join("world/videos")).unwrap().next().unwrap().unwrap().path();
    let mut rows = String::from("path,split,label\n");
    for i in 0..8 {
        let (split, label) = (["train", "test"][i % 2], ["up", "down"][i / 2 % 2]);
        fs::copy(&video, dir.path().join(format!("{i}.mp4"))).unwrap();
        rows += &format!("{i}.mp4,{split},{label}\n");
    }
    fs::write(dir.path().join("1.mp4"), "no video at all").unwrap();
    let manifest = dir.path().join("clips.csv");
    fs::write(&manifest, rows).unwrap();
    let out = dir.path().join("run");
    let more = ["--masking", "tube", "--contrastive", "off", "--steps", "2", "--set", "output.probe_every=1"];
    let output = tgm(&tiny(text(&manifest), &out, &more));
    let said = stderr(&output);
    assert!(output.status.success() && said.contains("no probe after step 1"), "{said}");
    assert!(newest(&out).ends_with("step-00000002"));
}

#[test]
fn a_manifest_of_absolute_paths_trains_and_evaluates_when_that_is_allowed() {
    let dir = tempfile::tempdir().unwrap();
    let videos = fixtures().join("world/videos").canonicalize().unwrap();
    let mut files: Vec<_> = fs::read_dir(&videos).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    let row = |(i, file): (usize, &std::path::PathBuf)| {
        format!("{},{},{}\n", file.display(), ["train", "test"][i % 2], ["up", "down"][i / 2 % 2])
    };
    let rows: String = files.iter().enumerate().map(row).collect();
    let manifest = dir.path().join("anywhere.csv");
    fs::write(&manifest, format!("path,split,label\n{rows}")).unwrap();
    let out = dir.path().join("run");
    let train = |more: &[&str]| {
        tgm(&tiny(text(&manifest), &out, &[&["--masking", "tube"][..], &PLAIN, more].concat()))
    };
    let error = error_of(&train(&[]), 1);
    assert!(error.contains("anywhere.csv:2") && error.contains("--allow-outside"), "{error}");
    said(&train(&["--allow-outside"]));
    ok(&["pretrain", "--out", text(&out), "--resume", "--steps", "2"]);
    let eval =
        ["eval", "manifest", "--data", text(&manifest), "--checkpoint", text(&out), "--protocol", "knn"];
    assert!(fails(1, &eval).contains("--allow-outside"));
    ok(&[&eval[..], &["--allow-outside"]].concat());
}
