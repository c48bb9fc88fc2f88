//! The `tgm` program as its users meet it: what it makes, how it resumes, and what it says when something is wrong.

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use common::{command, fails, fixtures, ok, stderr, text, tgm, tiny, world};

#[test]
fn a_run_leaves_config_metrics_checkpoint_pictures_and_a_table() {
    let dir = tempfile::tempdir().unwrap();
    let (out, json) = (dir.path().join("run"), dir.path().join("result.json"));
    let table = ok(&tiny(&world(), &out, &["--steps", "3", "--json", text(&json)]));
    for row in
        ["masked loss", "contrastive loss", "kNN top-1", "linear probe top-1", "checkpoint", "pictures"]
    {
        assert!(table.contains(row), "{table}");
    }
    let metrics = fs::read_to_string(out.join("metrics.jsonl")).unwrap();
    assert_eq!(metrics.lines().count(), 3);
    assert!(
        metrics
            .lines()
            .all(|line| line.contains("\"data_wait\"") && line.contains("\"contrastive_relative\""))
    );
    assert!(fs::read_dir(out.join("pictures")).unwrap().count() == 1);
    assert!(out.join("config.toml").is_file());
    let json: serde_json::Value = serde_json::from_str(&fs::read_to_string(json).unwrap()).unwrap();
    assert_eq!(json["rows"][2]["name"], "kNN top-1");
}

#[test]
fn missing_empty_and_wrong_manifests_are_one_clear_line() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("run");
    let manifest = dir.path().join("clips.csv");
    let check = |content: Option<&str>, expected: &str| {
        if let Some(content) = content {
            fs::write(&manifest, content).unwrap();
        }
        let error = fails(1, &tiny(text(&manifest), &out, &["--contrastive", "off", "--steps", "1"]));
        assert!(error.contains("clips.csv") && error.contains(expected), "{error}");
        assert!(!out.exists(), "nothing is left behind");
    };
    check(None, "clips.csv");
    check(Some(""), "clips.csv");
    check(Some("file,label\na.mp4,x\n"), "path");
    check(Some("path\n../../outside.mp4\n"), "outside.mp4");
}

#[test]
fn absent_truncated_and_soundless_videos_are_counted_and_named() {
    let dir = tempfile::tempdir().unwrap();
    let manifest = dir.path().join("clips.csv");
    let video = fs::read_dir(fixtures().join("world/videos")).unwrap().next().unwrap().unwrap().path();
    let bytes = fs::read(&video).unwrap();
    fs::write(dir.path().join("cut.mp4"), &bytes[..bytes.len() / 3]).unwrap();
    fs::write(dir.path().join("text.mp4"), "no video at all").unwrap();
    fs::write(&manifest, "path\nabsent.mp4\ncut.mp4\ntext.mp4\n").unwrap();
    let out = dir.path().join("run");
    let error = fails(1, &tiny(text(&manifest), &out, &["--contrastive", "off", "--steps", "1"]));
    assert!(["absent.mp4", "cut.mp4", "text.mp4"].iter().any(|name| error.contains(name)), "{error}");

    // One bad file among good ones is replaced and said to be.
    for i in 0..8 {
        fs::copy(&video, dir.path().join(format!("good{i}.mp4"))).unwrap();
    }
    let rows: String = (0..8).map(|i| format!("good{i}.mp4\n")).collect();
    fs::write(&manifest, format!("path\ncut.mp4\n{rows}")).unwrap();
    let out = dir.path().join("run2");
    let output =
        tgm(&tiny(text(&manifest), &out, &["--masking", "tube", "--contrastive", "off", "--steps", "3"]));
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success() && stderr.contains("skipped: ") && stderr.contains("cut.mp4"),
        "{stderr}"
    );
    assert!(fs::read_to_string(out.join("metrics.jsonl")).unwrap().contains("\"skipped\":1"));
}

#[test]
fn a_typo_in_a_config_is_exit_code_2_with_the_nearest_key() {
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("mine.toml");
    fs::write(&config, "[train]\nbacth = 8\n").unwrap();
    let error = fails(2, &["pretrain", "--config", text(&config), "--data", &world()]);
    assert!(error.contains("mine.toml: unknown key `bacth`: did you mean `batch`?"), "{error}");
    let error = fails(2, &["pretrain", "--set", "masking.rato=0.5"]);
    assert!(error.contains("did you mean `ratio`?"), "{error}");
    let error = fails(2, &["pretrain", "--config", "absent"]);
    assert!(error.contains("demo") && error.contains("tgm-base"), "{error}");
    assert_eq!(tgm(&["pretrain", "--nonsense"]).status.code(), Some(2));
}

