//! From clips to masks: the cues that the masking strategy wants, and the captions' embeddings.

use std::collections::HashMap;

use anyhow::{Context, Result, bail};
use candle_core::{DType, Device, Tensor};
use rayon::prelude::*;
use tgm_clip::cache::Maps;
use tgm_clip::{ClipModel, Frames, ModelSource, ScoreOptions};
use tgm_data::loader::{Sample, Subset};
use tgm_masking::{Cues, Mask, Masking, ScoreMap};
use tgm_random::Streams;

use crate::config::{Config, TextConfig, TextView};
use crate::score_cache::{CachedScores, Rules, through_crop};

/// A tiny CLIP that knows the synthetic world, so that the demo needs no network.
const BUILTIN: ModelSource = ModelSource::Embedded {
    config: include_bytes!("../../../fixtures/tiny-clip/config.json"),
    weights: include_bytes!("../../../fixtures/tiny-clip/model.safetensors"),
    tokenizer: include_bytes!("../../../fixtures/tiny-clip/tokenizer.json"),
};

const NEEDS_CAPTIONS: &str = "text-guided masking and the contrastive loss need the manifest's column `caption` filled (`tgm \
                              caption` writes captions, but not for videos that it cannot read: `tgm data check` writes a \
                              manifest without those), or use --masking tube --contrastive off";

/// Embeddings of this many captions are remembered.
const REMEMBERED: usize = 65_536;

/// Masking strategy and frozen CLIP.
pub struct Guide {
    masking: Masking,
    text: TextConfig,
    streams: Streams,
    clip: Option<ClipModel>,
    cached: Option<CachedScores>,
    embeddings: HashMap<String, Tensor>,
}

impl Guide {
    /// Loads the CLIP if masking or loss need one, and opens the score cache if there is one for these clips.
    ///
    /// # Errors
    /// When a clip has no caption, the CLIP cannot be loaded, or the cache is of another model or made with other options.
    pub fn new(config: &Config, data: &Subset, device: &Device) -> Result<Self> {
        let wanted = config.contrastive.enabled || config.masking.needs_scores();
        if wanted {
            require_captions(data)?;
        }
        let clip = if wanted { Some(load_clip(&config.text, device)?) } else { None };
        let cached = match (&clip, &config.text.cache) {
            (Some(clip), Some(folder)) if config.masking.needs_scores() => {
                let (cached, missing) = CachedScores::open(folder, clip, &config.text, data)?;
                if missing > 0 {
                    let folder = folder.display();
                    tracing::warn!(
                        "{folder}: {missing} captions have no map in the score cache and are scored while training; \
                         `tgm score` makes what is missing"
                    );
                }
                Some(cached)
            }
            _ => None,
        };
        Ok(Self {
            masking: config.masking.clone(),
            text: config.text.clone(),
            streams: Streams::new(config.seed),
            clip,
            cached,
            embeddings: HashMap::new(),
        })
    }

    /// The width of text embeddings, if there is a CLIP.
    pub fn text_dim(&self) -> Option<usize> {
        self.clip.as_ref().map(ClipModel::embedding_dim)
    }

    /// What tells the CLIP from others, if there is one.
    pub fn clip_identity(&self) -> Option<&str> {
        self.clip.as_ref().map(ClipModel::identity)
    }

    /// Embeddings `[B, E]` of the clips' captions.
    ///
    /// # Errors
    /// When a clip has no caption.
    pub fn embed(&mut self, samples: &[Sample]) -> Result<Tensor> {
        let rows = samples.iter().map(|s| self.embedding(s)).collect::<Result<Vec<_>>>()?;
        Ok(Tensor::stack(&rows, 0)?)
    }

    /// One mask per clip; clips are scored in parallel, unless their maps are cached.
    ///
    /// # Errors
    /// When a cue is missing.
    pub fn masks(&mut self, samples: &[Sample]) -> Result<Vec<Mask>> {
        let scores = self.score_maps(samples)?;
        samples.par_iter().zip(&scores).map(|(sample, scores)| self.mask(sample, scores.as_ref())).collect()
    }

    /// The score map of every clip for its caption; none unless the masking needs them.
    ///
    /// # Errors
    /// When a clip has no caption, or the cache cannot be read.
    pub fn score_maps(&mut self, samples: &[Sample]) -> Result<Vec<Option<ScoreMap>>> {
        if !self.masking.needs_scores() {
            return Ok(vec![None; samples.len()]);
        }
        let cached: Vec<Option<ScoreMap>> = match &self.cached {
            Some(cached) => samples.par_iter().map(|sample| cached.map(sample)).collect::<Result<_>>()?,
            None => vec![None; samples.len()],
        };
        let text = |(sample, cached): (&Sample, &Option<ScoreMap>)| match cached {
            Some(_) => Ok(None),
            None => self.embedding(sample).map(Some),
        };
        let texts = samples.iter().zip(&cached).map(text).collect::<Result<Vec<_>>>()?;
        let either = |((cached, sample), text): ((Option<ScoreMap>, &Sample), Option<Tensor>)| match text {
            Some(text) => self.scores(sample, &text).map(Some),
            None => Ok(cached),
        };
        cached.into_par_iter().zip(samples).zip(texts).map(either).collect()
    }

