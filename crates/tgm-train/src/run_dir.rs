//! The folder of a run.
//!
//! ```text
//! config.toml        every key of the configuration
//! environment.jsonl  one line per start: program, machine, command
//! metrics.jsonl      one line per step
//! probes.jsonl       one line per probe
//! checkpoints/       step-00000200/ …, latest, best: see `checkpoint`
//! pictures/          masks and reconstructions
//! tensorboard/       event files
//! faults/            step-00000123/: what `tgm replay` needs, when training broke off
//! lock               held by the process that trains
//! ```

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

/// The folder of one run.
#[derive(Clone, Debug)]
pub struct RunDir {
    path: PathBuf,
}

/// Held by the one process that may write into a run's folder. The system gives it back when the process ends, however it
/// ends.
#[derive(Debug)]
pub struct RunLock {
    _file: Option<File>,
}

impl RunDir {
    /// A new, empty folder for a run, and its lock.
    ///
    /// # Errors
    /// When a run is there already, another process is starting one, or the folder cannot be made.
    pub fn create(path: &Path) -> Result<(Self, RunLock)> {
        let run = Self::at(path);
        run.refuse_if_taken()?;
        fs::create_dir_all(path).with_context(|| format!("cannot make the folder {}", path.display()))?;
        let lock = run.lock()?;
        // Another process may have started and ended a run in between.
        run.refuse_if_taken()?;
        for folder in [run.checkpoints(), run.pictures()] {
            fs::create_dir_all(&folder)
                .with_context(|| format!("cannot make the folder {}", folder.display()))?;
        }
        Ok((run, lock))
    }

    /// Takes back a folder that was made for a run which cannot begin. What else is in it stays.
    pub fn abandon(&self) {
        let _ = fs::remove_file(self.path.join("lock"));
        for folder in [self.checkpoints(), self.pictures(), self.path.clone()] {
            // Only one that is empty.
            let _ = fs::remove_dir(folder);
        }
    }

    fn refuse_if_taken(&self) -> Result<()> {
        if self.config_file().exists() {
            bail!(
                "{}: there is a run here already; continue it with --resume, or choose another folder with --out",
                self.path.display()
            );
        }
        Ok(())
    }

    /// The paths of a run, whether there is one or not.
    pub fn at(path: &Path) -> Self {
        Self { path: path.to_path_buf() }
    }

    /// The folder of an earlier run.
    ///
    /// # Errors
    /// When there is none.
    pub fn open(path: &Path) -> Result<Self> {
        let run = Self::at(path);
        if !run.config_file().is_file() {
            bail!(
                "{}: no run to resume here (there is no config.toml); start one without --resume",
                path.display()
            );
        }
        Ok(run)
    }

    /// Takes the folder for this process.
    ///
    /// # Errors
    /// When another process has it, or nothing can be written there.
    pub fn lock(&self) -> Result<RunLock> {
        match self.lock_unless_taken()? {
            Ok(lock) => Ok(lock),
            Err(holder) => bail!(
                "{}: another tgm ({holder}) is training into this folder; wait for it, stop it, or choose another \
                 folder with --out",
                self.path.display()
            ),
        }
    }

    /// Takes a folder, made if it is not there, for a run that may have been begun; `None` when another process has it.
    ///
    /// # Errors
    /// When nothing can be written there.
    pub fn claim(path: &Path) -> Result<Option<(Self, RunLock)>> {
        let run = Self::at(path);
        for folder in [run.checkpoints(), run.pictures()] {
            fs::create_dir_all(&folder)
                .with_context(|| format!("cannot make the folder {}", folder.display()))?;
        }
        Ok(run.lock_unless_taken()?.ok().map(|lock| (run, lock)))
    }

    /// The lock, or who has it.
    fn lock_unless_taken(&self) -> Result<Result<RunLock, String>> {
        let path = self.path.join("lock");
        let mut file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .open(&path)
            .with_context(|| format!("cannot write {}", path.display()))?;
        match file.try_lock() {
            Ok(()) => {
                let holder = format!("process {}", std::process::id());
                file.set_len(0)
                    .and_then(|()| file.write_all(holder.as_bytes()))
                    .with_context(|| format!("cannot write {}", path.display()))?;
                Ok(Ok(RunLock { _file: Some(file) }))
            }
            Err(TryLockError::WouldBlock) => {
                let mut holder = String::new();
                let _ = file.read_to_string(&mut holder);
                Ok(Err(holder))
            }
            Err(TryLockError::Error(error)) => {
                tracing::warn!(
                    "{}: this file system has no locks ({error}); see to it yourself that only one run writes here",
                    self.path.display()
                );
                Ok(Ok(RunLock { _file: None }))
            }
        }
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

    /// What the run was started with and on, one line per start.
    pub fn environment_file(&self) -> PathBuf {
        self.path.join("environment.jsonl")
    }

    /// The metrics.
    pub fn metrics_file(&self) -> PathBuf {
        self.path.join("metrics.jsonl")
    }

    /// The periodic probes.
    pub fn probes_file(&self) -> PathBuf {
        self.path.join("probes.jsonl")
    }

    /// The folder of the checkpoints.
    pub fn checkpoints(&self) -> PathBuf {
        self.path.join("checkpoints")
    }

    /// The folder of the pictures.
    pub fn pictures(&self) -> PathBuf {
        self.path.join("pictures")
    }

    /// The folder of the event files.
    pub fn tensorboard(&self) -> PathBuf {
        self.path.join("tensorboard")
    }

    /// The folder of the steps that broke training off.
    pub fn faults(&self) -> PathBuf {
        self.path.join("faults")
    }
}

/// Writes a file beside its place, syncs it and renames it: whoever reads it sees the old content or the new.
///
/// # Errors
/// When it cannot be written; the old content is still there then.
pub fn write_atomically(path: &Path, content: &[u8]) -> Result<()> {
    let beside = path.with_extension("tmp");
    let write = || -> std::io::Result<()> {
        let mut file = File::create(&beside)?;
        file.write_all(content)?;
        file.sync_all()?;
        fs::rename(&beside, path)
    };
    write()
        .inspect_err(|_| drop(fs::remove_file(&beside)))
        .with_context(|| format!("cannot write {}", path.display()))
}
