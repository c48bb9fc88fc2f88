//! Finding the clip that a sentence describes, and the sentence that describes a clip.
//!
//! R@k is the share of queries with a right answer among the k best; the median rank counts from 1. Equal
//! sentences are one sentence: every clip that has it is a right answer. Ties go against us, so that embeddings which are
//! all the same score nothing.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use serde::Serialize;

use crate::zero_shot::cosine;
use crate::{Error, Result};

/// How well one direction works.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Recall {
    /// Queries asked.
    pub queries: usize,
    /// Candidates ranked for each.
    pub candidates: usize,
    /// Share of queries with a right answer in first place.
    pub r1: f64,
    /// … among the first five.
    pub r5: f64,
    /// … among the first ten.
    pub r10: f64,
    /// Median rank of the best right answer, from 1.
    pub median_rank: f64,
    /// R@1 of guessing.
    pub chance_r1: f64,
}

/// Both directions.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Report {
    /// A sentence is given, clips are ranked.
    pub text_to_video: Recall,
    /// A clip is given, sentences are ranked.
    pub video_to_text: Recall,
}

/// Unit embeddings with what belongs together.
#[derive(Clone, Copy, Debug)]
pub struct Pairs<'a> {
    /// Length of an embedding.
    pub dim: usize,
    /// `[clips, dim]`.
    pub clips: &'a [f32],
    /// `[sentences, dim]`.
    pub sentences: &'a [f32],
    /// The clip that each sentence describes.
    pub clip_of: &'a [usize],
    /// The sentences themselves, to know equal ones.
    pub texts: &'a [String],
}

/// Ranks in both directions.
///
/// # Errors
/// [`Error::Length`] when the lengths do not fit; [`Error::Empty`] without clips or sentences.
pub fn evaluate(pairs: &Pairs<'_>) -> Result<Report> {
    let Pairs { dim, clips, sentences, clip_of, texts } = *pairs;
    if clips.is_empty() || texts.is_empty() || dim == 0 {
        return Err(Error::Empty { what: "retrieval", missing: "rows" });
    }
    for (what, expected, got) in [
        ("sentence embeddings", texts.len() * dim, sentences.len()),
        ("owners of sentences", texts.len(), clip_of.len()),
        ("clip embeddings", clips.len().next_multiple_of(dim), clips.len()),
    ] {
        if expected != got {
            return Err(Error::Length { what, expected, got });
        }
    }
    let count = clips.len() / dim;
    if let Some(&clip) = clip_of.iter().find(|&&clip| clip >= count) {
        return Err(Error::Length { what: "clips", expected: clip + 1, got: count });
    }
    // Each distinct sentence once, with the clips it is right for.
    let mut distinct: BTreeMap<&str, (usize, Vec<usize>)> = BTreeMap::new();
    for (sentence, text) in texts.iter().enumerate() {
        distinct.entry(text).or_insert((sentence, Vec::new())).1.push(clip_of[sentence]);
    }
    let distinct: Vec<(usize, Vec<usize>)> = distinct.into_values().collect();
    let row = |buffer: &'_ [f32], at: usize| -> Vec<f32> { buffer[at * dim..][..dim].to_vec() };
    let to_video = distinct.iter().map(|(sentence, right)| {
        let query = row(sentences, *sentence);
        let scores: Vec<f64> = clips.chunks_exact(dim).map(|clip| cosine(&query, clip)).collect();
        (rank(&scores, |clip| right.contains(&clip)), right.len())
    });
    let to_text = (0..count).filter_map(|clip| {
        let query = row(clips, clip);
        let right = |at: usize| distinct[at].1.contains(&clip);
        let answers = (0..distinct.len()).filter(|&at| right(at)).count();
        let score = |(sentence, _): &(usize, Vec<usize>)| cosine(&query, &sentences[sentence * dim..][..dim]);
        let scores: Vec<f64> = distinct.iter().map(score).collect();
        (answers > 0).then(|| (rank(&scores, right), answers))
    });
    Ok(Report {
        text_to_video: recall(to_video.collect(), count),
        video_to_text: recall(to_text.collect(), distinct.len()),
    })
}

