//! What needs no network: neighbours of a still picture, and of pixel differences.

use std::path::Path;

use anyhow::{Context, Result};
use tgm_data::loader::{ClipConfig, EvalLoader, LoaderConfig, MotionSource, Sample, Subset};
use tgm_eval::baseline::{thumbnail_motion, thumbnail_still, with_direction};
use tgm_eval::pass::clip_id;
use tgm_eval::{Features, Protocol, bootstrap, evaluate, knn};
use tgm_random::Streams;
use tgm_train::model_io::ONE_VIEW;
use tgm_train::run_data::subset;

use super::run::Probe;

/// What is asked of each clip.
type Describe = fn(&[u8], [usize; 3]) -> tgm_eval::Result<Vec<f32>>;

/// Top-1 of a nearest neighbour on the first frame (near chance, if the label cannot be read from a still) and on where
/// something moves.
///
/// # Errors
/// When a video is bad.
pub fn measure(manifest: &Path, clip: &ClipConfig, loader: &LoaderConfig) -> Result<Vec<Probe>> {
    let manifest = std::sync::Arc::new(tgm_data::manifest::Manifest::load(manifest)?);
    let clip = ClipConfig { motion: MotionSource::None, ..clip.clone() };
    let [train, test] = ["train", "test"].map(|split| -> Result<Vec<Sample>> {
        let part: Subset = subset(&manifest, split)?;
        let views = EvalLoader::new(&part, &clip, loader, ONE_VIEW)?.collect::<Result<Vec<_>, _>>()?;
        Ok(views.into_iter().flatten().collect())
    });
    let (train, test) = (train?, test?);
    let classes = manifest.classes().len();
    let kinds: [(&str, Describe); 2] =
        [("first frame, kNN", thumbnail_still), ("pixel differences, kNN", thumbnail_motion)];
    kinds
        .into_iter()
        .map(|(name, describe)| {
            let [train, test] = [&train, &test].map(|samples| features(samples, classes, describe));
            let nearest = Protocol::Knn(knn::Settings { k: 5, ..knn::Settings::default() });
            let interval = bootstrap::Settings::default();
            let result = evaluate(&nearest, &train?, &test?, interval, &Streams::new(0))?;
            Ok(Probe { name: name.into(), hits: result.hits()? })
        })
        .collect()
}

fn features(samples: &[Sample], classes: usize, describe: Describe) -> Result<Features> {
    let (mut data, mut labels, mut ids) = (Vec::new(), Vec::new(), Vec::new());
    let mut dim = 0;
    for sample in samples {
        let clip = &sample.clip;
        let row = describe(clip.data(), [clip.frames(), clip.height(), clip.width()])?;
        dim = row.len();
        data.extend(with_direction(row));
        labels.push(sample.label.with_context(|| format!("{} has no label", sample.path))?);
        ids.push(clip_id(&sample.path, sample.row));
    }
    Ok(Features::new(dim, classes, data, labels, ids)?)
}
