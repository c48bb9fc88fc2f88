//! `tgm eval`: every protocol on every data set, what stands beside a result, and what is refused.

#[path = "../../tgm-data/tests/common/miniature.rs"]
mod miniature;

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use common::{fails, fixtures, ok, said, stderr, text, tgm, tiny, world};
use serde_json::Value;

const DATASETS: [&str; 6] = ["k400", "ssv2", "ucf101", "hmdb51", "diving48", "epic100"];

fn json(file: &Path) -> Value {
    serde_json::from_str(&fs::read_to_string(file).unwrap()).unwrap()
}

/// A run of one step with the joint loss, made once for all tests.
fn run() -> &'static Path {
    static RUN: OnceLock<(tempfile::TempDir, PathBuf)> = OnceLock::new();
    let (_, run) = RUN.get_or_init(|| {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("run");
        ok(&tiny(&world(), &out, &["--steps", "2", "--set", "output.pictures=0"]));
        (dir, out)
    });
    run
}

/// A miniature data set whose videos are those of the fixtures.
fn miniature(dataset: &str) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let mut videos: Vec<PathBuf> =
        fs::read_dir(fixtures().join("world/videos")).unwrap().map(|entry| entry.unwrap().path()).collect();
    videos.sort();
    let next = std::cell::Cell::new(0);
    miniature::write(dataset, dir.path(), &|path, _class| {
        fs::copy(&videos[next.get() % videos.len()], path).unwrap();
        next.set(next.get() + 1);
    });
    dir
}

#[test]
fn check_says_of_every_data_set_what_is_missing_and_fails() {
    for dataset in DATASETS {
        let dir = miniature(dataset);
        let report = dir.path().join("check.json");
        let arguments = ["eval", dataset, "--data", text(dir.path()), "--check", "--json", text(&report)];
        let error = fails(1, &arguments);
        assert!(error.contains("MISSING"), "{error}");
        let findings = &json(&report)[0]["findings"];
        let videos = findings.as_array().unwrap().iter().find(|f| f["what"] == "videos on disk").unwrap();
        assert_eq!(videos["ok"], true, "{dataset}: {videos}");
        let table = ok(&[&arguments[..], &["--allow-partial"]].concat());
        assert!(
            table.contains("MISSING train clips") && table.contains("ok      videos"),
            "{dataset}: {table}"
        );
    }
}

#[test]
fn a_part_of_a_data_set_is_not_evaluated_unless_allowed() {
    let dir = miniature("ssv2");
    let arguments =
        ["eval", "ssv2", "--data", text(dir.path()), "--checkpoint", text(run()), "--protocol", "knn"];
    let error = fails(1, &arguments);
    assert!(error.contains("2 classes instead of 174") && error.contains("--allow-partial"), "{error}");
}

#[test]
fn every_data_set_goes_through_every_frozen_protocol() {
    for dataset in DATASETS {
        let dir = miniature(dataset);
        for protocol in ["knn", "linear", "zero-shot"] {
            let report = dir.path().join("result.json");
            let start = ["eval", dataset, "--data", text(dir.path()), "--checkpoint", text(run())];
            let more = ["--protocol", protocol, "--allow-partial", "--json", text(&report)];
            let template = ["--template", "a video of {}"];
            let template = if protocol == "zero-shot" { &template[..] } else { &[] };
            let table = ok(&[&start[..], &more, template].concat());
            for line in
                ["this checkpoint", "random encoder", "pixel-difference kNN", "majority class", "chance"]
            {
                assert!(table.contains(line), "{dataset} {protocol}: {table}");
            }
            let result = json(&report);
            let first = &result["results"][0];
            assert_eq!(first["report"]["test_clips"], 4, "{dataset} {protocol}");
            let views = match dataset {
                "ssv2" | "epic100" => 6,
                _ => 15,
            };
            assert_eq!(first["report"]["views"].as_array().unwrap().len(), views, "{dataset} {protocol}");
            match dataset {
                "ucf101" | "hmdb51" => {
                    assert!(result["mean_top1"].is_number() && result["rows"][2].is_object())
                }
                "epic100" => {
                    assert!(result["action"]["top1"]["mean"].is_number() && table.contains("action"))
                }
                _ => assert_eq!(result["rows"].as_array().unwrap().len(), 1),
            }
        }
    }
}

