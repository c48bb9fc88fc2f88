//! The trainer and the `tgm` command line.
//!
//! This crate composes: clips from `tgm-data`, masks from `tgm-masking` guided by `tgm-clip` or codec motion, the model
//! from `tgm-mae`, the joint loss from `tgm-contrastive`, the optimiser from `tgm-ops`, probes from `tgm-eval`. It
//! computes nothing itself. A reader who follows one training step begins at [`trainer`].
#![deny(missing_docs)]
#![allow(clippy::print_stdout, reason = "a command line program: results go to stdout")]

#[macro_use]
mod out;

pub mod batch;
pub mod captioning;
pub mod checkpoint;
pub mod color;
pub mod commands;
pub mod config;
mod cpu_time;
pub mod demo;
pub mod environment;
pub mod evaluation;
pub mod fault;
pub mod guidance;
mod html;
pub mod localise;
pub mod metrics;
pub mod model_io;
pub mod pictures;
pub mod probe;
pub mod progress;
pub mod rehearsal;
pub mod report;
pub mod reproduce;
mod row_video;
pub mod run_data;
pub mod run_dir;
pub mod schedule;
pub mod score_cache;
pub mod step;
pub mod stop;
pub mod tensorboard;
pub mod tensors;
pub mod trainer;
pub mod viz;
pub mod watch;
