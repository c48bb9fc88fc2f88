//! Linear probes: one affine layer on frozen, cached features. How linearly readable the classes are.
//!
//! Three recipes, because published numbers use either and the choice moves the result more than most methods do:
//! [`logistic`] finds the optimum of a regularised convex problem and has no schedule to argue about; [`sgd`] is
//! the field's BatchNorm + linear layer trained by stochastic gradient descent; [`adamw`] the layer norm + linear layer of
//! the fine-tuning code with a frozen encoder. All normalise the features, and
//! all choose their one sensitive setting on clips held out of *train*, then train again on all of train. The test
//! set is never looked at.

pub mod adamw;
mod holdout;
mod lbfgs;
pub mod logistic;
mod schedule;
mod select;
pub mod sgd;
mod softmax;
mod standardise;

pub use select::{HeldOut, Selection, Trial};

use crate::scores::softmax;
use crate::{Features, Result, Scores};
use rayon::prelude::*;
use standardise::Affine;

/// A trained linear classifier.
///
/// Logits are `coefficients · (x − mean) / spread + intercept`. Classes without a train clip have no logit; their
/// probability is 0.
#[derive(Clone, Debug, PartialEq)]
pub struct Probe {
    dim: usize,
    classes: usize,
    /// The classes that have train clips, ascending.
    present: Vec<u32>,
    /// Added to the variance of every row, which is brought to mean 0 and variance 1 first; `None` leaves rows as they are.
    row_norm: Option<f64>,
    standardise: Affine,
    /// `[present, dim]` coefficients, then `[present]` intercepts.
    parameters: Vec<f64>,
}

impl Probe {
    /// The classes that have train clips, ascending.
    pub fn present(&self) -> &[u32] {
        &self.present
    }

    /// `[present, dim]`, for standardised features.
    pub fn coefficients(&self) -> &[f64] {
        &self.parameters[..self.present.len() * self.dim]
    }

    /// `[present]`.
    pub fn intercepts(&self) -> &[f64] {
        &self.parameters[self.present.len() * self.dim..]
    }

    /// Class probabilities of every clip.
    ///
    /// # Errors
    /// [`crate::Error::Mismatch`] if the features are not of the kind that the probe was trained on.
    pub fn classify(&self, test: &Features) -> Result<Scores> {
        for (what, train, test) in
            [("the feature size", self.dim, test.dim()), ("classes", self.classes, test.classes())]
        {
            if train != test {
                return Err(crate::Error::Mismatch { what, train, test });
            }
        }
        let rows: Vec<usize> = (0..test.clips()).collect();
        match self.row_norm {
            Some(eps) => {
                Scores::new(self.classes, self.probabilities(&adamw::normalise_rows(test, eps)?, &rows))
            }
            None => Scores::new(self.classes, self.probabilities(test, &rows)),
        }
    }

    /// Class probabilities of some clips, `[rows, classes]`.
    fn probabilities(&self, features: &Features, rows: &[usize]) -> Vec<f64> {
        let tiles = rows.par_chunks(softmax::TILE).flat_map_iter(|tile| {
            let logits = softmax::Tile::new(features, tile, &self.standardise).logits(&self.parameters);
            let mut scores = vec![0.0; tile.len() * self.classes];
            for (scores, logits) in scores.chunks_mut(self.classes).zip(logits.chunks(self.present.len())) {
                let mut probabilities = logits.to_vec();
                softmax(&mut probabilities);
                for (&class, probability) in self.present.iter().zip(probabilities) {
                    scores[class as usize] = probability;
                }
            }
            scores
        });
        tiles.collect()
    }
}
