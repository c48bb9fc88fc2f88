//! Attention over packed queries, keys and values in tiles, for [`super`].
//!
//! Forward: twelve queries at a time against all keys; a strip of scores in f32 becomes weights in the element type,
//! which meet the values. Only the logarithm of each softmax's sum is kept. Backward computes the weights again, for a
//! block of queries at a time and transposed (keys by queries), in which order three of the five products can read
//! them where they were written (the scheme of FlashAttention-2, arXiv 2307.08691, with the loops for a cache).

mod backward;
mod forward;

pub(super) use backward::backward;
pub(super) use forward::forward;

use super::Sizes;
use crate::product::pack::pack;
use crate::product::tile::{COLS, Lhs, Tile, multiply};
use crate::product::{Matrix, Out};
use crate::simd::{Elem, Factor};

/// One head of one sample: queries, keys and values where they lie in the packed tensor `[N, 3 D]`.
#[derive(Clone, Copy)]
struct Head<'a, E> {
    qkv: &'a [E],
    tokens: usize,
    /// The last tokens, which alone have queries.
    tail: usize,
    /// d: width of a head.
    width: usize,
    /// D: of all heads.
    dim: usize,
    head: usize,
}

impl<'a, E: Elem> Head<'a, E> {
    fn new(qkv: &'a [E], sizes: &Sizes, index: usize) -> Self {
        let (sample, head) = (index / sizes.heads, index % sizes.heads);
        let len = sizes.tokens * 3 * sizes.dim;
        let &Sizes { tokens, tail, dim, heads, .. } = sizes;
        Self { qkv: &qkv[sample * len..][..len], tokens, tail, width: dim / heads, dim, head }
    }

    /// The first token that has a query.
    fn first(&self) -> usize {
        self.tokens - self.tail
    }

    /// Queries (0), keys (1) or values (2) from token `from`, as rows `[tokens, d]`.
    fn rows(&self, part: usize, from: usize, tokens: usize) -> Matrix<'a, E> {
        Matrix::rows(self.slice(part, from), tokens, self.width, 3 * self.dim)
    }

    /// The same as lanes of width `d` whose depth are the tokens.
    fn cols(&self, part: usize, from: usize, tokens: usize) -> Matrix<'a, E> {
        Matrix::cols(self.slice(part, from), self.width, tokens, 3 * self.dim)
    }

    fn slice(&self, part: usize, from: usize) -> &'a [E] {
        &self.qkv[from * 3 * self.dim + part * self.dim + self.head * self.width..]
    }

    fn scale(&self) -> f32 {
        (1.0 / (self.width as f64).sqrt()) as f32
    }
}

/// Panels of all lanes of a matrix, one behind the other; `out` is [`panel_words`] long.
#[inline(always)]
fn pack_all<W: Factor, E: Elem>(m: &Matrix<'_, E>, out: &mut [u32]) {
    let panel = m.depth().div_ceil(W::GROUP) * COLS;
    for (p, out) in out.chunks_exact_mut(panel).enumerate() {
        let lanes = p * COLS..((p + 1) * COLS).min(m.lanes());
        pack::<W, E>(m, lanes, 0..m.depth(), COLS, out);
    }
}

fn panel_words<W: Factor>(lanes: usize, depth: usize) -> usize {
    lanes.div_ceil(COLS) * depth.div_ceil(W::GROUP) * COLS
}

/// Calls `f(column, tile)` with the product of a strip with every panel.
#[inline(always)]
fn against<W: Factor>(lhs: &Lhs<'_>, panels: &[u32], groups: usize, mut f: impl FnMut(usize, &Tile)) {
    let mut tile = Tile::default();
    for (p, panel) in panels.chunks_exact(groups * COLS).enumerate() {
        multiply::<W>(groups, lhs, panel, COLS, &mut tile);
        f(p * COLS, &tile);
    }
}

#[inline(always)]
fn write<E: Elem>(out: &Out<'_, E>, start: usize, values: &[f32]) {
    // SAFETY: every head writes columns of its own, and every row of them once.
    #[allow(unsafe_code)]
    let out = unsafe { out.part(start, values.len()) };
    for (out, &v) in out.iter_mut().zip(values) {
        *out = E::put(v);
    }
}

#[cfg(test)]
mod tests {
    use super::backward::backward_of;
    use super::forward::forward_of;
    use super::*;
    use crate::simd::{Bf16, Widened};

    fn numbers(len: usize, seed: f32) -> Vec<Bf16> {
        (0..len).map(|i| Bf16::put(((i as f32 + 1.0) * seed).sin())).collect()
    }

    #[test]
    fn attention_in_bfloat16_is_the_same_in_pairs_and_as_f32() {
        let sizes = Sizes { batch: 2, tokens: 31, tail: 29, dim: 28, heads: 2, mlp: 28 };
        let qkv = numbers(2 * 31 * 3 * 28, 0.7);
        let dout = numbers(2 * 29 * 28, 0.3);
        let (out, log_sums) = forward_of::<Bf16, Bf16>(&qkv, &sizes);
        let (wide_out, wide_log_sums) = forward_of::<Bf16, Widened>(&qkv, &sizes);
        let close = |got: &[Bf16], want: &[Bf16], what: &str| {
            let scale = want.iter().map(|v| v.get().abs()).fold(0.0, f32::max);
            for (i, (got, want)) in got.iter().zip(want).enumerate() {
                // Sums in another order may be rounded to the neighbour.
                let bar = 0.008 * want.get().abs() + 0.001 * scale;
                assert!((got.get() - want.get()).abs() <= bar, "{what} {i}: {got:?} and {want:?}");
            }
        };
        close(&wide_out, &out, "output");
        assert!(log_sums.iter().zip(&wide_log_sums).all(|(a, b)| (a - b).abs() < 1e-5));
        let grad = backward_of::<Bf16, Bf16>(&qkv, &out, &dout, &log_sums, &sizes);
        let wide = backward_of::<Bf16, Widened>(&qkv, &out, &dout, &log_sums, &sizes);
        close(&wide, &grad, "gradient");
        assert!(grad.iter().any(|v| v.get() != 0.0));
    }
}
