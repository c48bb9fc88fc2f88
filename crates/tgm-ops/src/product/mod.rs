//! Matrix products of f32 and of bfloat16 with f32 sums, on AVX-512 and AVX2.
//!
//! `c[i, j] = Σ_k a[i, k] b[j, k]`: the summed dimension is the *depth*, the two others are *lanes* of their matrix.
//! A [`Matrix`] says how its lanes and depth lie in memory, so `x Wᵀ`, `dY W` and `dYᵀ X` are the same function and
//! nothing is transposed beforehand.
//!
//! The right matrix is packed, a block of columns at a time, into panels of [`tile::COLS`] lanes that stay in the
//! second-level cache ([`pack`]); the left one is read where it lies when its depth is contiguous. A tile of
//! [`tile::ROWS`] × [`tile::COLS`] sums stays in registers over the whole depth ([`tile`]), and a [`Finish`] does with
//! it, while it is in the first-level cache, what would otherwise be another pass over memory: bias, GELU, residual.
//!
//! Every sum is taken in one order that depends on the sizes alone, so results do not depend on the number of threads.
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

use crate::simd::{Elem, Level, level, multiversion};
use pack::{pack, pack_wide};
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

/// Depth of a block, in words, when both matrices have to be packed.
const DEEP_WORDS: usize = 512;
/// Multiplications below which a product is not worth a second thread.
const SMALL: usize = 1 << 20;
/// Rows of a task whose left matrix is packed: with [`DEEP_WORDS`], 384 KiB.
const TASK_LANES: usize = 16 * ROWS;
/// Rows of a task otherwise.
const TASK_ROWS: usize = 86 * ROWS;

/// `Σ_k a[i, k] b[j, k]` for all lanes `i` of `a` and `j` of `b`, handed to `finish` tile by tile.
///
/// The matrices may be f32 when the product is in bfloat16: they are rounded while they are packed.
///
/// A left matrix whose depth is not contiguous is taken in several blocks of depth; `finish` then gets every tile once
/// per block, in order, and has to add them up.
pub(crate) fn product<E: Elem, A: Elem, B: Elem, F: Finish>(a: Matrix<'_, A>, b: Matrix<'_, B>, finish: &F) {
    assert_eq!(a.depth(), b.depth(), "product of matrices of different depth");
    let plan = Plan::new::<E, A, B>(&a, &b);
    let work = a.lanes() * b.lanes() * a.depth();
    let run = |task: usize| plan.run::<E, A, B, F>(task, &a, &b, finish);
    if work < SMALL {
        (0..plan.tasks()).for_each(run)
    } else {
        (0..plan.tasks()).into_par_iter().for_each(run)
    }
}

/// How a product is cut into tasks. It depends on the sizes, and on the processor's vectors, alone; what is added up
/// in which order, on the sizes alone.
struct Plan {
    rows: usize,
    cols: usize,
    rows_per_task: usize,
    cols_per_task: usize,
    depth: usize,
    depth_per_block: usize,
}

impl Plan {
    fn new<E: Elem, A: Elem, B: Elem>(a: &Matrix<'_, A>, b: &Matrix<'_, B>) -> Self {
        let (rows, cols, depth) = (a.lanes(), b.lanes(), a.depth());
        let words = depth.div_ceil(E::GROUP);
        let words_per_block = match a.inner() {
            Inner::Depth => words,
            // Equal blocks, none of them a short rest.
            Inner::Lane => words.div_ceil(words.div_ceil(DEEP_WORDS).max(1)),
        };
        let panels = (block_words() / (COLS * words_per_block.max(1))).clamp(1, 12);
        let task_rows = if a.inner() == Inner::Lane { TASK_LANES } else { TASK_ROWS };
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
        Self { rows, cols, rows_per_task, cols_per_task, depth, depth_per_block: words_per_block * E::GROUP }
    }

    fn tasks(&self) -> usize {
        self.rows.div_ceil(self.rows_per_task.max(1)) * self.cols.div_ceil(self.cols_per_task)
    }

