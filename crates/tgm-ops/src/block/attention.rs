//! Attention over packed queries, keys and values in tiles, for [`super`].
//!
//! Forward: twelve queries at a time against all keys; a strip of scores in f32 becomes weights in the element type,
//! which meet the values. Only the logarithm of each softmax's sum is kept. Backward computes the weights again, for a
//! block of queries at a time and transposed (keys by queries), in which order three of the five products can read
//! them where they were written (the scheme of FlashAttention-2, arXiv 2307.08691, with the loops for a cache).

use rayon::prelude::*;

use super::Sizes;
use crate::buffer::Buffer;
use crate::product::pack::pack;
use crate::product::tile::{COLS, Lhs, ROWS, Tile, multiply, multiply_into};
use crate::product::{Matrix, Out, Scratch, with_scratch};
use crate::simd::{Elem, exp, mul_add, multiversion};

/// Queries of a block in the backward pass: eight strips, three panels.
const BLOCK: usize = 96;
/// Words of keys between two additions to the gradients of a block's queries, in the backward pass: whole strips, whose
/// 144 KiB stay in the second-level cache.
const TURN_WORDS: usize = 32 * ROWS;

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
fn pack_all<E: Elem>(m: &Matrix<'_, E>, out: &mut [u32]) {
    let panel = m.depth().div_ceil(E::GROUP) * COLS;
    for (p, out) in out.chunks_exact_mut(panel).enumerate() {
        let lanes = p * COLS..((p + 1) * COLS).min(m.lanes());
        pack::<E, E, COLS>(m, lanes, 0..m.depth(), out);
    }
}

fn panel_words<E: Elem>(lanes: usize, depth: usize) -> usize {
    lanes.div_ceil(COLS) * depth.div_ceil(E::GROUP) * COLS
}

/// Up to twelve rows for the innermost loop, where they are or packed into `spare`.
#[inline(always)]
fn strip<'a, E: Elem>(m: &Matrix<'a, E>, from: usize, spare: &'a mut [u32]) -> Lhs<'a> {
    let depth = 0..m.depth();
    if let Some(lhs) = m.in_place::<E>(from, depth.clone()) {
        return lhs;
    }
    let spare = &mut spare[..m.depth().div_ceil(E::GROUP) * ROWS];
    pack::<E, E, ROWS>(m, from..(from + ROWS).min(m.lanes()), depth, spare);
    Lhs::packed(spare)
}

/// Calls `f(column, tile)` with the product of a strip with every panel.
#[inline(always)]
fn against<E: Elem>(lhs: &Lhs<'_>, panels: &[u32], groups: usize, mut f: impl FnMut(usize, &Tile)) {
    let mut tile = Tile::default();
    for (p, panel) in panels.chunks_exact(groups * COLS).enumerate() {
        multiply::<E>(groups, lhs, panel, COLS, &mut tile);
        f(p * COLS, &tile);
    }
}

/// Attention of all samples and heads: `[B, N, 3 D]` to `[B, tail, D]`, and the logarithm of every softmax's sum
/// `[B, heads, tail]`.
pub(super) fn forward<E: Elem>(qkv: &[E], sizes: &Sizes) -> (Buffer<E>, Vec<f32>) {
    let mut out = Buffer::<E>::new(sizes.tail_rows() * sizes.dim);
    let mut log_sums = vec![0f32; sizes.heads * sizes.tail_rows()];
    let shared = Out::new(&mut out);
    log_sums.par_chunks_mut(sizes.tail).enumerate().for_each(|(index, log_sums)| {
        let head = Head::new(qkv, sizes, index);
        let start = index / sizes.heads * sizes.tail * sizes.dim + head.head * head.width;
        with_scratch(|scratch| forward_head(&head, scratch, start, &shared, log_sums));
    });
    (out, log_sums)
}

multiversion! {
    fn forward_head<E: Elem>(head: &Head<'_, E>, scratch: &mut Scratch, start: usize, out: &Out<'_, E>, log_sums: &mut [f32])
        = forward_head_body;
}