#[test]
fn the_motion_read_out_is_another_feature_and_named_in_the_result() {
    let manifest = world();
    let base = ["eval", "manifest", "--data", &manifest, "--checkpoint", text(run()), "--protocol", "knn"];
    assert!(ok(&[&base[..], &["--readout", "motion"]].concat()).contains("kNN (motion) on "));
    assert!(ok(&[&base[..], &["--set", "readout=\"motion\""]].concat()).contains("kNN (motion) on "));
    assert!(ok(&base).contains("kNN on "));
}

#[test]
fn other_columns_are_evaluated_like_labels_and_seeds_end_in_one_interval() {
    let dir = tempfile::tempdir().unwrap();
    let (report, out) = (dir.path().join("result.json"), dir.path().join("out"));
    let manifest = world();
    let base = ["eval", "manifest", "--data", &manifest, "--checkpoint", text(run()), "--protocol", "knn"];
    let columns = ["--label", "colour", "--label", "label", "--seeds", "2"];
    let files = ["--json", text(&report), "--out", text(&out)];
    let table = ok(&[&base[..], &columns, &files].concat());
    assert!(table.contains("colour: top-1 over 2 seeds") && table.contains("difference"), "{table}");
    let result = json(&report);
    let tasks: Vec<&Value> =
        result["results"].as_array().unwrap().iter().map(|record| &record["task"]).collect();
    assert_eq!(tasks, ["colour", "label", "colour", "label"], "both columns, once per seed");
    assert!(result["mean_top1"].is_null(), "columns are no splits");
    for over in result["over_seeds"].as_array().unwrap() {
        let mean = |key: &str| over[key]["mean"].as_f64().unwrap();
        let gain = mean("top1") - mean("random_encoder");
        assert!((mean("gain") - gain).abs() < 1e-12, "{over}");
        assert!(over["gain"]["low"].as_f64().unwrap() <= gain, "{over}");
    }
    for name in ["predictions-seed0-colour.csv", "predictions-seed1.csv", "page-seed1-colour.html"] {
        assert!(out.join(name).is_file(), "{name}");
    }
    let error = fails(1, &[&base[..], &["--label", "size"]].concat());
    assert!(error.contains("`size`") && error.contains("colour"), "{error}");
}

#[test]
fn every_linear_recipe_leaves_its_settings_in_the_report() {
    let dir = tempfile::tempdir().unwrap();
    let report = dir.path().join("result.json");
    for (recipe, name, setting) in [
        ("bn-sgd", "sgd", "momentum"),
        ("adamw", "adamw", "weight_decay"),
        ("logistic", "logistic", "tolerance"),
    ] {
        ok(&[
            "eval",
            "manifest",
            "--data",
            &world(),
            "--checkpoint",
            text(run()),
            "--protocol",
            "linear",
            "--recipe",
            recipe,
            "--json",
            text(&report),
        ]);
        let report = &json(&report)["results"][0]["report"];
        assert_eq!(report["protocol"], name);
        assert!(report["settings"][setting].is_number(), "{report}");
    }
}

#[test]
fn page_and_predictions_show_every_clip_and_the_mistakes() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("result");
    ok(&[
        "eval",
        "manifest",
        "--data",
        &world(),
        "--checkpoint",
        text(run()),
        "--protocol",
        "knn",
        "--k",
        "1",
        "--out",
        text(&out),
    ]);
    let table = fs::read_to_string(out.join("predictions.csv")).unwrap();
    assert_eq!(table.lines().next(), Some("path,row,label,prediction,confidence,rank"));
    assert_eq!(table.lines().count(), 13);
    assert!(table.contains("videos/test-00000.mp4,"), "{table}");
    let wrong = table.lines().skip(1).filter(|line| !line.ends_with(",1")).count();
    let page = fs::read_to_string(out.join("page.html")).unwrap();
    assert_eq!(page.matches("alt=\"film strip\"").count(), wrong.min(12));
    assert!(page.contains("Confusion") && !page.contains("src=\"http"), "self-contained");
    assert_eq!(fs::read_dir(&out).unwrap().count(), 2, "no picture is left over");
}

