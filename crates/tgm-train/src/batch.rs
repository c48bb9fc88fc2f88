//! From loaded clips to what a step needs: tensors, masks, and enough about each clip to name it later.

use std::borrow::Cow;

use anyhow::Result;
use candle_core::{Device, Tensor};
use serde::{Deserialize, Serialize};
use tgm_data::loader::Sample;
use tgm_mae::{MaeConfig, TokenSplit};
use tgm_masking::Mask;

use crate::guidance::Guide;
use crate::step::{MicroBatch, MicroBatches};

/// The clips of one optimiser step, masked, in micro-batches. All of them are there as bytes; of tubelets, four times as
/// large, those of the micro-batch that is wanted.
#[derive(Debug, Default)]
pub struct ClipBatch {
    /// The micro-batches.
    pub micro: Vec<MaskedClips>,
    /// All masks, one per clip.
    pub masks: Vec<Mask>,
    /// All clips.
    pub clips: Vec<ClipNote>,
    /// Videos that could not be read and were replaced.
    pub skipped: usize,
}

/// The clips of a micro-batch, and what was made of them.
#[derive(Debug)]
pub struct MaskedClips {
    /// The clips, without what only masks are made from.
    pub samples: Vec<Sample>,
    /// For each masked tubelet, the nearest visible one, `[B, Nt]`.
    pub nearest: Tensor,
    split: TokenSplit,
    texts: Option<Tensor>,
    /// B, N and P of the tubelets.
    shape: (usize, usize, usize),
}

/// The same as a [`ClipBatch`] with the tubelets of all clips, to be written down.
#[derive(Debug)]
pub struct GlobalBatch {
    /// What the model takes.
    pub micro: Vec<MicroBatch>,
    /// All masks, one per clip.
    pub masks: Vec<Mask>,
    /// All clips.
    pub clips: Vec<ClipNote>,
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

impl MaskedClips {
    /// What the model takes.
    ///
    /// # Errors
    /// When the tubelets do not tile a clip.
    pub fn micro_batch(&self) -> Result<MicroBatch> {
        let mut tubelets = Vec::with_capacity(self.samples.iter().map(Sample::values).sum());
        self.samples.iter().try_for_each(|sample| sample.tubelets_into(&mut tubelets))?;
        Ok(MicroBatch {
            tubelets: Tensor::from_vec(tubelets, self.shape, self.nearest.device())?,
            split: self.split.clone(),
            texts: self.texts.clone(),
            captions: self.samples.iter().map(|s| s.caption.clone().unwrap_or_default()).collect(),
        })
    }
}

impl MicroBatches for ClipBatch {
    fn count(&self) -> usize {
        self.micro.len()
    }

    fn micro_batch(&self, number: usize) -> Result<Cow<'_, MicroBatch>> {
        Ok(Cow::Owned(self.micro[number].micro_batch()?))
    }
}

impl ClipBatch {
    /// Masks clips and adds them as a micro-batch; `with_texts` embeds their captions.
    ///
    /// # Errors
    /// When a cue or a caption is missing.
    pub fn push(
        &mut self,
        mut samples: Vec<Sample>,
        guide: &mut Guide,
        model: &MaeConfig,
        with_texts: bool,
        device: &Device,
    ) -> Result<()> {
        let masks = guide.masks(&samples)?;
        let texts = if with_texts { Some(guide.embed(&samples)?) } else { None };
        // Whole frames are as large as the clip, and were for the masks alone.
        for sample in &mut samples {
            (sample.whole, sample.motion) = (None, None);
        }
        let nearest: Vec<u32> = masks.iter().flat_map(Mask::nearest_visible).collect();
        let masked = nearest.len() / samples.len().max(1);
        self.clips.extend(samples.iter().map(ClipNote::from));
        self.micro.push(MaskedClips {
            nearest: Tensor::from_vec(nearest, (samples.len(), masked), device)?,
            split: TokenSplit::from_masks(&masks, device)?,
            texts,
            shape: (samples.len(), model.tokens(), model.tubelet_len()),
            samples,
        });
        self.masks.extend(masks);
        Ok(())
    }

    /// Visible and reconstructed tubelets of a clip.
    pub fn tokens(&self) -> (usize, usize) {
        self.masks.first().map_or((0, 0), |mask| (mask.visible().len(), mask.masked().len()))
    }

    /// Makes all tubelets.
    ///
    /// # Errors
    /// When they do not tile a clip.
    pub fn whole(&self) -> Result<GlobalBatch> {
        Ok(GlobalBatch {
            micro: self.micro.iter().map(MaskedClips::micro_batch).collect::<Result<_>>()?,
            masks: self.masks.clone(),
            clips: self.clips.clone(),
        })
    }
}
