//! Scoring ahead of training: the same masks as scoring while training, nothing done twice, nothing damaged believed.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;

use candle_core::Device;
use tgm_clip::{ClipModel, PatchFeatures, ScoreOptions};
use tgm_data::loader::{ClipConfig, EvalLoader, LoaderConfig, Sample, Subset, TestViews, TrainLoader};
use tgm_data::manifest::Manifest;
use tgm_data::synth::read_truth;
use tgm_masking::{Cues, Mask, Masking, ScoreMap, TextConfig};
use tgm_random::Streams;
use tgm_train::config::{self, Config};
use tgm_train::guidance::{load_clip, score_clip};
use tgm_train::localise::{Tubelets, mean, share_masked};
use tgm_train::score_cache::{CachedScores, Rules, fill};
use tgm_video::Crop;

fn world() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/world/manifest.csv")
}

fn demo() -> Config {
    config::load("demo", &[]).unwrap()
}

fn all_rows() -> Subset {
    let manifest = Arc::new(Manifest::load(world()).unwrap());
    let rows = (0..manifest.len() as u32).collect();
    Subset::new(manifest, rows).unwrap()
}

fn mask(sample: &Sample, scores: &ScoreMap, ratio: f64) -> Mask {
    let masking = Masking::Text(TextConfig { ratio, ..TextConfig::default() });
    let mut rng = Streams::new(0).stream("mask", sample.epoch, sample.number);
    masking.mask(&sample.grid, &Cues::from_scores(scores), &mut rng).unwrap()
}

fn online(clip: &ClipModel, sample: &Sample, options: &ScoreOptions) -> ScoreMap {
    let caption = sample.caption.as_deref().unwrap();
    let text = clip.embed_text(&[caption]).unwrap().embeddings.get(0).unwrap();
    score_clip(clip, sample, &text, options).unwrap()
}

/// The share of the tubelets that both masks hide.
fn agreement(a: &Mask, b: &Mask) -> f64 {
    let both = a.masked().iter().filter(|index| b.masked().binary_search(index).is_ok()).count();
    both as f64 / a.masked().len() as f64
}

#[test]
fn cache_and_clip_choose_the_same_tubelets_of_whole_frames() {
    let clip = load_clip(&demo().text, &Device::Cpu).unwrap();
    let data = all_rows();
    let clips = ClipConfig { crop: Crop::Center, ..demo().clip };
    for features in [PatchFeatures::Plain, PatchFeatures::Value, PatchFeatures::Surgery] {
        let options = ScoreOptions { features, ..ScoreOptions::default() };
        let dir = tempfile::tempdir().unwrap();
        let rules = Rules { every: 1, options, ..Rules::default() };
        let filled = fill(&data, &clip, &rules, dir.path()).unwrap();
        assert_eq!((filled.videos, filled.maps, filled.bad.len()), (24, 72, 0));
        let (cached, missing) = CachedScores::open(dir.path(), &clip, options, &data).unwrap();
        assert_eq!(missing, 0);
        let (mut same, mut masks) = (0, 0);
        let views = TestViews { views: 2, crops: 1 };
        for samples in EvalLoader::new(&data, &clips, &LoaderConfig::default(), views).unwrap() {
            for sample in samples.unwrap() {
                let (cached, online) =
                    (cached.map(&sample).unwrap().unwrap(), online(&clip, &sample, &options));
                for ratio in [0.25, 0.6, 0.9] {
                    let (a, b) = (mask(&sample, &cached, ratio), mask(&sample, &online, ratio));
                    masks += 1;
                    if a == b {
                        same += 1;
                        continue;
                    }
                    // The cache holds f16: only scores that it cannot tell apart may change places.
                    let (a, b) = (a.to_bools(), b.to_bools());
                    let cells = sample.grid.cells();
                    for slot in 0..sample.grid.slots() {
                        let changed = (slot * cells..(slot + 1) * cells).filter(|&i| a[i] != b[i]);
                        let scores: Vec<f32> = changed.map(|i| online.values()[i]).collect();
                        let (low, high) =
                            scores.iter().fold((f32::MAX, f32::MIN), |(l, h), s| (l.min(*s), h.max(*s)));
                        assert!(
                            scores.is_empty() || high - low < 2.0 / 2048.0,
                            "{features:?} at {ratio}: {scores:?}"
                        );
                    }
                }
            }
        }
        eprintln!("{features:?}: {same} of {masks} masks are the same");
        assert!(same * 10 >= masks * 9, "{features:?}");
    }
}

