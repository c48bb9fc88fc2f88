//! From clips to masks: the cues that the masking strategy wants, and the captions' embeddings.

use std::collections::HashMap;

use anyhow::{Context, Result, bail};
use candle_core::{DType, Device, Tensor};
use rayon::prelude::*;
use tgm_clip::{ClipModel, Frames, ModelSource, slots};
use tgm_data::loader::Sample;
use tgm_masking::{Cues, Mask, Masking, ScoreMap};
use tgm_random::Streams;

use crate::config::{Config, TextConfig};

/// A tiny CLIP that knows the synthetic world, so that the demo needs no network.
const BUILTIN: ModelSource = ModelSource::Embedded {
    config: include_bytes!("../../../fixtures/tiny-clip/config.json"),
    weights: include_bytes!("../../../fixtures/tiny-clip/model.safetensors"),
    tokenizer: include_bytes!("../../../fixtures/tiny-clip/tokenizer.json"),
};

/// Embeddings of this many captions are remembered.
const REMEMBERED: usize = 65_536;

/// Masking strategy and frozen CLIP.
pub struct Guide {
    masking: Masking,
    text: TextConfig,
    streams: Streams,
    clip: Option<ClipModel>,
    embeddings: HashMap<String, Tensor>,
}

impl Guide {
    /// Loads the CLIP if masking or loss need one.
    ///
    /// # Errors
    /// When it cannot be loaded.
    pub fn new(config: &Config, device: &Device) -> Result<Self> {
        let wanted = config.contrastive.enabled || config.masking.needs_scores();
        let clip = if wanted { Some(load_clip(&config.text, device)?) } else { None };
        Ok(Self {
            masking: config.masking.clone(),
            text: config.text.clone(),
            streams: Streams::new(config.seed),
            clip,
            embeddings: HashMap::new(),
        })
    }

    /// The width of text embeddings, if there is a CLIP.
    pub fn text_dim(&self) -> Option<usize> {
        self.clip.as_ref().map(ClipModel::embedding_dim)
    }

    /// Embeddings `[B, E]` of the clips' captions.
    ///
    /// # Errors
    /// When a clip has no caption.
    pub fn embed(&mut self, samples: &[Sample]) -> Result<Tensor> {
        let rows = samples.iter().map(|s| self.embedding(s)).collect::<Result<Vec<_>>>()?;
        Ok(Tensor::stack(&rows, 0)?)
    }

    /// One mask per clip; clips are scored in parallel.
    ///
    /// # Errors
    /// When a cue is missing.
    pub fn masks(&mut self, samples: &[Sample]) -> Result<Vec<Mask>> {
        let texts: Vec<Option<Tensor>> = if self.masking.needs_scores() {
            samples.iter().map(|sample| self.embedding(sample).map(Some)).collect::<Result<_>>()?
        } else {
            vec![None; samples.len()]
        };
        samples.par_iter().zip(&texts).map(|(sample, text)| self.mask(sample, text.as_ref())).collect()
    }

    fn mask(&self, sample: &Sample, text: Option<&Tensor>) -> Result<Mask> {
        let scores = text.map(|text| self.scores(sample, text)).transpose()?;
        let cues = Cues { scores: scores.as_ref(), motion: sample.motion.as_ref() };
        let mut stream = self.streams.stream("mask", sample.epoch, sample.number);
        self.masking.mask(&sample.grid, &cues, &mut stream).with_context(|| sample.path.clone())
    }

    /// The score map of a caption's embedding `[E]` on a clip.
    fn scores(&self, sample: &Sample, text: &Tensor) -> Result<ScoreMap> {
        let Some(clip) = &self.clip else { bail!("score maps need a CLIP: set text.model") };
        let (grid, pixels) = (sample.grid, &sample.clip);
        let frames = Frames::new(pixels.data(), pixels.height(), pixels.width())?;
        let scores = clip.score(frames, text, (grid.rows(), grid.cols()), &self.text.scores)?;
        Ok(ScoreMap::new(grid, slots(&scores, grid.cells(), pixels.frames() / grid.slots())?)?)
    }

    fn embedding(&mut self, sample: &Sample) -> Result<Tensor> {
        let Some(caption) = &sample.caption else {
            bail!(
                "{}: row without a caption; text-guided masking and the contrastive loss need the manifest's column \
                 `caption` (or use --masking tube --contrastive off)",
                sample.path
            );
        };
        if let Some(known) = self.embeddings.get(caption) {
            return Ok(known.clone());
        }
        let Some(clip) = &self.clip else { bail!("embeddings need a CLIP: set text.model") };
        let embedding = clip.embed_text(&[caption])?.embeddings.get(0)?.to_dtype(DType::F32)?.detach();
        if self.embeddings.len() >= REMEMBERED {
            self.embeddings.clear();
        }
        self.embeddings.insert(caption.clone(), embedding.clone());
        Ok(embedding)
    }
}

/// Loads the CLIP that `text.model` names.
///
/// # Errors
/// When it cannot be had.
pub fn load_clip(text: &TextConfig, device: &Device) -> Result<ClipModel> {
    let source = match text.model.as_str() {
        "builtin" => BUILTIN,
        other => other.parse::<ModelSource>().with_context(|| format!("text.model = \"{other}\""))?,
    };
    Ok(ClipModel::load(&source, device)?)
}
