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
    // Adding 0 makes the two zeros equal, which `total_cmp` tells apart. The sort must be stable.
    candidates.sort_by(|&a, &b| (key(b) + 0.0).total_cmp(&(key(a) + 0.0)));
    candidates.truncate(k);
    candidates
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
