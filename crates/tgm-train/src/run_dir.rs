//! The folder of a run.
//!
//! ```text
//! config.toml      every key of the configuration
//! metrics.jsonl    one line per step
//! checkpoints/     step-00000200/ …, see `checkpoint`
//! pictures/        masks and reconstructions
//! ```

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

/// The folder of one run.
#[derive(Clone, Debug)]
pub struct RunDir {
    path: PathBuf,
}

impl RunDir {
    /// A new, empty folder for a run.
    ///
    /// # Errors
    /// When a run is there already, or the folder cannot be made.
    pub fn create(path: &Path) -> Result<Self> {
        let run = Self { path: path.to_path_buf() };
        if run.config_file().exists() {
            bail!(
                "{}: there is a run here already; continue it with --resume, or choose another folder with --out",
                path.display()
            );
        }
        for folder in [run.checkpoints(), run.pictures()] {
            fs::create_dir_all(&folder)
                .with_context(|| format!("cannot make the folder {}", folder.display()))?;
        }
        Ok(run)
    }

    /// The folder of an earlier run.
    ///
    /// # Errors
    /// When there is none.
    pub fn open(path: &Path) -> Result<Self> {
        let run = Self { path: path.to_path_buf() };
        if !run.config_file().is_file() {
            bail!(
                "{}: no run to resume here (there is no config.toml); start one without --resume",
                path.display()
            );
        }
        Ok(run)
    }

    /// The folder for a run that was not given one: `runs/NAME`, `runs/NAME-2`, …; the first that is free, or with
    /// `resume` the last that is taken.
    pub fn default_path(name: &str, resume: bool) -> PathBuf {
        let numbered =
            |i: u32| Path::new("runs").join(if i == 1 { name.to_string() } else { format!("{name}-{i}") });
        let taken = (1..).take_while(|&i| numbered(i).join("config.toml").exists()).last().unwrap_or(0);
        numbered(if resume { taken.max(1) } else { taken + 1 })
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The configuration.
    pub fn config_file(&self) -> PathBuf {
        self.path.join("config.toml")
    }

    /// The metrics.
    pub fn metrics_file(&self) -> PathBuf {
        self.path.join("metrics.jsonl")
    }

    /// The folder of the checkpoints.
    pub fn checkpoints(&self) -> PathBuf {
        self.path.join("checkpoints")
    }

    /// The folder of the pictures.
    pub fn pictures(&self) -> PathBuf {
        self.path.join("pictures")
    }
}

/// Writes a file beside its place, syncs it and renames it: whoever reads it sees the old content or the new.
///
/// # Errors
/// When it cannot be written; the old content is still there then.
pub fn write_atomically(path: &Path, content: &[u8]) -> Result<()> {
    let beside = path.with_extension("tmp");
    let write = || -> std::io::Result<()> {
        let mut file = fs::File::create(&beside)?;
        std::io::Write::write_all(&mut file, content)?;
        file.sync_all()?;
        fs::rename(&beside, path)
    };
    write().with_context(|| format!("cannot write {}", path.display()))
}
