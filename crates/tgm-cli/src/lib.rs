//! The `tgm` command line: what can be asked for, and how an answer looks.
//!
//! The commands read what people write, call `tgm-train` and the crates below it, and print, draw and save what comes back:
//! [`evaluation`] puts a protocol on a checkpoint, [`reproduce`] runs grids of small runs, [`viz`], [`report`] and [`localise`] show what a
//! mask hides and what a run learnt. Standard output is written here and nowhere else.
#![deny(missing_docs)]
#![allow(clippy::print_stdout, reason = "a command line program: results go to stdout")]

#[macro_use]
mod out;

pub mod captioning;
pub mod commands;
mod cpu_time;
pub mod demo;
pub mod evaluation;
mod html;
pub mod localise;
pub mod rehearsal;
pub mod report;
pub mod reproduce;
pub mod tensors;
pub mod viz;