#[test]
fn a_text_guided_run_without_captions_says_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    let video = fs::read_dir(fixtures().join("world/videos")).unwrap().next().unwrap().unwrap().path();
    fs::copy(&video, dir.path().join("a.mp4")).unwrap();
    let manifest = dir.path().join("clips.csv");
    fs::write(&manifest, "path\na.mp4\n").unwrap();
    let error =
        fails(1, &tiny(text(&manifest), &dir.path().join("run"), &["--masking", "text", "--steps", "1"]));
    assert!(error.contains("caption") && error.contains("--contrastive off"), "{error}");
}

#[test]
fn forward_reproduces_transformers_numbers_through_files() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out.safetensors");
    for (name, grads) in [("mae-plain", true), ("mae-odd", true), ("mae-classifier-mean", false)] {
        let folder = fixtures().join(name);
        let golden = folder.join("golden.safetensors");
        let mut arguments =
            vec!["forward", "--checkpoint", text(&folder), "--input", text(&golden), "--output", text(&out)];
        if grads {
            arguments.push("--grads");
        }
        ok(&arguments);
        let load = |path: &Path| candle_core::safetensors::load(path, &candle_core::Device::Cpu).unwrap();
        let (ours, theirs) = (load(&out), load(&golden));
        let wanted = theirs.keys().filter(|k| k.starts_with("grad.") || *k == "logits" || *k == "loss");
        for key in wanted {
            let flat = |t: &candle_core::Tensor| t.flatten_all().unwrap().to_vec1::<f32>().unwrap();
            let (a, b) = (flat(&ours[key]), flat(&theirs[key]));
            assert_eq!(a.len(), b.len(), "{name} {key}");
            let scale = b.iter().fold(1f32, |m, v| m.max(v.abs()));
            let worst = a.iter().zip(&b).map(|(a, b)| (a - b).abs()).fold(0f32, f32::max);
            assert!(worst <= 1e-4 * scale, "{name} {key}: off by {worst}");
        }
    }
    let error =
        fails(1, &["forward", "--checkpoint", text(dir.path()), "--input", "x", "--output", text(&out)]);
    assert!(error.contains("no checkpoint here"), "{error}");
}

#[test]
fn import_and_export_are_inverse() {
    let dir = tempfile::tempdir().unwrap();
    let (ours, back) = (dir.path().join("ours"), dir.path().join("back"));
    let source = fixtures().join("mae-plain");
    ok(&["import", text(&source), "--out", text(&ours)]);
    ok(&["export", text(&ours), "--to", "hugging-face", "--out", text(&back)]);
    let load = |folder: &Path| {
        let tensors =
            candle_core::safetensors::load(folder.join("model.safetensors"), &candle_core::Device::Cpu)
                .unwrap();
        let flat = |t: candle_core::Tensor| t.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        tensors.into_iter().map(|(k, t)| (k, flat(t))).collect::<BTreeMap<_, _>>()
    };
    assert_eq!(load(&source), load(&back));
    let error = fails(1, &["import", text(&source), "--out", text(&ours)]);
    assert!(error.contains("not empty"), "{error}");
}

#[test]
fn eval_scores_a_run_beside_a_random_encoder_and_refuses_a_model_that_does_not_fit() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("run");
    ok(&tiny(&world(), &out, &["--steps", "1"]));
    for protocol in ["knn", "linear"] {
        let table =
            ok(&["eval", "manifest", "--data", &world(), "--checkpoint", text(&out), "--protocol", protocol]);
        assert!(table.contains("random encoder") && table.contains("12 train and 12 test clips"), "{table}");
    }
    let (checkpoint, model) = (out.join("checkpoints/step-00000001"), dir.path().join("model"));
    fs::create_dir(&model).unwrap();
    fs::copy(checkpoint.join("model.safetensors"), model.join("model.safetensors")).unwrap();
    let config =
        fs::read_to_string(checkpoint.join("config.json")).unwrap().replace("\"dim\": 32", "\"dim\": 64");
    fs::write(model.join("config.json"), config).unwrap();
    let arguments =
        ["eval", "manifest", "--data", &world(), "--checkpoint", text(&model), "--protocol", "knn"];
    let error = fails(1, &arguments);
    assert!(error.contains("does not fit this model") && error.contains(text(&model)), "{error}");
}

#[test]
fn a_world_is_rendered_once_and_another_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("world");
    let manifest = ok(&["data", "synth", text(&out), "--train", "3", "--test", "2"]);
    assert!(Path::new(manifest.trim()).is_file());
    ok(&["data", "synth", text(&out), "--train", "3", "--test", "2"]);
    let error = fails(1, &["data", "synth", text(&out), "--train", "4", "--test", "2"]);
    assert!(error.contains("world"), "{error}");
}

