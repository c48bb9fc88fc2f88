//! Verb and noun together: EPIC-KITCHENS-100's action accuracy.
//!
//! An action is right when its verb and its noun are. Of all pairs, the one with the largest product of probabilities comes
//! first, so top-1 is both tops, and top-5 ranks the products.

use serde::Serialize;

use crate::bootstrap::{self, Interval};
use crate::{Error, Evaluation, Result};
use tgm_random::Streams;

/// Accuracy of pairs.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Report {
    /// Both right.
    pub top1: Interval,
    /// The pair is among the five most probable ones.
    pub top5: f64,
}

/// Judges two answers about the same clips together.
///
/// # Errors
/// [`Error::Mismatch`] unless both are about the same clips in the same order; else as [`bootstrap::mean`].
pub fn evaluate(verb: &Evaluation, noun: &Evaluation, streams: &Streams) -> Result<Report> {
    let (a, b) = (&verb.answers, &noun.answers);
    if a.ids != b.ids {
        let same = a.ids.iter().zip(&b.ids).take_while(|(a, b)| a == b).count();
        return Err(Error::Mismatch { what: "clips of verb and noun", train: a.ids.len(), test: same });
    }
    let skipped = verb.report.skipped.len();
    let ranks: Vec<usize> = (0..a.ids.len())
        .map(|clip| {
            rank(a.scores.row(clip), a.labels[clip] as usize, b.scores.row(clip), b.labels[clip] as usize)
        })
        .collect();
    let hits = |k: usize| -> Vec<f64> {
        let hits = ranks.iter().map(|&rank| f64::from(u8::from(rank < k)));
        hits.chain(std::iter::repeat_n(0.0, skipped)).collect()
    };
    let five = hits(5);
    let mut stream = streams.stream("bootstrap", 0, 0);
    Ok(Report {
        top1: bootstrap::mean(&hits(1), verb.report.interval, &mut stream)?
            .of_share(five.len(), verb.report.interval.level),
        top5: five.iter().sum::<f64>() / five.len() as f64,
    })
}

/// How many pairs come before the right one; among equals the lower verb, then the lower noun.
fn rank(verbs: &[f64], verb: usize, nouns: &[f64], noun: usize) -> usize {
    let own = verbs[verb] * nouns[noun];
    let mut before = 0;
    for (v, &p) in verbs.iter().enumerate() {
        for (n, &q) in nouns.iter().enumerate() {
            let product = p * q;
            before += usize::from(product > own || (product == own && (v, n) < (verb, noun)));
        }
    }
    before
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pair_is_first_only_if_both_are() {
        let (verbs, nouns) = ([0.7, 0.3], [0.2, 0.5, 0.3]);
        assert_eq!(rank(&verbs, 0, &nouns, 1), 0);
        assert_eq!(rank(&verbs, 0, &nouns, 2), 1);
        assert_eq!(rank(&verbs, 1, &nouns, 1), 2, "0.35, 0.21, then 0.15");
        assert_eq!(rank(&verbs, 1, &nouns, 0), 5);
    }

    #[test]
    fn ties_have_one_order() {
        let ranks: Vec<usize> =
            [(0, 0), (0, 1), (1, 0), (1, 1)].iter().map(|&(v, n)| rank(&[0.5; 2], v, &[0.5; 2], n)).collect();
        assert_eq!(ranks, [0, 1, 2, 3]);
    }
}
