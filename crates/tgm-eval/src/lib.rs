//! What a video representation is worth.
//!
//! Evaluation starts from features: one vector per clip and view, computed once ([`pass`], or by whatever model), and shared by
//! the protocols on a frozen encoder ([`knn`], [`linear`], and through a contrastive head [`zero_shot`] and [`retrieval`]). They
//! know neither video nor network, and their results can be checked against scikit-learn and PyTorch on the same numbers,
//! which the tests do. Two protocols train a network on labelled clips: [`supervised`].
//!
//! A result never stands alone: [`evaluate`] puts chance, the majority class and a bootstrap interval beside it, keeps
//! every setting in the report, chooses hyper-parameters on clips held out of *train*, and refuses features that are
//! not finite, labels that do not fit, and clips that are in both sets. All randomness comes from
//! [`tgm_random::Streams`] and sums run in a fixed order, so a report can be reproduced to the last digit on any number
//! of threads.
//!
//! ```
//! use tgm_eval::{Features, Protocol, bootstrap, evaluate, knn};
//! use tgm_random::Streams;
//!
//! // Two classes in the plane: upwards and to the right.
//! let features = |names: [&str; 4], data: [f32; 8]| {
//!     Features::new(2, 2, data.to_vec(), vec![0, 0, 1, 1], names.map(String::from).to_vec())
//! };
//! let train = features(["a", "b", "c", "d"], [0.1, 1.0, 0.3, 2.0, 1.0, 0.2, 3.0, 0.4])?;
//! let test = features(["e", "f", "g", "h"], [0.2, 1.5, 0.0, 0.9, 2.0, 0.0, 0.1, 0.2])?;
//!
//! let protocol = Protocol::Knn(knn::Settings { k: 1, ..Default::default() });
//! let result = evaluate(&protocol, &train, &test, bootstrap::Settings::default(), &Streams::new(17))?;
//!
//! assert_eq!(result.answers.scores.predictions(), [0, 0, 1, 0]);
//! assert_eq!(result.report.top1.mean, 0.75);
//! assert_eq!(result.report.chance, 0.5);
//! # Ok::<(), tgm_eval::Error>(())
//! ```
//!
//! A linear probe on a feature matrix of your own, from whatever model:
//!
//! ```
//! use tgm_eval::linear::logistic;
//! use tgm_eval::tgm_random::Streams;
//! use tgm_eval::{Features, Protocol, bootstrap, evaluate};
//!
//! // Rows `[clips, 2]` one behind the other, and a class for each.
//! let set = |name, clips: u32, spread: f32| {
//!     let y: Vec<u32> = (0..clips).map(|clip| clip % 3).collect();
//!     let x: Vec<f32> = y.iter().zip(0..).flat_map(|(&y, clip)| [y as f32, spread * (clip as f32).sin()]).collect();
//!     Features::numbered(name, 2, 3, x, y)
//! };
//! let (train, test) = (set("train", 60, 0.2)?, set("test", 30, 0.2)?);
//!
//! // C is chosen on clips held out of train.
//! let protocol = Protocol::Logistic(logistic::Settings::default());
//! let report = evaluate(&protocol, &train, &test, bootstrap::Settings::default(), &Streams::new(17))?.report;
//! let top1 = report.top1;
//! println!("top-1 {:.3}, 95 % interval {:.3} to {:.3}", top1.mean, top1.low, top1.high);
//! assert_eq!((top1.mean, top1.high), (1.0, 1.0));
//! assert!(top1.low < 1.0, "30 right answers are no certainty");
//!
//! // The classifier itself, for features without labels.
//! let (probe, _) = logistic::fit(&train, &logistic::Settings::default(), &Streams::new(17))?;
//! assert_eq!(probe.predict(&[0.1, 0.0, 1.9, 0.1])?, [0, 2]);
//! # Ok::<(), tgm_eval::Error>(())
//! ```
#![deny(missing_docs)]

pub mod baseline;
pub mod bootstrap;
mod dense;
mod error;
mod features;
pub mod joint;
pub mod knn;
pub mod linear;
pub mod merge;
pub mod metrics;
pub mod pass;
mod protocol;
mod readout;
pub mod retrieval;
mod scores;
pub mod store;
pub mod supervised;
pub mod zero_shot;

pub use error::{Error, Result};
pub use features::Features;
pub use merge::Answers;
pub use protocol::{Bench, Evaluation, Protocol, ProtocolReport, Report, classify, evaluate, judge};
pub use readout::Readout;
pub use scores::Scores;

/// The tensors of [`pass::stack`], [`Readout::apply`] and [`store::Digest::tensor`].
pub use candle_core;
/// The generators that [`bootstrap`] draws from.
pub use rand;
/// The clips and loaders that [`pass`] and [`supervised`] take.
pub use tgm_data;
/// The encoders and checkpoints that [`pass`] and [`supervised`] take.
pub use tgm_mae;
/// Its `Streams` are what every protocol draws from.
pub use tgm_random;
