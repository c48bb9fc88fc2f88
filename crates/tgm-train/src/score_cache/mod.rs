//! Score maps ahead of training: CLIP looks at every video once, however many epochs follow.
//!
//! [`fill`] writes the maps of whole frames, [`CachedScores`] gives a training clip its map through the same crop, mirror
//! and times as its pixels. With `text.view = "frame"` that is what CLIP says while training, too. With `"crop"` CLIP looks at
//! the cropped picture, and what it says about background differs, because the crop takes context away: a test measures how
//! much.

mod fill;

use std::path::Path;

use anyhow::{Context, Result, bail};
use tgm_clip::cache::{CacheKey, CacheSpec, Maps, Region, ScoreCache};
use tgm_clip::{ClipModel, Resample};
use tgm_data::loader::{Sample, Subset};
use tgm_data::manifest::Row;
use tgm_masking::ScoreMap;

use crate::config::TextConfig;
use crate::row_video::part_name;

pub use fill::{Filled, Rules, fill, fill_for};

/// A cache as training reads it.
#[derive(Debug)]
pub struct CachedScores {
    cache: ScoreCache,
    data: Subset,
}

impl CachedScores {
    /// Opens the cache in a folder for the clips that will be trained on. Its grid and frames may be any; model and options
    /// must be those of the run. Returns beside it how many of the clips' captions have no map.
    ///
    /// # Errors
    /// When there is no cache, it was made by another model or with other options, or none of the clips is in it.
    pub fn open(folder: &Path, clip: &ClipModel, text: &TextConfig, data: &Subset) -> Result<(Self, usize)> {
        let CacheSpec { rows, cols, frames, .. } = CacheSpec::of_folder(folder)?;
        let spec = CacheSpec::new(&model_name(clip), text.scores, (rows, cols), &frames);
        let cache = ScoreCache::open(folder, &spec)?;
        let (mut found, mut missing) = (0, 0);
        for &number in data.rows() {
            let row = data.manifest().row(number as usize);
            for caption in row.captions() {
                // A video that is absent will be a bad one in training; here it only has no map.
                let known = key(&row, caption).is_ok_and(|key| cache.contains(&key));
                if known { found += 1 } else { missing += 1 }
            }
        }
        if found == 0 {
            bail!(
                "{}: none of the {missing} captions of {} has a map in this cache (nor has a video whose size or date \
                 changed since); make them with `{}`",
                folder.display(),
                data.manifest().file().display(),
                command(folder, text, &spec, data)
            );
        }
        Ok((Self { cache, data: data.clone() }, missing))
    }

    /// The map of a clip for its caption, if it is in the cache.
    ///
    /// # Errors
    /// When the cache cannot be read.
    pub fn map(&self, sample: &Sample) -> Result<Option<ScoreMap>> {
        let Some(caption) = &sample.caption else { return Ok(None) };
        let key = key(&self.data.manifest().row(sample.row as usize), caption)?;
        let Some(maps) = self.cache.get(&key)? else { return Ok(None) };
        through_crop(sample, &maps).map(Some)
    }
}

/// The maps of whole frames as a clip sees them: through its crop and mirror, at its times, on its grid.
///
/// # Errors
/// When the crop is no part of the frame.
pub fn through_crop(sample: &Sample, maps: &Maps) -> Result<ScoreMap> {
    let grid = sample.grid;
    let scores = maps
        .crop(&region(sample), sample.flipped, (grid.rows(), grid.cols()), sample.clip.times())
        .with_context(|| sample.path.clone())?;
    Ok(ScoreMap::from_frames(grid, sample.clip.frames() / grid.slots(), &scores)?)
}

/// Which part of the frame a clip shows.
fn region(sample: &Sample) -> Region {
    let (crop, (width, height)) = (sample.crop, sample.frame_size);
    let part = |pixels: u32, all: u32| f64::from(pixels) / f64::from(all);
    Region {
        left: part(crop.x, width),
        top: part(crop.y, height),
        width: part(crop.width, width),
        height: part(crop.height, height),
    }
}

/// The command that makes what is missing in a cache.
fn command(folder: &Path, text: &TextConfig, spec: &CacheSpec, data: &Subset) -> String {
    let grid = match spec.options.resample {
        Resample::Map => String::new(),
        Resample::Positions => format!(" --resample positions --grid {}", spec.rows),
    };
    format!(
        "tgm score --data {} --out {} --model {} --features {}{grid} --every {}",
        data.manifest().file().display(),
        folder.display(),
        text.model,
        spec.options.features.name(),
        fill::every(&spec.frames)
    )
}

/// What the maps of a row and a caption are found by: the file, the part of it that the row is, and the caption.
fn key(row: &Row<'_>, caption: &str) -> Result<CacheKey> {
    Ok(CacheKey::for_file(&part_name(row), row.video().path(), caption)?)
}

/// The model as caches name it: its weights, and the type it runs in.
fn model_name(clip: &ClipModel) -> String {
    format!("{} {}", clip.identity(), clip.dtype().as_str())
}
