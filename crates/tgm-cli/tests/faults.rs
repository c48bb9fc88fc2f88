//! What happens to a run when something goes wrong: a clear line, and everything that was saved before is still there.
#![allow(clippy::print_stdout, reason = "says what it skipped, and what it counted")]

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use common::{command, error_of, fails, fixtures, newest, ok, stderr, text, tgm, tiny, unlabelled, world};

/// A run of two steps with a checkpoint after each.
fn two_steps(dir: &Path) -> (PathBuf, PathBuf) {
    let manifest = unlabelled(dir);
    let out = dir.join("run");
    let options = ["--masking", "tube", "--steps", "2", "--set", "output.checkpoint_every=1"];
    ok(&tiny(text(&manifest), &out, &options));
    (manifest, out)
}

/// Asserts that the newest checkpoint can be used, and returns its name.
fn usable(run: &Path) -> String {
    let dir = tempfile::tempdir().unwrap();
    ok(&["export", text(run), "--to", "hugging-face", "--out", text(&dir.path().join("exported"))]);
    newest(run).file_name().unwrap().to_string_lossy().into_owned()
}

#[test]
fn a_damaged_checkpoint_is_passed_over_loudly() {
    for damage in ["cut off", "one bit"] {
        let dir = tempfile::tempdir().unwrap();
        let (_, out) = two_steps(dir.path());
        let file = out.join("checkpoints/step-00000002/model.safetensors");
        let mut bytes = fs::read(&file).unwrap();
        if damage == "one bit" {
            let middle = bytes.len() / 2;
            bytes[middle] ^= 1;
        } else {
            bytes.truncate(bytes.len() / 2);
        }
        fs::write(&file, bytes).unwrap();
        let output = tgm(&["pretrain", "--out", text(&out), "--resume", "--steps", "3"]);
        let stderr = stderr(&output);
        assert!(output.status.success(), "{stderr}");
        assert!(stderr.contains("passing over a damaged checkpoint"), "{damage}: {stderr}");
        assert!(stderr.contains("model.safetensors") && stderr.contains("from step 1"), "{damage}: {stderr}");
    }
}

/// The damaged one counted as the newest: with one to keep, the checkpoint that was just written was deleted again.
#[test]
fn a_run_that_stops_before_a_damaged_checkpoint_keeps_what_it_has_saved() {
    let dir = tempfile::tempdir().unwrap();
    let (_, out) = two_steps(dir.path());
    let resume = |steps: &str, setting: &str| {
        tgm(&["pretrain", "--out", text(&out), "--resume", "--steps", steps, "--set", setting])
    };
    assert!(resume("4", "output.checkpoint_every=0").status.success());
    let checkpoints = out.join("checkpoints");
    fs::write(checkpoints.join("step-00000004/model.safetensors"), "").unwrap();
    let output = resume("3", "output.keep=1");
    let stderr = stderr(&output);
    assert!(output.status.success() && stderr.contains("from step 2"), "{stderr}");
    assert!(stderr.contains("passing over a damaged checkpoint"), "{stderr}");
    assert_eq!(usable(&out), "step-00000003");
    assert!(checkpoints.join("step-00000004.damaged").is_dir());
    assert!(!checkpoints.join("step-00000004").exists());
}

#[test]
fn when_all_checkpoints_are_damaged_the_run_is_not_silently_begun_again() {
    let dir = tempfile::tempdir().unwrap();
    let (_, out) = two_steps(dir.path());
    for step in ["step-00000001", "step-00000002"] {
        fs::remove_file(out.join("checkpoints").join(step).join("optimizer.safetensors")).unwrap();
    }
    let error = fails(1, &["pretrain", "--out", text(&out), "--resume", "--steps", "3"]);
    assert!(error.contains("all 2 checkpoints are damaged"), "{error}");
}

