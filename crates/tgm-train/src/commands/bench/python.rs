//! The peers' Python: a virtual environment with pinned packages, made once.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

/// What is installed.
const REQUIREMENTS: &str = include_str!("../../../../../benches/peers/requirements.txt");
/// The program that does the peers' work.
const WORKER: &str = include_str!("../../../../../benches/peers/worker.py");
/// Names another interpreter, which has the packages already.
const OVERRIDE: &str = "TGM_PEERS_PYTHON";

/// An interpreter that has the peers' packages, made on first use (some gigabytes of PyTorch).
///
/// # Errors
/// When there is no Python, or a package cannot be installed.
pub(super) fn interpreter() -> Result<PathBuf> {
    if let Some(python) = std::env::var_os(OVERRIDE) {
        return Ok(python.into());
    }
    let folder = cache().join(format!("peers-{:016x}", fnv(REQUIREMENTS)));
    let python = folder.join("bin").join("python");
    let complete = folder.join("complete");
    if complete.is_file() {
        return Ok(python);
    }
    eprintln!("installing the peers' Python packages into {} (once)", folder.display());
    std::fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    run(Command::new("python3").args(["-m", "venv"]).arg(&folder))?;
    let list = folder.join("requirements.txt");
    std::fs::write(&list, REQUIREMENTS).with_context(|| format!("cannot write {}", list.display()))?;
    run(Command::new(&python).args(["-m", "pip", "install", "--quiet", "-r"]).arg(&list))?;
    std::fs::write(&complete, "").with_context(|| format!("cannot write {}", complete.display()))?;
    Ok(python)
}

/// The peers' side of a piece of work.
///
/// # Errors
/// When the script cannot be written beside the work.
pub(super) fn worker(python: &Path, spec: &Path, options: &[&str]) -> Result<Command> {
    let script = spec.with_file_name("worker.py");
    std::fs::write(&script, WORKER).with_context(|| format!("cannot write {}", script.display()))?;
    let mut command = Command::new(python);
    command.arg(script).arg(spec).args(options);
    Ok(command)
}

fn run(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| format!("cannot start {command:?}"))?;
    ensure!(
        status.success(),
        "{command:?} failed: {status}; install the packages of benches/peers/requirements.txt yourself and set \
         {OVERRIDE} to that interpreter"
    );
    Ok(())
}

fn cache() -> PathBuf {
    let base = std::env::var_os("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .or_else(|| std::env::var_os("HOME").map(|home| Path::new(&home).join(".cache")))
        .unwrap_or_else(std::env::temp_dir);
    base.join("tgm")
}

/// FNV-1a: names a list of requirements, no more.
fn fnv(text: &str) -> u64 {
    text.bytes()
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}
