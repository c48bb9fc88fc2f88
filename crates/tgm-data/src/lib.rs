//! Which clips there are, and how they come to the model.
//!
//! * [`manifest`]: CSV or JSON Lines tables of videos, their labels and captions;
//! * [`archive`]: what is in tar archives, and where;
//! * [`dataset`]: the public data sets, from their official annotation files;
//! * [`loader`]: training batches and evaluation clips from such a table, decoded ahead by worker threads;
//! * [`index_store`]: what is known about their frames, kept;
//! * [`survey`]: what is really in the files of such a table;
//! * [`synth`]: a synthetic captioned world of real video files, for demos, tests and experiments with a known truth.
//!
//! A plain folder of videos becomes batches for a model:
//!
//! ```no_run
//! use std::sync::Arc;
//! use tgm_data::loader::{ClipConfig, LoaderConfig, Subset, TrainLoader};
//! use tgm_data::manifest::Manifest;
//! use tgm_data::tgm_random::Streams;
//! use tgm_data::tgm_video::Sampling;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let videos = Arc::new(Manifest::load("my-videos")?);
//! // 16 frames, 2 apart, of 224 × 224 pixels, in tubelets of 2 × 16 × 16.
//! let clips = ClipConfig { sampling: Sampling::Dense { frames: 16, stride: 2 }, ..ClipConfig::default() };
//! let (data, seed, first_step) = (Subset::all(&videos), 17, 0);
//! let loader =
//!     TrainLoader::new(&data, &clips, &LoaderConfig::default(), 32, Streams::new(seed), first_step)?;
//! for batch in loader.take(1000) {
//!     let batch = batch?;
//!     let (tubelets, shape) = batch.tubelets()?;
//!     assert_eq!(shape, [32, 8 * 14 * 14, 2 * 16 * 16 * 3]); // [B, N, P]
//!     assert_eq!(tubelets.len(), shape.iter().product::<usize>());
//! }
//! # Ok(())
//! # }
//! ```
//!
//! The key decision: a batch is a function of *(seed, step)*. Every random draw has a name (see [`tgm_random`]), and
//! the order of an epoch is a keyed permutation that is evaluated, not a list that is shuffled. The number of
//! workers therefore never changes a result, resuming at a step needs no state, and a million rows cost no more than ten.
//!
//! The synthetic world needs no videos of one's own:
//!
//! ```
//! use std::sync::Arc;
//! use tgm_data::loader::{ClipConfig, LoaderConfig, Subset, TrainLoader};
//! use tgm_data::manifest::Manifest;
//! use tgm_data::synth::{WorldConfig, write_world};
//! use tgm_random::Streams;
//! use tgm_video::{Sampling, TubeletShape};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let dir = tempfile::tempdir()?;
//! let world = WorldConfig { train: 12, test: 2, ..WorldConfig::default() };
//! let world = write_world(&world, dir.path(), &|_done, _all| {})?;
//!
//! let manifest = Arc::new(Manifest::load(&world.manifest)?);
//! assert_eq!(manifest.classes().len(), 12);
//! let clips = ClipConfig {
//!     sampling: Sampling::Dense { frames: 16, stride: 1 },
//!     size: 64,
//!     tubelet: TubeletShape { frames: 2, patch: 8 },
//!     ..ClipConfig::default()
//! };
//! let train = Subset::split(&manifest, "train")?;
//! let mut loader = TrainLoader::new(&train, &clips, &LoaderConfig::default(), 4, Streams::new(17), 0)?;
//! let batch = loader.next_batch()?;
//! assert_eq!(batch.tubelets()?.1, [4, 8 * 8 * 8, 2 * 8 * 8 * 3]);
//! # Ok(())
//! # }
//! ```
#![deny(missing_docs)]

pub mod archive;
pub mod dataset;
pub mod index_store;
pub mod loader;
pub mod manifest;
pub mod survey;
pub mod synth;

/// Its types are in what this crate takes and gives (`Streams`, `Sampling`, `Crop`, `Grid`, …): whoever uses this one needs no
/// dependency besides it, which would have to be of the same version.
pub use {tgm_masking, tgm_random, tgm_video};
