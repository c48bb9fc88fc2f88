//! Which vector instructions the processor has, and how a loop comes to use them.
//!
//! Loops are written once, in plain Rust that the compiler vectorises, and compiled several times:
//! [`multiversion!`] makes the copies and picks one at run time. Only the matrix product needs intrinsics.

use std::sync::OnceLock;

use crate::buffer::Pool;

/// The vector instructions that loops are compiled for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Level {
    /// What every processor of the architecture has.
    Portable,
    /// 256 bits and fused multiply-add.
    Avx2,
    /// 512 bits.
    Avx512,
    /// 512 bits, and products of bfloat16 pairs.
    Avx512Bf16,
}

/// Whether products of bfloat16 numbers multiply them in pairs, and not as f32 numbers.
///
/// Intel's processors do one such instruction a cycle where they do two f32 ones: no more numbers, and measured fewer
/// (192 against 248 GFLOP/s on two Emerald Rapids cores).
pub(crate) fn multiplies_pairs() -> bool {
    static PAIRS: OnceLock<bool> = OnceLock::new();
    *PAIRS.get_or_init(|| level() == Level::Avx512Bf16 && !is_intel())
}

#[cfg(target_arch = "x86_64")]
fn is_intel() -> bool {
    let leaf = std::arch::x86_64::__cpuid(0);
    [leaf.ebx, leaf.edx, leaf.ecx].map(u32::to_le_bytes).as_flattened() == b"GenuineIntel"
}

#[cfg(not(target_arch = "x86_64"))]
fn is_intel() -> bool {
    false
}

/// What this processor has.
pub(crate) fn level() -> Level {
    static LEVEL: OnceLock<Level> = OnceLock::new();
    *LEVEL.get_or_init(detect)
}

#[cfg(all(target_arch = "x86_64", not(miri)))]
fn detect() -> Level {
    use std::arch::is_x86_feature_detected as has;
    let avx512 = has!("avx512f") && has!("avx512bw") && has!("avx512dq") && has!("avx512vl");
    match (avx512 && has!("fma"), has!("avx512bf16"), has!("avx2") && has!("fma")) {
        (true, true, _) => Level::Avx512Bf16,
        (true, false, _) => Level::Avx512,
        (false, _, true) => Level::Avx2,
        _ => Level::Portable,
    }
}

#[cfg(not(all(target_arch = "x86_64", not(miri))))]
fn detect() -> Level {
    Level::Portable
}

