//! A folder for what the programs of a bench read.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// A folder that is gone when the bench ends.
pub(super) struct Scratch(PathBuf);

impl Scratch {
    pub(super) fn new(bench: &str) -> Result<Self> {
        let path = std::env::temp_dir().join(format!("tgm-bench-{bench}-{}", std::process::id()));
        std::fs::create_dir_all(&path).with_context(|| format!("cannot make {}", path.display()))?;
        Ok(Self(path))
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // Nothing depends on whether the folder goes away.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
