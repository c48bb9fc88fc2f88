//! The trainer.
//!
//! This crate composes: clips from `tgm-data`, masks from `tgm-masking` guided by `tgm-clip` or codec motion, the model
//! from `tgm-mae`, the joint loss from `tgm-contrastive`, the optimiser from `tgm-ops`, probes from `tgm-eval`. It
//! has no model code of its own. A reader who follows one training step begins at [`trainer`]. The command line around it is
//! `tgm-cli`.
#![deny(missing_docs)]

pub mod batch;
pub mod checkpoint;
pub mod color;
pub mod config;
pub mod environment;
pub mod fault;
pub mod guidance;
pub mod init;
pub mod metrics;
pub mod model_io;
pub mod pictures;
pub mod probe;
pub mod progress;
pub mod row_video;
pub mod run_data;
pub mod run_dir;
pub mod schedule;
pub mod score_cache;
pub mod step;
pub mod stop;
pub mod task;
pub mod tensorboard;
pub mod trainer;
pub mod watch;
