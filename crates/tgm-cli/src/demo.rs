//! The demo's data: a synthetic captioned world, rendered beside the run.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use tgm_clip::ModelSource;
use tgm_data::synth::{WorldConfig, write_world};
use tgm_train::config::{Config, Plan};
use tgm_train::guidance::source;
use tgm_train::progress::Progress;
use tgm_train::score_cache;

/// Renders the demo's world into the run's folder, and scores it if the masks need that.
///
/// # Errors
/// As [`render`], and when the scores cannot be made.
pub fn prepare(config: &mut Config, folder: &Path) -> Result<()> {
    // The run can be gone on with from any folder.
    let folder = std::path::absolute(folder)?;
    config.data.manifest = Some(render(&folder.join("world"), &world())?);
    if config.masking.needs_scores() && config.text.cache.is_none() {
        let cache = folder.join("scores");
        score_cache::fill_for(config, &cache)?;
        config.text.cache = Some(cache);
    }
    Ok(())
}

/// What can be checked of a configuration before its world is there.
///
/// # Errors
/// As [`Plan::new`], and when the name of the CLIP is none.
pub fn check(config: &Config) -> Result<()> {
    Plan::new(config, world().train as usize)?;
    if config.masking.needs_scores() || config.contrastive.enabled {
        let source = source(&config.text)?;
        if let ModelSource::Folder(folder) = &source {
            ensure!(folder.is_dir(), "text.model = \"{}\": there is no such folder", folder.display());
        }
    }
    Ok(())
}

/// With fewer clips the contrastive loss learns them by heart: it falls, and the features tell nothing new about clips that were
/// not trained on.
fn world() -> WorldConfig {
    WorldConfig { train: 1920, test: 240, ..WorldConfig::default() }
}

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
