//! How well each patch of a frame matches a caption.
//!
//! A frozen CLIP (Radford et al., arXiv 2103.00020) in the Hugging Face layout embeds captions, images and *patches*
//! of images into one space; [`ClipModel::score`] turns frames and a caption's embedding into score maps on the grid
//! of the masked autoencoder, for text-guided masking. [`cache`] keeps the maps of whole frames on disk and sees them
//! through the crops of training; [`captioner`] writes captions for videos that have none.
//!
//! The towers are written here and not taken from `candle-transformers`: its CLIP gives no projected patch tokens,
//! does not interpolate positions, has quick-GELU and the layer-norm epsilon fixed, and ignores `eos_token_id`. Names of
//! weights, configuration and results are those of `transformers`; loading is strict in both directions, and nothing in
//! a pickle is executed.
//!
//! ```
//! use tgm_clip::candle_core::Device;
//! use tgm_clip::tgm_masking::{Grid, ScoreMap};
//! use tgm_clip::{ClipModel, Frames, ModelSource, ScoreOptions};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! // A tiny random CLIP. A real one: `ModelSource::vit_b32()`, or a folder with its files.
//! let source: ModelSource = "../../fixtures/clip-quick-gelu".parse()?;
//! let clip = ClipModel::load(&source, &Device::Cpu)?;
//!
//! let text = clip.embed_text(&["a red circle moves to the left"])?;
//! assert_eq!(text.truncated, 0);
//!
//! let (height, width) = (48, 64);
//! let bytes = vec![127; 4 * height * width * 3]; // four grey frames
//! let frames = Frames::new(&bytes, height, width)?;
//! let scores = clip.score(frames, &text.embeddings.get(0)?, (6, 8), &ScoreOptions::default())?;
//! // A score for each tubelet of two frames: what text-guided masking takes.
//! let map = ScoreMap::from_frames(Grid::new(2, 6, 8)?, 2, &scores)?;
//! assert_eq!(map.values().len(), 2 * 6 * 8);
//! # Ok(())
//! # }
//! ```
//!
//! Two features, both on by default, may be left out by those who score with a CLIP in a folder: `hub` (models by name,
//! from the Hugging Face hub) and `captioner` (BLIP, and with it candle-transformers).
#![deny(missing_docs)]

mod blocks;
pub mod cache;
#[cfg(feature = "captioner")]
pub mod captioner;
mod config;
mod error;
mod frames;
#[cfg(feature = "hub")]
mod hub;
mod interpolate;
mod model;
mod score;
mod source;
mod text;
mod tokenizer;
mod vision;
mod weights;

pub use error::ClipError;
pub use frames::Frames;
pub use model::{ClipModel, TextEmbeddings};
pub use score::{Resample, ScoreOptions};
pub use source::ModelSource;
pub use tokenizer::Tokens;
pub use vision::PatchFeatures;

/// Its devices, types and tensors are in signatures here: whoever uses this crate needs no version of its own.
pub use candle_core;
/// What becomes of scores: maps on the grid of a masked autoencoder. Its [`Region`](tgm_masking::Region) is in signatures here.
pub use tgm_masking;
