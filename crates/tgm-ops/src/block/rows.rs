//! Passes over rows of activations: layer norm forward and backward, conversions, column sums.

use std::borrow::Cow;

use rayon::prelude::*;

use super::Sizes;
use crate::buffer::Buffer;
use crate::cpu::{rows_per_task, sum_blocks};
use crate::simd::{Elem, mul_add, multiversion};

/// Mean and reciprocal deviation of a row.
pub(super) type Stats = [f32; 2];

/// Independent sums, so that additions do not wait for each other and are vectorised.
const SUMS: usize = 32;

/// `Σ f(i)` in a fixed order.
#[inline(always)]
fn sum(len: usize, f: impl Fn(usize) -> f32) -> f32 {
    let mut sums = [0f32; SUMS];
    let whole = len - len % SUMS;
    for start in (0..whole).step_by(SUMS) {
        for (l, sum) in sums.iter_mut().enumerate() {
            *sum += f(start + l);
        }
    }
    for i in whole..len {
        sums[i - whole] += f(i);
    }
    sums.iter().sum()
}

/// The wanted last tokens of every sample, `[B, N, D]` to `[B, tail, D]`.
pub(super) fn tails<'a>(x: &'a [f32], sizes: &Sizes) -> Cow<'a, [f32]> {
    if sizes.tail == sizes.tokens {
        return Cow::Borrowed(x);
    }
    let first = sizes.first() * sizes.dim;
    let mut tails = Vec::with_capacity(sizes.tail_rows() * sizes.dim);
    x.chunks_exact(sizes.tokens * sizes.dim).for_each(|sample| tails.extend_from_slice(&sample[first..]));
    Cow::Owned(tails)
}

/// The reverse, with zeros where nothing was wanted.
pub(super) fn from_tails(tails: Vec<f32>, sizes: &Sizes) -> Vec<f32> {
    if sizes.tail == sizes.tokens {
        return tails;
    }
    let mut all = vec![0f32; sizes.rows() * sizes.dim];
    let samples = all.chunks_exact_mut(sizes.tokens * sizes.dim);
    for (sample, tail) in samples.zip(tails.chunks_exact(sizes.tail * sizes.dim)) {
        sample[sizes.first() * sizes.dim..].copy_from_slice(tail);
    }
    all
}

/// Layer norm of rows of `weight.len()` numbers, and each row's statistics.
pub(super) fn layer_norm<E: Elem>(
    x: &[f32],
    weight: &[f32],
    bias: &[f32],
    eps: f64,
) -> (Buffer<E>, Vec<Stats>) {
    let dim = weight.len();
    let mut out = Buffer::<E>::new(x.len());
    let mut stats = vec![[0f32; 2]; x.len() / dim];
    let rows = rows_per_task(dim);
    (out.par_chunks_mut(rows * dim), x.par_chunks(rows * dim), stats.par_chunks_mut(rows))
        .into_par_iter()
        .for_each(|(out, x, stats)| norm_rows(out, x, stats, weight, bias, eps as f32));
    (out, stats)
}

multiversion! {
    fn norm_rows<E: Elem>(out: &mut [E], x: &[f32], stats: &mut [Stats], weight: &[f32], bias: &[f32], eps: f32)
        = norm_rows_body;
}

#[inline(always)]
fn norm_rows_body<const FMA: bool, E: Elem>(
    out: &mut [E],
    x: &[f32],
    stats: &mut [Stats],
    weight: &[f32],
    bias: &[f32],
    eps: f32,
) {
    let dim = weight.len();
    let bias = &bias[..dim];
    let n = dim as f32;
    for ((out, x), stats) in out.chunks_exact_mut(dim).zip(x.chunks_exact(dim)).zip(stats) {
        let mean = sum(dim, |i| x[i]) / n;
        let variance = sum(dim, |i| (x[i] - mean) * (x[i] - mean)) / n;
        *stats = [mean, 1.0 / (variance + eps).sqrt()];
        normalise_row::<FMA, E>(out, x, *stats, weight, bias);
    }
}

