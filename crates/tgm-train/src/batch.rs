//! From loaded clips to what a step needs: tensors, masks, and enough about each clip to name it later.

use anyhow::Result;
use candle_core::{Device, Tensor};
use serde::{Deserialize, Serialize};
use tgm_data::loader::Sample;
use tgm_mae::{MaeConfig, TokenSplit};
use tgm_masking::Mask;

use crate::guidance::Guide;
use crate::step::MicroBatch;

/// The clips of one optimiser step, in micro-batches.
#[derive(Debug, Default)]
pub struct GlobalBatch {
    /// What the model takes.
    pub micro: Vec<MicroBatch>,
    /// For each masked tubelet of each micro-batch, the nearest visible one, `[B, Nt]`.
    pub nearest: Vec<Tensor>,
    /// All masks, one per clip.
    pub masks: Vec<Mask>,
    /// All clips.
    pub clips: Vec<ClipNote>,
    /// Videos that could not be read and were replaced.
    pub skipped: usize,
}

/// Where a clip came from: enough to make it again.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ClipNote {
    /// The row of the manifest.
    pub row: u32,
    /// The video, as the manifest has it.
    pub path: String,
    /// With [`Self::number`], the name of the clip's random streams.
    pub epoch: u64,
    /// The clip's number within the epoch.
    pub number: u64,
    /// The frames that were taken.
    pub frames: Vec<usize>,
    /// Whether it was mirrored.
    pub flipped: bool,
    /// The caption that was drawn.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub caption: Option<String>,
}

impl From<&Sample> for ClipNote {
    fn from(sample: &Sample) -> Self {
        Self {
            row: sample.row,
            path: sample.path.clone(),
            epoch: sample.epoch,
            number: sample.number,
            frames: sample.frames.clone(),
            flipped: sample.flipped,
            caption: sample.caption.clone(),
        }
    }
}

impl GlobalBatch {
    /// Masks clips and adds them as a micro-batch; `with_texts` embeds their captions.
    ///
    /// # Errors
    /// When a cue or a caption is missing.
    pub fn push(
        &mut self,
        samples: &[Sample],
        guide: &mut Guide,
        model: &MaeConfig,
        with_texts: bool,
        device: &Device,
    ) -> Result<()> {
        let masks = guide.masks(samples)?;
        let texts = if with_texts { Some(guide.embed(samples)?) } else { None };
        let mut tubelets = Vec::with_capacity(samples.iter().map(Sample::values).sum());
        samples.iter().try_for_each(|sample| sample.tubelets_into(&mut tubelets))?;
        let shape = (samples.len(), model.tokens(), model.tubelet_len());
        self.micro.push(MicroBatch {
            tubelets: Tensor::from_vec(tubelets, shape, device)?,
            split: TokenSplit::from_masks(&masks, device)?,
            texts,
            captions: samples.iter().map(|s| s.caption.clone().unwrap_or_default()).collect(),
        });
        let nearest: Vec<u32> = masks.iter().flat_map(Mask::nearest_visible).collect();
        let masked = nearest.len() / samples.len().max(1);
        self.nearest.push(Tensor::from_vec(nearest, (samples.len(), masked), device)?);
        self.masks.extend(masks);
        self.clips.extend(samples.iter().map(ClipNote::from));
        Ok(())
    }

    /// Visible and reconstructed tubelets of a clip.
    pub fn tokens(&self) -> (usize, usize) {
        self.masks.first().map_or((0, 0), |mask| (mask.visible().len(), mask.masked().len()))
    }
}
