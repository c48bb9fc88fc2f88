//! From an encoder and videos to features: the one path that every protocol shares.

use candle_core::{Device, Tensor};
use tgm_data::loader::{EvalLoader, Sample};
use tgm_mae::Encoder;

use crate::{Error, Features, Result};

/// Clips that go through the encoder together.
const BATCH: usize = 16;

/// Encodes every clip of a loader: the mean of the encoder's tokens over *all* tubelets, averaged over a video's views.
///
/// `classes` is the number of classes of the manifest; `done` hears the number of videos so far.
///
/// # Errors
/// [`Error::Data`] for a bad video (evaluation skips none), [`Error::Unlabelled`] for a row without label,
/// [`Error::Model`] when the clips do not fit the encoder.
pub fn extract(
    encoder: &Encoder,
    clips: EvalLoader,
    classes: usize,
    done: &dyn Fn(usize),
) -> Result<Features> {
    let (mut data, mut labels, mut ids) = (Vec::new(), Vec::new(), Vec::new());
    let mut waiting: Vec<Vec<Sample>> = Vec::new();
    for views in clips {
        let views = views?;
        let Some(first) = views.first() else { continue };
        labels.push(first.label.ok_or_else(|| Error::Unlabelled { path: first.path.clone() })?);
        ids.push(format!("{}#{}", first.path, first.row));
        waiting.push(views);
        if waiting.iter().map(Vec::len).sum::<usize>() >= BATCH {
            data.extend(encode(encoder, &waiting)?);
            waiting.clear();
            done(ids.len());
        }
    }
    data.extend(encode(encoder, &waiting)?);
    done(ids.len());
    let dim = data.len() / ids.len().max(1);
    Features::new(dim, classes, data, labels, ids)
}

/// The feature vectors of several videos, one behind the other.
fn encode(encoder: &Encoder, videos: &[Vec<Sample>]) -> Result<Vec<f32>> {
    let clips: Vec<&Sample> = videos.iter().flatten().collect();
    let Some(first) = clips.first() else { return Ok(Vec::new()) };
    let (tokens, values) = (first.grid.len(), first.tubelets.len());
    let all: Vec<f32> = clips.iter().flat_map(|clip| clip.tubelets.iter().copied()).collect();
    let tubelets = Tensor::from_vec(all, (clips.len(), tokens, values / tokens), &Device::Cpu)?;
    let pooled = encoder.forward_all(&tubelets)?.mean(1)?.to_vec2::<f32>()?;
    let mut pooled = pooled.into_iter();
    Ok(videos.iter().flat_map(|views| mean(pooled.by_ref().take(views.len()))).collect())
}

fn mean(rows: impl Iterator<Item = Vec<f32>>) -> Vec<f32> {
    let (mut sum, mut count) = (Vec::new(), 0f32);
    for row in rows {
        sum.resize(row.len(), 0.0);
        sum.iter_mut().zip(row).for_each(|(sum, value)| *sum += value);
        count += 1.0;
    }
    sum.iter_mut().for_each(|sum| *sum /= count);
    sum
}