/// Defines a function whose body is compiled for every [`Level`].
///
/// The body is another function, `#[inline(always)]`, with a first constant parameter that says whether
/// [`mul_add`] is one instruction.
macro_rules! multiversion {
    ($(#[$doc:meta])* $vis:vis fn $name:ident $(<$($g:ident: $bound:path),+>)? ($($arg:ident: $ty:ty),* $(,)?)
        $(-> $ret:ty)? = $body:ident;) => {
        $(#[$doc])*
        #[allow(unsafe_code, clippy::too_many_arguments, clippy::undocumented_unsafe_blocks)]
        $vis fn $name $(<$($g: $bound),+>)? ($($arg: $ty),*) $(-> $ret)? {
            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,bmi2")]
                fn avx512 $(<$($g: $bound),+>)? ($($arg: $ty),*) $(-> $ret)? {
                    $body::<true $(, $($g),+)?>($($arg),*)
                }
                #[target_feature(enable = "avx2,fma,bmi2")]
                fn avx2 $(<$($g: $bound),+>)? ($($arg: $ty),*) $(-> $ret)? {
                    $body::<true $(, $($g),+)?>($($arg),*)
                }
                match $crate::simd::level() {
                    $crate::simd::Level::Avx512 | $crate::simd::Level::Avx512Bf16 => {
                        // SAFETY: `level` found these features on this processor.
                        return unsafe { avx512 $(::<$($g),+>)? ($($arg),*) };
                    }
                    $crate::simd::Level::Avx2 => {
                        // SAFETY: as above.
                        return unsafe { avx2 $(::<$($g),+>)? ($($arg),*) };
                    }
                    $crate::simd::Level::Portable => {}
                }
            }
            $body::<false $(, $($g),+)?>($($arg),*)
        }
    };
}
pub(crate) use multiversion;

/// `a b + c`: one rounding where the processor does it in one instruction (elsewhere that would be a library call).
#[inline(always)]
pub(crate) fn mul_add<const FMA: bool>(a: f32, b: f32, c: f32) -> f32 {
    if FMA { a.mul_add(b, c) } else { a * b + c }
}

/// `exp(x)` without branches, within 2 units in the last place; below −87 the smallest normal number, above 88 a
/// number near the largest.
#[inline(always)]
pub(crate) fn exp<const FMA: bool>(x: f32) -> f32 {
    /// Adding it leaves the nearest integer in the low bits of the mantissa.
    const ROUND: f32 = 12_582_912.0;
    let x = x.clamp(-87.0, 88.0);
    let shifted = mul_add::<FMA>(x, std::f32::consts::LOG2_E, ROUND);
    let n = shifted - ROUND;
    // ln 2 in two parts: the product of the first with a small integer is exact.
    let r = mul_add::<FMA>(n, -0.693_359_4, x);
    let r = mul_add::<FMA>(n, 2.121_944_4e-4, r);
    // Cephes `expf`.
    let mut p = 1.987_569_1e-4;
    for c in [1.398_199_9e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 0.5] {
        p = mul_add::<FMA>(p, r, c);
    }
    let p = mul_add::<FMA>(p, r * r, r) + 1.0;
    f32::from_bits(p.to_bits().wrapping_add(shifted.to_bits() << 23))
}

/// The normal distribution function Φ(x) and its density φ(x); Φ within 4e-7.
///
/// Abramowitz and Stegun 7.1.26 for erfc, whose exponential is the density's: one `exp` and one division for both.
#[inline(always)]
pub(crate) fn normal<const FMA: bool>(x: f32) -> (f32, f32) {
    let bell = exp::<FMA>(-0.5 * x * x);
    let t = 1.0 / mul_add::<FMA>(0.327_591_1 * std::f32::consts::FRAC_1_SQRT_2, x.abs(), 1.0);
    let mut p = 0.530_702_7;
    for c in [-0.726_576, 0.710_706_9, -0.142_248_37, 0.127_414_8] {
        p = mul_add::<FMA>(p, t, c);
    }
    let tail = p * t * bell;
    let cdf = if x < 0.0 { tail } else { 1.0 - tail };
    (cdf, 0.398_942_3 * bell)
}

/// A number that matrix products multiply.
pub(crate) trait Factor: Copy + Default + Send + Sync + 'static {
    /// How many neighbours along the summed dimension share a 32-bit word of a packed matrix.
    const GROUP: usize;
    /// Whether an f32 is rounded to bfloat16 to become one.
    const ROUNDED: bool;
    /// As f32.
    fn get(self) -> f32;
    /// The nearest number of this type.
    fn put(value: f32) -> Self;
    /// One word of a packed matrix: one `f32`, or two `bf16`.
    fn word(first: Self, second: Self) -> u32;
    /// `acc` plus the product of two words.
    fn dot(acc: f32, a: u32, b: u32) -> f32;
}

/// A number that activations are stored in and matrix products read.
pub(crate) trait Elem: Factor {
    /// What products multiply where there is no fast instruction for pairs.
    type Wide: Factor;
    /// Where freed activations of this type wait for their next use.
    fn pool() -> &'static Pool<Self>;
}

impl Factor for f32 {
    const GROUP: usize = 1;
    const ROUNDED: bool = false;

    #[inline(always)]
    fn get(self) -> f32 {
        self
    }

    #[inline(always)]
    fn put(value: f32) -> Self {
        value
    }

    #[inline(always)]
    fn word(first: Self, _: Self) -> u32 {
        first.to_bits()
    }

    fn dot(acc: f32, a: u32, b: u32) -> f32 {
        f32::from_bits(a).mul_add(f32::from_bits(b), acc)
    }
}

/// bfloat16: the upper half of an `f32`. (`half::bf16` branches when it rounds, which keeps loops from being vectorised.)
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(transparent)]
pub(crate) struct Bf16(pub(crate) u16);

impl Bf16 {
    /// candle's numbers as this crate's.
    #[allow(unsafe_code)]
    pub(crate) fn slice(numbers: &[half::bf16]) -> &[Self] {
        // SAFETY: both types are a `u16` without padding (`repr(transparent)`), and all bits are valid.
        unsafe { std::slice::from_raw_parts(numbers.as_ptr().cast(), numbers.len()) }
    }
}

impl Factor for Bf16 {
    const GROUP: usize = 2;
    const ROUNDED: bool = true;

