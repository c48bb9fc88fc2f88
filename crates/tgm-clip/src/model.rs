//! The two towers together: captions, images and patches in one space.

use std::fmt;

use candle_core::{DType, Device, Tensor};
use tgm_ops::on_worker;

use crate::config::Config;
use crate::score::unit;
use crate::source::ModelFiles;
use crate::text::{EndOfText, TextTower};
use crate::tokenizer::Tokenizer;
use crate::vision::VisionTower;
use crate::weights::Weights;
use crate::{ClipError, Frames, ModelSource, PatchFeatures, Tokens};

/// Captions that go through the text tower together.
const CAPTIONS_PER_PASS: usize = 64;

/// A frozen CLIP: text tower, image tower and tokenizer. Outputs are f32 and carry no gradient graph.
pub struct ClipModel {
    text: TextTower,
    vision: VisionTower,
    tokenizer: Tokenizer,
    /// Unit embedding of the empty caption, `[E]`.
    empty_caption: Tensor,
    embedding_dim: usize,
    image_size: usize,
    patch_size: usize,
    identity: String,
    device: Device,
    dtype: DType,
}

/// Embeddings of captions.
#[derive(Clone, Debug)]
pub struct TextEmbeddings {
    /// `[B, E]`: projected, not normalised.
    pub embeddings: Tensor,
    /// How many captions were longer than the model takes (77 tokens for OpenAI's) and lost their end.
    pub truncated: usize,
}

impl ClipModel {
    /// Loads a model in f32.
    ///
    /// # Errors
    /// See [`ClipError`]: files absent, unreadable or not fitting together, or a model by name that is neither cached
    /// nor to be had from the network.
    pub fn load(source: &ModelSource, device: &Device) -> Result<Self, ClipError> {
        Self::load_with_dtype(source, device, DType::F32)
    }

    /// Loads a model whose weights and activations have the given type: f32, or bf16 for half the memory, with layer-norm
    /// statistics and attention weights still in f32.
    ///
    /// # Errors
    /// As [`ClipModel::load`], and [`ClipError::Setting`] for a type that is neither f32, bf16 nor f16.
    pub fn load_with_dtype(source: &ModelSource, device: &Device, dtype: DType) -> Result<Self, ClipError> {
        if !matches!(dtype, DType::F32 | DType::BF16 | DType::F16) {
            return Err(ClipError::Setting {
                name: "dtype",
                got: dtype.as_str().to_owned(),
                expected: "f32, bf16 or f16".to_owned(),
            });
        }
        let files = ModelFiles::resolve(source)?;
        let config = Config::parse(&files.config, &files.name)?;
        let mut weights = Weights::read(files.weights, &files.name, device, dtype)?;
        let text = TextTower::load(&mut weights, &config)?;
        let vision = VisionTower::load(&mut weights, &config, dtype)?;
        weights.finish()?;
        let tokenizer = Tokenizer::load(
            &files.tokenizer,
            &files.name,
            config.text.vocab_size,
            config.text.max_position_embeddings,
            EndOfText::from_config(config.text.eos_token_id),
        )?;
        let empty_caption = unit(&text.forward(&[tokenizer.encode("")?.ids])?)?.squeeze(0)?;
        Ok(Self {
            text,
            vision,
            tokenizer,
            empty_caption,
            embedding_dim: config.projection_dim,
            image_size: config.vision.image_size,
            patch_size: config.vision.patch_size,
            identity: files.identity,
            device: device.clone(),
            dtype,
        })
    }

    /// The token ids that the text tower sees for a caption.
    ///
    /// # Errors
    /// [`ClipError::Tokenizer`] when the tokenizer fails.
    pub fn tokenize(&self, caption: &str) -> Result<Tokens, ClipError> {
        self.tokenizer.encode(caption)
    }

