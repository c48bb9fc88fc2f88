//! The one way in which strategies choose: the first k of an order, ties in random order.

use rand::{Rng, seq::SliceRandom};

use crate::Grid;

/// The `k` candidates with the highest keys. Candidates with equal keys are equally likely.
///
/// The sources say nothing about ties. An order by index would prefer the top-left corner wherever keys are
/// equal, and keys are equal wherever nothing moves or a score map is flat, so ties are broken at random. The
/// draws do not depend on the keys, and distinct keys make the outcome independent of the draws.
pub(crate) fn top_k(
    mut candidates: Vec<u32>,
    k: usize,
    key: impl Fn(u32) -> f64,
    rng: &mut impl Rng,
) -> Vec<u32> {
    candidates.shuffle(rng);
    // Of equal keys the one that was shuffled before the other comes first.
    let mut order: Vec<(u64, u32, u32)> = candidates
        .iter()
        .zip(0..)
        .map(|(&candidate, place)| (descending(key(candidate)), place, candidate))
        .collect();
    if k < order.len() {
        order.select_nth_unstable(k);
        order.truncate(k);
    }
    order.sort_unstable();
    order.into_iter().map(|(_, _, candidate)| candidate).collect()
}

/// A number that is the smaller the greater the key is, in the order of [`f64::total_cmp`] but for the two zeros, which are equal.
fn descending(key: f64) -> u64 {
    let bits = (key + 0.0).to_bits();
    // Negative numbers have their sign bit set, and are the smaller the greater the other bits are.
    if bits >> 63 == 1 { bits } else { !bits & !(1 << 63) }
}

/// The `k` tubelets of each slot with the highest keys; see [`top_k`].
pub(crate) fn top_k_per_slot(grid: Grid, k: usize, key: impl Fn(u32) -> f64, rng: &mut impl Rng) -> Vec<u32> {
    (0..grid.slots()).flat_map(|slot| top_k(grid.slot(slot).collect(), k, &key, rng)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use tgm_random::Streams;

    #[test]
    fn the_highest_keys_are_chosen_in_order() {
        let mut rng = Streams::new(0).stream("select", 0, 0);
        let keys = [3.0, f64::NEG_INFINITY, f64::INFINITY, -1.0, 7.0];
        assert_eq!(top_k((0..5).collect(), 4, |i| keys[i as usize], &mut rng), [2, 4, 0, 3]);
    }

    #[test]
    fn keys_are_ordered_as_numbers() {
        let keys = [
            f64::INFINITY,
            f64::MAX,
            1.0,
            f64::MIN_POSITIVE,
            0.0,
            -f64::MIN_POSITIVE,
            -1.0,
            f64::NEG_INFINITY,
        ];
        assert!(keys.windows(2).all(|pair| descending(pair[0]) < descending(pair[1])));
        assert_eq!(descending(0.0), descending(-0.0));
    }

    #[test]
    fn the_choice_is_that_of_a_stable_sort_after_the_shuffle() {
        let streams = Streams::new(0);
        for sample in 0..200 {
            let keys: Vec<f64> = (0..40).map(|i| f64::from((i * i + sample) % 7) - 3.0).collect();
            let rng = || streams.stream("select", 0, sample as u64);
            let mut want: Vec<u32> = (0..40).collect();
            want.shuffle(&mut rng());
            want.sort_by(|&a, &b| keys[b as usize].total_cmp(&keys[a as usize]));
            assert_eq!(top_k((0..40).collect(), 25, |i| keys[i as usize], &mut rng()), want[..25]);
        }
    }

    #[test]
    fn equal_keys_have_equal_chances() {
        let streams = Streams::new(0);
        let mut chosen = [0; 6];
        for sample in 0..6_000 {
            // The two zeros are equal too; cell 5 comes first.
            let key = |i| if i == 5 { 1.0 } else { [0.0, -0.0][i as usize % 2] };
            for index in top_k((0..6).collect(), 3, key, &mut streams.stream("select", 0, sample)) {
                chosen[index as usize] += 1;
            }
        }
        assert_eq!(chosen[5], 6_000);
        // Binomial with n = 6000 and p = 2/5: five standard deviations are 190.
        assert!(chosen[..5].iter().all(|n: &i32| (n - 2_400).abs() < 190), "{chosen:?}");
    }
}