#[cfg(unix)]
#[test]
fn latest_and_best_are_links_that_other_commands_take() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("run");
    let probe =
        ["--masking", "tube", "--steps", "4", "--set", "output.probe_every=1", "--set", "output.keep=1"];
    ok(&tiny(&world(), &out, &probe));
    let checkpoints = out.join("checkpoints");
    assert_eq!(fs::read_link(checkpoints.join("latest")).unwrap(), Path::new("step-00000004"));
    // The best stays although only one of the newest is kept.
    let best = fs::read_link(checkpoints.join("best")).unwrap();
    let state = fs::read_to_string(checkpoints.join(&best).join("state.json")).unwrap();
    let best_score = serde_json::from_str::<serde_json::Value>(&state).unwrap()["score"]["value"].clone();
    let probes = fs::read_to_string(out.join("probes.jsonl")).unwrap();
    let results = probes.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    let results: Vec<f64> = results.map(|line| line["result"].as_f64().unwrap()).collect();
    assert_eq!(results.len(), 4);
    assert_eq!(best_score.as_f64().unwrap(), results.iter().copied().fold(0.0, f64::max));
    let exported = dir.path().join("exported");
    ok(&["export", text(&checkpoints.join("best")), "--to", "hugging-face", "--out", text(&exported)]);
}

#[test]
fn a_second_run_into_the_same_folder_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (_, out) = two_steps(dir.path());
    let arguments = ["pretrain", "--out", text(&out), "--resume", "--steps", "2000"];
    let mut first = command(&arguments).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let metrics = out.join("metrics.jsonl");
    while fs::read_to_string(&metrics).unwrap().lines().count() < 3 {
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    let error = fails(1, &arguments);
    first.kill().unwrap();
    first.wait().unwrap();
    let holder = format!("process {}", first.id());
    assert!(error.contains("another tgm") && error.contains(&holder), "{error}");
    // The system gave the lock back when the process was killed.
    ok(&["pretrain", "--out", text(&out), "--resume", "--steps", "1"]);
}

/// Runs the program where no file may grow beyond `kilobytes`: what a full disk looks like, without one.
#[cfg(unix)]
fn with_small_files(kilobytes: u32, arguments: &[&str]) -> Output {
    // Ignored signals stay ignored after exec: writing then fails instead of killing. `ulimit -f` counts 512 bytes.
    let script = format!("trap '' XFSZ; ulimit -f {}; exec \"$0\" \"$@\"", kilobytes * 2);
    let mut command = Command::new("sh");
    command.args(["-c", &script, env!("CARGO_BIN_EXE_tgm")]).args(arguments);
    command.output().expect("sh starts")
}

#[cfg(unix)]
#[test]
fn when_a_checkpoint_cannot_be_written_whole_the_earlier_ones_stay() {
    let dir = tempfile::tempdir().unwrap();
    let (_, out) = two_steps(dir.path());
    let optimizer = fs::metadata(newest(&out).join("optimizer.safetensors")).unwrap().len();
    let limit = (optimizer / 1024 / 2) as u32;
    let output = with_small_files(limit, &["pretrain", "--out", text(&out), "--resume", "--steps", "3"]);
    let error = error_of(&output, 1);
    assert!(error.contains("cannot write the checkpoint") && error.contains("step-00000003"), "{error}");
    assert_eq!(usable(&out), "step-00000002");
    let left = fs::read_dir(out.join("checkpoints")).unwrap().flatten();
    assert!(left.into_iter().all(|e| !e.file_name().to_string_lossy().ends_with(".tmp")), "debris is left");
    ok(&["pretrain", "--out", text(&out), "--resume", "--steps", "3"]);
}

/// A disk of its own, unmounted at the end.
#[cfg(target_os = "linux")]
struct Disk(PathBuf);

#[cfg(target_os = "linux")]
impl Disk {
    /// None when this user may not mount.
    fn mount(place: PathBuf, bytes: u64) -> Option<Self> {
        fs::create_dir(&place).unwrap();
        let size = format!("size={bytes}");
        let mounted =
            Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs", text(&place)]).output();
        if mounted.is_ok_and(|output| output.status.success()) {
            return Some(Self(place));
        }
        println!("skipped: this user may not mount a small disk");
        None
    }

