//! Blocks of queries against strips of keys, transposed.

use std::ops::Range;

use rayon::prelude::*;

use super::{Head, against, pack_all, panel_words, write};
use crate::block::Sizes;
use crate::buffer::Buffer;
use crate::product::pack::strip_words;
use crate::product::tile::{COLS, Lhs, ROWS, Tile, multiply};
use crate::product::{Matrix, Out, Scratch, with_scratch};
use crate::simd::{Elem, Factor, exp, multiplies_pairs, multiversion};

/// Queries of a block in the backward pass: eight strips, three panels.
const BLOCK: usize = 96;
/// Words of keys between two additions to the gradients of a block's queries, in the backward pass: whole strips, whose
/// 144 KiB stay in the second-level cache.
const TURN_WORDS: usize = 32 * ROWS;

/// The gradient of the packed tensor, from attention's output, its gradient, and the logarithms of the sums.
pub(in crate::block) fn backward<E: Elem>(
    qkv: &[E],
    out: &[E],
    dout: &[E],
    log_sums: &[f32],
    sizes: &Sizes,
) -> Buffer<E> {
    if multiplies_pairs() {
        backward_of::<E, E>(qkv, out, dout, log_sums, sizes)
    } else {
        backward_of::<E, E::Wide>(qkv, out, dout, log_sums, sizes)
    }
}

/// [`backward`], multiplying numbers of type `W`.
pub(super) fn backward_of<E: Elem, W: Factor>(
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
        with_scratch(|scratch| backward_head::<E, W>(&task, start, scratch));
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
    fn backward_head<E: Elem, W: Factor>(task: &Backward<'_, E>, start: usize, scratch: &mut Scratch) = backward_head_body;
}

#[inline(always)]
fn backward_head_body<const FMA: bool, E: Elem, W: Factor>(
    task: &Backward<'_, E>,
    start: usize,
    scratch: &mut Scratch,
) {
    let head = &task.head;
    let (tokens, width, dim) = (head.tokens, head.width, head.dim);
    let room = Room::new::<W>(scratch, tokens, width);
    pack_all::<W, E>(&head.cols(1, 0, tokens), room.key_cols);
    let mut strip = Strip::<W>::default();
    let mut grads = Grads::new(tokens, width);
    let per_turn = TURN_WORDS * W::GROUP;
    for from in (0..head.tail).step_by(BLOCK) {
        let block = Block::pack::<W, E>(task, from, room.panels);
        grads.queries.fill(0.0);
        for first in (0..tokens).step_by(per_turn) {
            let turn = first..(first + per_turn).min(tokens);
            for key in turn.clone().step_by(ROWS) {
                strip.compute::<FMA, E>(head, &block, key, room.spare);
                grads.add_strip(&strip, &block, key);
                strip.interleave(turn.end - key, &mut room.dscores[(key - first) / W::GROUP * BLOCK..]);
            }
            grads.add_turn::<W>(room.dscores, room.key_cols, turn, block.rows);
        }
        for (query, row) in grads.queries.chunks_exact(width).enumerate().take(block.rows) {
            write(task.dqkv, start + (head.first() + from + query) * 3 * dim, row);
        }
    }
    let none = vec![0f32; width];
    (0..head.first()).for_each(|token| write(task.dqkv, start + token * 3 * dim, &none));
    for (part, grads) in [(1, &grads.keys), (2, &grads.values)] {
        for (token, row) in grads.chunks_exact(width).enumerate() {
            write(task.dqkv, start + token * 3 * dim + part * dim, row);
        }
    }
}

/// A head's part of the thread's scratch memory.
struct Room<'a> {
    /// A strip of keys or values, where they cannot be read in place.
    spare: &'a mut [u32],
    /// For [`Block::pack`].
    panels: &'a mut [u32],
    /// Panels of all keys, whose depth are the tokens.
    key_cols: &'a mut [u32],
    /// Gradients of a turn's scores: words of keys by queries of a block.
    dscores: &'a mut [u32],
}

