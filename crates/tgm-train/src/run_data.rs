//! The data of a run.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result};
use tgm_data::loader::Subset;
use tgm_data::manifest::{Manifest, ManifestOptions, is_video};

use crate::checkpoint::DataPrint;
use crate::config::{Config, ConfigError};

/// The rows of the training split, or all of a manifest without splits.
///
/// # Errors
/// When there is no manifest, or none of its rows is for training.
pub fn training_data(config: &Config) -> Result<Subset> {
    let Some(path) = &config.data.manifest else {
        let config =
            "no data: give --data MANIFEST (CSV or JSON Lines with a column `path`) or --data FOLDER";
        return Err(ConfigError(config.into()).into());
    };
    let manifest = load_manifest(path, config.data.allow_outside)?;
    subset(&manifest, &config.data.train_split)
}

/// Reads a manifest whose paths stay in its folder, or may lie anywhere.
///
/// # Errors
/// As [`Manifest::load`].
pub fn load_manifest(file: &Path, allow_outside: bool) -> Result<Arc<Manifest>> {
    if is_video(file) {
        return Err(ConfigError(format!(
            "{}: is a video; give the folder it lies in, or a manifest that lists it",
            file.display()
        ))
        .into());
    }
    let options = ManifestOptions { allow_outside, ..ManifestOptions::default() };
    Ok(Arc::new(Manifest::load_with(file, &options)?))
}

/// A split, or all rows of a manifest that has none.
///
/// # Errors
/// When the manifest has splits, but not this one.
pub fn subset(manifest: &Arc<Manifest>, split: &str) -> Result<Subset> {
    if manifest.split_names().is_empty() {
        return Ok(Subset::all(manifest));
    }
    Ok(Subset::split(manifest, split)?)
}

/// The rows of a split that was asked for by name, or all rows.
///
/// # Errors
/// When the manifest does not have the split, or no splits at all.
pub fn chosen(manifest: &Arc<Manifest>, split: Option<&str>) -> Result<Subset> {
    match split {
        None => Ok(Subset::all(manifest)),
        Some(split) if manifest.split_names().is_empty() => {
            let file = manifest.file().display();
            Err(ConfigError(format!("--split {split}: {file} has no splits; leave it out")).into())
        }
        Some(split) => subset(manifest, split),
    }
}

/// Looks whether the videos are there, before hours are spent: says how many are not, and fails when more are missing than
/// a run may replace.
///
/// # Errors
/// Naming the first that are missing.
pub fn check_files(data: &Subset, max_missing_share: f64) -> Result<()> {
    let (manifest, rows) = (data.manifest(), data.rows());
    let missing = manifest.missing_files(rows);
    if missing.is_empty() {
        return Ok(());
    }
    if missing.len() as f64 > max_missing_share * rows.len() as f64 {
        return manifest.check_files(rows).with_context(|| {
            format!(
                "more videos are missing than may be replaced (loader.max_bad_share = {max_missing_share})"
            )
        });
    }
    let first = manifest.row(missing[0] as usize).path().to_owned();
    tracing::warn!(
        "{}: {} of {} videos are missing, the first is {first}; others will stand in for them",
        manifest.file().display(),
        missing.len(),
        rows.len()
    );
    Ok(())
}

/// What resuming compares: the rows whose order decides which clips a step gets.
pub fn fingerprint(data: &Subset) -> DataPrint {
    let mut crc = crc32fast::Hasher::new();
    for &row in data.rows() {
        let row = data.manifest().row(row as usize);
        crc.update(row.path().as_bytes());
        for second in [row.start(), row.end()] {
            crc.update(&second.unwrap_or(f64::NAN).to_bits().to_le_bytes());
        }
        for caption in row.captions() {
            crc.update(caption.as_bytes());
            crc.update(&[0]);
        }
        crc.update(&[1]);
    }
    DataPrint { rows: data.rows().len(), crc32: crc.finalize() }
}
