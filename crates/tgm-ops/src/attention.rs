//! Multi-head self-attention over packed queries, keys and values.
//!
//! The N×N matrix of attention weights is never stored: forward computes a block of query rows at a time, backward
//! computes the weights again. Queries, keys and values are read in place from the packed tensor by stride.

use candle_core::backend::BackendStorage as _;
use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor, WithDType, bail};
use rayon::prelude::*;

use crate::cpu::{Real, View, fused, slice, tensor, with_real};
use crate::gemm::{Into, Mat, MatMut, Threads, matmul};
use crate::softmax::softmax_row;

/// `softmax(q kᵀ / √d) v` in every head.
///
/// `qkv` is `[B, N, 3·D]`: along the last dimension all queries, then all keys, then all values, each with the heads
/// side by side (the layout of timm's and VideoMAE's `attn.qkv`). The result is `[B, N, D]`.
///
/// # Errors
/// When the last dimension is not a multiple of `3 · heads`, or N or D is 0.
pub fn attention(qkv: &Tensor, heads: usize) -> Result<Tensor> {
    let (_, tokens, width) = qkv.dims3()?;
    let fits = heads > 0 && width.is_multiple_of(3) && (width / 3).is_multiple_of(heads);
    if !fits || width == 0 || tokens == 0 {
        bail!("attention: {:?} does not hold q, k and v of {heads} heads", qkv.shape());
    }
    if fused(&[qkv]) {
        qkv.contiguous()?.apply_op1(Attention { heads })
    } else {
        crate::composed::attention(qkv, heads)
    }
}

/// Query rows per block: the block's weights (`BLOCK × N`) stay in the cache for the lengths used here.
const BLOCK: usize = 64;

struct Attention {
    heads: usize,
}

/// One sample's packed tensor `[N, 3·D]`, and where its heads lie.
#[derive(Clone, Copy)]
struct Packed<'a, T> {
    data: &'a [T],
    tokens: usize,
    /// Width of one head.
    head: usize,
    /// D: all heads.
    dim: usize,
}

impl<'a, T: Real> Packed<'a, T> {
    /// Rows `from..from + rows` of the queries (`part` 0), keys (1) or values (2) of one head.
    fn view(&self, part: usize, head: usize, from: usize, rows: usize) -> Mat<'a, T> {
        let start = from * 3 * self.dim + part * self.dim + head * self.head;
        Mat::new(&self.data[start..], rows, self.head, 3 * self.dim)
    }

    fn all(&self, part: usize, head: usize) -> Mat<'a, T> {
        self.view(part, head, 0, self.tokens)
    }

    fn scale(&self) -> T {
        T::real(1.0 / (self.head as f64).sqrt())
    }

    /// The attention weights of a block of queries, `[rows, N]`.
    fn weights(&self, weights: &mut [T], head: usize, from: usize, rows: usize) {
        let dst = MatMut::new(weights, rows, self.tokens, self.tokens);
        let (q, k) = (self.view(0, head, from, rows), self.all(1, head).t());
        matmul(dst, Into::Overwrite, self.scale(), q, k, Threads::One);
        weights[..rows * self.tokens].chunks_exact_mut(self.tokens).for_each(softmax_row);
    }
}

impl Attention {
    fn samples<'a, T: Real>(&self, qkv: &'a [T], tokens: usize, dim: usize) -> Vec<Packed<'a, T>> {
        qkv.chunks_exact(tokens * 3 * dim)
            .map(|data| Packed { data, tokens, head: dim / self.heads, dim })
            .collect()
    }

    fn forward<T: Real>(&self, qkv: &[T], tokens: usize, dim: usize) -> Vec<T> {
        let samples = self.samples(qkv, tokens, dim);
        let mut out = vec![T::zero(); qkv.len() / 3];
        out.par_chunks_mut(tokens * dim).zip(&samples).for_each(|(out, sample)| {
            out.par_chunks_mut(BLOCK * dim).enumerate().for_each(|(block, out)| {
                let (from, rows) = (block * BLOCK, out.len() / dim);
                let mut weights = vec![T::zero(); rows * tokens];
                for head in 0..self.heads {
                    sample.weights(&mut weights, head, from, rows);
                    let dst = MatMut::new(&mut out[head * sample.head..], rows, sample.head, dim);
                    let p = Mat::new(&weights, rows, tokens, tokens);
                    matmul(dst, Into::Overwrite, T::one(), p, sample.all(2, head), Threads::One);
                }
            });
        });
        out
    }

    /// The gradient of the packed tensor. Each (sample, head) pair is one task with buffers of its own.
    fn backward<T: Real>(&self, qkv: &[T], out: &[T], grad: &[T], tokens: usize, dim: usize) -> Vec<T> {
        let samples = self.samples(qkv, tokens, dim);
        let mut dqkv = vec![T::zero(); qkv.len()];
        dqkv.par_chunks_mut(tokens * 3 * dim).zip(&samples).enumerate().for_each(|(b, (dqkv, sample))| {
            let rows = b * tokens * dim..(b + 1) * tokens * dim;
            let (out, grad) = (&out[rows.clone()], &grad[rows]);
            let heads: Vec<[Vec<T>; 3]> = (0..self.heads)
                .into_par_iter()
                .map(|head| {
                    head_backward(sample, head, &out[head * sample.head..], &grad[head * sample.head..])
                })
                .collect();
            interleave(dqkv, &heads, sample);
        });
        dqkv
    }
}

