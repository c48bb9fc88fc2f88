//! Finding the clip that a sentence describes, and the sentence that describes a clip.
//!
//! R@k is the share of queries with a right answer among the k best; the median rank counts from 1. Equal
//! sentences are one sentence: every clip that has it is a right answer. Ties go against us, so that embeddings which are
//! all the same score nothing.

use std::collections::{BTreeMap, BTreeSet};

use rayon::prelude::*;
use serde::Serialize;

use crate::{Error, Result, dense};

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
        ("sentence embeddings", texts.len().saturating_mul(dim), sentences.len()),
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
    let mut distinct: BTreeMap<&str, Sentence<'_>> = BTreeMap::new();
    for ((text, embedding), &clip) in texts.iter().zip(sentences.chunks_exact(dim)).zip(clip_of) {
        let sentence = distinct.entry(text).or_insert(Sentence { embedding, right: BTreeSet::new() });
        sentence.right.insert(clip);
    }
    let distinct: Vec<Sentence<'_>> = distinct.into_values().collect();
    let mut answers = vec![0; count];
    distinct.iter().flat_map(|sentence| &sentence.right).for_each(|&clip| answers[clip] += 1);
    let (of_sentences, of_clips) = ranks(&distinct, clips, dim);
    let to_video = of_sentences.into_iter().zip(distinct.iter().map(|sentence| sentence.right.len()));
    // Nothing is right for a clip without sentences: it is not asked about.
    let to_text = of_clips.into_iter().zip(answers).filter(|&(_, answers)| answers > 0);
    Ok(Report {
        text_to_video: recall(to_video.collect(), count),
        video_to_text: recall(to_text.collect(), distinct.len()),
    })
}

/// A distinct sentence.
struct Sentence<'a> {
    embedding: &'a [f32],
    /// The clips that have it. A set: a clip may have it several times.
    right: BTreeSet<usize>,
}

