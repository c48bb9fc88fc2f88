//! Evaluations as people run them: a data set, a checkpoint, a protocol, and what the result must stand beside.
//!
//! The numbers come from `tgm-eval`; here they are brought together: [`data`] turns a manifest or an official folder into
//! train and test clips, [`frozen`], [`text`] and [`supervised`] run the protocols, [`outcome`] prints, and [`page`]
//! shows where a model is wrong.

pub mod data;
pub mod frozen;
pub mod outcome;
pub mod page;
pub mod supervised;
pub mod text;
