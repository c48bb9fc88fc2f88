//! Matrices as they lie in memory, and copies of their parts in the order that the innermost loop reads.

use std::ops::Range;

use super::tile::{Lhs, ROWS};
use crate::simd::{Elem, multiversion};

/// Which dimension of a matrix is contiguous in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Inner {
    /// Element (lane, k) is at `lane · stride + k`.
    Depth,
    /// Element (lane, k) is at `k · stride + lane`.
    Lane,
}

/// A matrix of lanes that a product sums over the depth of.
#[derive(Clone, Copy)]
pub(crate) struct Matrix<'a, S> {
    data: &'a [S],
    lanes: usize,
    depth: usize,
    stride: usize,
    inner: Inner,
}

impl<'a, S: Elem> Matrix<'a, S> {
    /// Row-major `[lanes, depth]`, rows `stride` apart.
    pub(crate) fn rows(data: &'a [S], lanes: usize, depth: usize, stride: usize) -> Self {
        Self::new(data, lanes, depth, stride, Inner::Depth)
    }

    /// Row-major `[depth, lanes]`, rows `stride` apart: the transpose of what the product takes, read as it lies.
    pub(crate) fn cols(data: &'a [S], lanes: usize, depth: usize, stride: usize) -> Self {
        Self::new(data, lanes, depth, stride, Inner::Lane)
    }

    fn new(data: &'a [S], lanes: usize, depth: usize, stride: usize, inner: Inner) -> Self {
        let (outer, width) = if inner == Inner::Depth { (lanes, depth) } else { (depth, lanes) };
        let end = if outer == 0 || width == 0 { 0 } else { (outer - 1) * stride + width };
        assert!(end <= data.len() && width <= stride.max(1), "{outer} rows of {width} in {}", data.len());
        Self { data, lanes, depth, stride, inner }
    }

    pub(crate) fn lanes(&self) -> usize {
        self.lanes
    }

    pub(crate) fn depth(&self) -> usize {
        self.depth
    }

    pub(crate) fn inner(&self) -> Inner {
        self.inner
    }

    /// Twelve lanes from `lane` for the innermost loop of products of `E`, if it can read them where they are.
    #[inline(always)]
    pub(crate) fn in_place<E: Elem>(&self, lane: usize, depth: Range<usize>) -> Option<Lhs<'a>> {
        let words = |n: usize| n.is_multiple_of(S::GROUP);
        let fits = S::GROUP == E::GROUP && self.inner == Inner::Depth && lane + ROWS <= self.lanes;
        if !(fits && words(depth.len()) && words(self.stride)) {
            return None;
        }
        Some(Lhs::in_place(&self.data[lane * self.stride + depth.start..], self.stride, depth.len()))
    }

    /// Where the row (a lane or a step of depth) `outer` begins.
    #[inline(always)]
    fn row(&self, outer: usize, inner: Range<usize>) -> &'a [S] {
        &self.data[outer * self.stride + inner.start..outer * self.stride + inner.end]
    }
}

/// Packs lanes and depth of a matrix: word `g · W + l` holds the depths `g · GROUP..` of lane `l`. What is missing from
/// `W` lanes or from the last group is zero.
///
/// # Panics
/// When `lanes` are more than `W`, or `out` is not as long as the packed part.
#[inline(always)]
pub(crate) fn pack<E: Elem, S: Elem, const W: usize>(
    m: &Matrix<'_, S>,
    lanes: Range<usize>,
    depth: Range<usize>,
    out: &mut [u32],
) {
    assert!(lanes.len() <= W && out.len() == depth.len().div_ceil(E::GROUP) * W);
    match m.inner {
        Inner::Lane => pack_lanes::<E, S>(m, lanes, depth, W, out),
        Inner::Depth => pack_depth::<E, S>(m, lanes, depth, W, out),
    }
}

/// The same with a width that is not a constant, for a matrix whose lanes are contiguous.
pub(crate) fn pack_wide<E: Elem, S: Elem>(
    m: &Matrix<'_, S>,
    lanes: Range<usize>,
    depth: Range<usize>,
    width: usize,
    out: &mut [u32],
) {
    assert!(m.inner == Inner::Lane && lanes.len() <= width);
    assert!(out.len() == depth.len().div_ceil(E::GROUP) * width);
    pack_lanes::<E, S>(m, lanes, depth, width, out);
}