/// The world's manifest in a folder of its own, where this video is none.
fn world_with_a_bad(video: &str) -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let videos = fixtures().join("world/videos");
    fs::create_dir(dir.path().join("videos")).unwrap();
    for entry in fs::read_dir(videos).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), dir.path().join("videos").join(entry.file_name())).unwrap();
    }
    let manifest = dir.path().join("manifest.csv");
    fs::copy(world(), &manifest).unwrap();
    fs::write(dir.path().join("videos").join(video), "no video").unwrap();
    (dir, manifest)
}

#[test]
fn a_bad_test_video_is_an_error_unless_allowed_and_then_counts_as_wrong() {
    let (dir, manifest) = world_with_a_bad("test-00003.mp4");
    let arguments =
        ["eval", "manifest", "--data", text(&manifest), "--checkpoint", text(run()), "--protocol", "knn"];
    let error = fails(1, &arguments);
    assert!(error.contains("test-00003.mp4"), "{error}");
    let report = dir.path().join("result.json");
    let table = ok(&[&arguments[..], &["--allow-bad", "--json", text(&report)]].concat());
    assert!(table.contains("1 test videos could not be read and count as wrong"), "{table}");
    let result = &json(&report)["results"][0]["report"];
    assert_eq!((&result["test_clips"], result["skipped"].as_array().unwrap().len()), (&Value::from(12), 1));
    let answered: u64 = result["confusion"]["counts"]
        .as_array()
        .unwrap()
        .iter()
        .flat_map(|row| row.as_array().unwrap())
        .map(|count| count.as_u64().unwrap())
        .sum();
    assert_eq!(answered, 11);
}

#[test]
fn retrieval_ranks_both_directions_beside_a_random_encoder() {
    let dir = tempfile::tempdir().unwrap();
    let report = dir.path().join("result.json");
    let table = ok(&[
        "eval",
        "manifest",
        "--data",
        &world(),
        "--checkpoint",
        text(run()),
        "--protocol",
        "retrieval",
        "--json",
        text(&report),
    ]);
    assert!(table.contains("text to video") && table.contains("video to text, random encoder"), "{table}");
    let recall = &json(&report)["retrieval"][0]["text_to_video"];
    assert_eq!(recall["candidates"], 12);
    let at = |k: &str| recall[k].as_f64().unwrap();
    assert!(at("r1") <= at("r5") && at("r5") <= at("r10") && at("r10") <= 1.0, "{recall}");
}

#[test]
fn a_head_that_was_never_trained_is_not_scored() {
    let checkpoint = fixtures().join("mae-plain");
    let arguments = ["eval", "manifest", "--data", &world(), "--checkpoint", text(&checkpoint)];
    let error = fails(1, &[&arguments[..], &["--protocol", "zero-shot"]].concat());
    assert!(error.contains("no contrastive head") && error.contains("--contrastive on"), "{error}");

    let dir = tempfile::tempdir().unwrap();
    let copy = dir.path().join("step-00000002");
    fs::create_dir(&copy).unwrap();
    for entry in fs::read_dir(run().join("checkpoints/step-00000002")).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), copy.join(entry.file_name())).unwrap();
    }
    let state = fs::read_to_string(copy.join("state.json")).unwrap();
    fs::write(copy.join("state.json"), state.replace("\"step\": 2", "\"step\": 0")).unwrap();
    let arguments =
        ["eval", "manifest", "--data", &world(), "--checkpoint", text(&copy), "--protocol", "retrieval"];
    let error = fails(1, &arguments);
    assert!(error.contains("never trained"), "{error}");
}

#[test]
fn labels_that_do_not_match_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let manifest = dir.path().join("clips.csv");
    fs::write(&manifest, "path,split,label\na.mp4,train,x\nb.mp4,test,\n").unwrap();
    let arguments =
        ["eval", "manifest", "--data", text(&manifest), "--checkpoint", text(run()), "--protocol", "knn"];
    let error = fails(1, &arguments);
    assert!(error.contains("clips.csv:3") && error.contains("has no label"), "{error}");
}

