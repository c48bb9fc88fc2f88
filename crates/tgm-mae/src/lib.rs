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
//! Features of clips from a Hugging Face folder, or any other that [`Checkpoint::open`] reads:
//!
//! ```
//! use tgm_mae::candle_core::{DType, Device, Tensor};
//! use tgm_mae::tgm_ops::Pooling;
//! use tgm_mae::Checkpoint;
//! # use tgm_mae::{CheckpointKind, KeyLayout, MaeConfig, VideoMae};
//! # use tgm_mae::{tgm_ops::Params, tgm_random::Streams};
//! # let temporary = tempfile::tempdir()?;
//! # let folder = temporary.path();
//! # let mut params = Params::new(Streams::new(0), &Device::Cpu);
//! # VideoMae::new(&MaeConfig::micro(), &mut params)?;
//! # let (kind, layout) = (CheckpointKind::Pretraining, KeyLayout::HuggingFace);
//! # Checkpoint::save_folder(folder, &MaeConfig::micro(), kind, layout, &params.snapshot()?)?;
//!
//! // `folder` is that of a model, with its config.json and model.safetensors.
//! let checkpoint = Checkpoint::open(folder, None)?;
//! let encoder = checkpoint.encoder(&Device::Cpu)?.for_inference();
//!
//! // [B, N, P]: two clips of ImageNet-normalised pixels, as `tubelets_from_pixels` cuts them.
//! let config = &checkpoint.config;
//! let tubelets = Tensor::zeros((2, config.tokens(), config.tubelet_len()), DType::F32, &Device::Cpu)?;
//! let tokens = encoder.forward_all(&tubelets)?; // [B, N, D]
//! let features = Pooling::Mean.apply(&tokens)?; // [B, D]
//! assert_eq!(features.dims(), [2, config.encoder.dim]);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! A forward pass of pretraining:
//!
//! ```
//! use tgm_mae::candle_core::{DType, Device, Tensor};
//! use tgm_mae::{MaeConfig, TokenSplit, VideoMae};
//! use tgm_mae::{tgm_ops::Params, tgm_random::Streams};
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
mod from_checkpoint;
mod hf_config;
mod keys;
mod memory;
mod model;
mod original;
mod position;
mod shapes;
mod tokens;

// Their types are in the signatures here: one version for all, and no second dependency to name them.
pub use candle_core;
pub use tgm_masking;
pub use tgm_ops;
pub use tgm_random;

pub use checkpoint::{Checkpoint, CheckpointKind, ClipSize};
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
