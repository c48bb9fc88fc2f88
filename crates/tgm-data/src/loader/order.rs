//! The order of the rows in an epoch, without a list of them.

use rand::{Rng, RngExt};

/// A random permutation of `0..len` that takes the same few bytes for any length.
///
/// A Feistel network over the next larger power of four is a bijection for any round function; numbers that
/// fall outside of `0..len` are encrypted again until they fall inside ("cycle walking", Black and Rogaway, "Ciphers
/// with arbitrary finite domains", 2002), which keeps it one. On average fewer than four passes are needed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Permutation {
    len: u64,
    half_bits: u32,
    keys: [u64; ROUNDS],
}

const ROUNDS: usize = 8;

impl Permutation {
    /// A permutation of `0..len`, drawn from `rng`.
    pub fn new(len: u64, rng: &mut impl Rng) -> Self {
        let bits = u64::BITS - len.saturating_sub(1).leading_zeros();
        // Not under 8 bits: a network of very narrow halves reaches few of the permutations.
        let half_bits = bits.div_ceil(2).max(4);
        Self { len, half_bits, keys: std::array::from_fn(|_| rng.random()) }
    }

    /// Where position `index` of the order points.
    ///
    /// # Panics
    /// When `index` is not below the length.
    pub fn at(&self, index: u64) -> u64 {
        assert!(index < self.len, "position {index} of a permutation of {}", self.len);
        let mut value = self.encrypt(index);
        while value >= self.len {
            value = self.encrypt(value);
        }
        value
    }

    fn encrypt(&self, value: u64) -> u64 {
        let mask = (1_u64 << self.half_bits) - 1;
        let (mut left, mut right) = (value >> self.half_bits, value & mask);
        for key in self.keys {
            (left, right) = (right, left ^ (scramble(right ^ key) & mask));
        }
        left << self.half_bits | right
    }
}

/// The finaliser of SplitMix64: every bit of the result depends on every bit of the value.
fn scramble(mut value: u64) -> u64 {
    value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use tgm_random::Streams;

    fn permutation(len: u64, epoch: u64) -> Permutation {
        Permutation::new(len, &mut Streams::new(9).stream("shuffle", epoch, 0))
    }

    fn is_bijection(len: u64, epoch: u64) -> bool {
        let permutation = permutation(len, epoch);
        let mut seen = vec![false; len as usize];
        (0..len).all(|i| !std::mem::replace(&mut seen[permutation.at(i) as usize], true))
    }

    #[test]
    fn every_row_comes_exactly_once_at_any_length() {
        assert!((1..600).all(|len| is_bijection(len, len)));
        assert!([65_535, 65_536, 65_537, 1_000_003].into_iter().all(|len| is_bijection(len, 0)));
    }

    proptest! {
        #[test]
        fn positions_of_a_huge_dataset_stay_inside_and_apart(len in 2_u64.., a: u64, b: u64, epoch: u64) {
            let len = len >> 2;
            prop_assume!(len > 1);
            let (a, b) = (a % len, b % len);
            let permutation = permutation(len, epoch);
            prop_assert!(permutation.at(a) < len);
            prop_assert_eq!(a == b, permutation.at(a) == permutation.at(b));
        }
    }

    #[test]
    fn all_orders_of_four_rows_are_about_equally_frequent() {
        let mut counts = std::collections::HashMap::new();
        for epoch in 0..24_000 {
            let order = permutation(4, epoch);
            *counts.entry([0, 1, 2, 3].map(|i| order.at(i))).or_insert(0.0) += 1.0;
        }
        assert_eq!(counts.len(), 24);
        // Chi-squared with 23 degrees of freedom: above 49.7 with probability 0.001.
        let chi: f64 = counts.values().map(|count: &f64| (count - 1000.0).powi(2) / 1000.0).sum();
        assert!(chi < 49.7, "{chi}");
    }

    #[test]
    fn neighbours_do_not_stay_neighbours() {
        let order = permutation(100_000, 0);
        let close = (0..99_999).filter(|&i| order.at(i).abs_diff(order.at(i + 1)) < 1000).count();
        // Chance is about 2 %.
        assert!((1700..2300).contains(&close), "{close}");
    }
}