#[test]
fn a_dry_run_tells_size_memory_steps_and_time_and_writes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (out, json) = (dir.path().join("run"), dir.path().join("dry.json"));
    let table = ok(&tiny(&world(), &out, &["--steps", "100", "--dry-run", "--json", text(&json)]));
    for row in
        ["model ", "memory ", "schedule  100 steps", "batch     4 = 1 micro-batches of 4", "time ", "data "]
    {
        assert!(table.contains(row), "{row}: {table}");
    }
    assert!(!out.exists());
    let json: serde_json::Value = serde_json::from_str(&fs::read_to_string(json).unwrap()).unwrap();
    assert_eq!((&json["measured_micro_batches"], &json["steps"]), (&10.into(), &100.into()));
    assert!(json["seconds_per_step"].as_f64().unwrap() > 0.0);
}

#[test]
fn configurations_can_be_listed_shown_compared_and_explained() {
    let list = ok(&["config", "list"]);
    let runs = ["demo", "tgm-base", "mgm-base-ssv2", "tube-base", "random-base-ssv2", "videomae-large"];
    for name in runs.into_iter().chain(["finetune-base-ssv2", "linear", "attentive"]) {
        assert!(list.lines().any(|line| line.starts_with(&format!("{name} "))), "{list}");
    }
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("mine.toml");
    fs::write(&file, ok(&["config", "show", "tgm-base"])).unwrap();
    assert_eq!(ok(&["config", "diff", text(&file), "tgm-base"]).trim(), "no difference");
    let full = ok(&["config", "show", "tgm-base", "--full"]);
    assert!(full.contains("weight_decay = 0.05") && full.contains("max_replacements"), "{full}");
    let diff = ok(&["config", "diff", "tgm-base", "tgm-base-ssv2"]);
    assert_eq!(diff.trim(), "clip.sampling.stride: 4 → 2");
    assert!(ok(&["config", "show", "finetune-base"]).starts_with("# Fine-tuning of VideoMAE ViT-B"));
    assert!(ok(&["config", "show", "finetune-base", "--full"]).contains("drop_path = 0.1"));
    let diff = ok(&["config", "diff", "finetune-base", "finetune-base-ssv2"]);
    assert_eq!(diff.trim(), "finetune.base_lr: 0.001 → 0.0005\nfinetune.epochs: 100.0 → 50.0\nviews: 5 → 2");
    let explained = ok(&["config", "explain", "schedule.base_lr"]);
    assert!(explained.contains("batch of 256") && explained.contains("default: 0.00015"), "{explained}");
    let error = fails(2, &["config", "explain", "train.bach"]);
    assert!(error.contains("`train.batch`"), "{error}");
}

#[test]
fn an_installed_program_has_completions_a_manual_and_examples() {
    for shell in ["bash", "zsh", "fish"] {
        assert!(ok(&["completions", shell]).contains("pretrain"), "{shell}");
    }
    let page = ok(&["man"]);
    assert!(page.starts_with(".ie") || page.contains(".TH"), "{page:.200}");
    let dir = tempfile::tempdir().unwrap();
    ok(&["man", "--out", text(dir.path())]);
    assert!(dir.path().join("tgm-pretrain.1").is_file());
    for command in ["pretrain", "eval", "report", "replay", "config", "completions", "man"] {
        assert!(ok(&[command, "--help"]).contains("Examples:"), "{command}");
    }
}

