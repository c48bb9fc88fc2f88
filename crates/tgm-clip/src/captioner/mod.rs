//! Captions for videos that have none: BLIP (Li et al., arXiv 2201.12086) describes single frames.
//!
//! The network is that of `candle-transformers`; configuration, strict loading, preprocessing and decoding are ours. Its
//! text decoder has limits that shape this module:
//!
//! * It adds positions without broadcasting, so it takes one caption at a time. The image tower takes many images.
//! * Keys and values of the *image* tokens are computed anew for every token of a caption. For BLIP base at 384 pixels
//!   that is about a seventh of the image tower's work per token: writing costs more than seeing.
//! * Its causal mask covers new tokens only and is f32: no prompt ("a picture of") after the first token, no bf16.
//!
//! ```
//! use candle_core::Device;
//! use tgm_clip::captioner::{CaptionOptions, Captioner, key_frames};
//! use tgm_clip::{Frames, ModelSource};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! // A tiny random BLIP. A real one: `ModelSource::blip_base()`, or a folder with its files.
//! let source: ModelSource = "../../fixtures/blip-tiny".parse()?;
//! let captioner = Captioner::load(&source, &Device::Cpu)?;
//!
//! assert_eq!(key_frames(300), [50, 150, 250]);
//! let (height, width) = (48, 64);
//! let bytes = vec![127; 3 * height * width * 3]; // three grey key frames
//! let frames = Frames::new(&bytes, height, width)?;
//! let captions = captioner.caption(&[frames], &CaptionOptions { max_new_tokens: 12 })?;
//! assert_eq!(captions.len(), 3);
//! # Ok(())
//! # }
//! ```

mod config;
mod load;
mod tokens;

use std::fmt;

use candle_core::{Device, IndexOp, Module, Tensor};
use candle_transformers::models::blip::VisionModel;
use candle_transformers::models::blip_text::TextLMHeadModel;
use serde::{Deserialize, Serialize};

use self::tokens::CaptionTokens;
use crate::{ClipError, Frames, ModelSource};

/// Pictures that go through the image tower together: its attention weights take 16 MB for each.
const IMAGES_PER_PASS: usize = 8;

/// How captions are decoded. Decoding is greedy: the same frame always gets the same caption.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CaptionOptions {
    /// Most tokens of a caption, the end-of-text token counted and the start token not (`max_new_tokens` of
    /// `transformers`). Default: 20, the length that BLIP's captioning checkpoints come with.
    pub max_new_tokens: usize,
}

impl Default for CaptionOptions {
    fn default() -> Self {
        Self { max_new_tokens: 20 }
    }
}

/// What the model says about one frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caption {
    /// The caption; may be empty.
    pub text: String,
    /// Its token ids, without start and end of text.
    pub tokens: Vec<u32>,
    /// Whether the model ended the caption itself; otherwise it was cut at [`CaptionOptions::max_new_tokens`].
    pub complete: bool,
}

/// A frozen BLIP captioning model with its tokenizer.
pub struct Captioner {
    vision: VisionModel,
    decoder: TextLMHeadModel,
    tokens: CaptionTokens,
    image_size: usize,
    /// Positions of the text decoder.
    max_tokens: usize,
    identity: String,
    device: Device,
}

impl Captioner {
    /// Loads a model in f32, strictly: every parameter must be found, and every weight used.
    ///
    /// A folder needs `config.json`, `model.safetensors` (or `pytorch_model.bin`) and `tokenizer.json`.
    ///
    /// # Errors
    /// See [`ClipError`]: files absent, unreadable or not fitting together, or a model by name that is neither cached
    /// nor to be had from the network.
    pub fn load(source: &ModelSource, device: &Device) -> Result<Self, ClipError> {
        load::load(source, device)
    }

