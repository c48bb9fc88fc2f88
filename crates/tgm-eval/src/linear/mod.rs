//! Linear probes: one affine layer on frozen, cached features. How linearly readable the classes are.
//!
//! Three recipes, because published numbers use either and the choice moves the result more than most methods do:
//! [`logistic`] finds the optimum of a regularised convex problem and has no schedule to argue about; [`sgd`] is
//! the field's BatchNorm + linear layer trained by stochastic gradient descent; [`adamw`] the layer norm + linear layer of
//! the fine-tuning code with a frozen encoder. All normalise the features, and
//! all choose their one sensitive setting on clips held out of *train*, then train again on all of train. The test
//! set is never looked at.

pub mod adamw;
mod descent;
mod holdout;
mod lbfgs;
pub mod logistic;
mod probe;
mod schedule;
mod select;
pub mod sgd;
mod softmax;
mod standardise;

pub use descent::Report;
pub use probe::Probe;
pub use select::{HeldOut, Selection, Trial};