impl<'a> Room<'a> {
    #[inline(always)]
    fn new<W: Factor>(scratch: &'a mut Scratch, tokens: usize, width: usize) -> Self {
        let block = 2 * panel_words::<W>(BLOCK, width) + 2 * panel_words::<W>(width, BLOCK);
        let keys = panel_words::<W>(width, tokens);
        let (spare, words) = scratch.split(strip_words::<W>(width), block + keys + TURN_WORDS * BLOCK);
        let (panels, words) = words.split_at_mut(block);
        let (key_cols, dscores) = words.split_at_mut(keys);
        Self { spare, panels, key_cols, dscores }
    }
}

/// A block of queries, and the gradients of what attention made of them: packed, as rows and as columns.
struct Block<'a> {
    /// How many queries.
    rows: usize,
    queries: &'a [u32],
    query_cols: &'a [u32],
    douts: &'a [u32],
    dout_cols: &'a [u32],
    /// The logarithms of the softmaxes' sums; infinite, which makes weights zero, beyond the last query.
    log_sums: [f32; BLOCK],
    /// Each output times its gradient: what the softmax takes off the gradients of its weights.
    dots: [f32; BLOCK],
}

impl<'a> Block<'a> {
    #[inline(always)]
    fn pack<W: Factor, E: Elem>(task: &Backward<'_, E>, from: usize, panels: &'a mut [u32]) -> Self {
        let head = &task.head;
        let (width, dim, first) = (head.width, head.dim, head.first() + from);
        let rows = BLOCK.min(head.tail - from);
        let dout = &task.dout[from * dim..];
        let (as_rows, as_cols) = (panel_words::<W>(rows, width), panel_words::<W>(width, rows));
        let (queries, panels) = panels.split_at_mut(as_rows);
        let (douts, panels) = panels.split_at_mut(as_rows);
        let (query_cols, panels) = panels.split_at_mut(as_cols);
        let dout_cols = &mut panels[..as_cols];
        pack_all::<W, E>(&head.rows(0, first, rows), queries);
        pack_all::<W, E>(&Matrix::rows(dout, rows, width, dim), douts);
        pack_all::<W, E>(&head.cols(0, first, rows), query_cols);
        pack_all::<W, E>(&Matrix::cols(dout, width, rows, dim), dout_cols);
        let mut log_sums = [f32::INFINITY; BLOCK];
        log_sums[..rows].copy_from_slice(&task.log_sums[from..from + rows]);
        let mut dots = [0f32; BLOCK];
        for (r, dot) in dots.iter_mut().enumerate().take(rows) {
            let row = (from + r) * dim..(from + r) * dim + width;
            *dot = dot_product(&task.out[row.clone()], &task.dout[row]);
        }
        Self { rows, queries, query_cols, douts, dout_cols, log_sums, dots }
    }
}

/// Attention of a block of queries to a strip of keys, transposed: `[ROWS, BLOCK]`.
struct Strip<W> {
    weights: Vec<W>,
    /// Gradients of the scores, already scaled.
    dscores: Vec<W>,
}

impl<W: Factor> Default for Strip<W> {
    fn default() -> Self {
        Self { weights: vec![W::default(); ROWS * BLOCK], dscores: vec![W::default(); ROWS * BLOCK] }
    }
}

impl<W: Factor> Strip<W> {
    /// The strip of the keys from `key` on.
    #[inline(always)]
    fn compute<const FMA: bool, E: Elem>(
        &mut self,
        head: &Head<'_, E>,
        block: &Block<'_>,
        key: usize,
        spare: &mut [u32],
    ) {
        let (deep, scale) = (head.width.div_ceil(W::GROUP), head.scale());
        let lhs = head.rows(1, 0, head.tokens).strip::<W>(key, 0..head.width, spare);
        against::<W>(&lhs, block.queries, deep, |col, tile| {
            for (row, sums) in self.weights.chunks_exact_mut(BLOCK).zip(&tile.0) {
                let log_sums = &block.log_sums[col..col + COLS];
                for ((w, &s), &l) in row[col..col + COLS].iter_mut().zip(sums).zip(log_sums) {
                    *w = W::put(exp::<FMA>(s * scale - l));
                }
            }
        });
        let lhs = head.rows(2, 0, head.tokens).strip::<W>(key, 0..head.width, spare);
        against::<W>(&lhs, block.douts, deep, |col, tile| {
            let rows =
                self.dscores.chunks_exact_mut(BLOCK).zip(self.weights.chunks_exact(BLOCK)).zip(&tile.0);
            for ((row, weights), sums) in rows {
                let (row, weights) = (&mut row[col..col + COLS], &weights[col..col + COLS]);
                let dots = &block.dots[col..col + COLS];
                for (((d, &w), &s), &dot) in row.iter_mut().zip(weights).zip(sums).zip(dots) {
                    *d = W::put(w.get() * (s - dot) * scale);
                }
            }
        });
    }