    /// A copy of a run on this disk.
    fn copy(&self, run: &Path) -> PathBuf {
        let copy = self.0.join("run");
        assert!(Command::new("cp").args(["-a", text(run), text(&copy)]).status().unwrap().success());
        copy
    }
}

#[cfg(target_os = "linux")]
impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.0).status();
    }
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_is_named_and_the_earlier_checkpoints_stay() {
    let dir = tempfile::tempdir().unwrap();
    let (_, source) = two_steps(dir.path());
    let bytes = |files: Vec<PathBuf>| -> u64 {
        files.iter().map(|f| fs::metadata(f).unwrap().len().next_multiple_of(4096)).sum()
    };
    // Room for what is there and half a checkpoint more.
    let size = bytes(walk(&source)) + bytes(walk(&newest(&source))) / 2 + 65536;
    let Some(disk) = Disk::mount(dir.path().join("disk"), size) else { return };
    let run = disk.copy(&source);
    let error = fails(1, &["pretrain", "--out", text(&run), "--resume", "--steps", "9"]);
    assert!(error.contains("No space left on device") && error.contains(text(&run)), "{error}");
    assert_eq!(usable(&run), "step-00000002");
}

#[cfg(target_os = "linux")]
#[test]
fn a_read_only_disk_is_named_and_the_checkpoints_stay() {
    let dir = tempfile::tempdir().unwrap();
    let (_, source) = two_steps(dir.path());
    let Some(disk) = Disk::mount(dir.path().join("disk"), 64 << 20) else { return };
    let run = disk.copy(&source);
    assert!(Command::new("mount").args(["-o", "remount,ro", text(&disk.0)]).status().unwrap().success());
    let error = fails(1, &["pretrain", "--out", text(&run), "--resume", "--steps", "3"]);
    assert!(error.contains("Read-only file system") && error.contains(text(&run)), "{error}");
    assert_eq!(usable(&run), "step-00000002");
}

fn walk(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).unwrap().flatten() {
        let kind = entry.file_type().unwrap();
        if kind.is_dir() {
            files.extend(walk(&entry.path()));
        } else if kind.is_file() {
            files.push(entry.path());
        }
    }
    files
}

#[cfg(target_os = "linux")]
#[test]
fn a_folder_that_cannot_be_written_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let manifest = unlabelled(dir.path());
    // Even root may not make folders here.
    let error = fails(1, &tiny(text(&manifest), Path::new("/proc/tgm-run"), &["--steps", "1"]));
    assert!(error.contains("cannot make the folder /proc/tgm-run"), "{error}");
}

#[cfg(unix)]
#[test]
fn a_folder_that_became_read_only_is_named_and_the_checkpoints_stay() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let (_, out) = two_steps(dir.path());
    let checkpoints = out.join("checkpoints");
    let mode = |mode| fs::set_permissions(&checkpoints, fs::Permissions::from_mode(mode)).unwrap();
    mode(0o555);
    if fs::write(checkpoints.join("probe"), "").is_ok() {
        mode(0o755);
        println!("skipped: this user may write everywhere");
        return;
    }
    let error = fails(1, &["pretrain", "--out", text(&out), "--resume", "--steps", "3"]);
    mode(0o755);
    assert!(error.contains("cannot write the checkpoint"), "{error}");
    assert_eq!(usable(&out), "step-00000002");
}