/// What CLIP says about a patch depends on all of the picture, and a crop is another picture: among patches of background,
/// which match no caption, the order is then another one. What the caption names is hidden alike.
#[test]
fn of_random_crops_they_treat_at_least_95_percent_of_the_named_object_alike() {
    let clip = load_clip(&demo().text, &Device::Cpu).unwrap();
    let data = all_rows();
    let options = ScoreOptions::default();
    let dir = tempfile::tempdir().unwrap();
    fill(&data, &clip, &Rules { every: 1, options, ..Rules::default() }, dir.path()).unwrap();
    let (cached, _) = CachedScores::open(dir.path(), &clip, options, &data).unwrap();
    // The demo's crops, and mirrored clips, which the maps must follow.
    let clips = ClipConfig { flip: 0.5, ..demo().clip };
    let mut loader =
        TrainLoader::new(&data, &clips, &LoaderConfig::default(), 72, Streams::new(5), 0).unwrap();
    let samples = loader.next_batch().unwrap().samples;
    assert!(samples.iter().any(|s| s.flipped) && samples.iter().any(|s| s.crop.width < 50));
    let truth = read_truth(world().parent().unwrap()).unwrap();
    for ratio in [0.25, 0.6, 0.9] {
        let (mut all, mut object, mut by_cache, mut by_clip) = (vec![], vec![], vec![], vec![]);
        for sample in &samples {
            let (cached, online) = (cached.map(sample).unwrap().unwrap(), online(&clip, sample, &options));
            let (cached, online) = (mask(sample, &cached, ratio), mask(sample, &online, ratio));
            all.push(agreement(&cached, &online));
            let named = Tubelets::of_object(sample, &truth[sample.row as usize].object_boxes);
            let (a, b) = (cached.to_bools(), online.to_bools());
            if named.count() > 0 {
                object.push(named.mean_of(|i| f64::from(u8::from(a[i] == b[i]))));
                by_cache.extend(share_masked(&named, &cached));
                by_clip.extend(share_masked(&named, &online));
            }
        }
        let [all, object, by_cache, by_clip] = [all, object, by_cache, by_clip].map(mean);
        eprintln!(
            "ratio {ratio}: {all:.3} of all tubelets the same, {object:.3} of the named object's; \
             hidden of it: {by_cache:.3} by the cache, {by_clip:.3} by CLIP on the crop"
        );
        assert!(object >= 0.95 && by_cache >= by_clip - 0.01 && all > ratio, "ratio {ratio}");
    }
}

fn tgm(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_tgm")).args(arguments).output().expect("tgm starts")
}

fn score(manifest: &Path, cache: &Path, more: &[&str]) -> Output {
    let (manifest, cache) = (manifest.to_str().unwrap(), cache.to_str().unwrap());
    let start = ["score", "--data", manifest, "--out", cache, "--model", "builtin"];
    tgm(&[&start[..], more].concat())
}

