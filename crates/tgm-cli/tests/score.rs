//! `tgm score` and training from what it wrote: nothing done twice, nothing damaged believed, nothing passed over in silence.

mod common;

use std::fs;
use std::path::Path;
use std::process::Output;

use common::{command, error_of, fixtures, ok, said, stderr, text, tgm, tiny, world};

fn score(manifest: &str, cache: &Path, more: &[&str]) -> Output {
    let start = ["score", "--data", manifest, "--out", text(cache), "--model", "builtin"];
    tgm(&[&start[..], more].concat())
}

fn error(output: &Output) -> String {
    error_of(output, 1)
}

#[test]
fn a_second_call_scores_nothing_and_a_shard_cut_in_the_middle_is_made_again() {
    let dir = tempfile::tempdir().unwrap();
    let (cache, json) = (dir.path().join("scores"), dir.path().join("result.json"));
    let first = said(&score(&world(), &cache, &["--split", "train", "--json", text(&json)]));
    assert!(first.starts_with("12 videos, 36 maps, 120 frames"), "{first}");
    let json: serde_json::Value = serde_json::from_slice(&fs::read(json).unwrap()).unwrap();
    assert_eq!(json["maps"], 36);
    let again = said(&score(&world(), &cache, &["--split", "train"]));
    assert!(again.starts_with("0 videos, 0 maps") && again.contains("36 maps were there"), "{again}");
    let rest = said(&score(&world(), &cache, &[]));
    assert!(rest.starts_with("12 videos, 36 maps") && rest.contains("36 maps were there"), "{rest}");

    let shard = cache.join("shard-00000.safetensors");
    let bytes = fs::read(&shard).unwrap();
    fs::write(&shard, &bytes[..bytes.len() / 2]).unwrap();
    let mended = said(&score(&world(), &cache, &[]));
    assert!(mended.starts_with("12 videos, 36 maps") && mended.contains("1 damaged shards"), "{mended}");
}

#[test]
fn a_cache_of_other_options_is_refused_with_the_difference() {
    let dir = tempfile::tempdir().unwrap();
    let cache = dir.path().join("scores");
    said(&score(&world(), &cache, &["--split", "train"]));
    let other = error(&score(&world(), &cache, &["--features", "value"]));
    assert!(other.contains("features: cached Plain, wanted Value"), "{other}");
    let finer = error(&score(&world(), &cache, &["--every", "1"]));
    assert!(finer.contains("frames: cached one of 2, wanted every one"), "{finer}");
    assert_eq!(score(&world(), &cache, &["--grid", "9"]).status.code(), Some(2));
    assert_eq!(score(&world(), &cache, &["--every", "0"]).status.code(), Some(2));

    let run = dir.path().join("run");
    let train = |settings: &[&str]| {
        let (manifest, run) = (world(), run.clone());
        let start = ["pretrain", "--data", &manifest, "--out", text(&run)];
        tgm(&[&start[..], &["--steps", "1", "--set", "train.batch=4"], settings].concat())
    };
    let cached = format!("text.cache={}", cache.display());
    let other = error(&train(&["--set", &cached, "--set", "text.scores.features=surgery"]));
    assert!(other.contains("features: cached Plain, wanted Surgery"), "{other}");
    let none = error(&train(&["--set", &format!("text.cache={}", dir.path().join("no").display())]));
    assert!(none.contains("no score cache in"), "{none}");
}

#[test]
fn bad_videos_empty_and_long_captions_are_counted() {
    let dir = tempfile::tempdir().unwrap();
    let video = fixtures().join("world/videos/train-00000.mp4");
    fs::copy(&video, dir.path().join("good.mp4")).unwrap();
    let bytes = fs::read(&video).unwrap();
    fs::write(dir.path().join("cut.mp4"), &bytes[..bytes.len() / 3]).unwrap();
    let manifest = dir.path().join("clips.csv");
    let long = "a large red circle over a dark striped background and ".repeat(20);
    let rows = ["good.mp4,a red circle", "cut.mp4,a red circle", "absent.mp4,a red circle", "good.mp4,"];
    fs::write(&manifest, format!("path,caption\n{}\ngood.mp4,{long}\n", rows.join("\n"))).unwrap();
    let output = score(text(&manifest), &dir.path().join("scores"), &[]);
    let stdout = said(&output);
    for part in
        ["2 videos, 2 maps", "2 videos could not be read", "1 rows have no caption", "1 captions were longer"]
    {
        assert!(stdout.contains(part), "{part}: {stdout}");
    }
    assert!(stderr(&output).contains("cut.mp4"));

    fs::write(&manifest, "path,caption\nabsent.mp4,a red circle\n").unwrap();
    let none = error(&score(text(&manifest), &dir.path().join("none"), &[]));
    assert!(none.contains("absent.mp4"), "{none}");
    fs::write(&manifest, "path\ngood.mp4\n").unwrap();
    let none = error(&score(text(&manifest), &dir.path().join("none"), &[]));
    assert!(none.contains("caption"), "{none}");
}

