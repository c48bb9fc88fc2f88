//! Runs that several processes make together.

mod common;

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Output, Stdio};
use std::thread::JoinHandle;

use common::{command, error_of, fails, learnt, newest, ok, stderr, text, tiny, unlabelled, world};
use serde_json::Value;

/// The first process of a group, and where it listens.
struct Leader {
    child: Child,
    address: String,
    /// What it writes to standard error.
    told: JoinHandle<String>,
}

impl Leader {
    /// Starts a run; returns when it listens.
    fn start(arguments: &[&str], processes: usize) -> Self {
        let processes = processes.to_string();
        let group = ["--processes", &processes, "--listen", "127.0.0.1:0"];
        let mut child = command(&[arguments, &group].concat())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("tgm starts");
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map(Result::unwrap);
        let mut told = String::new();
        let mut address = None;
        for line in lines.by_ref() {
            told += &(line.clone() + "\n");
            if let Some((_, at)) = line.split_once("tgm join ") {
                address = Some(at.to_owned());
                break;
            }
        }
        let address = address.unwrap_or_else(|| panic!("does not listen: {told}"));
        let told = std::thread::spawn(move || lines.fold(told, |told, line| told + &line + "\n"));
        Self { child, address, told }
    }

    /// A process that joins it.
    fn join(&self, more: &[&str]) -> Child {
        let mut arguments = vec!["join", self.address.as_str()];
        arguments.extend(more);
        command(&arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("tgm starts")
    }

    fn end(mut self) -> Output {
        let status = self.child.wait().unwrap();
        Output { status, stdout: Vec::new(), stderr: self.told.join().unwrap().into_bytes() }
    }
}

/// The lines of `metrics.jsonl`.
fn metrics(run: &Path) -> Vec<Value> {
    let text = fs::read_to_string(run.join("metrics.jsonl")).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn succeeded(output: &Output) {
    assert!(output.status.success(), "{}", stderr(output));
}

/// The joint loss compares every clip with every other one, wherever they are.
#[test]
fn two_processes_make_the_run_of_one() {
    let dir = tempfile::tempdir().unwrap();
    let (alone, together, again) = (dir.path().join("alone"), dir.path().join("a"), dir.path().join("b"));
    let world = world();
    let options =
        ["--contrastive", "on", "--masking", "text", "--steps", "5", "--set", "train.micro_batch=1"];
    ok(&tiny(&world, &alone, &options));
    for out in [&together, &again] {
        let leader = Leader::start(&tiny(&world, out, &options), 2);
        let member = leader.join(&["--data", &world, "--workers", "1"]);
        succeeded(&leader.end());
        succeeded(&member.wait_with_output().unwrap());
    }
    let (one, two) = (metrics(&alone), metrics(&together));
    assert_eq!((one.len(), two.len()), (5, 5));
    for (one, two) in one.iter().zip(&two) {
        for key in
            ["loss", "mae", "mae_of_mean", "mae_of_copy", "contrastive", "contrastive_top1", "grad_norm"]
        {
            let (one, two) = (one[key].as_f64().unwrap(), two[key].as_f64().unwrap());
            assert!((one - two).abs() <= 1e-4 * one.abs() + 1e-6, "{key}: {one} and {two}");
        }
    }
    assert_eq!(learnt(&together), learnt(&again), "the same processes give the same bits");
}

/// A run of two processes that does not end by itself, some steps into it: its folder and both.
fn two_at_work(dir: &Path) -> (PathBuf, Leader, Child) {
    let manifest = unlabelled(dir);
    let out = dir.join("run");
    let options = ["--masking", "tube", "--steps", "100000", "--set", "schedule.length=100000"];
    let options = [&options[..], &["--set", "train.micro_batch=2"]].concat();
    let leader = Leader::start(&tiny(text(&manifest), &out, &options), 2);
    let member = leader.join(&[]);
    wait_for_a_step(&out);
    (out, leader, member)
}

/// Saved by the first process, and gone on with by one alone.
#[cfg(unix)]
#[test]
fn ctrl_c_in_any_process_ends_all_of_them_saved() {
    let dir = tempfile::tempdir().unwrap();
    let (out, leader, member) = two_at_work(dir.path());
    let sent = std::process::Command::new("kill").args(["-INT", &member.id().to_string()]).status();
    assert!(sent.unwrap().success());
    let error = error_of(&leader.end(), 1);
    assert!(error.contains("stopped by a signal after step") && error.contains("--resume"), "{error}");
    let error = error_of(&member.wait_with_output().unwrap(), 1);
    assert!(error.contains("stopped by a signal: the run ends after step"), "{error}");
    let steps = (metrics(&out).len() + 2).to_string();
    ok(&["pretrain", "--out", text(&out), "--resume", "--steps", &steps]);
    assert_eq!(metrics(&out).len().to_string(), steps);
}

#[test]
fn when_a_process_is_killed_the_first_one_saves_and_says_which() {
    let dir = tempfile::tempdir().unwrap();
    let (out, leader, mut member) = two_at_work(dir.path());
    member.kill().unwrap();
    member.wait().unwrap();
    let error = error_of(&leader.end(), 1);
    assert!(error.contains("saved in") && error.contains("process 1 at 127.0.0.1"), "{error}");
    assert!(newest(&out).join("state.json").is_file());
}

fn wait_for_a_step(run: &Path) {
    let begun = std::time::Instant::now();
    while fs::read_to_string(run.join("metrics.jsonl")).map_or(0, |text| text.lines().count()) == 0 {
        assert!(begun.elapsed().as_secs() < 60, "no step within a minute");
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
}

#[test]
fn a_process_with_other_videos_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (first, second) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (here, there) = (unlabelled(first.path()), unlabelled(second.path()));
    let fewer: Vec<String> = fs::read_to_string(&there).unwrap().lines().take(9).map(str::to_owned).collect();
    fs::write(&there, fewer.join("\n")).unwrap();
    let out = dir.path().join("run");
    let options = ["--masking", "tube", "--steps", "2", "--set", "train.micro_batch=2"];
    let leader = Leader::start(&tiny(text(&here), &out, &options), 2);
    let member = leader.join(&["--data", text(&there)]);
    let error = error_of(&member.wait_with_output().unwrap(), 1);
    assert!(error.contains("24 rows") && error.contains("8 rows") && error.contains("--data"), "{error}");
    assert!(error_of(&leader.end(), 1).contains("process 1 at 127.0.0.1"));
}

#[test]
fn a_step_that_cannot_be_shared_is_refused_before_anyone_waits_and_leaves_no_folder() {
    let dir = tempfile::tempdir().unwrap();
    let (world, out) = (world(), dir.path().join("run"));
    let group = |processes| ["--masking", "tube", "--processes", processes, "--listen", "127.0.0.1:0"];
    let error = fails(2, &tiny(&world, &out, &group("2")));
    assert!(error.contains("--set train.micro_batch=2"), "{error}");
    let error = fails(2, &tiny(&world, &out, &group("3")));
    assert!(error.contains("a train.batch that is a multiple of 3"), "{error}");
    assert!(!out.exists(), "what it advises must not be refused because a run is there");
}

/// Micro-batches change no gradient but for rounding, so their size may follow the number of processes.
#[test]
fn a_run_of_one_process_goes_on_with_two() {
    let dir = tempfile::tempdir().unwrap();
    let (world, out) = (world(), dir.path().join("run"));
    ok(&tiny(&world, &out, &["--masking", "tube", "--steps", "2"]));
    let more = ["pretrain", "--out", text(&out), "--resume", "--steps", "4", "--set", "train.micro_batch=2"];
    let leader = Leader::start(&more, 2);
    let member = leader.join(&[]);
    succeeded(&leader.end());
    succeeded(&member.wait_with_output().unwrap());
    assert_eq!(metrics(&out).len(), 4);
}

#[test]
fn only_what_changes_nothing_that_is_computed_may_differ_between_machines() {
    let error = fails(2, &["join", "127.0.0.1:1", "--set", "train.batch=8"]);
    assert!(error.contains("train.batch=8") && error.contains("text.model"), "{error}");
}

/// Masks of one run must not come from two CLIPs.
#[test]
fn a_process_with_another_clip_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (world, out, other) = (world(), dir.path().join("run"), dir.path().join("clip"));
    fs::create_dir(&other).unwrap();
    let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/tiny-clip");
    for file in ["config.json", "model.safetensors", "tokenizer.json"] {
        fs::copy(fixture.join(file), other.join(file)).unwrap();
    }
    let options = ["--masking", "text", "--steps", "2", "--set", "train.micro_batch=2"];
    let leader = Leader::start(&tiny(&world, &out, &options), 2);
    // A number of the last weight is another one.
    let weights = other.join("model.safetensors");
    let mut bytes = fs::read(&weights).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(&weights, bytes).unwrap();
    let set = format!("text.model={}", other.display());
    let error = error_of(&leader.join(&["--set", &set]).wait_with_output().unwrap(), 1);
    assert!(error.contains("the CLIP here is not the first process's"), "{error}");
    error_of(&leader.end(), 1);
}