/// How many wrong answers stand before, or level with, the best right one.
fn rank(scores: &[f64], right: impl Fn(usize) -> bool) -> usize {
    let own =
        (0..scores.len()).filter(|&at| right(at)).map(|at| scores[at]).fold(f64::NEG_INFINITY, f64::max);
    // A score that is not a number counts as ahead, too.
    let behind = |at: usize| scores[at].partial_cmp(&own) == Some(Ordering::Less);
    (0..scores.len()).filter(|&at| !right(at) && !behind(at)).count()
}

/// From the rank (from 0) and the number of right answers of each query.
fn recall(mut queries: Vec<(usize, usize)>, candidates: usize) -> Recall {
    queries.sort_unstable();
    let count = queries.len() as f64;
    let within = |k: usize| queries.iter().filter(|(rank, _)| *rank < k).count() as f64 / count;
    let middle = queries.len() / 2;
    let at = |index: usize| queries[index].0 as f64 + 1.0;
    let median_rank =
        if queries.len().is_multiple_of(2) { (at(middle - 1) + at(middle)) / 2.0 } else { at(middle) };
    let guess = queries.iter().map(|(_, right)| *right as f64 / candidates as f64).sum::<f64>() / count;
    Recall {
        queries: queries.len(),
        candidates,
        r1: within(1),
        r5: within(5),
        r10: within(10),
        median_rank,
        chance_r1: guess,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unit(angle: f32) -> [f32; 2] {
        [angle.cos(), angle.sin()]
    }

    fn report(clips: &[f32], sentences: &[f32], clip_of: &[usize], texts: &[&str]) -> Report {
        let clips: Vec<f32> = clips.iter().flat_map(|&angle| unit(angle)).collect();
        let sentences: Vec<f32> = sentences.iter().flat_map(|&angle| unit(angle)).collect();
        let texts: Vec<String> = texts.iter().map(ToString::to_string).collect();
        evaluate(&Pairs { dim: 2, clips: &clips, sentences: &sentences, clip_of, texts: &texts }).unwrap()
    }

    #[test]
    fn ranks_count_from_one_and_recall_grows_with_k() {
        // The sentence of clip 2 lies on clip 0.
        let report = report(&[0.0, 1.0, 2.0], &[0.1, 1.1, 0.0], &[0, 1, 2], &["a", "b", "c"]);
        assert_eq!((report.text_to_video.queries, report.text_to_video.candidates), (3, 3));
        assert!((report.text_to_video.r1 - 2.0 / 3.0).abs() < 1e-12);
        assert_eq!((report.text_to_video.r5, report.text_to_video.median_rank), (1.0, 1.0));
        assert!((report.text_to_video.chance_r1 - 1.0 / 3.0).abs() < 1e-12);
    }

    #[test]
    fn equal_sentences_are_one_query_with_several_right_answers() {
        let report = report(&[0.0, 1.0, 2.0], &[1.0, 1.0, 2.0], &[0, 1, 2], &["same", "same", "c"]);
        assert_eq!((report.text_to_video.queries, report.text_to_video.r1), (2, 1.0));
        assert_eq!(report.video_to_text.candidates, 2);
        assert!((report.text_to_video.chance_r1 - 0.5).abs() < 1e-12, "two of three and one of three");
    }

    #[test]
    fn embeddings_that_are_all_the_same_score_nothing() {
        let report = report(&[0.5; 4], &[0.5; 4], &[0, 1, 2, 3], &["a", "b", "c", "d"]);
        assert_eq!((report.text_to_video.r1, report.video_to_text.r1), (0.0, 0.0));
        assert_eq!(report.text_to_video.median_rank, 4.0);
    }

    #[test]
    fn several_sentences_of_a_clip_are_all_right_for_it() {
        let report = report(&[0.0, 1.5], &[1.4, 0.1, 1.5], &[0, 0, 1], &["far", "near", "own"]);
        assert_eq!(report.video_to_text.r1, 1.0);
        assert!((report.text_to_video.r1 - 2.0 / 3.0).abs() < 1e-12);
    }

    #[test]
    fn an_even_number_of_queries_has_its_median_between_two() {
        assert_eq!(recall(vec![(0, 1), (3, 1)], 4).median_rank, 2.5);
    }
}
