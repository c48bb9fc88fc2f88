//! The demo's data: a synthetic captioned world, rendered beside the run.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use tgm_data::synth::{WorldConfig, write_world};

use crate::progress::Progress;

/// Renders a world, or what is missing of it, with a progress bar; returns its manifest.
///
/// # Errors
/// When the folder holds another world, or cannot be written.
pub fn render(folder: &Path, world: &WorldConfig) -> Result<PathBuf> {
    std::fs::create_dir_all(folder)
        .with_context(|| format!("cannot make the folder {}", folder.display()))?;
    let total = world.train + world.val + world.test;
    let progress = Progress::new("rendering the world", u64::from(total));
    let written = write_world(world, folder, &|done, _| progress.set(done as u64))?;
    progress.finish();
    Ok(written.manifest)
}