    #[inline(always)]
    fn get(self) -> f32 {
        f32::from_bits(u32::from(self.0) << 16)
    }

    /// To nearest, ties to even; NaN stays NaN.
    #[inline(always)]
    fn put(value: f32) -> Self {
        let bits = value.to_bits();
        let rounded = bits.wrapping_add(0x7fff + (bits >> 16 & 1)) >> 16;
        Self(if value.is_nan() { 0x7fc0 } else { rounded as u16 })
    }

    #[inline(always)]
    fn word(first: Self, second: Self) -> u32 {
        u32::from(first.0) | u32::from(second.0) << 16
    }

    fn dot(acc: f32, a: u32, b: u32) -> f32 {
        let part = |word: u32, shift: u32| Self((word >> shift) as u16).get();
        (acc + part(a, 16) * part(b, 16)) + part(a, 0) * part(b, 0)
    }
}

/// A bfloat16 in an f32.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[repr(transparent)]
pub(crate) struct Widened(f32);

impl Factor for Widened {
    const GROUP: usize = 1;
    const ROUNDED: bool = true;

    #[inline(always)]
    fn get(self) -> f32 {
        self.0
    }

    #[inline(always)]
    fn put(value: f32) -> Self {
        Self(Bf16::put(value).get())
    }

    #[inline(always)]
    fn word(first: Self, second: Self) -> u32 {
        f32::word(first.0, second.0)
    }

    fn dot(acc: f32, a: u32, b: u32) -> f32 {
        f32::dot(acc, a, b)
    }
}

impl Elem for f32 {
    type Wide = Self;

    fn pool() -> &'static Pool<Self> {
        static POOL: Pool<f32> = Pool::new();
        &POOL
    }
}

impl Elem for Bf16 {
    type Wide = Widened;

    fn pool() -> &'static Pool<Self> {
        static POOL: Pool<Bf16> = Pool::new();
        &POOL
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    multiversion! {
        fn exps(x: &mut [f32]) = exps_body;
    }

    #[inline(always)]
    fn exps_body<const FMA: bool>(x: &mut [f32]) {
        x.iter_mut().for_each(|x| *x = exp::<FMA>(*x));
    }

    #[test]
    fn exp_is_exact_to_two_units_in_the_last_place() {
        let x: Vec<f32> = (-8700..8800).map(|i| i as f32 * 0.01).collect();
        let mut y = x.clone();
        exps(&mut y);
        for (&x, y) in x.iter().zip(y) {
            let want = f64::from(x).exp();
            for y in [y, exp::<false>(x)] {
                assert!((f64::from(y) - want).abs() <= 2.5e-7 * want, "exp({x}) = {y}, expected {want}");
            }
        }
        assert!(exp::<false>(f32::NEG_INFINITY) < 2e-38);
    }

    #[test]
    fn the_normal_distribution_is_exact_to_f32() {
        for i in -1200..1200 {
            let x = f64::from(i) * 0.01;
            let (cdf, pdf) = normal::<true>(x as f32);
            let want = 0.5 * libm::erfc(-x / 2f64.sqrt());
            assert!((f64::from(cdf) - want).abs() < 4e-7, "Φ({x}) = {cdf}, expected {want}");
            let want = (-0.5 * x * x).exp() / std::f64::consts::TAU.sqrt();
            assert!((f64::from(pdf) - want).abs() < 1e-7, "φ({x}) = {pdf}, expected {want}");
        }
    }

    #[test]
    fn bfloat16_rounds_to_nearest_even_as_the_half_crate_does() {
        let specials = [0.0, -0.0, f32::INFINITY, f32::NEG_INFINITY, f32::NAN, f32::MAX, 1e-40];
        let spread = (0..100_000u32).map(|i| f32::from_bits(i.wrapping_mul(2_654_435_761)));
        for x in specials.into_iter().chain(spread) {
            let want = candle_core::Tensor::new(x, &candle_core::Device::Cpu)
                .and_then(|t| t.to_dtype(candle_core::DType::BF16)?.to_dtype(candle_core::DType::F32))
                .and_then(|t| t.to_scalar::<f32>());
            if i64::from(x.to_bits()) % 97 != 0 && !specials.contains(&x) {
                continue;
            }
            let (got, want) = (Bf16::put(x).get(), want.unwrap());
            assert!(got == want || got.is_nan() && want.is_nan(), "{x}: {got}, expected {want}");
        }
    }
}
