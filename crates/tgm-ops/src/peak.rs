//! What the processor's multiply-add units can do: the roof that speeds are compared with.

use std::time::Instant;

use crate::precision::Precision;
#[cfg(target_arch = "x86_64")]
use crate::simd::{Level, level, multiplies_pairs};

/// Sums that do not wait for each other: more than two units with a latency of six cycles.
const SUMS: usize = 24;
/// Numbers in a vector, of the widest kind.
const LANES: usize = 16;
/// Multiply-adds of every sum in one trial: half a millisecond.
const ROUNDS: usize = 200_000;
/// The fastest of so many trials counts: whatever else the machine does only takes from it. They go on for some hundredths of a second, because
/// a few milliseconds may all fall into a slow moment: work has then come out above the peak.
const TRIALS: usize = 60;

/// Floating-point operations per second (a multiply-add counts as two) of all threads of the current pool together, with
/// operands that stay in registers, in the arithmetic of products of this precision. Takes some hundredths of a second.
pub fn peak_flops(precision: Precision) -> f64 {
    let trial = || {
        let shares = rayon::broadcast(|_| {
            let start = Instant::now();
            let flops = multiply_adds(precision.or_f32());
            flops / start.elapsed().as_secs_f64()
        });
        shares.into_iter().sum()
    };
    (0..TRIALS).map(|_| trial()).fold(0.0, f64::max)
}

/// Returns how many operations it did.
fn multiply_adds(precision: Precision) -> f64 {
    let sums = (ROUNDS * SUMS * LANES) as f64;
    #[cfg(target_arch = "x86_64")]
    if precision == Precision::Bf16 && multiplies_pairs() {
        // SAFETY: the instructions are there.
        #[allow(unsafe_code)]
        std::hint::black_box(unsafe { pairs() });
        return 4.0 * sums;
    }
    #[cfg(target_arch = "x86_64")]
    match level() {
        Level::Avx512 | Level::Avx512Bf16 => {
            // SAFETY: the instructions are there.
            #[allow(unsafe_code)]
            std::hint::black_box(unsafe { singles() });
            return 2.0 * sums;
        }
        Level::Avx2 => {
            // SAFETY: the instructions are there.
            #[allow(unsafe_code)]
            std::hint::black_box(unsafe { halves() });
            return sums;
        }
        Level::Portable => {}
    }
    let _ = precision;
    std::hint::black_box(portable(std::hint::black_box([0.5; LANES])));
    2.0 * sums
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bf16")]
fn pairs() -> f32 {
    use std::arch::x86_64::*;
    let one = std::hint::black_box(_mm512_set1_ps(1e-3));
    let factor = _mm512_cvtne2ps_pbh(one, one);
    let mut sums = [_mm512_setzero_ps(); SUMS];
    for _ in 0..ROUNDS {
        for sum in &mut sums {
            *sum = _mm512_dpbf16_ps(*sum, factor, factor);
        }
    }
    sums.into_iter().map(|sum| _mm512_reduce_add_ps(sum)).sum()
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
fn singles() -> f32 {
    use std::arch::x86_64::*;
    let factor = std::hint::black_box(_mm512_set1_ps(1e-3));
    let mut sums = [_mm512_setzero_ps(); SUMS];
    for _ in 0..ROUNDS {
        for sum in &mut sums {
            *sum = _mm512_fmadd_ps(factor, factor, *sum);
        }
    }
    sums.into_iter().map(|sum| _mm512_reduce_add_ps(sum)).sum()
}

/// Half as many sums, of half as many numbers each, for twice as many rounds: there are only sixteen registers.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
fn halves() -> f32 {
    use std::arch::x86_64::*;
    let factor = std::hint::black_box(_mm256_set1_ps(1e-3));
    let mut sums = [_mm256_setzero_ps(); SUMS / 2];
    for _ in 0..2 * ROUNDS {
        for sum in &mut sums {
            *sum = _mm256_fmadd_ps(factor, factor, *sum);
        }
    }
    let mut numbers = [0f32; LANES / 2];
    let sum = sums.into_iter().fold(_mm256_setzero_ps(), |a, b| _mm256_add_ps(a, b));
    // SAFETY: eight numbers fit.
    #[allow(unsafe_code)]
    unsafe {
        _mm256_storeu_ps(numbers.as_mut_ptr(), sum);
    }
    numbers.iter().sum()
}

/// What the compiler makes of plain Rust. Fewer sums: a vector of sixteen is several registers.
fn portable(factor: [f32; LANES]) -> f32 {
    let mut sums = [[0f32; LANES]; SUMS / 4];
    for _ in 0..4 * ROUNDS {
        for sums in &mut sums {
            for (sum, factor) in sums.iter_mut().zip(factor) {
                *sum = crate::simd::mul_add::<false>(factor, factor, *sum);
            }
        }
    }
    sums.iter().flatten().sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg_attr(miri, ignore = "slow")]
    fn the_peak_is_that_of_the_pool_and_bfloat16_is_no_slower() {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
        let peak = |precision| pool.install(|| peak_flops(precision));
        let single = peak(Precision::F32);
        assert!(single > 1e9 && single < 1e12, "{single}");
        // Whatever else the machine does may fall into one of two probes, but not into one of every pair.
        assert!((0..5).any(|_| peak(Precision::Bf16) > 0.5 * peak(Precision::F32)));
    }
}
