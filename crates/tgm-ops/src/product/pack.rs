//! Matrices as they lie in memory, and copies of their parts in the order that the innermost loop reads.

use std::ops::Range;

#[cfg(target_arch = "x86_64")]
use super::square;
use super::tile::{Lhs, ROWS};
#[cfg(target_arch = "x86_64")]
use crate::simd::level;
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

/// Lanes and groups that are transposed at a time.
pub(super) const SQUARE: usize = 16;

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
            let rows = (lanes.start + lane).min(lanes.end)..(lanes.start + lane + SQUARE).min(lanes.end);
            let kept = SQUARE.min(width - lane);
            #[cfg(target_arch = "x86_64")]
            if out.len() == SQUARE * width && end - start == SQUARE * E::GROUP && super::available() {
                let rows = rows.map(|row| m.row(row, start..end));
                // SAFETY: the instructions are there, rows are a square long, and `out` has its sixteen groups.
                unsafe { square::pack::<E, S>(level(), rows, &mut out[lane..], width, kept) };
                continue;
            }
            let mut words = [[0u32; SQUARE]; SQUARE];
            for (words, row) in words.iter_mut().zip(rows) {
                let mut numbers = [E::default(); 2 * SQUARE];
                for (n, &v) in numbers.iter_mut().zip(m.row(row, start..end)) {
                    *n = E::put(v.get());
                }
                for (g, word) in words.iter_mut().enumerate() {
                    *word = E::word(numbers[g * E::GROUP], numbers[g * E::GROUP + E::GROUP - 1]);
                }
            }
            for (g, out) in out.chunks_exact_mut(width).enumerate() {
                for (l, word) in out[lane..lane + kept].iter_mut().enumerate() {
                    *word = words[l][g];
                }
            }
        }
    }
}
