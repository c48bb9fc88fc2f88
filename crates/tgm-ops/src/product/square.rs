//! Sixteen lanes by sixteen words, converted and transposed in registers.
//!
//! Packing is a pass over a matrix that a product of few rows does not hide: number by number it was a tenth of a
//! frozen tower's time.

use std::arch::x86_64::*;

use super::pack::SQUARE;
use crate::simd::{Elem, Factor, Level};

/// Whether a level has the instructions for such words.
pub(super) fn available<W: Factor>(level: Level) -> bool {
    level >= if W::GROUP == 1 { Level::Avx2 } else { Level::Avx512Bf16 }
}

/// Writes up to sixteen rows, each the numbers of sixteen words, as columns: word `g` of row `l` goes to
/// `out[g · stride + l]`. The first `kept` of sixteen columns are written; those without a row become zero.
///
/// # Safety
/// The processor has this level, and rows are `16 · W::GROUP` long.
///
/// # Panics
/// When the level has no instructions for such words, or the columns do not fit into `out`.
#[inline(always)]
pub(super) unsafe fn pack<'a, W: Factor, S: Elem>(
    level: Level,
    rows: impl Iterator<Item = &'a [S]>,
    out: &mut [u32],
    stride: usize,
    kept: usize,
) {
    assert!(available::<W>(level) && kept <= SQUARE && out.len() >= (SQUARE - 1) * stride + kept);
    let mut starts = [std::ptr::null::<S>(); SQUARE];
    let mut count = 0;
    for (start, row) in starts.iter_mut().zip(rows) {
        debug_assert_eq!(row.len(), SQUARE * W::GROUP);
        *start = row.as_ptr();
        count += 1;
    }
    let (rows, out) = (&starts[..count], out.as_mut_ptr());
    // SAFETY: the caller's; `starts` are rows of a square each, and the output was checked.
    unsafe {
        match (level, W::GROUP) {
            (Level::Avx512 | Level::Avx512Bf16, 1) => avx512::singles::<W, S>(rows, out, stride, kept),
            (_, 1) => avx2::pack::<W, S>(rows, out, stride, kept),
            _ => avx512::pairs(rows, out, stride, kept),
        }
    }
}

mod avx512 {
    use super::*;

    /// Words of one f32.
    #[target_feature(enable = "avx512f")]
    pub(super) unsafe fn singles<W: Factor, S: Elem>(
        rows: &[*const S],
        out: *mut u32,
        stride: usize,
        kept: usize,
    ) {
        let mut words = [_mm512_setzero_si512(); SQUARE];
        for (words, row) in words.iter_mut().zip(rows) {
            // SAFETY: rows are sixteen numbers long.
            *words = unsafe {
                match (S::GROUP, W::ROUNDED) {
                    // A bfloat16 is the upper half of an f32.
                    (2, _) => _mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(_mm256_loadu_si256(row.cast()))),
                    (_, false) => _mm512_loadu_si512(row.cast()),
                    (_, true) => round(_mm512_loadu_ps(row.cast())),
                }
            };
        }
        // SAFETY: the caller's.
        unsafe { transpose(words, out, stride, kept) }
    }

    /// `Widened::put` of sixteen numbers.
    #[target_feature(enable = "avx512f")]
    #[inline]
    fn round(numbers: __m512) -> __m512i {
        let bits = _mm512_castps_si512(numbers);
        let odd = _mm512_and_si512(_mm512_srli_epi32::<16>(bits), _mm512_set1_epi32(1));
        let rounded = _mm512_add_epi32(bits, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff)));
        let upper = _mm512_and_si512(rounded, _mm512_set1_epi32(!0xffff));
        let nan = _mm512_cmp_ps_mask::<_CMP_UNORD_Q>(numbers, numbers);
        _mm512_mask_mov_epi32(upper, nan, _mm512_set1_epi32(0x7fc0_0000))
    }

    /// Words of two bfloat16.
    #[target_feature(enable = "avx512f,avx512bf16")]
    pub(super) unsafe fn pairs<S: Elem>(rows: &[*const S], out: *mut u32, stride: usize, kept: usize) {
        let mut words = [_mm512_setzero_si512(); SQUARE];
        for (words, row) in words.iter_mut().zip(rows) {
            // SAFETY: rows are 32 numbers long; vectors of one size may be read as one another.
            *words = unsafe {
                match S::GROUP {
                    1 => {
                        let row = row.cast::<f32>();
                        let (low, high) = (_mm512_loadu_ps(row), _mm512_loadu_ps(row.add(SQUARE)));
                        std::mem::transmute::<__m512bh, __m512i>(_mm512_cvtne2ps_pbh(high, low))
                    }
                    _ => _mm512_loadu_si512(row.cast()),
                }
            };
        }
        // SAFETY: the caller's.
        unsafe { transpose(words, out, stride, kept) }
    }

    #[target_feature(enable = "avx512f")]
    #[inline]
    unsafe fn transpose(rows: [__m512i; SQUARE], out: *mut u32, stride: usize, kept: usize) {
        let zero = _mm512_setzero_si512();
        let (mut pairs, mut fours) = ([zero; SQUARE], [zero; SQUARE]);
        for i in 0..8 {
            pairs[2 * i] = _mm512_unpacklo_epi32(rows[2 * i], rows[2 * i + 1]);
            pairs[2 * i + 1] = _mm512_unpackhi_epi32(rows[2 * i], rows[2 * i + 1]);
        }
        // In each quarter q of `fours[4 i + j]`: column 4 q + j of rows 4 i to 4 i + 3.
        for i in 0..4 {
            let p = &pairs[4 * i..4 * i + 4];
            fours[4 * i] = _mm512_unpacklo_epi64(p[0], p[2]);
            fours[4 * i + 1] = _mm512_unpackhi_epi64(p[0], p[2]);
            fours[4 * i + 2] = _mm512_unpacklo_epi64(p[1], p[3]);
            fours[4 * i + 3] = _mm512_unpackhi_epi64(p[1], p[3]);
        }
        let mask = (0xffff_u32 >> (SQUARE - kept)) as __mmask16;
        for j in 0..4 {
            let [a, b, c, d] = [fours[j], fours[4 + j], fours[8 + j], fours[12 + j]];
            let (even, odd) = (_mm512_shuffle_i32x4(a, b, 0x88), _mm512_shuffle_i32x4(a, b, 0xdd));
            let (even2, odd2) = (_mm512_shuffle_i32x4(c, d, 0x88), _mm512_shuffle_i32x4(c, d, 0xdd));
            let columns = [
                _mm512_shuffle_i32x4(even, even2, 0x88),
                _mm512_shuffle_i32x4(odd, odd2, 0x88),
                _mm512_shuffle_i32x4(even, even2, 0xdd),
                _mm512_shuffle_i32x4(odd, odd2, 0xdd),
            ];
            for (q, column) in columns.into_iter().enumerate() {
                // SAFETY: `kept` words of row 4 q + j < 16 fit by the check in `pack`.
                unsafe { _mm512_mask_storeu_epi32(out.add((4 * q + j) * stride).cast(), mask, column) };
            }
        }
    }
}

