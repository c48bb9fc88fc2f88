//! The video masked autoencoder (VideoMAE, arXiv 2203.12602): a vision transformer encodes the visible tubelets of a
//! clip, a small decoder reconstructs the hidden ones.
//!
//! The whole method is [`model.rs`](VideoMae): patch embedding of the *visible* tubelets only, encoder, projection,
//! mask tokens behind the visible ones, decoder, mean squared error against the normalised pixels of the masked
//! tubelets. Which tubelets are hidden is decided elsewhere (`tgm-masking`) and arrives as a [`TokenSplit`].
//!
//! Parameters have one internal layout; [`Checkpoint`] reads and writes it, Hugging Face `transformers` folders and
//! original VideoMAE files, and refuses weights that do not fill every parameter or leave a key over.
//!
//! ```
//! use candle_core::{DType, Device, Tensor};
//! use tgm_mae::{MaeConfig, TokenSplit, VideoMae};
//! use tgm_ops::Params;
//! use tgm_random::Streams;
//!
//! let config = MaeConfig::micro(); // 8 frames of 64×64
//! let mut params = Params::new(Streams::new(0), &Device::Cpu);
//! let model = VideoMae::new(&config, &mut params)?;
//!
//! let tubelets = Tensor::zeros((1, config.tokens(), config.tubelet_len()), DType::F32, &Device::Cpu)?;
//! let masked: Vec<bool> = (0..config.tokens()).map(|i| i % 4 != 0).collect();
//! let split = TokenSplit::from_bools(&[masked], &Device::Cpu)?;
//! let out = model.forward(&tubelets, &split)?;
//! assert_eq!(out.prediction.dims(), [1, 192, 384]);
//! # Ok::<(), tgm_mae::MaeError>(())
//! ```
#![deny(missing_docs)]

mod block;
mod checkpoint;
mod classifier;
mod config;
mod decoder;
mod drop_path;
mod encoder;
mod error;
mod flops;
mod hf_config;
mod keys;
mod memory;
mod model;
mod original;
mod position;
mod tokens;

pub use checkpoint::{Checkpoint, CheckpointKind};
pub use classifier::Classifier;
pub use config::{IMAGENET_MEAN, IMAGENET_STD, MaeConfig, TransformerConfig};
pub use decoder::Decoder;
pub use drop_path::DropPath;
pub use encoder::Encoder;
pub use error::MaeError;
pub use keys::KeyLayout;
pub use memory::MemoryEstimate;
pub use model::{MaskedLoss, Reconstruction, VideoMae};
pub use position::sinusoid_table;
pub use tokens::{TokenSplit, tubelets_from_pixels};
