//! The peers' Python: a virtual environment with pinned packages, made once.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

/// A program that does the peers' work, and what it needs.
pub(super) struct Script {
    file: &'static str,
    text: &'static str,
    requirements: &'static str,
}

/// The peers of `bench step` and `bench score`.
pub(super) const MODELS: Script = Script {
    file: "worker.py",
    text: include_str!("../../../../../benches/peers/worker.py"),
    requirements: include_str!("../../../../../benches/peers/requirements.txt"),
};
/// The peers of `bench decode`.
pub(super) const DECODERS: Script = Script {
    file: "decode.py",
    text: include_str!("../../../../../benches/peers/decode.py"),
    requirements: include_str!("../../../../../benches/peers/requirements-decode.txt"),
};
/// The peers of `bench mask`.
pub(super) const MASKS: Script = Script {
    file: "mask.py",
    text: include_str!("../../../../../benches/peers/mask.py"),
    requirements: MODELS.requirements,
};
/// Names another interpreter, which has the packages already.
const OVERRIDE: &str = "TGM_PEERS_PYTHON";

impl Script {
    /// An interpreter that has the packages, made on first use (some gigabytes of PyTorch).
    ///
    /// # Errors
    /// When there is no Python, or a package cannot be installed.
    pub(super) fn interpreter(&self) -> Result<PathBuf> {
        if let Some(python) = std::env::var_os(OVERRIDE) {
            return Ok(python.into());
        }
        let folder = cache().join(format!("peers-{:08x}", crc32fast::hash(self.requirements.as_bytes())));
        let python = folder.join("bin").join("python");
        let complete = folder.join("complete");
        if complete.is_file() {
            return Ok(python);
        }
        eprintln!("installing the peers' Python packages into {} (once)", folder.display());
        std::fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        run(Command::new("python3").args(["-m", "venv"]).arg(&folder))?;
        let list = folder.join("requirements.txt");
        std::fs::write(&list, self.requirements)
            .with_context(|| format!("cannot write {}", list.display()))?;
        run(Command::new(&python).args(["-m", "pip", "install", "--quiet", "-r"]).arg(&list))?;
        std::fs::write(&complete, "").with_context(|| format!("cannot write {}", complete.display()))?;
        Ok(python)
    }

    /// The peers' side of the work that `spec` describes.
    ///
    /// # Errors
    /// When the script cannot be written beside `spec`.
    pub(super) fn command(&self, python: &Path, spec: &Path, options: &[&str]) -> Result<Command> {
        let script = spec.with_file_name(self.file);
        std::fs::write(&script, self.text).with_context(|| format!("cannot write {}", script.display()))?;
        let mut command = Command::new(python);
        command.arg(script).arg(spec).args(options);
        Ok(command)
    }
}

fn run(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| format!("cannot start {command:?}"))?;
    ensure!(
        status.success(),
        "{command:?} failed: {status}; install the packages of that list yourself (benches/peers has it) and set {OVERRIDE} \
         to the interpreter that has them"
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
