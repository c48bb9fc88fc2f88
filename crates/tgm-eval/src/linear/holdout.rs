//! A part of train kept aside to choose settings on.

use crate::Features;
use rand::seq::SliceRandom;
use tgm_random::Streams;

/// Train clips in two parts, each ascending.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Split {
    /// To train on while settings are compared; has every class of train.
    pub(crate) fit: Vec<usize>,
    /// To compare settings on.
    pub(crate) held: Vec<usize>,
}

/// Holds out `fraction` of each class, rounded, but at least one clip of a class that has two or more and never all.
pub(crate) fn split(features: &Features, fraction: f64, streams: &Streams) -> Split {
    let mut by_class = vec![Vec::new(); features.classes()];
    for (row, &label) in features.labels().iter().enumerate() {
        by_class[label as usize].push(row);
    }
    let (mut fit, mut held) = (Vec::new(), Vec::new());
    for (class, mut rows) in by_class.into_iter().enumerate() {
        rows.shuffle(&mut streams.stream("probe-holdout", 0, class as u64));
        let most = rows.len().saturating_sub(1);
        let count = ((rows.len() as f64 * fraction).round() as usize).clamp(most.min(1), most);
        held.extend_from_slice(&rows[..count]);
        fit.extend_from_slice(&rows[count..]);
    }
    fit.sort_unstable();
    held.sort_unstable();
    Split { fit, held }
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
    fn the_choice_follows_the_seed() {
        let features = features((0..80).map(|i| i % 4).collect());
        let held = |seed| split(&features, 0.2, &Streams::new(seed)).held;
        assert_eq!(held(1), held(1));
        assert_ne!(held(1), held(2));
        assert_eq!(held(1).len(), 16);
    }
}