multiversion! {
    fn pack_lanes<E: Elem, S: Elem>(m: &Matrix<'_, S>, lanes: Range<usize>, depth: Range<usize>, width: usize, out: &mut [u32])
        = pack_lanes_body;
}

#[inline(always)]
fn pack_lanes_body<const FMA: bool, E: Elem, S: Elem>(
    m: &Matrix<'_, S>,
    lanes: Range<usize>,
    depth: Range<usize>,
    width: usize,
    out: &mut [u32],
) {
    let convert = |v: S| E::put(v.get());
    for (g, out) in out.chunks_exact_mut(width).enumerate() {
        let k = depth.start + g * E::GROUP;
        let (words, rest) = out.split_at_mut(lanes.len());
        rest.fill(0);
        let first = m.row(k, lanes.clone());
        if E::GROUP == 2 && k + 1 < depth.end {
            let second = m.row(k + 1, lanes.clone());
            for ((word, &a), &b) in words.iter_mut().zip(first).zip(second) {
                *word = E::word(convert(a), convert(b));
            }
        } else {
            for (word, &a) in words.iter_mut().zip(first) {
                *word = E::word(convert(a), E::default());
            }
        }
    }
}

multiversion! {
    fn pack_depth<E: Elem, S: Elem>(m: &Matrix<'_, S>, lanes: Range<usize>, depth: Range<usize>, width: usize, out: &mut [u32])
        = pack_depth_body;
}

/// Groups that are transposed at a time.
const SQUARE: usize = 16;

#[inline(always)]
fn pack_depth_body<const FMA: bool, E: Elem, S: Elem>(
    m: &Matrix<'_, S>,
    lanes: Range<usize>,
    depth: Range<usize>,
    width: usize,
    out: &mut [u32],
) {
    for (square, out) in out.chunks_mut(SQUARE * width).enumerate() {
        let start = depth.start + square * SQUARE * E::GROUP;
        let end = (start + SQUARE * E::GROUP).min(depth.end);
        for lane in (0..width).step_by(SQUARE) {
            let mut words = [[0u32; SQUARE]; SQUARE];
            for (words, lane) in words.iter_mut().zip(lanes.start + lane..lanes.end) {
                let row = m.row(lane, start..end);
                let mut numbers = [E::default(); 2 * SQUARE];
                match <&[S; 2 * SQUARE]>::try_from(row) {
                    Ok(row) => {
                        for (n, &v) in numbers.iter_mut().zip(row) {
                            *n = E::put(v.get());
                        }
                    }
                    Err(_) => {
                        for (n, &v) in numbers.iter_mut().zip(row) {
                            *n = E::put(v.get());
                        }
                    }
                }
                for (g, word) in words.iter_mut().enumerate() {
                    *word = E::word(numbers[g * E::GROUP], numbers[g * E::GROUP + E::GROUP - 1]);
                }
            }
            let kept = SQUARE.min(width - lane);
            if out.len() == SQUARE * width && kept == SQUARE {
                transpose(&words, &mut out[lane..], width);
            } else {
                for (g, out) in out.chunks_exact_mut(width).enumerate() {
                    for (l, word) in out[lane..lane + kept].iter_mut().enumerate() {
                        *word = words[l][g];
                    }
                }
            }
        }
    }
}

/// Writes the columns of a square as rows, `stride` words apart.
#[inline(always)]
fn transpose(words: &[[u32; SQUARE]; SQUARE], out: &mut [u32], stride: usize) {
    assert!(out.len() >= (SQUARE - 1) * stride + SQUARE);
    #[cfg(target_arch = "x86_64")]
    if crate::simd::level() >= crate::simd::Level::Avx512 {
        // SAFETY: the instructions are there, and the last of the 16 rows was checked to fit.
        unsafe { transpose_avx512(words, out.as_mut_ptr(), stride) };
        return;
    }
    for (g, out) in out.chunks_mut(stride).take(SQUARE).enumerate() {
        for (l, word) in out[..SQUARE].iter_mut().enumerate() {
            *word = words[l][g];
        }
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
unsafe fn transpose_avx512(words: &[[u32; SQUARE]; SQUARE], out: *mut u32, stride: usize) {
    use std::arch::x86_64::*;
    let zero = _mm512_setzero_si512();
    let (mut rows, mut pairs, mut fours) = ([zero; 16], [zero; 16], [zero; 16]);
    for (row, words) in rows.iter_mut().zip(words) {
        // SAFETY: sixteen words.
        *row = unsafe { _mm512_loadu_si512(words.as_ptr().cast()) };
    }
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
            // SAFETY: row 4 q + j < 16 fits by the caller's check.
            unsafe { _mm512_storeu_si512(out.add((4 * q + j) * stride).cast(), column) };
        }
    }
}