    fn mask(&self, sample: &Sample, scores: Option<&ScoreMap>) -> Result<Mask> {
        let cues = Cues { scores, motion: sample.motion.as_ref() };
        let mut stream = self.streams.stream("mask", sample.epoch, sample.number);
        self.masking.mask(&sample.grid, &cues, &mut stream).with_context(|| sample.path.clone())
    }

    /// The score map of a caption's embedding `[E]` on a clip, by CLIP itself.
    fn scores(&self, sample: &Sample, text: &Tensor) -> Result<ScoreMap> {
        let Some(clip) = &self.clip else { bail!("score maps need a CLIP: set text.model") };
        match self.text.view {
            TextView::Crop => score_clip(clip, sample, text, &self.text.scores),
            TextView::Frame => score_frames(clip, sample, text, &self.text.scores),
        }
    }

    fn embedding(&mut self, sample: &Sample) -> Result<Tensor> {
        let Some(caption) = &sample.caption else {
            bail!("{}: row without a caption; {NEEDS_CAPTIONS}", sample.path);
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

/// Refuses data in which a clip lacks a caption, before a run meets it in the middle.
fn require_captions(data: &Subset) -> Result<()> {
    let manifest = data.manifest();
    let rows = data.rows().iter().map(|&row| manifest.row(row as usize));
    let mut without = rows.filter(|row| row.captions().next().is_none());
    let Some(first) = without.next() else { return Ok(()) };
    bail!(
        "{}:{}: row without a caption (`{}`), as are {} of {}; {NEEDS_CAPTIONS}",
        manifest.file().display(),
        first.line(),
        first.path(),
        1 + without.count(),
        data.rows().len()
    )
}

/// What CLIP says about the clip itself, without a cache: the score map for a caption's embedding `[E]`.
///
/// # Errors
/// When shapes do not fit.
pub fn score_clip(
    clip: &ClipModel,
    sample: &Sample,
    text: &Tensor,
    options: &ScoreOptions,
) -> Result<ScoreMap> {
    let (grid, pixels) = (sample.grid, &sample.clip);
    let frames = Frames::new(pixels.data(), pixels.height(), pixels.width())?;
    let scores = clip.score(frames, text, (grid.rows(), grid.cols()), options)?;
    Ok(ScoreMap::from_frames(grid, pixels.frames() / grid.slots(), &scores)?)
}

/// What CLIP says about the whole frames, seen through the clip's crop: the score map for a caption's embedding `[E]`, as a
/// cache of every frame has it.
///
/// # Errors
/// When the loader was not asked for whole frames, or shapes do not fit.
pub fn score_frames(
    clip: &ClipModel,
    sample: &Sample,
    text: &Tensor,
    options: &ScoreOptions,
) -> Result<ScoreMap> {
    let Some(whole) = &sample.whole else {
        bail!("{}: text.view = \"frame\" needs clip.whole_frames = true", sample.path);
    };
    // At its end a short video repeats its last frame.
    let mut shown: Vec<usize> = (0..whole.frames()).collect();
    shown.dedup_by_key(|at| whole.times()[*at].to_bits());
    let times = shown.iter().map(|&at| whole.times()[at]).collect();
    let pixels: Vec<u8> = shown.iter().flat_map(|&at| whole.frame(at)).copied().collect();
    let side = Rules { options: *options, ..Rules::default() }.side(clip);
    let frames = Frames::new(&pixels, whole.height(), whole.width())?;
    let scores = clip.score(frames, text, (side, side), options)?;
    through_crop(sample, &Maps::new(times, (side, side), &scores)?)
}

/// Loads the CLIP that `text.model` names.
///
/// # Errors
/// When it cannot be had.
pub fn load_clip(text: &TextConfig, device: &Device) -> Result<ClipModel> {
    Ok(ClipModel::load(&source(text)?, device)?)
}

/// Where the CLIP comes from that `text.model` names.
///
/// # Errors
/// When it names none.
pub fn source(text: &TextConfig) -> Result<ModelSource> {
    match text.model.as_str() {
        "builtin" => Ok(BUILTIN),
        other => other.parse().with_context(|| format!("text.model = \"{other}\"")),
    }
}
