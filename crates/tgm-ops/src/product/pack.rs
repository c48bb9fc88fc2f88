//! Matrices as they lie in memory, and copies of their parts in the order that the innermost loop reads.

use std::ops::Range;

#[cfg(target_arch = "x86_64")]
use super::square;
use super::tile::{COLS, Lhs, ROWS};
#[cfg(target_arch = "x86_64")]
use crate::simd::level;
use crate::simd::{Elem, Factor, multiversion};

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

    /// Whether the innermost loop can read the matrix where it lies (but for odd sizes, and its last lanes).
    pub(crate) fn is_direct<W: Factor>(&self) -> bool {
        self.inner == Inner::Depth && (S::GROUP, S::ROUNDED) == (W::GROUP, W::ROUNDED)
    }

    /// Up to twelve lanes from `lane` for the innermost loop: where they are if it can read them there, or copied to `spare`.
    ///
    /// # Panics
    /// When the depth is not contiguous, or `spare` has not [`strip_words`].
    #[inline(always)]
    pub(crate) fn strip<'s, W: Factor>(
        &self,
        lane: usize,
        depth: Range<usize>,
        spare: &'s mut [u32],
    ) -> Lhs<'s>
    where
        'a: 's,
    {
        assert!(self.inner == Inner::Depth, "a strip of a matrix whose lanes are contiguous");
        let words = |n: usize| n.is_multiple_of(S::GROUP);
        if self.is_direct::<W>() && lane + ROWS <= self.lanes && words(depth.len()) && words(self.stride) {
            return Lhs::in_place(&self.data[lane * self.stride + depth.start..], self.stride, depth.len());
        }
        let groups = depth.len().div_ceil(W::GROUP);
        let stride = strip_stride(groups);
        let spare = &mut spare[..ROWS * stride];
        copy_rows::<W, S>(self, lane..(lane + ROWS).min(self.lanes), depth, stride, spare);
        Lhs::rows(spare, stride, groups)
    }

    /// Where the row (a lane or a step of depth) `outer` begins.
    #[inline(always)]
    fn row(&self, outer: usize, inner: Range<usize>) -> &'a [S] {
        &self.data[outer * self.stride + inner.start..outer * self.stride + inner.end]
    }
}

/// Words that [`Matrix::strip`] may need for strips of this depth.
pub(crate) fn strip_words<W: Factor>(depth: usize) -> usize {
    ROWS * strip_stride(depth.div_ceil(W::GROUP))
}

/// Words from one row of a copied strip to the next: a cache line more than needed, because rows that are a power of two apart share the
/// sets of the first-level cache.
fn strip_stride(groups: usize) -> usize {
    groups.next_multiple_of(16) + 16
}