mod avx2 {
    use super::*;

    /// Side of the squares that a square is made of: the words of a vector.
    const SIDE: usize = 8;

    /// Words of one f32.
    #[target_feature(enable = "avx2")]
    pub(super) unsafe fn pack<W: Factor, S: Elem>(
        rows: &[*const S],
        out: *mut u32,
        stride: usize,
        kept: usize,
    ) {
        for lane in (0..kept).step_by(SIDE) {
            for word in (0..SQUARE).step_by(SIDE) {
                let mut words = [_mm256_setzero_si256(); SIDE];
                for (words, row) in words.iter_mut().zip(rows.iter().skip(lane)) {
                    // SAFETY: rows are sixteen numbers long.
                    *words = unsafe { load::<W, S>(row.add(word)) };
                }
                // SAFETY: the lanes from `lane` of the words from `word` fit, up to `kept`, by the check in `pack`.
                unsafe { transpose(words, out.add(word * stride + lane), stride, (kept - lane).min(SIDE)) }
            }
        }
    }

    /// Eight words.
    #[target_feature(enable = "avx2")]
    #[inline]
    unsafe fn load<W: Factor, S: Elem>(row: *const S) -> __m256i {
        // SAFETY: the caller's: eight numbers are there.
        unsafe {
            match (S::GROUP, W::ROUNDED) {
                // A bfloat16 is the upper half of an f32.
                (2, _) => _mm256_slli_epi32::<16>(_mm256_cvtepu16_epi32(_mm_loadu_si128(row.cast()))),
                (_, false) => _mm256_loadu_si256(row.cast()),
                (_, true) => round(_mm256_loadu_ps(row.cast())),
            }
        }
    }

    /// `Widened::put` of eight numbers.
    #[target_feature(enable = "avx2")]
    #[inline]
    fn round(numbers: __m256) -> __m256i {
        let bits = _mm256_castps_si256(numbers);
        let odd = _mm256_and_si256(_mm256_srli_epi32::<16>(bits), _mm256_set1_epi32(1));
        let rounded = _mm256_add_epi32(bits, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff)));
        let upper = _mm256_and_si256(rounded, _mm256_set1_epi32(!0xffff));
        let nan = _mm256_castps_si256(_mm256_cmp_ps::<_CMP_UNORD_Q>(numbers, numbers));
        _mm256_blendv_epi8(upper, _mm256_set1_epi32(0x7fc0_0000), nan)
    }

    #[target_feature(enable = "avx2")]
    #[inline]
    unsafe fn transpose(rows: [__m256i; SIDE], out: *mut u32, stride: usize, kept: usize) {
        let zero = _mm256_setzero_si256();
        let (mut pairs, mut fours) = ([zero; SIDE], [zero; SIDE]);
        for i in 0..4 {
            pairs[2 * i] = _mm256_unpacklo_epi32(rows[2 * i], rows[2 * i + 1]);
            pairs[2 * i + 1] = _mm256_unpackhi_epi32(rows[2 * i], rows[2 * i + 1]);
        }
        // In each half h of `fours[4 i + j]`: column 4 h + j of rows 4 i to 4 i + 3.
        for i in 0..2 {
            let p = &pairs[4 * i..4 * i + 4];
            fours[4 * i] = _mm256_unpacklo_epi64(p[0], p[2]);
            fours[4 * i + 1] = _mm256_unpackhi_epi64(p[0], p[2]);
            fours[4 * i + 2] = _mm256_unpacklo_epi64(p[1], p[3]);
            fours[4 * i + 3] = _mm256_unpackhi_epi64(p[1], p[3]);
        }
        let lanes = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
        let mask = _mm256_cmpgt_epi32(_mm256_set1_epi32(kept as i32), lanes);
        for j in 0..4 {
            let halves = [
                _mm256_permute2x128_si256::<0x20>(fours[j], fours[4 + j]),
                _mm256_permute2x128_si256::<0x31>(fours[j], fours[4 + j]),
            ];
            for (h, column) in halves.into_iter().enumerate() {
                // SAFETY: the caller's: `kept` words of row 4 h + j < 8 fit.
                unsafe { _mm256_maskstore_epi32(out.add((4 * h + j) * stride).cast(), mask, column) };
            }
        }
    }
}