/// A recipe that takes a few steps.
const QUICK: [&str; 8] =
    ["--set", "epochs=2.0", "--set", "warmup_epochs=0.5", "--set", "batch=4", "--set", "micro_batch=4"];

#[test]
fn every_data_set_goes_through_the_attentive_probe_and_fine_tuning() {
    for dataset in DATASETS {
        let dir = miniature(dataset);
        for protocol in ["attentive", "finetune"] {
            let report = dir.path().join("result.json");
            let arguments = [
                "eval",
                dataset,
                "--data",
                text(dir.path()),
                "--checkpoint",
                text(run()),
                "--protocol",
                protocol,
                "--allow-partial",
                "--views",
                "2",
                "--crops",
                "1",
                "--json",
                text(&report),
            ];
            let split: &[&str] =
                if ["ucf101", "hmdb51"].contains(&dataset) { &["--split", "2"] } else { &[] };
            let table = ok(&[&arguments[..], &QUICK, split].concat());
            for line in ["this checkpoint", "random encoder", "pixel-difference kNN", "chance"] {
                assert!(table.contains(line), "{dataset} {protocol}: {table}");
            }
            let result = &json(&report)["results"][0];
            assert_eq!(result["report"]["steps"], 4, "{dataset} {protocol}: 8 clips, twice, in fours");
            assert_eq!(result["random_encoder"]["random_encoder"], true);
            assert_eq!(result["report"]["settings"]["epochs"], 2.0);
            let mirrors = ["k400", "ucf101", "hmdb51", "diving48"].contains(&dataset);
            let flip = if protocol == "finetune" && mirrors { 0.5 } else { 0.0 };
            assert_eq!(result["report"]["flip"], flip, "{dataset}");
        }
    }
}

#[test]
fn saved_training_is_not_repeated_and_another_recipe_does_not_go_on_with_it() {
    let dir = tempfile::tempdir().unwrap();
    let (out, world) = (dir.path().join("out"), world());
    let arguments = [
        "eval",
        "manifest",
        "--data",
        &world,
        "--checkpoint",
        text(run()),
        "--protocol",
        "finetune",
        "--no-random",
        "--out",
        text(&out),
        "--save-every",
        "2",
    ];
    let settings = ["--set", "ema=0.5"];
    let scored = || {
        let output = tgm(&[&arguments[..], &QUICK, &settings].concat());
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{stderr}");
        (fs::read_to_string(out.join("predictions.csv")).unwrap(), stderr)
    };
    let (first, _) = scored();
    assert!(out.join("finetune-label-trained.safetensors").is_file());
    let (again, stderr) = scored();
    assert!(stderr.contains("going on at step 6 of 6"), "{stderr}");
    assert_eq!(first, again);
    let error = fails(1, &[&arguments[..], &QUICK, &["--set", "mixup=0.0"]].concat());
    assert!(error.contains("other settings"), "{error}");
}

#[cfg(unix)]
#[test]
fn sigterm_finishes_the_step_of_fine_tuning_saves_and_leaves() {
    use std::process::{Command, Stdio};
    use std::time::{Duration, Instant};

    let dir = tempfile::tempdir().unwrap();
    let (out, world) = (dir.path().join("out"), world());
    let start = ["eval", "manifest", "--data", &world, "--checkpoint", text(run()), "--protocol", "finetune"];
    let long = ["--no-random", "--set", "epochs=2000.0", "--out", text(&out), "--save-every", "1"];
    let mut command = common::command(&[&start[..], &QUICK, &long].concat());
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let begun = Instant::now();
    while !out.join("finetune-label-trained.safetensors").is_file() {
        assert!(begun.elapsed() < Duration::from_secs(60), "no step within a minute");
        std::thread::sleep(Duration::from_millis(5));
    }
    assert!(Command::new("kill").args(["-TERM", &child.id().to_string()]).status().unwrap().success());
    let error = common::error_of(&child.wait_with_output().unwrap(), 1);
    assert!(
        error.contains("stopped by a signal after step") && error.contains("goes on from there"),
        "{error}"
    );
}

