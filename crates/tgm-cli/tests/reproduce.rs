//! The reproduction from outside: it makes the tables, goes on where it was stopped, and repeats nothing.

mod common;

use std::fs;
use std::path::Path;
use std::time::SystemTime;

use common::{fails, ok, text};
use serde_json::Value;

/// A reproduction of seconds.
fn arguments<'a>(out: &'a Path, more: &[&'a str]) -> Vec<&'a str> {
    let small = ["--steps", "2", "--train", "24", "--test", "12", "--set", "clip.tubelet.patch=16"];
    [&["reproduce", "--table", "c", "--out", text(out)], &small[..], more].concat()
}

fn tables(out: &Path) -> Value {
    serde_json::from_slice(&fs::read(out.join("tables.json")).unwrap()).unwrap()
}

fn result_of(out: &Path, arm: &str) -> SystemTime {
    let file = out.join("runs/moving-frame").join(arm).join("result.json");
    fs::metadata(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display())).modified().unwrap()
}

#[test]
fn a_table_has_a_line_per_arm_beside_its_baselines_and_finished_runs_stay() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("small");
    let printed = ok(&arguments(&out, &["--seeds", "1"]));
    for arm in ["text-joint", "text-bottom-k-joint", "text-sample-joint", "first frame, kNN"] {
        assert!(printed.contains(arm), "{printed}");
    }
    let rows = tables(&out)[0]["rows"].as_array().unwrap().clone();
    assert_eq!(rows.len(), 8, "two baselines and six arms");
    let top = rows.iter().find(|row| row["name"] == "text-joint").unwrap();
    for protocol in ["knn", "linear"] {
        let mean = top["top1"][protocol]["mean"].as_f64().unwrap();
        assert!((0.0..=1.0).contains(&mean), "{protocol}: {mean}");
    }
    assert!(top["masked_loss"].as_f64().unwrap() > 0.0 && top["contrastive"].as_f64().unwrap() > 0.0);
    let page = fs::read_to_string(out.join("tables.html")).unwrap();
    assert!(page.contains("text-sample-joint") && fs::read_to_string(out.join("tables.md")).unwrap() != page);

    let before = result_of(&out, "text-joint-s0");
    ok(&arguments(&out, &["--seeds", "2"]));
    assert_eq!(result_of(&out, "text-joint-s0"), before, "the first seed was not trained again");
    assert_eq!(tables(&out)[0]["rows"][2]["seeds"], serde_json::json!([0, 1]));

    let other = ["--seeds", "1", "--set", "train.batch=16"];
    let error = fails(1, &arguments(&out, &other));
    assert!(error.contains("begun with another plan") && error.contains("train.batch=16"), "{error}");
}

#[test]
fn a_run_that_was_interrupted_while_it_was_probed_keeps_its_losses() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("killed");
    ok(&arguments(&out, &["--seeds", "1"]));
    let losses = || {
        let row = tables(&out)[0]["rows"][2].clone();
        ["masked_loss", "contrastive"].map(|loss| row[loss].clone())
    };
    let before = losses();
    fs::remove_file(out.join("runs/moving-frame/text-joint-s0/result.json")).unwrap();
    ok(&arguments(&out, &["--seeds", "1"]));
    assert!(before[0].is_f64() && before[1].is_f64());
    assert_eq!(losses(), before);
}

#[test]
fn two_processes_share_the_runs_of_a_folder() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("shared");
    let both = std::thread::scope(|scope| {
        let start = || ok(&arguments(&out, &["--seeds", "2"]));
        let threads = [scope.spawn(start), scope.spawn(start)];
        threads.map(|thread| thread.join().unwrap())
    });
    // Who ends last has found everything.
    let rows = tables(&out)[0]["rows"].as_array().unwrap().clone();
    let lines: Vec<usize> = rows[2..].iter().map(|row| row["seeds"].as_array().unwrap().len()).collect();
    let missing = both.iter().filter(|printed| printed.contains("another process is making")).count();
    assert!(lines.iter().all(|&seeds| (1..=2).contains(&seeds)) && missing < 2, "{lines:?} {missing}");
    ok(&arguments(&out, &["--seeds", "2"]));
    let rows = tables(&out)[0]["rows"].as_array().unwrap().clone();
    assert!(rows[2..].iter().all(|row| row["seeds"] == serde_json::json!([0, 1])), "{rows:?}");
}

#[test]
fn a_budget_that_is_spent_leaves_seeds_out_and_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("hasty");
    let printed = ok(&arguments(&out, &["--seeds", "50", "--budget", "12s"]));
    assert!(printed.contains("for which the budget was too short"), "{printed}");
    let seeds = tables(&out)[0]["rows"][2]["seeds"].as_array().unwrap().len();
    assert!(seeds < 50, "{seeds}");
}

#[test]
fn what_would_be_run_can_be_listed_without_running_it() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("none");
    let listed = ok(&arguments(&out, &["--list"]));
    assert_eq!(listed.lines().count(), 6, "{listed}");
    assert!(!out.exists());
    let error = fails(2, &arguments(&out, &["--seeds", "0"]));
    assert!(error.contains("at least 1"), "{error}");
}

#[test]
fn fine_tuning_can_be_added_to_runs_that_are_finished() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("later");
    ok(&arguments(&out, &["--seeds", "1"]));
    let before = result_of(&out, "text-joint-s0");
    let printed = ok(&arguments(&out, &["--seeds", "1", "--finetune", "1"]));
    assert_eq!(result_of(&out, "text-joint-s0"), before, "pretrained once");
    let top = tables(&out)[0]["rows"][2]["top1"].clone();
    assert!(top["fine-tune"]["mean"].is_f64() && top["linear"]["mean"].is_f64(), "{top}");
    assert!(printed.contains("Fine-tuning: 1 epochs"), "{printed}");
    let without = ok(&arguments(&out, &["--seeds", "1"]));
    assert!(!without.contains("fine-tune top-1"), "asked for without: {without}");
}

#[test]
fn runs_that_another_machine_made_are_in_the_tables_and_are_not_made_again() {
    let dir = tempfile::tempdir().unwrap();
    let (there, here) = (dir.path().join("there"), dir.path().join("here"));
    ok(&arguments(&there, &["--seeds", "1"]));
    let record = there.join("runs.json");
    let known = ["--known", text(&record)];

    ok(&arguments(&here, &[&["--seeds", "1"], &known[..]].concat()));
    assert_eq!(tables(&here), tables(&there), "baselines, losses and intervals");
    assert!(!here.join("runs").exists() && !here.join("worlds").exists(), "nothing was made");

    ok(&arguments(&here, &[&["--seeds", "2"], &known[..]].concat()));
    assert_eq!(tables(&here)[0]["rows"][2]["seeds"], serde_json::json!([0, 1]));
    let made = |seed: u64| here.join(format!("runs/moving-frame/text-joint-s{seed}")).exists();
    assert!(!made(0) && made(1));

    let other = dir.path().join("other");
    let error = fails(1, &arguments(&other, &[&["--set", "train.batch=16"], &known[..]].concat()));
    assert!(error.contains("runs of another plan") && !other.exists(), "{error}");
    let error = fails(1, &arguments(&other, &["--known", "no/such.json"]));
    assert!(error.contains("cannot read the runs in") && error.contains("no/such.json"), "{error}");
}
