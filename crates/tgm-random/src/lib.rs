//! Every random draw of a run has a name.
//!
//! A shared generator makes results depend on the order of the draws: on the number of loader workers, on
//! the number of ranks, on whether a run was interrupted. Here each consumer asks for its own generator by
//! *(seed, purpose, epoch, sample)*; the same name always gives the same numbers, whoever asks and whenever.
//! Nothing about the random state therefore needs to be saved in a checkpoint.
//!
//! The name is used as the 256-bit key of ChaCha8, so distinct names give independent streams without any
//! mixing function in between; only the purpose, a string, is hashed (64-bit FNV-1a).
//!
//! ```
//! use rand::RngExt;
//! use tgm_random::Streams;
//!
//! let streams = Streams::new(17);
//! let mut a = streams.stream("crop", 3, 1_204);
//! let mut b = streams.stream("crop", 3, 1_204);
//! assert_eq!(a.random::<u64>(), b.random::<u64>());
//! assert_ne!(a.random::<u64>(), streams.stream("mask", 3, 1_204).random::<u64>());
//! ```
#![deny(missing_docs)]

use rand::{Rng, RngExt, SeedableRng};

/// The generator behind one name. Its numbers are the same on every platform.
pub type Stream = rand_chacha::ChaCha8Rng;

/// All random streams of a run, told apart by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Streams {
    seed: u64,
}

impl Streams {
    /// The streams of the run with this seed.
    pub const fn new(seed: u64) -> Self {
        Self { seed }
    }

    /// The run's seed.
    pub const fn seed(&self) -> u64 {
        self.seed
    }

    /// The stream of one purpose (`"crop"`, `"mask"`, `"caption"`, …) for one sample of one epoch.
    ///
    /// Draws that do not belong to a sample or an epoch pass 0.
    pub fn stream(&self, purpose: &str, epoch: u64, sample: u64) -> Stream {
        let mut key = [0u8; 32];
        for (part, word) in key.chunks_exact_mut(8).zip([self.seed, fnv1a(purpose), epoch, sample]) {
            part.copy_from_slice(&word.to_le_bytes());
        }
        Stream::from_seed(key)
    }
}

/// A standard normal number (Box & Muller 1958), from two uniform ones.
pub fn normal(rng: &mut impl Rng) -> f64 {
    let radius = (-2.0 * (1.0 - rng.random::<f64>()).ln()).sqrt();
    radius * (std::f64::consts::TAU * rng.random::<f64>()).cos()
}

/// 64-bit FNV-1a: stable across platforms and releases, unlike the standard library's hasher.
fn fnv1a(text: &str) -> u64 {
    text.bytes()
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    fn first(streams: Streams, purpose: &str, epoch: u64, sample: u64) -> u64 {
        streams.stream(purpose, epoch, sample).random()
    }

    #[test]
    fn equal_names_give_equal_numbers() {
        let (a, b) = (Streams::new(1), Streams::new(1));
        assert_eq!(first(a, "mask", 2, 3), first(b, "mask", 2, 3));
    }

    #[test]
    fn every_part_of_the_name_matters() {
        let mut seen = HashSet::new();
        for seed in 0..4 {
            for purpose in ["mask", "crop", "", "crop "] {
                for epoch in 0..4 {
                    for sample in 0..4 {
                        assert!(seen.insert(first(Streams::new(seed), purpose, epoch, sample)));
                    }
                }
            }
        }
    }

    #[test]
    fn normal_numbers_have_the_mean_and_spread_of_a_normal() {
        let mut rng = Streams::new(3).stream("test", 0, 0);
        let draws: Vec<f64> = (0..20_000).map(|_| normal(&mut rng)).collect();
        let mean = draws.iter().sum::<f64>() / 20_000.0;
        let variance = draws.iter().map(|x| x * x).sum::<f64>() / 20_000.0;
        let within_one = draws.iter().filter(|x| x.abs() < 1.0).count() as f64 / 20_000.0;
        assert!(mean.abs() < 0.03 && (variance - 1.0).abs() < 0.04 && (within_one - 0.6827).abs() < 0.012);
    }

    /// Checkpoints resume by name, so a release that changed these numbers would silently change runs.
    #[test]
    fn numbers_never_change_between_releases() {
        assert_eq!(fnv1a("a"), 0xaf63_dc4c_8601_ec8c);
        assert_eq!(first(Streams::new(0), "mask", 0, 0), GOLDEN);
    }

    const GOLDEN: u64 = 1_577_606_709_124_734_312;
}