#[test]
fn messages_are_plain_without_a_terminal_and_json_when_asked() {
    let dir = tempfile::tempdir().unwrap();
    let plain = tgm(&tiny(&world(), &dir.path().join("a"), &["--steps", "2", "-v"]));
    let plain = stderr(&plain);
    assert!(plain.contains("saved ") && plain.contains("step 2/2"), "{plain}");
    assert!(!plain.contains('\u{1b}'), "colours or bars without a terminal: {plain:?}");
    let json = tgm(&tiny(&world(), &dir.path().join("b"), &["--steps", "2", "--log-format", "json"]));
    let json = stderr(&json);
    let lines: Vec<serde_json::Value> =
        json.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let messages = lines.iter().map(|line| line["fields"]["message"].as_str().unwrap());
    assert!(messages.into_iter().any(|message| message.starts_with("step 2/2")), "{json}");
    let output = tgm(&["config", "explain", "nonsense", "--log-format", "json"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(serde_json::from_str::<serde_json::Value>(stderr(&output).trim()).unwrap()["level"] == "ERROR");
}

#[test]
fn a_folder_of_own_videos_trains_without_captions_and_with_them() {
    let dir = tempfile::tempdir().unwrap();
    for (i, video) in fs::read_dir(fixtures().join("world/videos")).unwrap().take(6).enumerate() {
        fs::copy(video.unwrap().path(), dir.path().join(format!("{i}.mp4"))).unwrap();
    }
    let folder = text(dir.path());
    let runs = tempfile::tempdir().unwrap();
    let without = ["--masking", "tube", "--contrastive", "off", "--steps", "2"];
    ok(&tiny(folder, &runs.path().join("without"), &without));
    let error =
        fails(1, &tiny(folder, &runs.path().join("too-early"), &["--masking", "text", "--steps", "2"]));
    assert!(error.contains("caption"), "{error}");
    for i in 0..6 {
        fs::write(dir.path().join(format!("{i}.txt")), format!("a red circle number {i}\n")).unwrap();
    }
    ok(&tiny(folder, &runs.path().join("with"), &["--masking", "text", "--steps", "2"]));
}

/// What something writes to a terminal: `script` makes it believe in one.
#[cfg(target_os = "linux")]
fn on_a_terminal(arguments: &[&str], no_color: bool) -> Option<String> {
    let words = std::iter::once(env!("CARGO_BIN_EXE_tgm")).chain(arguments.iter().copied());
    let line = words.map(|word| format!("'{word}'")).collect::<Vec<_>>().join(" ");
    let mut command = std::process::Command::new("script");
    command.args(["-qec", &line, "/dev/null"]).env("TERM", "xterm-256color").env_remove("NO_COLOR");
    if no_color {
        command.env("NO_COLOR", "1");
    }
    let Ok(output) = command.output() else {
        eprintln!("skipped: no `script` here, which makes terminals");
        return None;
    };
    assert!(output.status.success(), "{output:?}");
    Some(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Whether a text has codes for colours and the like (`ESC [ … m`); those that move the cursor, a bar cannot do without.
fn is_coloured(text: &str) -> bool {
    text.split("\u{1b}[")
        .skip(1)
        .any(|rest| rest.trim_start_matches(|c: char| c.is_ascii_digit() || c == ';').starts_with('m'))
}

#[cfg(target_os = "linux")]
#[test]
fn a_terminal_gets_colours_unless_no_color_or_the_option_says_otherwise_and_a_pipe_gets_none() {
    let dir = tempfile::tempdir().unwrap();
    let world = world();
    let run = |name: &str, more: &[&'static str], no_color: bool| {
        let out = dir.path().join(name);
        let options = ["--masking", "tube", "--contrastive", "off", "--steps", "2", "-v"];
        on_a_terminal(&tiny(&world, &out, &[&options[..], more].concat()), no_color)
    };
    let Some(coloured) = run("a", &[], false) else { return };
    assert!(is_coloured(&coloured), "{coloured:?}");
    for plain in [run("b", &[], true), run("c", &["--color", "never"], false)] {
        let plain = plain.unwrap();
        assert!(plain.contains("checkpoint") && !is_coloured(&plain), "{plain:?}");
    }
    assert!(is_coloured(&run("d", &["--color", "always"], true).unwrap()));
    assert!(is_coloured(&on_a_terminal(&["--help"], false).unwrap()));
    assert!(!is_coloured(&on_a_terminal(&["--help"], true).unwrap()));
    assert!(!ok(&["--help"]).contains('\u{1b}'));
    assert!(is_coloured(&ok(&["--help", "--color", "always"])));
}

#[cfg(target_os = "linux")]
#[test]
fn a_reader_that_closes_standard_output_is_no_fault_and_a_full_disk_is_one_line() {
    let run = |to: std::process::Stdio| command(&["config", "list"]).stdout(to).output().unwrap();
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let closed = run(writer.into());
    assert!(closed.status.success() && closed.stderr.is_empty(), "{}", stderr(&closed));
    let full = run(fs::File::options().write(true).open("/dev/full").unwrap().into());
    assert_eq!(full.status.code(), Some(1));
    let said = stderr(&full);
    assert!(
        said.starts_with("error: cannot write to standard output") && said.lines().count() == 1,
        "{said}"
    );
}

#[test]
fn options_that_a_protocol_does_not_look_at_are_refused() {
    for (protocol, option) in [
        ("linear", &["--k", "3"][..]),
        ("knn", &["--no-random"]),
        ("attentive", &["--readout", "motion"]),
        ("retrieval", &["--seeds", "3"]),
    ] {
        let start =
            ["eval", "manifest", "--data", "clips.csv", "--checkpoint", "none", "--protocol", protocol];
        let error = fails(2, &[&start[..], option].concat());
        assert!(error.contains(option[0]) && error.contains("does nothing for"), "{error}");
    }
}

#[test]
fn the_demo_says_what_is_wrong_before_it_renders_its_world() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("demo");
    for (setting, part) in [
        ("masking.ratio=1.5", "1.5"),
        ("train.batch=0", "train.batch must be at least 1"),
        ("text.model=nope", "there is no such folder"),
    ] {
        let output = tgm(&["pretrain", "--out", text(&out), "--set", setting]);
        assert!(!output.status.success() && stderr(&output).contains(part), "{setting}: {}", stderr(&output));
        assert!(!out.exists(), "{setting}");
    }
}