#[inline(always)]
fn forward_head_body<const FMA: bool, E: Elem>(
    head: &Head<'_, E>,
    scratch: &mut Scratch,
    start: usize,
    out: &Out<'_, E>,
    log_sums: &mut [f32],
) {
    let (tokens, width) = (head.tokens, head.width);
    let (deep, wide) = (width.div_ceil(E::GROUP), tokens.div_ceil(E::GROUP));
    let (keys, values) = (head.rows(1, 0, tokens), head.cols(2, 0, tokens));
    let [key_words, value_words] = [panel_words::<E>(tokens, width), panel_words::<E>(width, tokens)];
    let (spare, panels) = scratch.split(deep.max(wide) * ROWS, key_words + value_words);
    let (key_panels, value_panels) = panels.split_at_mut(key_words);
    pack_all(&keys, key_panels);
    pack_all(&values, value_panels);
    // Rows as long as whole panels; a whole number of words for the product with the values.
    let stride = tokens.next_multiple_of(COLS);
    let mut scores = vec![0f32; ROWS * stride];
    let mut weights = vec![E::default(); ROWS * stride];
    let queries = head.rows(0, head.first(), head.tail);
    for from in (0..head.tail).step_by(ROWS) {
        let rows = ROWS.min(head.tail - from);
        let lhs = strip(&queries, from, spare);
        for (p, panel) in key_panels.chunks_exact(deep * COLS).enumerate() {
            multiply_into::<E>(deep, &lhs, panel, COLS, &mut scores[p * COLS..], stride);
        }
        let mut recip = [0f32; ROWS];
        let strips = scores.chunks_exact(stride).zip(weights.chunks_exact_mut(stride));
        for (r, (scores, weights)) in strips.enumerate().take(rows) {
            let (max, sum) = softmax_strip::<FMA, E>(&scores[..tokens], &mut weights[..tokens], head.scale());
            recip[r] = 1.0 / sum;
            log_sums[from + r] = max * head.scale() + sum.ln();
        }
        // Beyond the last token the weights stay zero, and so are the packed values.
        let lhs = Lhs::in_place(&weights, stride, wide * E::GROUP);
        against::<E>(&lhs, value_panels, wide, |col, tile| {
            let cols = COLS.min(width - col);
            for (r, (sums, recip)) in tile.0.iter().zip(recip).enumerate().take(rows) {
                // SAFETY: every head writes columns of its own in rows of its own sample.
                #[allow(unsafe_code)]
                let out = unsafe { out.part(start + (from + r) * head.dim + col, cols) };
                for (out, &s) in out.iter_mut().zip(sums) {
                    *out = E::put(s * recip);
                }
            }
        });
    }
}

/// Independent sums, so that neighbouring additions do not wait for each other.
const SUMS: usize = 32;

/// `exp(scale (s − max))` of a row, not yet divided by its sum. Returns the maximum and the sum.
#[inline(always)]
fn softmax_strip<const FMA: bool, E: Elem>(scores: &[f32], weights: &mut [E], scale: f32) -> (f32, f32) {
    let mut maxima = [f32::NEG_INFINITY; SUMS];
    let (chunks, rest) = scores.as_chunks::<SUMS>();
    for chunk in chunks {
        for (m, &s) in maxima.iter_mut().zip(chunk) {
            *m = if s > *m { s } else { *m };
        }
    }
    let max = maxima.iter().chain(rest).copied().fold(f32::NEG_INFINITY, f32::max);
    let shift = -max * scale;
    let mut sums = [0f32; SUMS];
    let (outs, rest_out) = weights.as_chunks_mut::<SUMS>();
    for (chunk, out) in chunks.iter().zip(outs) {
        for ((sum, out), &s) in sums.iter_mut().zip(out).zip(chunk) {
            let e = exp::<FMA>(mul_add::<FMA>(s, scale, shift));
            *out = E::put(e);
            *sum += e;
        }
    }
    for ((sum, out), &s) in sums.iter_mut().zip(rest_out).zip(rest) {
        let e = exp::<FMA>(mul_add::<FMA>(s, scale, shift));
        *out = E::put(e);
        *sum += e;
    }
    (max, sums.iter().sum())
}

/// The gradient of the packed tensor, from attention's output, its gradient, and the logarithms of the sums.
pub(super) fn backward<E: Elem>(
    qkv: &[E],
    out: &[E],
    dout: &[E],
    log_sums: &[f32],
    sizes: &Sizes,
) -> Buffer<E> {
    let mut dqkv = Buffer::<E>::new(qkv.len());
    let shared = Out::new(&mut dqkv);
    log_sums.par_chunks(sizes.tail).enumerate().for_each(|(index, log_sums)| {
        let head = Head::new(qkv, sizes, index);
        let start = index / sizes.heads * sizes.tail * sizes.dim + head.head * head.width;
        let task = Backward { head, out: &out[start..], dout: &dout[start..], log_sums, dqkv: &shared };
        let start = index / sizes.heads * sizes.tokens * 3 * sizes.dim + head.head * head.width;
        with_scratch(|scratch| backward_head(&task, start, scratch));
    });
    dqkv
}

