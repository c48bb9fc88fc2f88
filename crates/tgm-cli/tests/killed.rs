//! Runs that are killed, interrupted and resumed end in the same bits as unbroken ones.
#![allow(clippy::print_stdout, reason = "says what it skipped, and what it counted")]

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use common::{command, error_of, learnt, newest, ok, slow, text, tiny, unlabelled, world};
use rand::RngExt;
use tgm_random::Streams;

fn assert_same(whole: &BTreeMap<String, Vec<u8>>, parts: &BTreeMap<String, Vec<u8>>, what: &str) {
    assert_eq!(whole.keys().collect::<Vec<_>>(), parts.keys().collect::<Vec<_>>(), "{what}");
    for (name, bytes) in whole {
        assert!(*bytes == parts[name], "{what}: {name} differs");
    }
}

/// Weights, optimiser, schedule, data order, crops, captions, masks and temperature: every draw is in what is compared.
#[test]
fn k_and_k_steps_equal_2k_steps_bit_for_bit_for_every_masking() {
    let warp = ["--set", "masking={kind=\"motion-warp\"}", "--set", "clip.motion=auto"];
    let named = |name: &'static str| vec!["--masking", name];
    let mut cases =
        vec![(named("random"), "off"), (named("tube"), "on"), (named("motion"), "on"), (named("text"), "on")];
    if slow() {
        cases.extend([(named("random"), "on"), (named("tube"), "off"), (named("motion"), "off")]);
        cases.extend([(named("text"), "off"), (warp.to_vec(), "on"), (warp.to_vec(), "off")]);
    }
    for (masking, contrastive) in cases {
        let dir = tempfile::tempdir().unwrap();
        let (whole, parts) = (dir.path().join("whole"), dir.path().join("parts"));
        let options =
            [&masking[..], &["--contrastive", contrastive, "--set", "train.micro_batch=2", "--steps"]]
                .concat();
        ok(&tiny(&world(), &whole, &[&options[..], &["4"]].concat()));
        ok(&tiny(&world(), &parts, &[&options[..], &["2"]].concat()));
        // Another number of workers must not matter.
        ok(&["pretrain", "--out", text(&parts), "--resume", "--steps", "4", "--set", "loader.workers=3"]);
        assert_same(&learnt(&whole), &learnt(&parts), &format!("{masking:?}, contrastive {contrastive}"));
        let [whole, parts] = [&whole, &parts].map(|run| score_of(run));
        assert!(
            (whole - parts).abs() <= 1e-12,
            "the mean loss is that since the last checkpoint that was due"
        );
    }
}

/// How good the newest checkpoint is.
fn score_of(run: &Path) -> f64 {
    let state = fs::read(newest(run).join("state.json")).unwrap();
    let state: serde_json::Value = serde_json::from_slice(&state).unwrap();
    state["score"]["value"].as_f64().unwrap()
}

/// A run of `steps` steps that saves after each one, as a child process.
fn start(manifest: &str, out: &Path, steps: &str) -> Child {
    let more = ["--auto-resume", "--masking", "tube", "--steps", steps, "--set", "output.checkpoint_every=1"];
    let mut arguments = tiny(manifest, out, &more);
    arguments.extend(["--set", "output.pictures=0"]);
    command(&arguments).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("tgm starts")
}