#[inline(always)]
fn normalise_row<const FMA: bool, E: Elem>(
    out: &mut [E],
    x: &[f32],
    [mean, scale]: Stats,
    weight: &[f32],
    bias: &[f32],
) {
    for (((out, &x), &w), &b) in out.iter_mut().zip(x).zip(weight).zip(bias) {
        *out = E::put(mul_add::<FMA>((x - mean) * scale, w, b));
    }
}

/// The layer norm's output again, from its input and statistics: the same bits as the first time.
pub(super) fn normalise<E: Elem>(x: &[f32], stats: &[Stats], weight: &[f32], bias: &[f32]) -> Buffer<E> {
    let dim = weight.len();
    let mut out = Buffer::<E>::new(x.len());
    let rows = rows_per_task(dim);
    (out.par_chunks_mut(rows * dim), x.par_chunks(rows * dim), stats.par_chunks(rows))
        .into_par_iter()
        .for_each(|(out, x, stats)| normalise_rows(out, x, stats, weight, bias));
    out
}

multiversion! {
    fn normalise_rows<E: Elem>(out: &mut [E], x: &[f32], stats: &[Stats], weight: &[f32], bias: &[f32]) = normalise_rows_body;
}

#[inline(always)]
fn normalise_rows_body<const FMA: bool, E: Elem>(
    out: &mut [E],
    x: &[f32],
    stats: &[Stats],
    weight: &[f32],
    bias: &[f32],
) {
    let dim = weight.len();
    for ((out, x), &stats) in out.chunks_exact_mut(dim).zip(x.chunks_exact(dim)).zip(stats) {
        normalise_row::<FMA, E>(out, x, stats, weight, &bias[..dim]);
    }
}

/// What the backward pass of a layer norm inside a residual branch gives.
pub(super) struct NormGrads<E: Elem> {
    /// Gradient of the input: that of the residual plus that through the norm.
    pub(super) dx: Vec<f32>,
    /// The same, times the branch's shares, as the next product reads it.
    pub(super) narrow: Buffer<E>,
    pub(super) dweight: Vec<f32>,
    pub(super) dbias: Vec<f32>,
}

/// What passes by a layer norm.
#[derive(Clone, Copy)]
pub(super) struct Passed<'a> {
    /// The gradient of what goes on.
    pub(super) residual: &'a [f32],
    /// What each row got of the branch before; all of it if `None`.
    pub(super) shares: Option<&'a [f32]>,
}

impl<'a> Passed<'a> {
    /// That of `rows` rows of `dim` numbers from row `first` on.
    fn part(self, first: usize, rows: usize, dim: usize) -> Self {
        Self {
            residual: &self.residual[first * dim..(first + rows) * dim],
            shares: self.shares.map(|shares| &shares[first..first + rows]),
        }
    }
}

/// The gradient of `x` where `x` goes on and, beside it, through a layer norm: `passed` and `dnorm` are the gradients
/// of the two.
pub(super) fn layer_norm_backward<E: Elem>(
    x: &[f32],
    stats: &[Stats],
    weight: &[f32],
    dnorm: &[E],
    passed: Passed<'_>,
) -> NormGrads<E> {
    let dim = weight.len();
    let rows = rows_per_task(dim);
    let task = rows * dim;
    let mut dx = vec![0f32; x.len()];
    let mut narrow = Buffer::<E>::new(x.len());
    let inputs = (x.par_chunks(task), stats.par_chunks(rows), dnorm.par_chunks(task));
    let parts: Vec<Vec<f32>> = (dx.par_chunks_mut(task), narrow.par_chunks_mut(task))
        .into_par_iter()
        .zip(inputs.into_par_iter())
        .enumerate()
        .map(|(at, ((dx, narrow), (x, stats, dnorm)))| {
            let mut sums = vec![0f32; 2 * dim];
            let passed = passed.part(at * rows, stats.len(), dim);
            norm_backward_rows((dx, narrow), &mut sums, x, stats, weight, dnorm, passed);
            sums
        })
        .collect();
    let mut dweight = sum_blocks(parts, 2 * dim);
    let dbias = dweight.split_off(dim);
    NormGrads { dx, narrow, dweight, dbias }
}