/// What the backward pass of one head reads and writes. `out` and `dout` begin at the head's first column.
struct Backward<'a, E> {
    head: Head<'a, E>,
    out: &'a [E],
    dout: &'a [E],
    log_sums: &'a [f32],
    dqkv: &'a Out<'a, E>,
}

multiversion! {
    fn backward_head<E: Elem>(task: &Backward<'_, E>, start: usize, scratch: &mut Scratch) = backward_head_body;
}

#[inline(always)]
fn backward_head_body<const FMA: bool, E: Elem>(task: &Backward<'_, E>, start: usize, scratch: &mut Scratch) {
    let head = &task.head;
    let (tokens, width, dim) = (head.tokens, head.width, head.dim);
    let deep = width.div_ceil(E::GROUP);
    let wide = tokens.div_ceil(E::GROUP);
    let per_turn = TURN_WORDS * E::GROUP;
    let block_words = panel_words::<E>(BLOCK, width);
    let block_cols_words = panel_words::<E>(width, BLOCK);
    let key_words = panel_words::<E>(width, tokens);
    let (spare, words) =
        scratch.split(deep * ROWS, 2 * block_words + 2 * block_cols_words + key_words + TURN_WORDS * BLOCK);
    let (q_panels, words) = words.split_at_mut(block_words);
    let (do_panels, words) = words.split_at_mut(block_words);
    let (q_cols, words) = words.split_at_mut(block_cols_words);
    let (do_cols, words) = words.split_at_mut(block_cols_words);
    let (key_cols, dscores) = words.split_at_mut(key_words);
    pack_all(&head.cols(1, 0, tokens), key_cols);
    let (keys, values) = (head.rows(1, 0, tokens), head.rows(2, 0, tokens));
    let mut dkeys = vec![0f32; tokens * width];
    let mut dvalues = vec![0f32; tokens * width];
    let mut weights = vec![E::default(); ROWS * BLOCK];
    let mut dweights = vec![E::default(); ROWS * BLOCK];
    let mut dqueries = vec![0f32; BLOCK * width];
    let first = head.first();
    for from in (0..head.tail).step_by(BLOCK) {
        let rows = BLOCK.min(head.tail - from);
        let dout = &task.dout[from * dim..];
        let used = panel_words::<E>(rows, width);
        let (q_panels, do_panels) = (&mut q_panels[..used], &mut do_panels[..used]);
        pack_all(&head.rows(0, first + from, rows), q_panels);
        pack_all(&Matrix::rows(dout, rows, width, dim), do_panels);
        let deep_block = rows.div_ceil(E::GROUP);
        let used = panel_words::<E>(width, rows);
        pack_all(&head.cols(0, first + from, rows), &mut q_cols[..used]);
        pack_all(&Matrix::cols(dout, width, rows, dim), &mut do_cols[..used]);
        let (q_cols, do_cols) = (&q_cols[..used], &do_cols[..used]);

        let mut log_sums = [f32::INFINITY; BLOCK];
        log_sums[..rows].copy_from_slice(&task.log_sums[from..from + rows]);
        let mut dots = [0f32; BLOCK];
        for (r, dot) in dots.iter_mut().enumerate().take(rows) {
            let row = (from + r) * dim..(from + r) * dim + width;
            *dot = dot_product(&task.out[row.clone()], &task.dout[row]);
        }

        dqueries.fill(0.0);
        for first_key in (0..tokens).step_by(per_turn) {
            let keys_end = (first_key + per_turn).min(tokens);
            for key in (first_key..keys_end).step_by(ROWS) {
                let kept = ROWS.min(tokens - key);
                let lhs = strip(&keys, key, spare);
                against::<E>(&lhs, q_panels, deep, |col, tile| {
                    for (row, sums) in weights.chunks_exact_mut(BLOCK).zip(&tile.0) {
                        let log_sums = &log_sums[col..col + COLS];
                        for ((w, &s), &l) in row[col..col + COLS].iter_mut().zip(sums).zip(log_sums) {
                            *w = E::put(exp::<FMA>(s * head.scale() - l));
                        }
                    }
                });
                let lhs = strip(&values, key, spare);
                against::<E>(&lhs, do_panels, deep, |col, tile| {
                    let rows = dweights.chunks_exact_mut(BLOCK).zip(weights.chunks_exact(BLOCK)).zip(&tile.0);
                    for ((row, weights), sums) in rows {
                        let (row, weights) = (&mut row[col..col + COLS], &weights[col..col + COLS]);
                        let dots = &dots[col..col + COLS];
                        for (((d, &w), &s), &dot) in row.iter_mut().zip(weights).zip(sums).zip(dots) {
                            *d = E::put(w.get() * (s - dot) * head.scale());
                        }
                    }
                });
                let strips = [(&weights, do_cols, &mut dvalues), (&dweights, q_cols, &mut dkeys)];
                for (strip, panels, sums) in strips {
                    let lhs = Lhs::in_place(strip, BLOCK, deep_block * E::GROUP);
                    against::<E>(&lhs, panels, deep_block, |col, tile| {
                        add_tile(tile, &mut sums[key * width..], width, col, kept);
                    });
                }
                let groups = kept.div_ceil(E::GROUP);
                if kept % E::GROUP != 0 {
                    dweights[kept * BLOCK..(kept + 1) * BLOCK].fill(E::default());
                }
                let at = (key - first_key) / E::GROUP * BLOCK;
                interleave(&dweights, &mut dscores[at..][..groups * BLOCK]);
            }
            let groups = (keys_end - first_key).div_ceil(E::GROUP);
            let mut tile = Tile::default();
            for query in (0..rows).step_by(ROWS) {
                let lhs = Lhs::lanes(&dscores[query..], BLOCK);
                for (p, panel) in key_cols.chunks_exact(wide * COLS).enumerate() {
                    let panel = &panel[first_key / E::GROUP * COLS..];
                    multiply::<E>(groups, &lhs, panel, COLS, &mut tile);
                    let kept = ROWS.min(rows - query);
                    add_tile(&tile, &mut dqueries[query * width..], width, p * COLS, kept);
                }
            }
        }
        for (query, row) in dqueries.chunks_exact(width).enumerate().take(rows) {
            write(task.dqkv, start + (first + from + query) * 3 * dim, row);
        }
    }
    let none = vec![0f32; width];
    (0..first).for_each(|token| write(task.dqkv, start + token * 3 * dim, &none));
    for (part, grads) in [(1, &dkeys), (2, &dvalues)] {
        for (token, row) in grads.chunks_exact(width).enumerate() {
            write(task.dqkv, start + token * 3 * dim + part * dim, row);
        }
    }
}

#[inline(always)]
fn dot_product<E: Elem>(a: &[E], b: &[E]) -> f32 {
    let mut sums = [0f32; 16];
    let (chunks_a, rest_a) = a.as_chunks::<16>();
    let (chunks_b, rest_b) = b.as_chunks::<16>();
    for (a, b) in chunks_a.iter().zip(chunks_b) {
        for ((sum, a), b) in sums.iter_mut().zip(a).zip(b) {
            *sum += a.get() * b.get();
        }
    }
    for ((sum, a), b) in sums.iter_mut().zip(rest_a).zip(rest_b) {
        *sum += a.get() * b.get();
    }
    sums.iter().sum()
}

/// Adds a tile's first `rows` rows to rows of `width`, from column `col` on.
#[inline(always)]
fn add_tile(tile: &Tile, sums: &mut [f32], width: usize, col: usize, rows: usize) {
    let cols = COLS.min(width - col);
    for (row, tile) in sums.chunks_exact_mut(width).zip(&tile.0).take(rows) {
        if cols == COLS {
            row[col..col + COLS].iter_mut().zip(&tile[..COLS]).for_each(|(sum, &t)| *sum += t);
        } else {
            row[col..col + cols].iter_mut().zip(tile).for_each(|(sum, &t)| *sum += t);
        }
    }
}

/// Rows `[keys, BLOCK]` to words that hold neighbouring keys: `[keys / GROUP, BLOCK]`.
#[inline(always)]
fn interleave<E: Elem>(rows: &[E], words: &mut [u32]) {
    for (rows, words) in rows.chunks_exact(E::GROUP * BLOCK).zip(words.chunks_exact_mut(BLOCK)) {
        let (first, second) = (&rows[..BLOCK], &rows[(E::GROUP - 1) * BLOCK..]);
        for ((word, &a), &b) in words.iter_mut().zip(first).zip(second) {
            *word = E::word(a, b);
        }
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