    /// The scores' gradients of the first `left` keys as words of neighbouring keys: `[keys / GROUP, BLOCK]`.
    #[inline(always)]
    fn interleave(&mut self, left: usize, words: &mut [u32]) {
        let kept = ROWS.min(left);
        if !kept.is_multiple_of(W::GROUP) {
            self.dscores[kept * BLOCK..(kept + 1) * BLOCK].fill(W::default());
        }
        interleave(&self.dscores, &mut words[..kept.div_ceil(W::GROUP) * BLOCK]);
    }
}

/// The gradients of one head: of all keys and values `[tokens, d]`, and of a block's queries `[BLOCK, d]`.
struct Grads {
    keys: Vec<f32>,
    values: Vec<f32>,
    queries: Vec<f32>,
    tokens: usize,
    width: usize,
}

impl Grads {
    fn new(tokens: usize, width: usize) -> Self {
        let [keys, values] = [(); 2].map(|()| vec![0f32; tokens * width]);
        Self { keys, values, queries: vec![0f32; BLOCK * width], tokens, width }
    }

    /// What a block of queries gives to the keys and values of a strip.
    #[inline(always)]
    fn add_strip<W: Factor>(&mut self, strip: &Strip<W>, block: &Block<'_>, key: usize) {
        let (width, groups) = (self.width, block.rows.div_ceil(W::GROUP));
        let kept = ROWS.min(self.tokens - key);
        let products = [
            (&strip.weights, block.dout_cols, &mut self.values),
            (&strip.dscores, block.query_cols, &mut self.keys),
        ];
        for (strip, panels, sums) in products {
            let lhs = Lhs::in_place(strip, BLOCK, groups * W::GROUP);
            against::<W>(&lhs, panels, groups, |col, tile| {
                add_tile(tile, &mut sums[key * width..], width, col, kept);
            });
        }
    }

    /// What the keys of a turn give to the block's queries.
    #[inline(always)]
    fn add_turn<W: Factor>(&mut self, dscores: &[u32], key_cols: &[u32], turn: Range<usize>, rows: usize) {
        let (first, groups) = (turn.start / W::GROUP, turn.len().div_ceil(W::GROUP));
        let panel = self.tokens.div_ceil(W::GROUP) * COLS;
        let mut tile = Tile::default();
        for query in (0..rows).step_by(ROWS) {
            let lhs = Lhs::lanes(&dscores[query..], BLOCK);
            for (p, panel) in key_cols.chunks_exact(panel).enumerate() {
                multiply::<W>(groups, &lhs, &panel[first * COLS..], COLS, &mut tile);
                let sums = &mut self.queries[query * self.width..];
                add_tile(&tile, sums, self.width, p * COLS, ROWS.min(rows - query));
            }
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
fn interleave<W: Factor>(rows: &[W], words: &mut [u32]) {
    for (rows, words) in rows.chunks_exact(W::GROUP * BLOCK).zip(words.chunks_exact_mut(BLOCK)) {
        let (first, second) = (&rows[..BLOCK], &rows[(W::GROUP - 1) * BLOCK..]);
        for ((word, &a), &b) in words.iter_mut().zip(first).zip(second) {
            *word = W::word(a, b);
        }
    }
}
