//! Computing a written-down step again.

use std::collections::HashMap;
use std::path::Path;

use anyhow::{Context, Result, bail};
use candle_core::{Device, Tensor};
use tgm_group::Group;
use tgm_mae::TokenSplit;
use tgm_ops::{Gradients, Params};
use tgm_random::Streams;

use super::{BATCH, CHECKPOINT, Fault, Measured, REPORT};
use crate::checkpoint;
use crate::config;
use crate::step::{Joint, MicroBatch};
use crate::trainer::{joint, optimizer};

/// What a replay found.
#[derive(Clone, Debug)]
pub struct Replay {
    /// What was written down.
    pub fault: Fault,
    /// What it comes to now.
    pub measured: Measured,
    /// The reconstruction loss of each clip by itself.
    pub per_clip: Vec<f64>,
    /// Pixels that are not finite, over all clips.
    pub bad_pixels: usize,
}

impl Replay {
    /// Whether this is the step that was written down, number for number.
    pub fn reproduced(&self) -> bool {
        self.measured.same(&self.fault.measured)
    }
}

/// Computes a step again from its folder alone.
///
/// # Errors
/// When the folder is not one that [`super::write`] wrote, or is damaged.
pub fn replay(folder: &Path) -> Result<Replay> {
    let report = folder.join(REPORT);
    let text = std::fs::read_to_string(&report).with_context(|| {
        format!(
            "cannot read {}: give a folder `faults/step-…` of a run, or the last one of it",
            report.display()
        )
    })?;
    let fault: Fault =
        serde_json::from_str(&text).with_context(|| format!("{}: damaged", report.display()))?;
    let weights = folder.join(CHECKPOINT);
    let file = weights.join(checkpoint::RUN);
    let text = std::fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
    let config = config::from_text(&file.display().to_string(), &text, &[])?;
    let tensors = folder.join(BATCH);
    let tensors = candle_core::safetensors::load(&tensors, &Device::Cpu)
        .with_context(|| format!("cannot read {}", tensors.display()))?;
    let batch = micro_batches(tensors, &fault)?;

    let text_dim = match batch.first().and_then(|micro| micro.texts.as_ref()) {
        Some(texts) => Some(texts.dims2()?.1),
        None => None,
    };
    let mut params = Params::new(Streams::new(config.seed), &Device::Cpu);
    let joint = joint(&config, &config::model(&config)?, text_dim, &mut params)?;
    checkpoint::restore(&weights, &params, &mut optimizer(&config, &params))?;
    let mut grads = Gradients::zeros(&params);
    let losses = joint.gradient(&params, &batch, &mut grads, &mut Group::alone())?;
    let measured = Measured::new(&losses, config.contrastive.weight, &params, &grads)?;
    Ok(Replay {
        measured,
        per_clip: per_clip(&joint, &batch)?,
        bad_pixels: batch.iter().map(|micro| bad_values(&micro.tubelets)).sum::<Result<usize>>()?,
        fault,
    })
}

fn micro_batches(mut tensors: HashMap<String, Tensor>, fault: &Fault) -> Result<Vec<MicroBatch>> {
    let mut captions = fault.clips.iter().map(|clip| clip.caption.clone().unwrap_or_default());
    let mut batch = Vec::new();
    for i in 0.. {
        let mut take = |name: &str| tensors.remove(&format!("{i}.{name}"));
        let (Some(tubelets), Some(visible), Some(targets)) =
            (take("tubelets"), take("visible"), take("targets"))
        else {
            break;
        };
        let texts = take("texts");
        let (clips, tokens, _) = tubelets.dims3()?;
        let split = TokenSplit::from_indices(visible, targets, tokens)?;
        let captions: Vec<String> = captions.by_ref().take(clips).collect();
        batch.push(MicroBatch { tubelets, split, texts, captions });
    }
    if batch.is_empty() {
        bail!("{BATCH} holds no clips");
    }
    Ok(batch)
}

fn per_clip(joint: &Joint, batch: &[MicroBatch]) -> Result<Vec<f64>> {
    let mut losses = Vec::new();
    for micro in batch {
        for clip in 0..micro.captions.len() {
            let one = |tensor: &Tensor| tensor.narrow(0, clip, 1)?.contiguous();
            let (visible, targets) = (one(micro.split.visible())?, one(micro.split.targets())?);
            let split = TokenSplit::from_indices(visible, targets, micro.split.tubelets())?;
            let out = joint.mae.forward(&one(&micro.tubelets)?, &split)?;
            losses.push(f64::from(out.loss.to_scalar::<f32>()?));
        }
    }
    Ok(losses)
}

fn bad_values(tensor: &Tensor) -> Result<usize> {
    Ok(tensor.flatten_all()?.to_vec1::<f32>()?.iter().filter(|v| !v.is_finite()).count())
}