#[test]
fn a_bad_train_video_is_passed_over_by_fine_tuning_and_named_but_features_need_it() {
    let (_dir, manifest) = world_with_a_bad("train-00003.mp4");
    let start = ["eval", "manifest", "--data", text(&manifest), "--checkpoint", text(run())];
    let output = tgm(&[&start[..], &["--protocol", "finetune", "--no-random"], &QUICK].concat());
    let (table, said) = (said(&output), stderr(&output));
    assert!(table.contains("pixel-difference kNN"), "{table}");
    assert!(
        said.contains("1 training videos could not be read") && said.contains("train-00003.mp4"),
        "{said}"
    );

    let error = fails(1, &[&start[..], &["--protocol", "knn"]].concat());
    assert!(error.contains("train-00003.mp4"), "{error}");
}

#[test]
fn a_setting_that_the_head_does_not_read_is_refused_by_name() {
    let world = world();
    let start = ["eval", "manifest", "--data", &world, "--checkpoint", text(run())];
    for (protocol, setting, name) in
        [("attentive", "drop_path=0.2", "drop_path"), ("finetune", "heads=2", "heads")]
    {
        let more = ["--protocol", protocol, "--set", setting];
        let error = fails(2, &[&start[..], &more, &QUICK].concat());
        assert!(error.contains(&format!("`{name}`")) && error.contains("has no effect"), "{error}");
    }
}

#[test]
fn a_published_setting_is_a_name_and_the_command_line_changes_it() {
    let dir = tempfile::tempdir().unwrap();
    let report = dir.path().join("result.json");
    let world = world();
    let start = ["eval", "manifest", "--data", &world, "--checkpoint", text(run()), "--json", text(&report)];
    let settings = |more: &[&str]| {
        ok(&[&start[..], more].concat());
        json(&report)["results"][0]["report"].clone()
    };
    let probe = settings(&["--config", "linear-ssv2"]);
    assert_eq!((&probe["protocol"], &probe["settings"]["batch"]), (&"sgd".into(), &1024.into()));
    assert_eq!(probe["views"].as_array().unwrap().len(), 12, "4 clips of 3 crops");
    let probe =
        settings(&["--config", "linear-sigma-ssv2", "--views", "1", "--crops", "1", "--set", "epochs=7"]);
    let (settings, views) = (&probe["settings"], probe["views"].as_array().unwrap().len());
    assert_eq!((&probe["protocol"], &settings["epochs"], views), (&"adamw".into(), &7.into(), 1));

    let file = dir.path().join("mine.toml");
    fs::write(&file, "protocol = \"knn\"\nneighbours = 3\n").unwrap();
    let error = fails(2, &[&start[..], &["--config", text(&file)]].concat());
    assert!(error.contains("mine.toml: unknown key `neighbours`"), "{error}");
    let error = fails(2, &[&start[..], &["--config", "linear", "--protocol", "knn"]].concat());
    assert!(error.contains("linear is for linear probe") && error.contains("kNN"), "{error}");
    let error = fails(2, &[&start[..], &["--config", "tgm-base"]].concat());
    assert!(error.contains("tgm-base has no key `protocol`"), "{error}");
    let error = fails(2, &["pretrain", "--config", "finetune-base"]);
    assert!(error.contains("finetune-base is an evaluation"), "{error}");
    let error = fails(2, &[&start[..], &["--protocol", "finetune", "--set", "epoch=3"]].concat());
    assert!(error.contains("did you mean `epochs`?"), "{error}");
}

/// Encoding may take days.
#[test]
fn settings_that_suit_no_data_are_refused_before_anything_is_encoded() {
    let world = world();
    for (options, key) in [
        (&["--protocol", "linear", "--set", "epochs=10"][..], "warmup_epochs"),
        (&["--protocol", "linear", "--set", "sgd.base_lr=[]"], "base_lr"),
        (
            &["--protocol", "linear", "--recipe", "logistic", "--set", "logistic.max_iterations=0"],
            "max_iterations",
        ),
        (&["--protocol", "knn", "--k", "0"], "`k` is 0"),
    ] {
        // There is no such checkpoint either: that would be said later.
        let arguments = ["eval", "manifest", "--data", &world, "--checkpoint", "nowhere"];
        let error = fails(2, &[&arguments[..], options].concat());
        assert!(error.contains(key), "{error}");
    }
}
