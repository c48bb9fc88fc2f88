//! The `tgm` program, and a model that trains in milliseconds.
#![allow(dead_code, reason = "each test program uses a part of this")]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// Test data of the repository.
pub fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures")
}

/// The manifest of 24 clips of the synthetic world.
pub fn world() -> String {
    text(&fixtures().join("world/manifest.csv")).to_string()
}

/// The program with arguments.
pub fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tgm"));
    command.args(arguments);
    command
}

/// Runs the program.
pub fn tgm(arguments: &[&str]) -> Output {
    command(arguments).output().expect("tgm starts")
}

/// A path as text.
pub fn text(path: &Path) -> &str {
    path.to_str().expect("a path in Unicode")
}

/// What was written to standard error.
pub fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// The standard output of something that succeeded.
pub fn said(output: &Output) -> String {
    assert!(output.status.success(), "{}", stderr(output));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Runs something that succeeds, and returns its standard output.
pub fn ok(arguments: &[&str]) -> String {
    let output = tgm(arguments);
    assert!(output.status.success(), "tgm {arguments:?}: {}", stderr(&output));
    said(&output)
}

/// The one `error:` line of something that failed with this code.
pub fn error_of(output: &Output, code: i32) -> String {
    let stderr = stderr(output);
    assert_eq!(output.status.code(), Some(code), "{stderr}");
    let errors: Vec<&str> = stderr.lines().filter(|line| line.starts_with("error: ")).collect();
    assert_eq!(errors.len(), 1, "{stderr}");
    errors[0].to_string()
}

/// Runs something that fails, and returns its one `error:` line.
pub fn fails(code: i32, arguments: &[&str]) -> String {
    let output = tgm(arguments);
    assert!(!stderr(&output).contains("panicked"), "{}", stderr(&output));
    error_of(&output, code)
}

/// The settings of a model that trains in milliseconds.
pub const TINY: [&str; 10] = [
    "--set",
    "model.encoder={dim=32,depth=1,heads=2,mlp=64}",
    "--set",
    "model.decoder={dim=16,depth=1,heads=2,mlp=32}",
    "--set",
    "train.batch=4",
    "--set",
    "output.pictures=1",
    "--set",
    "schedule.warmup=2",
];

/// Arguments of a tiny run on a manifest.
pub fn tiny<'a>(manifest: &'a str, out: &'a Path, more: &[&'a str]) -> Vec<&'a str> {
    let mut arguments = vec!["pretrain", "--data", manifest, "--out", text(out)];
    arguments.extend(TINY);
    arguments.extend(more);
    arguments
}

/// A manifest of the world's clips without labels, so that runs end without probes.
pub fn unlabelled(folder: &Path) -> PathBuf {
    let manifest = folder.join("clips.csv");
    let mut rows = String::from("path,caption\n");
    let mut videos: Vec<PathBuf> =
        fs::read_dir(fixtures().join("world/videos")).unwrap().map(|e| e.unwrap().path()).collect();
    videos.sort();
    for (i, video) in videos.iter().enumerate() {
        let name = video.file_name().unwrap().to_string_lossy().into_owned();
        fs::copy(video, folder.join(&name)).unwrap();
        rows += &format!("{name},clip number {i}\n");
    }
    fs::write(&manifest, rows).unwrap();
    manifest
}

/// The newest checkpoint of a run.
pub fn newest(run: &Path) -> PathBuf {
    let entries = fs::read_dir(run.join("checkpoints")).unwrap().map(|e| e.unwrap().path());
    let is_checkpoint = |path: &PathBuf| {
        path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("step-"))
            && path.extension().is_none()
    };
    entries.filter(is_checkpoint).max().expect("a checkpoint")
}

/// Names and bytes of the files of the newest checkpoint that hold what was learnt.
pub fn learnt(run: &Path) -> BTreeMap<String, Vec<u8>> {
    let files = fs::read_dir(newest(run)).unwrap().map(|e| e.unwrap().path());
    files
        .filter(|f| f.extension().is_some_and(|e| e == "safetensors"))
        .map(|f| (f.file_name().unwrap().to_string_lossy().into_owned(), fs::read(&f).unwrap()))
        .collect()
}

/// The folder of real clips that stays out of the repository, if it is here: `TGM_SHARED_DATA`, or `../shared/data` beside
/// the repository.
pub fn shared_data(file: &str) -> Option<PathBuf> {
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data");
    let found = std::env::var_os("TGM_SHARED_DATA").map_or(beside, PathBuf::from).join(file);
    if !found.is_file() {
        eprintln!("skipped: shared data not found ({} is absent; set TGM_SHARED_DATA)", found.display());
        return None;
    }
    Some(found)
}

/// A browser that can be driven from a command line, if this machine has one.
pub fn browser() -> Option<&'static str> {
    let names = ["chromium", "chromium-browser", "google-chrome", "google-chrome-stable"];
    let works = |name: &&str| Command::new(name).arg("--version").output().is_ok_and(|o| o.status.success());
    let found = names.into_iter().find(works);
    if found.is_none() {
        eprintln!("skipped: no Chromium here (on Debian and Ubuntu: apt-get install chromium)");
    }
    found
}

/// A page after its scripts have run in a window of this size (`390,844`), and what the console said.
pub fn open_in(browser: &str, page: &Path, window: &str) -> (String, String) {
    let profile = tempfile::tempdir().unwrap();
    let output = Command::new(browser)
        .args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"])
        .args(["--enable-logging=stderr", "--v=0", "--virtual-time-budget=5000", "--dump-dom"])
        .arg(format!("--window-size={window}"))
        .arg(format!("--user-data-dir={}", profile.path().display()))
        .arg(format!("file://{}", page.display()))
        .output()
        .expect("the browser starts");
    let console = stderr(&output);
    let said = console.lines().filter(|line| line.contains("CONSOLE")).collect::<Vec<_>>().join("\n");
    (String::from_utf8_lossy(&output.stdout).into_owned(), said)
}

/// Whether `cargo xtask test --slow` asked for the long form of a test.
pub fn slow() -> bool {
    std::env::var_os("TGM_SLOW_TESTS").is_some()
}