/// Gradients of one head's queries, keys and values, each `[N, d]`. `out` and `grad` begin at the head's column.
fn head_backward<T: Real>(sample: &Packed<'_, T>, head: usize, out: &[T], grad: &[T]) -> [Vec<T>; 3] {
    let (tokens, width, dim) = (sample.tokens, sample.head, sample.dim);
    let [mut dq, mut dk, mut dv] = [0; 3].map(|_| vec![T::zero(); tokens * width]);
    let mut weights = vec![T::zero(); BLOCK.min(tokens) * tokens];
    let mut dweights = weights.clone();
    for from in (0..tokens).step_by(BLOCK) {
        let rows = BLOCK.min(tokens - from);
        sample.weights(&mut weights, head, from, rows);
        let dout = Mat::new(&grad[from * dim..], rows, width, dim);
        {
            let p = Mat::new(&weights, rows, tokens, tokens);
            matmul(
                MatMut::new(&mut dv, tokens, width, width),
                Into::Add,
                T::one(),
                p.t(),
                dout,
                Threads::One,
            );
        }
        let dp = MatMut::new(&mut dweights, rows, tokens, tokens);
        matmul(dp, Into::Overwrite, T::one(), dout, sample.all(2, head).t(), Threads::One);
        // Softmax: ds = p ∘ (dp − Σ p dp), and Σ p dp of a row is the product of its output and output gradient.
        for row in 0..rows {
            let start = (from + row) * dim;
            let dot = (0..width).map(|i| out[start + i] * grad[start + i]).sum::<T>();
            let (p, ds) = (&weights[row * tokens..][..tokens], &mut dweights[row * tokens..][..tokens]);
            for (ds, &p) in ds.iter_mut().zip(p) {
                *ds = p * (*ds - dot);
            }
        }
        let ds = Mat::new(&dweights, rows, tokens, tokens);
        let dst = MatMut::new(&mut dq[from * width..], rows, width, width);
        matmul(dst, Into::Overwrite, sample.scale(), ds, sample.all(1, head), Threads::One);
        let (dst, q) = (MatMut::new(&mut dk, tokens, width, width), sample.view(0, head, from, rows));
        matmul(dst, Into::Add, sample.scale(), ds.t(), q, Threads::One);
    }
    [dq, dk, dv]
}

/// Writes the heads' gradients into one sample's packed gradient `[N, 3·D]`.
fn interleave<T: Real>(dqkv: &mut [T], heads: &[[Vec<T>; 3]], sample: &Packed<'_, T>) {
    for (token, row) in dqkv.chunks_exact_mut(3 * sample.dim).enumerate() {
        for (head, parts) in heads.iter().enumerate() {
            for (part, values) in parts.iter().enumerate() {
                let start = part * sample.dim + head * sample.head;
                row[start..start + sample.head]
                    .copy_from_slice(&values[token * sample.head..][..sample.head]);
            }
        }
    }
}

impl CustomOp1 for Attention {
    fn name(&self) -> &'static str {
        "tgm-attention"
    }

    fn cpu_fwd(&self, qkv: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let (batch, tokens, width) = layout.shape().dims3()?;
        with_real!(qkv.dtype(), self.name(), T => {
            let out = self.forward::<T>(slice(qkv, layout)?, tokens, width / 3);
            Ok((T::to_cpu_storage_owned(out), (batch, tokens, width / 3).into()))
        })
    }

    fn bwd(&self, qkv: &Tensor, res: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        let (_, tokens, width) = qkv.dims3()?;
        let grad = grad.contiguous()?;
        let (xv, rv, gv) = (View::new(qkv), View::new(res), View::new(&grad));
        with_real!(qkv.dtype(), self.name(), T => {
            let dqkv = self.backward::<T>(xv.as_slice()?, rv.as_slice()?, gv.as_slice()?, tokens, width / 3);
            Ok(Some(tensor(dqkv, qkv.shape())?))
        })
    }
}
