//! What a model makes of a masked clip.

use std::path::Path;

use anyhow::Result;
use candle_core::{Device, Tensor};
use tgm_data::loader::{ClipConfig, Sample};
use tgm_mae::{MaeConfig, TokenSplit, VideoMae};
use tgm_masking::{Mask, Masking};
use tgm_train::pictures::Statistics;
use tgm_train::{model_io, pictures};

use super::{Canvas, Panel, strategy};

/// A pretrained model with the way its clips are made.
#[derive(Debug)]
pub struct Model {
    mae: VideoMae,
    config: MaeConfig,
    clip: ClipConfig,
    /// Also draw with [`Statistics::Oracle`].
    oracle: bool,
}

impl Model {
    /// Opens a run, a checkpoint, or what `tgm import` reads.
    ///
    /// # Errors
    /// When there is none, it has no decoder, or its clips cannot be made from videos.
    pub fn open(path: &Path, oracle: bool) -> Result<Self> {
        let checkpoint = model_io::open(path)?;
        let mae = checkpoint.model(&Device::Cpu)?;
        let clip = model_io::clip_config(&checkpoint, None)?;
        Ok(Self { mae, config: checkpoint.config.clone(), clip, oracle })
    }

    /// How clips are made for it.
    pub fn clip(&self) -> &ClipConfig {
        &self.clip
    }

    /// The reconstruction of one masked clip, in every way that the model's target asks for.
    pub(super) fn panels(&self, sample: &Sample, mask: &Mask, masking: &Masking) -> Result<Vec<Panel>> {
        let (tokens, len) = (self.config.tokens(), self.config.tubelet_len());
        let tubelets = Tensor::from_vec(sample.tubelets()?, (1, tokens, len), &Device::Cpu)?;
        let split = TokenSplit::from_masks(std::slice::from_ref(mask), &Device::Cpu)?;
        let prediction = self.mae.forward(&tubelets, &split)?.prediction.squeeze(0)?.to_vec2::<f32>()?;
        let panel = |name: &str, note: &str, statistics| -> Result<Panel> {
            let clip = pictures::reconstruction(sample, mask, &prediction, &self.clip, statistics)?;
            let per_slot = clip.frames() / sample.grid.slots();
            let frames: Vec<&[u8]> =
                (0..sample.grid.slots()).map(|slot| clip.frame(slot * per_slot)).collect();
            Ok(Panel {
                name: format!("{name}-{}", masking.name()),
                title: format!("Reconstruction: {}", strategy(masking)),
                note: note.into(),
                strip: Canvas::new(sample.grid, &frames, clip.height(), clip.width()).plain(),
            })
        };
        if !self.config.normalize_target {
            return Ok(vec![panel("reconstruction", "visible tubelets are the clip's own", None)?]);
        }
        let honest = "brightness and contrast of hidden tubelets from visible neighbours";
        let mut panels = vec![panel("reconstruction", honest, Some(Statistics::Neighbours))?];
        if self.oracle {
            let oracle = "ORACLE STATISTICS: brightness and contrast of hidden tubelets are their own, which no model knows";
            panels.push(panel("oracle", oracle, Some(Statistics::Oracle))?);
        }
        Ok(panels)
    }
}