multiversion! {
    fn copy_rows<W: Factor, S: Elem>(m: &Matrix<'_, S>, lanes: Range<usize>, depth: Range<usize>, stride: usize, out: &mut [u32])
        = copy_rows_body;
}

/// Lanes as rows of words; those that are missing become zero.
#[inline(always)]
fn copy_rows_body<const FMA: bool, W: Factor, S: Elem>(
    m: &Matrix<'_, S>,
    lanes: Range<usize>,
    depth: Range<usize>,
    stride: usize,
    out: &mut [u32],
) {
    let convert = |v: S| W::put(v.get());
    let (rows, missing) = out.split_at_mut(lanes.len() * stride);
    for (out, lane) in rows.chunks_exact_mut(stride).zip(lanes) {
        let row = m.row(lane, depth.clone());
        if W::GROUP == 1 {
            out.iter_mut().zip(row).for_each(|(word, &v)| *word = W::word(convert(v), W::default()));
            continue;
        }
        let (pairs, rest) = row.as_chunks::<2>();
        out.iter_mut().zip(pairs).for_each(|(word, &[a, b])| *word = W::word(convert(a), convert(b)));
        if let [last] = rest {
            out[pairs.len()] = W::word(convert(*last), W::default());
        }
    }
    missing.fill(0);
}

/// Packs lanes and depth of a matrix: word `g · width + l` holds the depths `g · GROUP..` of lane `l`. What is missing from
/// `width` lanes or from the last group is zero.
///
/// # Panics
/// When `lanes` are more than `width`, or `out` is not as long as the packed part.
#[inline(always)]
pub(crate) fn pack<W: Factor, S: Elem>(
    m: &Matrix<'_, S>,
    lanes: Range<usize>,
    depth: Range<usize>,
    width: usize,
    out: &mut [u32],
) {
    assert!(lanes.len() <= width && out.len() == depth.len().div_ceil(W::GROUP) * width);
    match m.inner {
        Inner::Lane => pack_lanes::<W, S>(m, lanes, depth, width, out),
        Inner::Depth => pack_depth::<W, S>(m, lanes, depth, width, out),
    }
}

multiversion! {
    fn pack_lanes<W: Factor, S: Elem>(m: &Matrix<'_, S>, lanes: Range<usize>, depth: Range<usize>, width: usize, out: &mut [u32])
        = pack_lanes_body;
}

#[inline(always)]
fn pack_lanes_body<const FMA: bool, W: Factor, S: Elem>(
    m: &Matrix<'_, S>,
    lanes: Range<usize>,
    depth: Range<usize>,
    width: usize,
    out: &mut [u32],
) {
    for (g, out) in out.chunks_exact_mut(width).enumerate() {
        let k = depth.start + g * W::GROUP;
        let first = m.row(k, lanes.clone());
        let second = (W::GROUP == 2 && k + 1 < depth.end).then(|| m.row(k + 1, lanes.clone()));
        // A whole panel, the usual case, with a constant length: otherwise every 32 numbers are a call.
        if lanes.len() == COLS && width == COLS {
            pack_row::<W, S>(&mut out[..COLS], &first[..COLS], second.map(|row| &row[..COLS]));
        } else {
            let (words, rest) = out.split_at_mut(lanes.len());
            pack_row::<W, S>(words, first, second);
            rest.fill(0);
        }
    }
}

/// A word of each lane, of one or two steps of depth.
#[inline(always)]
fn pack_row<W: Factor, S: Elem>(words: &mut [u32], first: &[S], second: Option<&[S]>) {
    let convert = |v: S| W::put(v.get());
    match second {
        Some(second) => {
            for ((word, &a), &b) in words.iter_mut().zip(first).zip(second) {
                *word = W::word(convert(a), convert(b));
            }
        }
        None => {
            for (word, &a) in words.iter_mut().zip(first) {
                *word = W::word(convert(a), W::default());
            }
        }
    }
}

multiversion! {
    fn pack_depth<W: Factor, S: Elem>(m: &Matrix<'_, S>, lanes: Range<usize>, depth: Range<usize>, width: usize, out: &mut [u32])
        = pack_depth_body;
}

/// Lanes and groups that are transposed at a time.
pub(super) const SQUARE: usize = 16;

#[inline(always)]
fn pack_depth_body<const FMA: bool, W: Factor, S: Elem>(
    m: &Matrix<'_, S>,
    lanes: Range<usize>,
    depth: Range<usize>,
    width: usize,
    out: &mut [u32],
) {
    for (square, out) in out.chunks_mut(SQUARE * width).enumerate() {
        let start = depth.start + square * SQUARE * W::GROUP;
        let end = (start + SQUARE * W::GROUP).min(depth.end);
        for lane in (0..width).step_by(SQUARE) {
            let rows = (lanes.start + lane).min(lanes.end)..(lanes.start + lane + SQUARE).min(lanes.end);
            let kept = SQUARE.min(width - lane);
            #[cfg(target_arch = "x86_64")]
            if out.len() == SQUARE * width
                && end - start == SQUARE * W::GROUP
                && square::available::<W>(level())
            {
                let rows = rows.map(|row| m.row(row, start..end));
                // SAFETY: the instructions are there, rows are a square long, and `out` has its sixteen groups.
                unsafe { square::pack::<W, S>(level(), rows, &mut out[lane..], width, kept) };
                continue;
            }
            let mut words = [[0u32; SQUARE]; SQUARE];
            for (words, row) in words.iter_mut().zip(rows) {
                let mut numbers = [W::default(); 2 * SQUARE];
                for (n, &v) in numbers.iter_mut().zip(m.row(row, start..end)) {
                    *n = W::put(v.get());
                }
                for (g, word) in words.iter_mut().enumerate() {
                    *word = W::word(numbers[g * W::GROUP], numbers[g * W::GROUP + W::GROUP - 1]);
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
