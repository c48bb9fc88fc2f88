//! Matrix products of f32 and of bfloat16 with f32 sums, on AVX-512 and AVX2.
//!
//! `c[i, j] = Σ_k a[i, k] b[j, k]`: the summed dimension is the *depth*, the two others are *lanes* of their matrix.
//! A [`Matrix`] says how its lanes and depth lie in memory, so `x Wᵀ`, `dY W` and `dYᵀ X` are the same function and
//! nothing is transposed beforehand.
//!
//! The right matrix is packed, a block of columns at a time, into panels of [`tile::COLS`] lanes that stay in the
//! second-level cache ([`pack`]); the left one is read where it lies when its depth is contiguous and its numbers are
//! those that are multiplied. A tile of [`tile::ROWS`] × [`tile::COLS`] sums stays in registers over the whole depth
//! ([`tile`]), and a [`Finish`] does with it, while it is in the first-level cache, what would otherwise be another pass
//! over memory: bias, GELU, residual.
//!
//! Numbers are multiplied as f32, or in pairs of bfloat16 where that is faster: packing makes either of what a matrix
//! holds, so bfloat16 matrices need no instruction of their own.
//!
//! Every sum is taken in one order that depends on the sizes and the processor alone, so results do not depend on the
//! number of threads.
//! (The `gemm` crate has no bfloat16 product and no epilogues; its f32 product is what [`crate::gemm`] offers where
//! there is neither.)
#![allow(unsafe_code)]

pub(crate) mod finish;
mod out;
pub(crate) mod pack;
#[cfg(target_arch = "x86_64")]
mod square;
pub(crate) mod tile;

use std::cell::RefCell;
use std::ops::Range;

use rayon::prelude::*;

pub(crate) use finish::{Finish, Place};
pub(crate) use out::Out;
pub(crate) use pack::{Inner, Matrix};

use crate::simd::{Elem, Factor, Level, level, multiplies_pairs, multiversion};
use pack::{pack, strip_words};
use tile::{COLS, Lhs, ROWS, Tile};

/// Whether this processor has the instructions for these products: then everything fused is used.
pub(crate) fn available() -> bool {
    level() >= Level::Avx2
}

/// Words of a packed block of columns: half of a second-level cache, which has 1 MiB where there is AVX-512 and often
/// 512 KiB where there is not.
fn block_words() -> usize {
    if level() >= Level::Avx512 { 128 * 1024 } else { 64 * 1024 }
}

/// Depth of a block, in words, when the left matrix cannot be read where it lies: what is copied of it has to be used for many
/// columns, of which the second-level cache does not hold many that are deeper.
const DEEP_WORDS: usize = 512;
/// Multiplications below which a product is not worth a second thread.
const SMALL: usize = 1 << 20;
/// Rows of a task whose left matrix is packed: with [`DEEP_WORDS`], 384 KiB.
const TASK_LANES: usize = 16 * ROWS;
/// Rows of a task that keeps sums between blocks of depth: with [`block_words`], 384 KiB of them.
const TASK_SUMS: usize = 32 * ROWS;
/// Rows of a task otherwise.
const TASK_ROWS: usize = 86 * ROWS;

/// `Σ_k a[i, k] b[j, k]` for all lanes `i` of `a` and `j` of `b`, handed to `finish` tile by tile.
///
/// The matrices may be f32 when the product is in bfloat16: they are rounded while they are packed.
pub(crate) fn product<E: Elem, A: Elem, B: Elem, F: Finish>(a: Matrix<'_, A>, b: Matrix<'_, B>, finish: &F) {
    if multiplies_pairs() {
        product_of::<E, A, B, F>(&a, &b, finish)
    } else {
        product_of::<E::Wide, A, B, F>(&a, &b, finish)
    }
}

/// [`product`], multiplying numbers of type `W`.
fn product_of<W: Factor, A: Elem, B: Elem, F: Finish>(a: &Matrix<'_, A>, b: &Matrix<'_, B>, finish: &F) {
    assert_eq!(a.depth(), b.depth(), "product of matrices of different depth");
    let plan = Plan::new::<W, A, B>(a, b);
    let work = a.lanes() * b.lanes() * a.depth();
    let run = |task: usize| plan.run::<W, A, B, F>(task, a, b, finish);
    if work < SMALL {
        (0..plan.tasks()).for_each(run)
    } else {
        (0..plan.tasks()).into_par_iter().for_each(run)
    }
}