/// For every sentence, then for every clip, how many wrong answers stand before, or level with, the best right one.
fn ranks(sentences: &[Sentence<'_>], clips: &[f32], dim: usize) -> (Vec<usize>, Vec<usize>) {
    /// Sentences compared together, so that a clip is fetched from memory once for all of them.
    const TILE: usize = 8;
    let count = clips.len() / dim;
    // The few right pairs first. Then each wrong pair is compared once, counts in both directions and can be forgotten.
    let mut best_clip = vec![f64::NEG_INFINITY; sentences.len()];
    let mut best_sentence = vec![f64::NEG_INFINITY; count];
    for (sentence, best) in sentences.iter().zip(&mut best_clip) {
        for &clip in &sentence.right {
            let score = dense::dot(sentence.embedding, &clips[clip * dim..][..dim]);
            *best = best.max(score);
            best_sentence[clip] = best_sentence[clip].max(score);
        }
    }
    // A score that is not a number counts as ahead, too.
    let behind = |score: f64, best: f64| score < best;
    let mut of_sentences = vec![0; sentences.len()];
    let tiles = sentences.par_chunks(TILE).zip(best_clip.par_chunks(TILE));
    let of_clips = tiles.zip(of_sentences.par_chunks_mut(TILE)).fold(
        || vec![0; count],
        |mut of_clips, ((tile, best_clip), of_sentences)| {
            for (clip, embedding) in clips.chunks_exact(dim).enumerate() {
                for ((sentence, &best), rank) in tile.iter().zip(best_clip).zip(&mut *of_sentences) {
                    if !sentence.right.contains(&clip) {
                        let score = dense::dot(sentence.embedding, embedding);
                        *rank += usize::from(!behind(score, best));
                        of_clips[clip] += usize::from(!behind(score, best_sentence[clip]));
                    }
                }
            }
            of_clips
        },
    );
    // Whole numbers: in what order the threads' counts are added does not matter.
    let add = |mut sum: Vec<usize>, part: Vec<usize>| {
        sum.iter_mut().zip(part).for_each(|(sum, part)| *sum += part);
        sum
    };
    let of_clips = of_clips.reduce(|| vec![0; count], add);
    (of_sentences, of_clips)
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
    use rand::RngExt;
    use tgm_random::Streams;

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
    fn three_equal_captions_of_one_clip_do_not_make_guessing_three_times_as_good() {
        let angles: [f32; 10] = std::array::from_fn(|clip| clip as f32 / 10.0);
        let names = ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j"];
        let clip_of: Vec<usize> = (0..30).map(|sentence| sentence / 3).collect();
        let report = report(
            &angles,
            &clip_of.iter().map(|&clip| angles[clip]).collect::<Vec<_>>(),
            &clip_of,
            &clip_of.iter().map(|&clip| names[clip]).collect::<Vec<_>>(),
        );
        assert_eq!((report.text_to_video.queries, report.text_to_video.r1), (10, 1.0));
        assert!((report.text_to_video.chance_r1 - 0.1).abs() < 1e-12, "{}", report.text_to_video.chance_r1);
        assert!((report.video_to_text.chance_r1 - 0.1).abs() < 1e-12, "{}", report.video_to_text.chance_r1);
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
    fn a_score_that_is_not_a_number_counts_as_ahead() {
        let report = report(&[0.0, f32::NAN], &[0.0, 0.1], &[0, 1], &["own", "of the broken clip"]);
        assert_eq!((report.text_to_video.r1, report.text_to_video.median_rank), (0.0, 2.0));
        assert_eq!(report.video_to_text.r1, 0.5, "sentences are ranked for each clip by itself");
    }

    #[test]
    fn a_clip_without_sentences_is_ranked_but_not_asked_about() {
        let report = report(&[0.0, 1.0, 0.2], &[0.2, 1.0], &[0, 1], &["a", "b"]);
        assert_eq!((report.text_to_video.queries, report.text_to_video.candidates), (2, 3));
        assert_eq!((report.video_to_text.queries, report.video_to_text.candidates), (2, 2));
        assert_eq!(report.text_to_video.r1, 0.5);
    }

    /// Every query by itself: all its scores, with every answer looked up among all pairs.
    fn naive(pairs: &Pairs<'_>) -> Report {
        let dim = pairs.dim;
        let count = pairs.clips.len() / dim;
        let texts: Vec<&String> = BTreeSet::from_iter(pairs.texts).into_iter().collect();
        let first = |text: &String| pairs.texts.iter().position(|other| other == text).unwrap();
        let right = |text: &String, clip: usize| {
            pairs.texts.iter().zip(pairs.clip_of).any(|(other, &owner)| other == text && owner == clip)
        };
        let score = |text: &String, clip: usize| -> f64 {
            let (a, b) = (&pairs.sentences[first(text) * dim..][..dim], &pairs.clips[clip * dim..][..dim]);
            a.iter().zip(b).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum()
        };
        // From whether each answer is right and its score.
        let rank = |answers: Vec<(bool, f64)>| {
            let own = answers.iter().filter(|(right, _)| *right).map(|(_, score)| *score);
            let best = own.clone().fold(f64::NEG_INFINITY, f64::max);
            let ahead = answers.iter().filter(|(right, score)| !right && (*score >= best || score.is_nan()));
            (ahead.count(), own.count())
        };
        let answer = |text: &String, clip: usize| (right(text, clip), score(text, clip));
        let to_video = texts.iter().map(|text| rank((0..count).map(|clip| answer(text, clip)).collect()));
        let to_text =
            (0..count).map(|clip| rank(texts.iter().map(|text| answer(text, clip)).collect::<Vec<_>>()));
        Report {
            text_to_video: recall(to_video.collect(), count),
            video_to_text: recall(to_text.filter(|&(_, right)| right > 0).collect(), texts.len()),
        }
    }

    #[test]
    fn the_ranks_are_those_of_comparing_everything_for_any_number_of_threads() {
        // Small whole numbers, so that there are ties and no sum is rounded. Twelve of them: a block and a half.
        let (dim, count, len) = (12, 50, 130);
        let mut rng = Streams::new(5).stream("retrieval", 0, 0);
        let mut values =
            |len: usize| -> Vec<f32> { (0..len).map(|_| rng.random_range(-2i8..=2).into()).collect() };
        let (mut clips, mut sentences) = (values(count * dim), values(len * dim));
        (clips[7 * dim], sentences[11 * dim]) = (f32::NAN, f32::NAN);
        // The last five clips have no sentence; some sentences come again, for the same clip and for others.
        let clip_of: Vec<usize> = (0..len).map(|_| rng.random_range(0..count - 5)).collect();
        let texts: Vec<String> = clip_of
            .iter()
            .map(|&clip| {
                let of = if rng.random_bool(0.2) { "any clip".into() } else { format!("clip {clip}") };
                format!("{of}, {}", rng.random_range(0..3))
            })
            .collect();
        let pairs = Pairs { dim, clips: &clips, sentences: &sentences, clip_of: &clip_of, texts: &texts };
        let expected = naive(&pairs);
        assert!(expected.text_to_video.queries < len && expected.video_to_text.queries < count);
        for threads in [1, 2, 5] {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            assert_eq!(pool.install(|| evaluate(&pairs)).unwrap(), expected, "{threads} threads");
        }
    }

    #[test]
    fn an_even_number_of_queries_has_its_median_between_two() {
        assert_eq!(recall(vec![(0, 1), (3, 1)], 4).median_rank, 2.5);
    }
}