#[test]
fn without_network_and_weights_it_says_which_model_is_missing_and_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    let (manifest, out) = (world(), dir.path().join("scores"));
    let output = command(&["score", "--data", &manifest, "--out", text(&out)])
        .env("HF_HOME", dir.path())
        .env("HF_HUB_OFFLINE", "1")
        .output()
        .unwrap();
    let message = error(&output);
    for part in ["openai/clip-vit-base-patch32", "HF_HUB_OFFLINE", "--model FOLDER"] {
        assert!(message.contains(part), "{part}: {message}");
    }
    assert!(!out.exists(), "nothing is left behind");
    let no_tokenizer = dir.path().join("clip");
    fs::create_dir_all(&no_tokenizer).unwrap();
    let tiny = fixtures().join("tiny-clip");
    for file in ["config.json", "model.safetensors"] {
        fs::copy(tiny.join(file), no_tokenizer.join(file)).unwrap();
    }
    let output = tgm(&["score", "--data", &manifest, "--out", text(&out), "--model", text(&no_tokenizer)]);
    assert!(error(&output).contains("no tokenizer.json"), "{output:?}");
}

#[test]
fn training_from_a_cache_of_every_frame_is_told_what_it_lacks() {
    let dir = tempfile::tempdir().unwrap();
    let cache = dir.path().join("scores");
    said(&score(&world(), &cache, &["--split", "train", "--every", "1"]));
    let run = dir.path().join("run");
    let train = |cache: &Path, data: &str, run: &Path| {
        let cache = format!("text.cache={}", cache.display());
        let start = ["pretrain", "--data", data, "--out", text(run), "--set", &cache];
        tgm(&[&start[..], &["--steps", "2", "--set", "train.batch=4"]].concat())
    };
    let complete = train(&cache, &world(), &run);
    said(&complete);
    assert!(!stderr(&complete).contains("no map"), "nothing is missing");

    // Another manifest in the same folder: its test clips are not in the cache.
    let both = dir.path().join("world");
    fs::create_dir_all(both.join("videos")).unwrap();
    let rows = fs::read_to_string(world()).unwrap().replace(",test,", ",train,");
    fs::write(both.join("manifest.csv"), rows).unwrap();
    for entry in fs::read_dir(fixtures().join("world/videos")).unwrap() {
        let entry = entry.unwrap();
        let target = both.join("videos").join(entry.file_name());
        fs::copy(entry.path(), &target).unwrap();
        let modified = entry.metadata().unwrap().modified().unwrap();
        fs::File::options().write(true).open(target).unwrap().set_modified(modified).unwrap();
    }
    let partial = train(&cache, text(&both.join("manifest.csv")), &dir.path().join("partial"));
    said(&partial);
    let told = stderr(&partial);
    assert!(told.contains("36 captions have no map"), "{told}");

    let empty = dir.path().join("empty");
    said(&score(&world(), &empty, &["--split", "test", "--every", "1"]));
    let none = error(&train(&empty, &world(), &dir.path().join("none")));
    // The command that it tells makes what is missing.
    let command = none.split('`').find(|part| part.starts_with("tgm score --data")).unwrap();
    let words: Vec<&str> = command.split(' ').skip(1).collect();
    said(&tgm(&words));
    said(&train(&empty, &world(), &dir.path().join("now")));
}

#[test]
fn with_clip_on_whole_frames_a_cache_of_every_frame_changes_the_speed_only() {
    let dir = tempfile::tempdir().unwrap();
    let (world, cache) = (world(), dir.path().join("scores"));
    said(&score(&world, &cache, &["--split", "train", "--every", "1"]));
    let cached = format!("text.cache={}", cache.display());
    let losses = |name: &str, more: &[&str]| {
        let run = dir.path().join(name);
        let options = ["--steps", "3", "--set", "text.view=frame", "--set", "clip.flip=0.5"];
        ok(&tiny(&world, &run, &[&options[..], more].concat()));
        let metrics = fs::read_to_string(run.join("metrics.jsonl")).unwrap();
        let loss =
            |line: &str| serde_json::from_str::<serde_json::Value>(line).unwrap()["mae"].as_f64().unwrap();
        metrics.lines().map(loss).collect::<Vec<_>>()
    };
    let (online, from_cache) = (losses("online", &[]), losses("cached", &["--set", &cached]));
    assert_eq!(online.len(), 3);
    for (a, b) in online.iter().zip(&from_cache) {
        // Sums in another order may make two scores change places.
        assert!((a - b).abs() < 0.01 * a, "{online:?} {from_cache:?}");
    }
}