#[test]
fn a_folder_that_is_deleted_meanwhile_is_an_error_and_does_not_come_back_empty() {
    let dir = tempfile::tempdir().unwrap();
    let manifest = unlabelled(dir.path());
    let out = dir.path().join("run");
    let options = ["--masking", "tube", "--steps", "2000", "--set", "output.checkpoint_every=0"];
    let arguments = tiny(text(&manifest), &out, &[&options[..], &["--set", "output.log_every=1"]].concat());
    let child = command(&arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    while fs::metadata(out.join("metrics.jsonl")).map_or(0, |m| m.len()) == 0 {
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    fs::remove_dir_all(&out).unwrap();
    // The next thing that is saved notices: here, because it is asked to leave.
    let sent = Command::new("kill").args(["-TERM", &child.id().to_string()]).status().unwrap();
    assert!(sent.success());
    let output = child.wait_with_output().unwrap();
    let error = error_of(&output, 1);
    assert!(error.contains("cannot write the checkpoint") && error.contains(text(&out)), "{error}");
    assert!(!out.exists(), "the folder came back");
}

/// Spoils gradients; only builds with debug assertions listen.
fn with_spoilt_gradients(steps: &str, arguments: &[&str]) -> Option<Output> {
    if !cfg!(debug_assertions) {
        println!("skipped: this build has no faults to inject");
        return None;
    }
    Some(command(arguments).env("TGM_SPOIL_GRADIENT", steps).output().expect("tgm starts"))
}

#[test]
fn a_gradient_that_is_not_finite_is_skipped_and_counted_and_the_run_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let (manifest, out) = (unlabelled(dir.path()), dir.path().join("run"));
    let arguments = tiny(text(&manifest), &out, &["--masking", "tube", "--steps", "6"]);
    let Some(output) = with_spoilt_gradients("2,3", &arguments) else { return };
    let told = stderr(&output);
    assert!(output.status.success(), "{told}");
    assert_eq!(told.matches("skipped: step").count(), 2, "{told}");
    let table = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(table.contains("after 6 steps, 2 of them skipped"), "{table}");
    let metrics = fs::read_to_string(out.join("metrics.jsonl")).unwrap();
    let counts: Vec<u64> = metrics
        .lines()
        .map(|line| {
            serde_json::from_str::<serde_json::Value>(line).unwrap()["skipped_steps"].as_u64().unwrap()
        })
        .collect();
    assert_eq!(counts, [0, 0, 1, 2, 2, 2]);
    // The count is part of the checkpoint, so that the optimiser's own count of steps is right after resuming.
    let state = fs::read_to_string(newest(&out).join("state.json")).unwrap();
    assert_eq!(serde_json::from_str::<serde_json::Value>(&state).unwrap()["skipped"], 2);
    let spoilt_later = ["pretrain", "--out", text(&out), "--resume", "--steps", "8"];
    assert!(stderr(&tgm(&spoilt_later)).contains("skipped steps 2"));
}

#[test]
fn skipped_steps_resume_bit_for_bit() {
    let dir = tempfile::tempdir().unwrap();
    let manifest = unlabelled(dir.path());
    let (whole, parts) = (dir.path().join("whole"), dir.path().join("parts"));
    let run = |out: &Path, steps: &str| {
        with_spoilt_gradients("1", &tiny(text(&manifest), out, &["--masking", "tube", "--steps", steps]))
    };
    let Some(output) = run(&whole, "5") else { return };
    assert!(output.status.success(), "{}", stderr(&output));
    run(&parts, "3");
    ok(&["pretrain", "--out", text(&parts), "--resume", "--steps", "5"]);
    assert_eq!(common::learnt(&whole), common::learnt(&parts));
}

#[test]
fn a_run_that_diverges_stops_and_leaves_a_step_that_can_be_replayed_without_its_videos() {
    let dir = tempfile::tempdir().unwrap();
    let (manifest, out) = (unlabelled(dir.path()), dir.path().join("run"));
    let wild = [
        "--masking",
        "text",
        "--steps",
        "40",
        "--set",
        "schedule.base_lr=1e30",
        "--set",
        "train.max_skipped=2",
    ];
    let error = fails(1, &tiny(text(&manifest), &out, &wild));
    assert!(error.contains("tgm replay") && error.contains("2 steps before"), "{error}");
    let faults: Vec<PathBuf> = fs::read_dir(out.join("faults")).unwrap().map(|e| e.unwrap().path()).collect();
    assert_eq!(faults.len(), 1);
    for file in ["fault.json", "batch.safetensors", "clip-0.png", "checkpoint/model.safetensors"] {
        assert!(faults[0].join(file).is_file(), "{file}");
    }
    let report = fs::read_to_string(faults[0].join("fault.json")).unwrap();
    for wanted in ["mask(seed 0, epoch ", "shuffle(seed 0", "\"gradient_faults\"", "\"caption\"", ".mp4"] {
        assert!(report.contains(wanted), "{wanted}");
    }
    // Elsewhere, and with the videos gone.
    let moved = dir.path().join("moved");
    fs::rename(&faults[0], &moved).unwrap();
    fs::remove_dir_all(&out).unwrap();
    fs::remove_file(&manifest).unwrap();
    let table = ok(&["replay", text(&moved)]);
    assert!(table.contains("reproduced: the same numbers"), "{table}");
    // A step that is not the one that was written down is noticed.
    fs::write(moved.join("fault.json"), with_another_norm(&report)).unwrap();
    let error = fails(1, &["replay", text(&moved)]);
    assert!(error.contains("other numbers"), "{error}");
    let error = fails(1, &["replay", text(dir.path())]);
    assert!(error.contains("fault.json"), "{error}");
}

/// Another value for the first parameter's weight norm.
fn with_another_norm(report: &str) -> String {
    let mut report: serde_json::Value = serde_json::from_str(report).unwrap();
    let parameters = report["measured"]["parameters"].as_object_mut().unwrap();
    parameters.values_mut().next().unwrap()["weight"] = 1.5.into();
    report.to_string()
}

#[test]
fn a_panic_in_a_loader_thread_ends_the_run_with_what_was_learnt_saved() {
    if !cfg!(debug_assertions) {
        println!("skipped: this build has no faults to inject");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let (manifest, out) = (unlabelled(dir.path()), dir.path().join("run"));
    let rows = fs::read_to_string(&manifest).unwrap();
    let victim = rows.lines().nth(7).unwrap().split(',').next().unwrap();
    let options = ["--masking", "tube", "--steps", "200", "--set", "output.checkpoint_every=0"];
    let output =
        command(&tiny(text(&manifest), &out, &options)).env("TGM_PANIC_AT", victim).output().unwrap();
    let error = error_of(&output, 1);
    assert!(error.contains("a loader thread panicked") && error.contains(victim), "{error}");
    assert!(error.contains("saved in"), "{error}");
    assert_eq!(usable(&out), newest(&out).file_name().unwrap().to_string_lossy());
    // The defect mended, the run goes on.
    ok(&["pretrain", "--out", text(&out), "--resume", "--steps", "8"]);
}

#[test]
fn data_that_is_missing_or_other_data_at_resume_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let (manifest, out) = two_steps(dir.path());
    let resume = ["pretrain", "--out", text(&out), "--resume", "--steps", "3"];
    let rows = fs::read_to_string(&manifest).unwrap();

    let away = dir.path().join("away.csv");
    fs::rename(&manifest, &away).unwrap();
    let error = fails(1, &resume);
    assert!(error.contains("clips.csv"), "{error}");

    // A row less: the order of the clips would be another one.
    let fewer: String = rows.lines().take(20).map(|line| format!("{line}\n")).collect();
    fs::write(&manifest, fewer).unwrap();
    let error = fails(1, &resume);
    assert!(error.contains("24 rows") && error.contains("19 rows"), "{error}");
    assert!(error.contains("--allow-changes"), "{error}");
    let output = tgm(&[&resume[..], &["--allow-changes"]].concat());
    assert!(output.status.success() && stderr(&output).contains("24 rows"), "{}", stderr(&output));

    // The same rows elsewhere are the same data.
    fs::rename(&away, &manifest).unwrap();
    let elsewhere = tempfile::tempdir().unwrap();
    let copied = unlabelled(elsewhere.path());
    let (_, out) = two_steps(&fresh(dir.path()));
    ok(&["pretrain", "--out", text(&out), "--resume", "--steps", "3", "--data", text(&copied)]);

    // Videos that are gone are noticed before the first step.
    for entry in fs::read_dir(dir.path().join("fresh")).unwrap().flatten() {
        if entry.path().extension().is_some_and(|e| e == "mp4") {
            fs::remove_file(entry.path()).unwrap();
        }
    }
    let lost = dir.path().join("fresh/clips.csv");
    let resume = ["pretrain", "--out", text(&out), "--resume", "--steps", "4", "--data", text(&lost)];
    let error = fails(1, &resume);
    assert!(error.contains("24") && error.contains("missing"), "{error}");
}

fn fresh(dir: &Path) -> PathBuf {
    let fresh = dir.join("fresh");
    fs::create_dir(&fresh).unwrap();
    fresh
}

#[test]
fn resuming_with_another_configuration_lists_the_differences_and_is_refused_unless_allowed() {
    let dir = tempfile::tempdir().unwrap();
    let (_, out) = two_steps(dir.path());
    let resume = ["pretrain", "--out", text(&out), "--resume", "--steps", "3"];
    let other = ["--set", "train.weight_decay=0.5", "--set", "schedule.base_lr=1e-3"];
    let changed = [&resume[..], &other].concat();
    let error = fails(2, &changed);
    assert!(error.contains("schedule.base_lr: 0.008 → 0.001"), "{error}");
    assert!(error.contains("train.weight_decay: 0.05 → 0.5"), "{error}");
    let output = tgm(&[&changed[..], &["--allow-changes"]].concat());
    assert!(output.status.success() && stderr(&output).contains("0.05 → 0.5"), "{}", stderr(&output));
    // From now on this is the run's configuration.
    assert!(fs::read_to_string(out.join("config.toml")).unwrap().contains("weight_decay = 0.5"));
    let error = fails(1, &tiny(&world(), &out, &["--steps", "1"]));
    assert!(error.contains("--resume"), "{error}");
}

#[test]
fn auto_resume_starts_goes_on_and_does_nothing_more_at_the_end() {
    let dir = tempfile::tempdir().unwrap();
    let (manifest, out) = (unlabelled(dir.path()), dir.path().join("run"));
    let run = |steps: &str| {
        let options = ["--masking", "tube", "--auto-resume", "--steps", steps];
        stderr(&tgm(&tiny(text(&manifest), &out, &options)))
    };
    assert!(run("2").contains("from step 0"));
    assert!(run("4").contains("from step 2"));
    assert!(run("4").contains("from step 4"));
    assert!(fixtures().is_dir());
    assert_eq!(fs::read_to_string(out.join("metrics.jsonl")).unwrap().lines().count(), 4);
}

/// Damage in a checkpoint that was named itself went unnoticed.
#[test]
fn a_damaged_checkpoint_is_refused_by_its_own_path_too() {
    let dir = tempfile::tempdir().unwrap();
    let (manifest, out) = (unlabelled(dir.path()), dir.path().join("run"));
    ok(&tiny(text(&manifest), &out, &["--masking", "tube", "--steps", "1"]));
    let checkpoint = out.join("checkpoints/latest");
    let weights = checkpoint.join("model.safetensors");
    let mut bytes = fs::read(&weights).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(&weights, bytes).unwrap();
    let features = dir.path().join("features.safetensors");
    let arguments =
        ["features", "--checkpoint", text(&checkpoint), "--data", text(&manifest), "--out", text(&features)];
    let error = fails(1, &arguments);
    assert!(error.contains("damaged, checksum") && error.contains("model.safetensors"), "{error}");
    let to = dir.path().join("exported");
    fails(1, &["export", text(&checkpoint), "--to", "hugging-face", "--out", text(&to)]);
    assert!(!features.exists() && !to.exists());
}

#[test]
fn a_last_step_that_ruins_the_weights_is_not_saved() {
    let dir = tempfile::tempdir().unwrap();
    let (manifest, out) = (unlabelled(dir.path()), dir.path().join("run"));
    let options = ["--masking", "tube", "--steps", "2", "--set", "output.checkpoint_every=1"];
    let options = [&options[..], &["--set", "schedule.base_lr=1e42"]].concat();
    let output = tgm(&tiny(text(&manifest), &out, &options));
    assert!(stderr(&output).contains("its weights are not finite"), "{}", stderr(&output));
    assert_eq!(usable(&out), "step-00000001");
}

/// The way out that the error names led back into it: the newest checkpoint held weights that are not numbers.
#[test]
fn weights_that_are_no_longer_finite_are_not_saved_and_the_run_goes_on_from_those_that_were() {
    let dir = tempfile::tempdir().unwrap();
    let manifest = unlabelled(dir.path());
    let out = dir.path().join("run");
    let options = ["--masking", "tube", "--steps", "9", "--set", "output.checkpoint_every=1"];
    // The first step is at rate 0; the second one is too large for f32.
    let options = [&options[..], &["--set", "schedule.base_lr=1e42"]].concat();
    let output = tgm(&tiny(text(&manifest), &out, &options));
    let error = error_of(&output, 1);
    assert!(error.contains("goes on from") && error.contains("step-00000001"), "{error}");
    assert!(!out.join("checkpoints/step-00000003").exists(), "not one that steps fail from");
    assert_eq!(usable(&out), "step-00000001");
    ok(&[
        "pretrain",
        "--out",
        text(&out),
        "--resume",
        "--allow-changes",
        "--set",
        "schedule.base_lr=1e-3",
        "--steps",
        "4",
    ]);
}

/// As on a network drive where somebody has a file of it open.
#[test]
fn an_old_checkpoint_that_cannot_be_deleted_ends_no_training() {
    let dir = tempfile::tempdir().unwrap();
    let manifest = unlabelled(dir.path());
    let out = dir.path().join("run");
    // In the way of the name that it has while it goes.
    let blocked = out.join("checkpoints/step-00000001.old.tmp");
    fs::create_dir_all(&blocked).unwrap();
    fs::write(blocked.join("open"), "").unwrap();
    let options = ["--masking", "tube", "--steps", "4", "--set", "output.checkpoint_every=1"];
    let options = [&options[..], &["--set", "output.keep=1", "--set", "output.keep_best=0"]].concat();
    let output = tgm(&tiny(text(&manifest), &out, &options));
    assert!(output.status.success(), "{}", stderr(&output));
    assert!(stderr(&output).contains("cannot delete the old checkpoint"), "{}", stderr(&output));
    assert_eq!(usable(&out), "step-00000004");
}

#[test]
fn a_probe_that_a_kill_prevented_is_made_when_the_run_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("run");
    let world = world();
    let options =
        ["--masking", "tube", "--contrastive", "off", "--steps", "2", "--set", "output.probe_every=2"];
    ok(&tiny(&world, &out, &options));
    let probes = fs::read_to_string(out.join("probes.jsonl")).unwrap();
    // As it is when the process is killed between the checkpoint and its probe.
    let state = newest(&out).join("state.json");
    let mut unrated: serde_json::Value = serde_json::from_slice(&fs::read(&state).unwrap()).unwrap();
    assert!(unrated.as_object_mut().unwrap().remove("score").is_some());
    fs::write(&state, unrated.to_string()).unwrap();
    fs::write(out.join("probes.jsonl"), "").unwrap();
    ok(&["pretrain", "--out", text(&out), "--resume"]);
    assert_eq!(fs::read_to_string(out.join("probes.jsonl")).unwrap(), probes);
    assert!(fs::read_to_string(&state).unwrap().contains("kNN"));
}

#[test]
fn a_run_that_cannot_begin_leaves_no_folder() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("run");
    let world = world();
    fails(2, &tiny(&world, &out, &["--masking", "tube", "--set", "schedule.base_lr=-1"]));
    assert!(!out.exists());
}