multiversion! {
    fn norm_backward_rows<E: Elem>(out: (&mut [f32], &mut [E]), sums: &mut [f32], x: &[f32], stats: &[Stats], weight: &[f32],
        dnorm: &[E], passed: Passed<'_>) = norm_backward_body;
}

#[inline(always)]
fn norm_backward_body<const FMA: bool, E: Elem>(
    (dx, narrow): (&mut [f32], &mut [E]),
    sums: &mut [f32],
    x: &[f32],
    stats: &[Stats],
    weight: &[f32],
    dnorm: &[E],
    passed: Passed<'_>,
) {
    let dim = weight.len();
    let n = dim as f32;
    let (dweight, dbias) = sums.split_at_mut(dim);
    let dbias = &mut dbias[..dim];
    for (row, &[mean, scale]) in stats.iter().enumerate() {
        let at = row * dim..(row + 1) * dim;
        let (x, dnorm, residual) = (&x[at.clone()], &dnorm[at.clone()], &passed.residual[at.clone()]);
        // A factor of 1 changes no bit.
        let share = passed.shares.map_or(1.0, |shares| shares[row]);
        let (dx, narrow) = (&mut dx[at.clone()], &mut narrow[at]);
        for i in 0..dim {
            let d = dnorm[i].get();
            dweight[i] = mul_add::<FMA>(d, (x[i] - mean) * scale, dweight[i]);
            dbias[i] += d;
        }
        let total = sum(dim, |i| dnorm[i].get() * weight[i]) / n;
        let dot = sum(dim, |i| dnorm[i].get() * weight[i] * ((x[i] - mean) * scale)) / n;
        for i in 0..dim {
            let normed = (x[i] - mean) * scale;
            let d = residual[i] + scale * (dnorm[i].get() * weight[i] - total - normed * dot);
            dx[i] = d;
            narrow[i] = E::put(share * d);
        }
    }
}

/// Numbers in the element type of products.
pub(crate) fn convert<E: Elem>(x: &[f32]) -> Buffer<E> {
    let mut out = Buffer::<E>::new(x.len());
    let task = crate::cpu::TASK;
    out.par_chunks_mut(task).zip(x.par_chunks(task)).for_each(|(out, x)| convert_part(out, x, 1.0));
    out
}

/// Rows of `dim` numbers times a share each, in the element type of products.
pub(super) fn convert_rows<E: Elem>(x: &[f32], dim: usize, shares: Option<&[f32]>) -> Buffer<E> {
    let Some(shares) = shares else { return convert(x) };
    let mut out = Buffer::<E>::new(x.len());
    let rows = rows_per_task(dim);
    (out.par_chunks_mut(rows * dim), x.par_chunks(rows * dim), shares.par_chunks(rows))
        .into_par_iter()
        .for_each(|(out, x, shares)| {
            let rows = out.chunks_exact_mut(dim).zip(x.chunks_exact(dim));
            rows.zip(shares).for_each(|((out, x), &share)| convert_part(out, x, share));
        });
    out
}

multiversion! {
    fn convert_part<E: Elem>(out: &mut [E], x: &[f32], factor: f32) = convert_body;
}

#[inline(always)]
fn convert_body<const FMA: bool, E: Elem>(out: &mut [E], x: &[f32], factor: f32) {
    out.iter_mut().zip(x).for_each(|(out, &x)| *out = E::put(factor * x));
}

/// The sum of every column: block sums are added in order, whatever the number of threads.
pub(crate) fn column_sums<E: Elem>(data: &[E], width: usize) -> Vec<f32> {
    let blocks: Vec<Vec<f32>> = data
        .par_chunks(4 * rows_per_task(width) * width)
        .map(|block| {
            let mut sums = vec![0f32; width];
            add_rows(&mut sums, block);
            sums
        })
        .collect();
    sum_blocks(blocks, width)
}

multiversion! {
    fn add_rows<E: Elem>(sums: &mut [f32], rows: &[E]) = add_rows_body;
}

#[inline(always)]
fn add_rows_body<const FMA: bool, E: Elem>(sums: &mut [f32], rows: &[E]) {
    for row in rows.chunks_exact(sums.len()) {
        sums.iter_mut().zip(row).for_each(|(sum, v)| *sum += v.get());
    }
}