/// How a product is cut into tasks. It depends on the sizes, and on the processor's vectors, alone; what is added up
/// in which order, on the sizes and on whether pairs are multiplied.
struct Plan {
    rows: usize,
    cols: usize,
    rows_per_task: usize,
    cols_per_task: usize,
    depth: usize,
    depth_per_block: usize,
}

impl Plan {
    fn new<W: Factor, A: Elem, B: Elem>(a: &Matrix<'_, A>, b: &Matrix<'_, B>) -> Self {
        let (rows, cols, depth) = (a.lanes(), b.lanes(), a.depth());
        let words = depth.div_ceil(W::GROUP);
        // Equal blocks, none of them a short rest.
        let blocks = if a.is_direct::<W>() { 1 } else { words.div_ceil(DEEP_WORDS).max(1) };
        let words_per_block = words.div_ceil(blocks);
        let panels = (block_words() / (COLS * words_per_block.max(1))).clamp(1, 12);
        let task_rows = match a.inner() {
            Inner::Lane => TASK_LANES,
            Inner::Depth if blocks > 1 => TASK_SUMS,
            Inner::Depth => TASK_ROWS,
        };
        let row_tasks = rows.div_ceil(task_rows).max(1);
        let mut rows_per_task = rows.div_ceil(row_tasks).next_multiple_of(ROWS);
        let mut cols_per_task = panels * COLS;
        // At least eight tasks, so that two threads end together and sixteen have something to do.
        while rows.div_ceil(rows_per_task.max(1)) * cols.div_ceil(cols_per_task) < 8 {
            if cols_per_task >= 4 * COLS && cols_per_task >= rows_per_task / 2 {
                cols_per_task = (cols_per_task / 2).next_multiple_of(COLS);
            } else if rows_per_task > 8 * ROWS {
                rows_per_task = (rows_per_task / 2).next_multiple_of(ROWS);
            } else {
                break;
            }
        }
        Self { rows, cols, rows_per_task, cols_per_task, depth, depth_per_block: words_per_block * W::GROUP }
    }

    fn tasks(&self) -> usize {
        self.rows.div_ceil(self.rows_per_task.max(1)) * self.cols.div_ceil(self.cols_per_task)
    }

    fn run<W: Factor, A: Elem, B: Elem, F: Finish>(
        &self,
        task: usize,
        a: &Matrix<'_, A>,
        b: &Matrix<'_, B>,
        finish: &F,
    ) {
        let col_tasks = self.cols.div_ceil(self.cols_per_task);
        let (row, col) = (task / col_tasks * self.rows_per_task, task % col_tasks * self.cols_per_task);
        let rows = row..(row + self.rows_per_task).min(self.rows);
        let cols = col..(col + self.cols_per_task).min(self.cols);
        with_scratch(|scratch| {
            for start in (0..self.depth).step_by(self.depth_per_block.max(1)) {
                let depth = start..(start + self.depth_per_block).min(self.depth);
                let (first, last) = (start == 0, depth.end == self.depth);
                let part = Part { rows: rows.clone(), cols: cols.clone(), depth, first, last };
                run_part::<W, A, B, F>(&part, a, b, finish, scratch);
            }
        });
    }
}

/// One block of depth of one task.
struct Part {
    rows: Range<usize>,
    cols: Range<usize>,
    depth: Range<usize>,
    first: bool,
    last: bool,
}

multiversion! {
    fn run_part<W: Factor, A: Elem, B: Elem, F: Finish>(
        part: &Part,
        a: &Matrix<'_, A>,
        b: &Matrix<'_, B>,
        finish: &F,
        scratch: &mut Scratch,
    ) = run_part_body;
}