/// SIGKILL at a random moment, again and again, from before the run's folder exists to within the writing of a checkpoint.
#[test]
fn a_run_that_is_killed_again_and_again_ends_with_the_weights_of_an_unbroken_one() {
    let (kills, steps) = if slow() { (120_u32, "400") } else { (6, "40") };
    let dir = tempfile::tempdir().unwrap();
    let manifest = unlabelled(dir.path());
    let (whole, broken) = (dir.path().join("whole"), dir.path().join("broken"));
    let begun = Instant::now();
    let mut child = start(text(&manifest), &whole, steps);
    wait_for_more_than(0, &whole);
    let first_step = begun.elapsed();
    assert!(child.wait().unwrap().success());
    // A life is as long as it takes to start, and its share of the work, on the whole.
    let life = first_step + (begun.elapsed() - first_step) / kills;

    let (mut killed, mut rng) = (0, Streams::new(0).stream("kill", 0, 0));
    let mut within_a_checkpoint = 0;
    while killed < kills {
        let mut child = start(text(&manifest), &broken, steps);
        std::thread::sleep(life.mul_f64(rng.random_range(0.0..1.6)));
        if let Some(status) = child.try_wait().unwrap() {
            assert!(status.success(), "a run that was not killed failed");
            // At its end before all kills were made: the rest of them hits the run anew.
            assert_same(&learnt(&whole), &learnt(&broken), "after some of the kills");
            fs::remove_dir_all(&broken).unwrap();
            continue;
        }
        child.kill().unwrap();
        child.wait().unwrap();
        killed += 1;
        let debris = fs::read_dir(broken.join("checkpoints")).into_iter().flatten().flatten();
        within_a_checkpoint +=
            usize::from(debris.filter(|e| e.file_name().to_string_lossy().ends_with(".tmp")).count() > 0);
    }
    assert!(start(text(&manifest), &broken, steps).wait().unwrap().success(), "the run cannot be resumed");
    assert_same(&learnt(&whole), &learnt(&broken), "after the kills");
    assert_eq!(steps_of(&whole), steps_of(&broken), "a line per step, none twice");
    println!("{killed} kills, {within_a_checkpoint} of them within the writing of a checkpoint, 0 lost runs");
}

#[cfg(unix)]
fn signal(child: &Child, name: &str) {
    let sent = std::process::Command::new("kill").args([name, &child.id().to_string()]).status();
    assert!(sent.expect("kill starts").success());
}

/// The steps that a run has made so far.
fn steps_of(run: &Path) -> usize {
    fs::read_to_string(run.join("metrics.jsonl")).map_or(0, |text| text.lines().count())
}

/// Waits until a run has made more steps than so many.
fn wait_for_more_than(steps: usize, run: &Path) {
    let begun = Instant::now();
    while steps_of(run) <= steps {
        assert!(begun.elapsed() < Duration::from_secs(60), "no step within a minute");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[cfg(unix)]
#[test]
fn ctrl_c_and_sigterm_finish_the_step_save_and_leave_and_the_run_goes_on_from_there() {
    let dir = tempfile::tempdir().unwrap();
    let manifest = unlabelled(dir.path());
    let (whole, parts) = (dir.path().join("whole"), dir.path().join("parts"));
    let options = ["--masking", "tube", "--steps", "150", "--set", "output.checkpoint_every=0"];
    ok(&tiny(text(&manifest), &whole, &options));
    for (name, first) in [("-INT", true), ("-TERM", false)] {
        let arguments = if first {
            tiny(text(&manifest), &parts, &options)
        } else {
            vec!["pretrain", "--out", text(&parts), "--resume"]
        };
        let before = steps_of(&parts);
        let child = command(&arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        wait_for_more_than(before, &parts);
        signal(&child, name);
        let error = error_of(&child.wait_with_output().unwrap(), 1);
        assert!(error.contains("stopped by a signal after step") && error.contains("--resume"), "{error}");
        assert!(newest(&parts).join("state.json").is_file());
    }
    ok(&["pretrain", "--out", text(&parts), "--resume"]);
    assert_same(&learnt(&whole), &learnt(&parts), "after both signals");
}

#[cfg(unix)]
#[test]
fn a_second_ctrl_c_leaves_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let manifest = unlabelled(dir.path());
    let out = dir.path().join("run");
    // A step of so many clips takes seconds: time enough for two signals, on a busy machine too.
    let mut arguments = vec!["pretrain", "--data", text(&manifest), "--out", text(&out), "--steps", "50"];
    arguments.extend(["--masking", "tube", "--contrastive", "off"]);
    arguments.extend(["--set", "train.batch=384", "--set", "train.micro_batch=64"]);
    let mut child = command(&arguments).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    wait_for_more_than(0, &out);
    signal(&child, "-INT");
    std::thread::sleep(Duration::from_millis(50));
    signal(&child, "-INT");
    let begun = Instant::now();
    assert_eq!(child.wait().unwrap().code(), Some(130));
    assert!(begun.elapsed() < Duration::from_secs(1));
}