fn said(output: &Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn error(output: &Output) -> String {
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(stderr.lines().filter(|line| line.starts_with("error: ")).count(), 1, "{stderr}");
    stderr
}

#[test]
fn a_second_call_scores_nothing_and_a_shard_cut_in_the_middle_is_made_again() {
    let dir = tempfile::tempdir().unwrap();
    let (cache, json) = (dir.path().join("scores"), dir.path().join("result.json"));
    let first = said(&score(&world(), &cache, &["--split", "train", "--json", json.to_str().unwrap()]));
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
        let start = ["pretrain", "--data", manifest.to_str().unwrap(), "--out", run.to_str().unwrap()];
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
    let video = world().parent().unwrap().join("videos/train-00000.mp4");
    fs::copy(&video, dir.path().join("good.mp4")).unwrap();
    let bytes = fs::read(&video).unwrap();
    fs::write(dir.path().join("cut.mp4"), &bytes[..bytes.len() / 3]).unwrap();
    let manifest = dir.path().join("clips.csv");
    let long = "a large red circle over a dark striped background and ".repeat(20);
    let rows = ["good.mp4,a red circle", "cut.mp4,a red circle", "absent.mp4,a red circle", "good.mp4,"];
    fs::write(&manifest, format!("path,caption\n{}\ngood.mp4,{long}\n", rows.join("\n"))).unwrap();
    let output = score(&manifest, &dir.path().join("scores"), &[]);
    let stdout = said(&output);
    for part in
        ["2 videos, 2 maps", "2 videos could not be read", "1 rows have no caption", "1 captions were longer"]
    {
        assert!(stdout.contains(part), "{part}: {stdout}");
    }
    assert!(String::from_utf8_lossy(&output.stderr).contains("cut.mp4"));

    fs::write(&manifest, "path,caption\nabsent.mp4,a red circle\n").unwrap();
    let none = error(&score(&manifest, &dir.path().join("none"), &[]));
    assert!(none.contains("absent.mp4"), "{none}");
    fs::write(&manifest, "path\ngood.mp4\n").unwrap();
    let none = error(&score(&manifest, &dir.path().join("none"), &[]));
    assert!(none.contains("caption"), "{none}");
}

#[test]
fn without_network_and_weights_it_says_which_model_is_missing_and_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    let (manifest, out) = (world(), dir.path().join("scores"));
    let output = Command::new(env!("CARGO_BIN_EXE_tgm"))
        .args(["score", "--data", manifest.to_str().unwrap(), "--out", out.to_str().unwrap()])
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
    let tiny = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/tiny-clip");
    for file in ["config.json", "model.safetensors"] {
        fs::copy(tiny.join(file), no_tokenizer.join(file)).unwrap();
    }
    let output = tgm(&[
        "score",
        "--data",
        manifest.to_str().unwrap(),
        "--out",
        out.to_str().unwrap(),
        "--model",
        no_tokenizer.to_str().unwrap(),
    ]);
    assert!(error(&output).contains("no tokenizer.json"), "{output:?}");
}

#[test]
fn training_from_a_cache_of_every_frame_is_told_what_it_lacks() {
    let dir = tempfile::tempdir().unwrap();
    let cache = dir.path().join("scores");
    said(&score(&world(), &cache, &["--split", "train", "--every", "1"]));
    let run = dir.path().join("run");
    let train = |cache: &Path, data: &Path, run: &Path| {
        let cache = format!("text.cache={}", cache.display());
        tgm(&[
            "pretrain",
            "--data",
            data.to_str().unwrap(),
            "--out",
            run.to_str().unwrap(),
            "--steps",
            "2",
            "--set",
            "train.batch=4",
            "--set",
            &cache,
        ])
    };
    let complete = train(&cache, &world(), &run);
    said(&complete);
    assert!(!String::from_utf8_lossy(&complete.stderr).contains("no map"), "nothing is missing");

    // Another manifest in the same folder: its test clips are not in the cache.
    let both = dir.path().join("world");
    fs::create_dir_all(both.join("videos")).unwrap();
    let text = fs::read_to_string(world()).unwrap().replace(",test,", ",train,");
    fs::write(both.join("manifest.csv"), text).unwrap();
    for entry in fs::read_dir(world().parent().unwrap().join("videos")).unwrap() {
        let entry = entry.unwrap();
        let target = both.join("videos").join(entry.file_name());
        fs::copy(entry.path(), &target).unwrap();
        let modified = entry.metadata().unwrap().modified().unwrap();
        fs::File::options().write(true).open(target).unwrap().set_modified(modified).unwrap();
    }
    let partial = train(&cache, &both.join("manifest.csv"), &dir.path().join("partial"));
    said(&partial);
    let stderr = String::from_utf8_lossy(&partial.stderr);
    assert!(stderr.contains("36 captions have no map"), "{stderr}");

    let empty = dir.path().join("empty");
    said(&score(&world(), &empty, &["--split", "test", "--every", "1"]));
    let none = error(&train(&empty, &world(), &dir.path().join("none")));
    assert!(none.contains("tgm score --data"), "{none}");
}