#[inline(always)]
fn run_part_body<const FMA: bool, W: Factor, A: Elem, B: Elem, F: Finish>(
    part: &Part,
    a: &Matrix<'_, A>,
    b: &Matrix<'_, B>,
    finish: &F,
    scratch: &mut Scratch,
) {
    let groups = part.depth.len().div_ceil(W::GROUP);
    let panel = groups * COLS;
    let panels = part.cols.len().div_ceil(COLS);
    // A left matrix that has to be packed whole is one wide panel, of which the tiles read twelve lanes each.
    let wide = part.rows.len().next_multiple_of(ROWS);
    let left = match a.inner() {
        Inner::Depth => strip_words::<W>(part.depth.len()),
        Inner::Lane => groups * wide,
    };
    let kept = if part.first && part.last { 0 } else { part.rows.len().div_ceil(ROWS) * panels };
    let (left, right, sums) = scratch.parts(left, panels * panel, kept);
    if a.inner() == Inner::Lane {
        pack::<W, A>(a, part.rows.clone(), part.depth.clone(), wide, left);
    }
    for (p, out) in right.chunks_exact_mut(panel).enumerate() {
        let from = part.cols.start + p * COLS;
        let lanes = from..(from + COLS).min(part.cols.end);
        pack::<W, B>(b, lanes, part.depth.clone(), COLS, out);
    }
    let mut tile = Tile::default();
    for (strip, row) in part.rows.clone().step_by(ROWS).enumerate() {
        let rows = ROWS.min(part.rows.end - row);
        let lhs = match a.inner() {
            Inner::Depth => a.strip::<W>(row, part.depth.clone(), left),
            Inner::Lane => Lhs::lanes(&left[row - part.rows.start..], wide),
        };
        for (p, rhs) in right.chunks_exact(panel).enumerate() {
            tile::multiply::<W>(groups, &lhs, rhs, COLS, &mut tile);
            if !part.first {
                tile.add(&sums[strip * panels + p]);
            }
            if !part.last {
                sums[strip * panels + p].clone_from(&tile);
                continue;
            }
            let col = part.cols.start + p * COLS;
            let cols = COLS.min(part.cols.end - col);
            finish.finish(&Place { row, col, rows, cols }, &tile);
        }
    }
}

/// Packed panels; a cache line each, so that vector loads do not straddle two.
#[derive(Clone, Copy, Default)]
#[repr(C, align(64))]
struct Line([u32; 16]);

/// Memory for packed panels, and for sums between blocks of depth, that a thread keeps between products.
#[derive(Default)]
pub(crate) struct Scratch {
    lines: Vec<Line>,
    sums: Vec<Tile>,
}

impl Scratch {
    /// Two buffers of so many words; what they hold is left over from earlier.
    pub(crate) fn split(&mut self, first: usize, second: usize) -> (&mut [u32], &mut [u32]) {
        let (first, second, _) = self.parts(first, second, 0);
        (first, second)
    }

    /// Two buffers of so many words, and so many tiles; what they hold is left over from earlier.
    fn parts(&mut self, first: usize, second: usize, tiles: usize) -> (&mut [u32], &mut [u32], &mut [Tile]) {
        if self.sums.len() < tiles {
            self.sums.resize(tiles, Tile::default());
        }
        let start = first.next_multiple_of(16);
        let lines = (start + second).div_ceil(16);
        if self.lines.len() < lines {
            self.lines.resize(lines, Line::default());
        }
        // SAFETY: a line is sixteen words without padding, and the slice covers whole lines of the vector.
        let words =
            unsafe { std::slice::from_raw_parts_mut(self.lines.as_mut_ptr().cast::<u32>(), lines * 16) };
        let (a, b) = words.split_at_mut(start);
        (&mut a[..first], &mut b[..second], &mut self.sums[..tiles])
    }
}

/// Runs `f` with this thread's buffer. `f` must not come here again.
pub(crate) fn with_scratch<R>(f: impl FnOnce(&mut Scratch) -> R) -> R {
    thread_local! {
        static SCRATCH: RefCell<Scratch> = RefCell::default();
    }
    SCRATCH.with(|scratch| f(&mut scratch.borrow_mut()))
}

#[cfg(test)]
mod tests;
