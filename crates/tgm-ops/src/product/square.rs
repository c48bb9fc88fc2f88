//! Sixteen lanes by sixteen words, converted and transposed in registers.
//!
//! Packing is a pass over a matrix that a product of few rows does not hide: number by number it was a tenth of a
//! frozen tower's time.

use std::arch::x86_64::*;

use super::pack::SQUARE;
use crate::simd::Elem;

/// Writes up to sixteen rows, each the numbers of sixteen words, as columns: word `g` of row `l` goes to
/// `out[g · stride + l]`. The first `kept` of sixteen columns are written; those without a row become zero.
///
/// # Safety
/// The processor has the instructions of `E`'s products, and rows are `16 · E::GROUP` long.
///
/// # Panics
/// When the columns do not fit into `out`.
#[inline(always)]
pub(super) unsafe fn pack<'a, E: Elem, S: Elem>(
    rows: impl Iterator<Item = &'a [S]>,
    out: &mut [u32],
    stride: usize,
    kept: usize,
) {
    assert!(kept <= SQUARE && out.len() >= (SQUARE - 1) * stride + kept);
    let mut starts = [std::ptr::null::<S>(); SQUARE];
    let mut count = 0;
    for (start, row) in starts.iter_mut().zip(rows) {
        debug_assert_eq!(row.len(), SQUARE * E::GROUP);
        *start = row.as_ptr();
        count += 1;
    }
    // SAFETY: the caller's; `starts` are rows of a square each, and the output was checked.
    unsafe {
        match E::GROUP {
            1 => singles(&starts[..count], out.as_mut_ptr(), stride, kept),
            _ => pairs(&starts[..count], out.as_mut_ptr(), stride, kept),
        }
    }
}

/// Words of one f32.
#[target_feature(enable = "avx512f")]
unsafe fn singles<S: Elem>(rows: &[*const S], out: *mut u32, stride: usize, kept: usize) {
    let mut words = [_mm512_setzero_si512(); SQUARE];
    for (words, row) in words.iter_mut().zip(rows) {
        // SAFETY: rows are sixteen numbers long.
        *words = unsafe {
            match S::GROUP {
                1 => _mm512_loadu_si512(row.cast()),
                // A bfloat16 is the upper half of an f32.
                _ => _mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(_mm256_loadu_si256(row.cast()))),
            }
        };
    }
    // SAFETY: the caller's.
    unsafe { transpose(words, out, stride, kept) }
}

/// Words of two bfloat16.
#[target_feature(enable = "avx512f,avx512bf16")]
unsafe fn pairs<S: Elem>(rows: &[*const S], out: *mut u32, stride: usize, kept: usize) {
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