    /// Embeds captions, as they are: no prompt is put around them. An empty caption is a caption.
    ///
    /// # Errors
    /// [`ClipError::Tokenizer`] when the tokenizer fails.
    pub fn embed_text(&self, captions: &[&str]) -> Result<TextEmbeddings, ClipError> {
        let tokens = captions.iter().map(|caption| self.tokenize(caption)).collect::<Result<Vec<_>, _>>()?;
        let truncated = tokens.iter().filter(|tokens| tokens.truncated).count();
        let ids: Vec<Vec<u32>> = tokens.into_iter().map(|tokens| tokens.ids).collect();
        let mut parts = Vec::new();
        for ids in ids.chunks(CAPTIONS_PER_PASS) {
            parts.push(self.text.forward(ids)?);
        }
        let embeddings = if parts.is_empty() {
            Tensor::zeros((0, self.embedding_dim), DType::F32, &self.device)?
        } else {
            Tensor::cat(&parts, 0)?
        };
        Ok(TextEmbeddings { embeddings, truncated })
    }

    /// CLIP-normalised pixels `[F, 3, height, width]` of whole frames, resized (bicubic, antialiased) where their size
    /// differs. Unlike CLIP's own preprocessing nothing is cropped away: see [`ClipModel::score`].
    ///
    /// # Errors
    /// [`ClipError::Shape`] when the frames cannot be resized to this size, or a side of it is 0.
    pub fn preprocess(&self, frames: Frames<'_>, height: usize, width: usize) -> Result<Tensor, ClipError> {
        frames.to_pixels(height, width, &self.device)
    }

    /// Projected image embeddings `[F, E]` (class token, not normalised) of CLIP-normalised pixels `[F, 3, H, W]`.
    /// For sizes other than [`ClipModel::image_size`] the position embedding is interpolated.
    ///
    /// # Errors
    /// [`ClipError::Shape`] for other than RGB, or images smaller than a patch.
    pub fn image_embedding(&self, pixels: &Tensor) -> Result<Tensor, ClipError> {
        self.check_pixels(pixels)?;
        Ok(on_worker(|| self.vision.image_embedding(pixels))?)
    }

    /// Projected patch features `[F, P, E]` (not normalised) of CLIP-normalised pixels `[F, 3, H, W]`; the patches
    /// `P = (H / patch_size) · (W / patch_size)` row by row. For sizes other than [`ClipModel::image_size`] the
    /// position embedding is interpolated.
    ///
    /// # Errors
    /// [`ClipError::Shape`] for other than RGB, or images smaller than a patch.
    pub fn patch_features(&self, pixels: &Tensor, features: PatchFeatures) -> Result<Tensor, ClipError> {
        self.check_pixels(pixels)?;
        Ok(on_worker(|| self.vision.patch_features(pixels, features))?)
    }

    fn check_pixels(&self, pixels: &Tensor) -> Result<(), ClipError> {
        match *pixels.dims() {
            [_, 3, height, width] if height.min(width) >= self.patch_size => Ok(()),
            ref other => Err(ClipError::Shape {
                what: "pixels",
                got: format!("{other:?}"),
                expected: format!("[F, 3, H, W] with H and W at least {}", self.patch_size),
            }),
        }
    }

    /// Unit embedding `[E]` of the empty caption.
    pub(crate) fn empty_caption(&self) -> &Tensor {
        &self.empty_caption
    }

    /// Dimension `E` of the space that texts and images share.
    pub fn embedding_dim(&self) -> usize {
        self.embedding_dim
    }

    /// Height and width in pixels of the images that the model was trained on.
    pub fn image_size(&self) -> usize {
        self.image_size
    }

    /// Height and width of a patch in pixels.
    pub fn patch_size(&self) -> usize {
        self.patch_size
    }

    /// Where the weights live and outputs appear.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// The type of weights and activations.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// Which model this is, for cache keys: `OWNER/NAME@COMMIT`, or a hash of all files. It does not tell f32 from bf16.
    pub fn identity(&self) -> &str {
        &self.identity
    }
}

impl fmt::Debug for ClipModel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClipModel")
            .field("identity", &self.identity)
            .field("embedding_dim", &self.embedding_dim)
            .field("image_size", &self.image_size)
            .field("patch_size", &self.patch_size)
            .field("device", &self.device)
            .field("dtype", &self.dtype)
            .finish_non_exhaustive()
    }
}
