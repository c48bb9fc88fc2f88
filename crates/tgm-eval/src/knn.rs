//! k-nearest-neighbour classification by cosine similarity: what the features are worth without any training.
//!
//! The default is the protocol of SIGMA's `eval_knn.py`, which is DINO's: L2-normalised features, `k` = 200, each
//! neighbour votes for its class with weight exp(cosine / 0.07). [`Vote::Uniform`] counts heads instead, like
//! scikit-learn's `KNeighborsClassifier(metric="cosine")`. The bank is the *train* set: SIGMA's released script
//! fills it from the test loader.
//!
//! Everything is deterministic: among equally similar neighbours the earlier clip of the bank is nearer, among
//! classes with equally many votes the lower one wins. A vector of zeros has similarity 0 to everything.

use crate::scores::{Scores, softmax};
use crate::{Error, Features, Result, dense};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

/// How the neighbours' votes are counted.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Vote {
    /// Every neighbour counts the same.
    Uniform,
    /// A neighbour counts exp(cosine / `temperature`).
    Similarity {
        /// Above 0; smaller values listen to the nearest neighbours only.
        temperature: f64,
    },
}

/// Settings of the protocol.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Number of neighbours; a smaller bank is used whole. Default 200.
    pub k: usize,
    /// How their votes are counted. Default by similarity with temperature 0.07.
    pub vote: Vote,
}

impl Default for Settings {
    fn default() -> Self {
        Self { k: 200, vote: Vote::Similarity { temperature: 0.07 } }
    }
}

impl Settings {
    pub(crate) fn check(&self) -> Result<()> {
        if self.k == 0 {
            return Err(Error::setting("k", self.k, "at least one neighbour is needed"));
        }
        match self.vote {
            Vote::Similarity { temperature } if !(temperature > 0.0 && temperature.is_finite()) => {
                Err(Error::setting("temperature", temperature, "must be positive"))
            }
            _ => Ok(()),
        }
    }
}

/// What was done, for the record.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    /// The settings asked for.
    pub settings: Settings,
    /// The number of neighbours used: `k`, or the size of the bank if that is smaller.
    pub k_used: usize,
}

/// One neighbour of a query.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Neighbour {
    /// Row in the bank.
    pub row: usize,
    /// Cosine similarity to the query.
    pub cosine: f64,
}

/// Class probabilities of every query: its neighbours' votes divided by their sum.
///
/// # Errors
/// [`Error::Mismatch`] if the two sets differ in feature size or classes, [`Error::Setting`] for `k` = 0 or a
/// temperature that is not positive.
pub fn classify(bank: &Features, queries: &Features, settings: &Settings) -> Result<(Scores, Report)> {
    settings.check()?;
    let neighbours = neighbours(bank, queries, settings.k)?;
    let mut votes = vec![0.0; queries.clips() * bank.classes()];
    for (row, near) in votes.chunks_exact_mut(bank.classes()).zip(&neighbours) {
        for (neighbour, weight) in near.iter().zip(weights(near, settings.vote)) {
            row[bank.labels()[neighbour.row] as usize] += weight;
        }
    }
    let report = Report { settings: settings.clone(), k_used: settings.k.min(bank.clips()) };
    Ok((Scores::new(bank.classes(), votes)?, report))
}

/// The `k` nearest clips of the bank for every query, nearest first; all of the bank if it is smaller.
///
/// # Errors
/// [`Error::Mismatch`] if the two sets differ in feature size or classes.
pub fn neighbours(bank: &Features, queries: &Features, k: usize) -> Result<Vec<Vec<Neighbour>>> {
    /// Queries compared together, so that a row of the bank is fetched from memory once for all of them.
    const TILE: usize = 8;
    bank.check_same_kind(queries)?;
    let scale = inverse_norms(bank);
    let query_scale = inverse_norms(queries);
    let rows: Vec<usize> = (0..queries.clips()).collect();
    let tiles = rows.par_chunks(TILE).flat_map_iter(|tile| {
        let unit: Vec<Vec<f64>> = tile
            .iter()
            .map(|&q| queries.row(q).iter().map(|&x| f64::from(x) * query_scale[q]).collect())
            .collect();
        let mut found: Vec<_> = tile.iter().map(|_| Vec::with_capacity(bank.clips())).collect();
        for (row, &scale) in scale.iter().enumerate() {
            for (found, query) in found.iter_mut().zip(&unit) {
                found.push(Neighbour { row, cosine: dense::dot(bank.row(row), query) * scale });
            }
        }
        found.into_iter().map(move |all| nearest(all, k))
    });
    Ok(tiles.collect())
}

/// The `k` best of all, in order; a total order, so the answer is unique.
fn nearest(mut all: Vec<Neighbour>, k: usize) -> Vec<Neighbour> {
    let order = |a: &Neighbour, b: &Neighbour| b.cosine.total_cmp(&a.cosine).then(a.row.cmp(&b.row));
    if k < all.len() {
        all.select_nth_unstable_by(k, order);
        all.truncate(k);
        all.shrink_to_fit();
    }
    all.sort_unstable_by(order);
    all
}

/// The weight of each neighbour's vote; they sum to 1.
fn weights(near: &[Neighbour], vote: Vote) -> Vec<f64> {
    match vote {
        Vote::Uniform => vec![1.0 / near.len() as f64; near.len()],
        Vote::Similarity { temperature } => {
            let mut weights: Vec<f64> = near.iter().map(|n| n.cosine / temperature).collect();
            softmax(&mut weights);
            weights
        }
    }
}

fn inverse_norms(features: &Features) -> Vec<f64> {
    let norm = |row: &[f32]| row.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>().sqrt();
    let inverse = |norm: f64| if norm > 0.0 { 1.0 / norm } else { 0.0 };
    features.data().par_chunks(features.dim()).map(|row| inverse(norm(row))).collect()
}