    fn run<E: Elem, A: Elem, B: Elem, F: Finish>(
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
            let blocks = (0..self.depth).step_by(self.depth_per_block.max(1)).enumerate();
            for (block, start) in blocks {
                let depth = start..(start + self.depth_per_block).min(self.depth);
                let part = Part { rows: rows.clone(), cols: cols.clone(), depth, block };
                run_part::<E, A, B, F>(&part, a, b, finish, scratch);
            }
        });
    }
}

/// One block of depth of one task.
struct Part {
    rows: Range<usize>,
    cols: Range<usize>,
    depth: Range<usize>,
    block: usize,
}

multiversion! {
    fn run_part<E: Elem, A: Elem, B: Elem, F: Finish>(
        part: &Part,
        a: &Matrix<'_, A>,
        b: &Matrix<'_, B>,
        finish: &F,
        scratch: &mut Scratch,
    ) = run_part_body;
}

#[inline(always)]
fn run_part_body<const FMA: bool, E: Elem, A: Elem, B: Elem, F: Finish>(
    part: &Part,
    a: &Matrix<'_, A>,
    b: &Matrix<'_, B>,
    finish: &F,
    scratch: &mut Scratch,
) {
    let groups = part.depth.len().div_ceil(E::GROUP);
    let panel = groups * COLS;
    let panels = part.cols.len().div_ceil(COLS);
    // A left matrix that has to be packed whole is one wide panel, of which the tiles read twelve lanes each.
    let wide = match a.inner() {
        Inner::Depth => ROWS,
        Inner::Lane => part.rows.len().next_multiple_of(ROWS),
    };
    let (left, right) = scratch.split(groups * wide, panels * panel);
    if a.inner() == Inner::Lane {
        pack_wide::<E, A>(a, part.rows.clone(), part.depth.clone(), wide, left);
    }
    for (p, out) in right.chunks_exact_mut(panel).enumerate() {
        let from = part.cols.start + p * COLS;
        let lanes = from..(from + COLS).min(part.cols.end);
        pack::<E, B, COLS>(b, lanes, part.depth.clone(), out);
    }
    let mut tile = Tile::default();
    for row in part.rows.clone().step_by(ROWS) {
        let rows = ROWS.min(part.rows.end - row);
        let lhs = match a.in_place::<E>(row, part.depth.clone()) {
            Some(lhs) => lhs,
            None if a.inner() == Inner::Lane => Lhs::lanes(&left[row - part.rows.start..], wide),
            None => {
                pack::<E, A, ROWS>(a, row..row + rows, part.depth.clone(), left);
                Lhs::packed(left)
            }
        };
        for (p, rhs) in right.chunks_exact(panel).enumerate() {
            tile::multiply::<E>(groups, &lhs, rhs, COLS, &mut tile);
            let col = part.cols.start + p * COLS;
            let cols = COLS.min(part.cols.end - col);
            finish.finish(&Place { row, col, rows, cols, block: part.block }, &tile);
        }
    }
}

/// Packed panels; a cache line each, so that vector loads do not straddle two.
#[derive(Clone, Copy, Default)]
#[repr(C, align(64))]
struct Line([u32; 16]);

/// Memory for packed panels that a thread keeps between products.
#[derive(Default)]
pub(crate) struct Scratch(Vec<Line>);

impl Scratch {
    /// Two buffers of so many words; what they hold is left over from earlier.
    pub(crate) fn split(&mut self, first: usize, second: usize) -> (&mut [u32], &mut [u32]) {
        let start = first.next_multiple_of(16);
        let lines = (start + second).div_ceil(16);
        if self.0.len() < lines {
            self.0.resize(lines, Line::default());
        }
        // SAFETY: a line is sixteen words without padding, and the slice covers whole lines of the vector.
        let words = unsafe { std::slice::from_raw_parts_mut(self.0.as_mut_ptr().cast::<u32>(), lines * 16) };
        let (a, b) = words.split_at_mut(start);
        (&mut a[..first], &mut b[..second])
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