    /// One caption per frame, in the order of the frames. Videos of different sizes can go in one call.
    ///
    /// Frames are resized as by `BlipImageProcessor`: whole, bicubic and antialiased, to the square that the model takes.
    ///
    /// # Errors
    /// [`ClipError::Setting`] when `max_new_tokens` is 0 or more than the positions of the model; [`ClipError::Shape`] when
    /// frames cannot be resized; [`ClipError::Tokenizer`] when the tokenizer fails.
    pub fn caption(
        &self,
        frames: &[Frames<'_>],
        options: &CaptionOptions,
    ) -> Result<Vec<Caption>, ClipError> {
        if !(1..=self.max_tokens).contains(&options.max_new_tokens) {
            return Err(ClipError::Setting {
                name: "max_new_tokens",
                got: options.max_new_tokens.to_string(),
                expected: format!("1 to {}", self.max_tokens),
            });
        }
        let single: Vec<Frames<'_>> = frames.iter().flat_map(|frames| frames.chunks(1)).collect();
        let mut captions = Vec::with_capacity(single.len());
        for batch in single.chunks(IMAGES_PER_PASS) {
            let pixels = batch
                .iter()
                .map(|frame| frame.to_pixels(self.image_size, self.image_size, &self.device))
                .collect::<Result<Vec<_>, _>>()?;
            let image_tokens = self.vision.forward(&Tensor::cat(&pixels, 0)?)?;
            for i in 0..batch.len() {
                let (tokens, complete) = self.decode(&image_tokens.i(i..=i)?, options.max_new_tokens)?;
                captions.push(Caption { text: self.tokens.text(&tokens)?, tokens, complete });
            }
        }
        Ok(captions)
    }

    /// Greedy decoding for the tokens of one image `[1, P, C]`: the tokens of its caption, and whether it ended.
    fn decode(&self, image_tokens: &Tensor, max_new_tokens: usize) -> candle_core::Result<(Vec<u32>, bool)> {
        let mut writer = Writer::new(&self.decoder);
        let mut tokens = Vec::new();
        let mut last = self.tokens.start;
        for _ in 0..max_new_tokens {
            last = writer.step(last, image_tokens)?.argmax(0)?.to_scalar()?;
            if last == self.tokens.end {
                return Ok((tokens, true));
            }
            tokens.push(last);
        }
        Ok((tokens, false))
    }

    /// Height and width in pixels to which frames are resized.
    pub fn image_size(&self) -> usize {
        self.image_size
    }

    /// Where the weights live.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// Which model this is: `OWNER/NAME@COMMIT`, or a hash of all files.
    pub fn identity(&self) -> &str {
        &self.identity
    }
}

impl fmt::Debug for Captioner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Captioner")
            .field("identity", &self.identity)
            .field("image_size", &self.image_size)
            .field("device", &self.device)
            .finish_non_exhaustive()
    }
}

/// The text decoder in the middle of a caption.
struct Writer(TextLMHeadModel);

impl Writer {
    /// candle keeps the past of a caption inside the model. A copy shares the weights and has a past of its own, so that
    /// a captioner can be shared between threads, and an error leaves nothing behind.
    fn new(fresh: &TextLMHeadModel) -> Self {
        Self(fresh.clone())
    }

    /// Logits `[V]` of the token that follows `last`.
    fn step(&mut self, last: u32, image_tokens: &Tensor) -> candle_core::Result<Tensor> {
        let ids = Tensor::new(&[[last]], image_tokens.device())?;
        self.0.forward(&ids, image_tokens)?.i((0, 0))
    }
}

/// Numbers of the three frames that stand for a video: the centres of its thirds, as the paper takes three evenly spaced
/// key frames (arXiv 2408.00759) without saying which. Fewer for videos of fewer than three frames.
///
/// ```
/// use tgm_clip::captioner::key_frames;
/// assert_eq!(key_frames(30), [5, 15, 25]);
/// assert_eq!(key_frames(2), [0, 1]);
/// assert!(key_frames(0).is_empty());
/// ```
pub fn key_frames(frame_count: usize) -> Vec<usize> {
    if frame_count < 3 {
        return (0..frame_count).collect();
    }
    // ⌊n·k/6⌋ for k = 1, 3, 5, without overflow.
    [1, 3, 5].iter().map(|k| frame_count / 6 * k + frame_count % 6 * k / 6).collect()
}

#[cfg(test)]
mod tests;
