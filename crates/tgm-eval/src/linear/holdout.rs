//! A part of train kept aside to choose settings on.

use crate::Features;
use rand::seq::SliceRandom;
use std::collections::HashMap;
use tgm_random::Streams;

/// Train clips in two parts, each ascending.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Split {
    /// To train on while settings are compared; has every class of train.
    pub(crate) fit: Vec<usize>,
    /// To compare settings on.
    pub(crate) held: Vec<usize>,
}

/// Holds out `fraction` of the clips of each class, rounded, but at least one of a class that has two or more and never
/// all. Rows with one identity are views of one clip and stay together: a setting chosen on views of clips that were
/// trained on would be the one that remembers them best.
pub(crate) fn split(features: &Features, fraction: f64, streams: &Streams) -> Split {
    let (mut fit, mut held) = (Vec::new(), Vec::new());
    for (class, mut clips) in clips_by_class(features).into_iter().enumerate() {
        clips.shuffle(&mut streams.stream("probe-holdout", 0, class as u64));
        let most = clips.len().saturating_sub(1);
        let count = ((clips.len() as f64 * fraction).round() as usize).clamp(most.min(1), most);
        held.extend(clips.drain(..count).flatten());
        fit.extend(clips.into_iter().flatten());
    }
    fit.sort_unstable();
    held.sort_unstable();
    Split { fit, held }
}

/// The rows of every clip of every class, in the order of first appearance.
fn clips_by_class(features: &Features) -> Vec<Vec<Vec<usize>>> {
    let mut by_class = vec![Vec::new(); features.classes()];
    let mut place: HashMap<(u32, &str), usize> = HashMap::new();
    for (row, (&label, id)) in features.labels().iter().zip(features.ids()).enumerate() {
        let clips: &mut Vec<Vec<usize>> = &mut by_class[label as usize];
        let at = *place.entry((label, id.as_str())).or_insert(clips.len());
        if at == clips.len() {
            clips.push(Vec::new());
        }
        clips[at].push(row);
    }
    by_class
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn features(labels: Vec<u32>) -> Features {
        let ids = (0..labels.len()).map(|i| i.to_string()).collect();
        Features::new(1, 8, vec![0.0; labels.len()], labels, ids).unwrap()
    }

    proptest! {
        #[test]
        fn every_clip_is_in_one_part_and_every_class_keeps_a_clip_to_train_on(
            labels in prop::collection::vec(0u32..8, 1..60), fraction in 0.01..0.99, seed: u64,
        ) {
            let features = features(labels);
            let Split { fit, held } = split(&features, fraction, &Streams::new(seed));
            let mut all = [fit.clone(), held.clone()].concat();
            all.sort_unstable();
            prop_assert_eq!(all, (0..features.clips()).collect::<Vec<_>>());
            let clips_of = |rows: &[usize], class: u32| {
                rows.iter().filter(|&&row| features.labels()[row] == class).count()
            };
            for class in 0..8 {
                let (fit, held) = (clips_of(&fit, class), clips_of(&held, class));
                prop_assert!(fit >= 1 || held == 0, "class {} cannot be learnt", class);
                prop_assert!(held >= 1 || fit < 2, "class {} is not compared", class);
                let wanted = (fit + held) as f64 * fraction;
                prop_assert!((held as f64 - wanted).abs() <= 1.0);
            }
        }
    }

    #[test]
    fn views_of_one_clip_stay_together_and_the_choice_is_that_of_clips_with_one_view() {
        let labels: Vec<u32> = (0..80).map(|i| i % 4).collect();
        let ids: Vec<String> = (0..80).map(|i| i.to_string()).collect();
        let one_view = Features::new(1, 8, vec![0.0; 80], labels.clone(), ids.clone()).unwrap();
        let (labels, ids) = ([&labels[..], &labels].concat(), [&ids[..], &ids].concat());
        let two_views = Features::new(1, 8, vec![0.0; 160], labels, ids).unwrap();
        let both_views = |rows: &[usize]| [rows.to_vec(), rows.iter().map(|row| row + 80).collect()].concat();
        for seed in 0..20 {
            let one = split(&one_view, 0.2, &Streams::new(seed));
            let two = split(&two_views, 0.2, &Streams::new(seed));
            assert_eq!((two.fit, two.held), (both_views(&one.fit), both_views(&one.held)));
        }
    }

    /// What the rows of a class were shuffled to before views were kept together.
    #[test]
    fn with_one_view_of_each_clip_the_same_clips_are_held_out_as_ever() {
        let features = features((0..23).map(|i| i % 3).collect());
        let mut expected: Vec<usize> = Vec::new();
        for class in 0..3 {
            let mut rows: Vec<usize> = (0..23).filter(|row| row % 3 == class).collect();
            rows.shuffle(&mut Streams::new(7).stream("probe-holdout", 0, class as u64));
            expected.extend(&rows[..2]); // a quarter of 7 or 8, rounded
        }
        expected.sort_unstable();
        let held = split(&features, 0.25, &Streams::new(7)).held;
        assert_eq!(held, expected);
    }

    #[test]
    fn a_clip_alone_in_its_class_is_trained_on_with_all_its_views() {
        let ids = ["a", "a", "a"].map(String::from).to_vec();
        let features = Features::new(1, 1, vec![0.0; 3], vec![0; 3], ids).unwrap();
        assert_eq!(split(&features, 0.5, &Streams::new(1)), Split { fit: vec![0, 1, 2], held: vec![] });
    }

    #[test]
    fn the_choice_follows_the_seed() {
        let features = features((0..80).map(|i| i % 4).collect());
        let held = |seed| split(&features, 0.2, &Streams::new(seed)).held;
        assert_eq!(held(1), held(1));
        assert_ne!(held(1), held(2));
        assert_eq!(held(1).len(), 16);
    }
}
