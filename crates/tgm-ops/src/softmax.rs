//! Softmax over the last dimension: a row helper for attention, and the differentiable `log_softmax`.

use candle_core::backend::BackendStorage as _;
use candle_core::{CpuStorage, CustomOp1, D, Layout, Result, Shape, Tensor, WithDType, bail};
use rayon::prelude::*;

use crate::cpu::{Real, View, fused, rows_per_task, slice, tensor, with_real};

/// `x − ln Σ exp(x)` over the last dimension, in any shape.
///
/// # Errors
/// When the data type is not a floating-point one, or the last dimension is 0.
pub fn log_softmax(x: &Tensor) -> Result<Tensor> {
    if x.dim(D::Minus1)? == 0 {
        bail!("log_softmax: {:?} has rows of no numbers", x.shape());
    }
    if fused(&[x]) { x.contiguous()?.apply_op1(LogSoftmax) } else { crate::composed::log_softmax(x) }
}

/// Replaces a row by its softmax.
pub(crate) fn softmax_row<T: Real>(row: &mut [T]) {
    let max = row.iter().copied().fold(T::neg_infinity(), num_traits::Float::max);
    let mut sum = T::zero();
    for v in row.iter_mut() {
        *v = (*v - max).exp();
        sum += *v;
    }
    let scale = sum.recip();
    for v in row.iter_mut() {
        *v *= scale;
    }
}

struct LogSoftmax;

fn forward<T: Real>(x: &[T], width: usize) -> Vec<T> {
    let mut out = vec![T::zero(); x.len()];
    let task = rows_per_task(width) * width;
    out.par_chunks_mut(task).zip(x.par_chunks(task)).for_each(|(out, x)| {
        for (out, x) in out.chunks_exact_mut(width).zip(x.chunks_exact(width)) {
            let max = x.iter().copied().fold(T::neg_infinity(), num_traits::Float::max);
            let log_sum = x.iter().map(|&v| (v - max).exp()).sum::<T>().ln() + max;
            for (out, &x) in out.iter_mut().zip(x) {
                *out = x - log_sum;
            }
        }
    });
    out
}

fn backward<T: Real>(res: &[T], grad: &[T], width: usize) -> Vec<T> {
    let mut dx = vec![T::zero(); res.len()];
    let task = rows_per_task(width) * width;
    (dx.par_chunks_mut(task), res.par_chunks(task), grad.par_chunks(task)).into_par_iter().for_each(
        |(dx, res, grad)| {
            for ((dx, res), grad) in
                dx.chunks_exact_mut(width).zip(res.chunks_exact(width)).zip(grad.chunks_exact(width))
            {
                let sum = grad.iter().copied().sum::<T>();
                for ((dx, &r), &g) in dx.iter_mut().zip(res).zip(grad) {
                    *dx = g - r.exp() * sum;
                }
            }
        },
    );
    dx
}

impl CustomOp1 for LogSoftmax {
    fn name(&self) -> &'static str {
        "tgm-log-softmax"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let width = layout.shape().dim(D::Minus1)?;
        with_real!(x.dtype(), self.name(), T => {
            Ok((T::to_cpu_storage_owned(forward::<T>(slice(x, layout)?, width)), layout.shape().clone()))
        })
    }

    fn bwd(&self, x: &Tensor, res: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        let grad = grad.contiguous()?;
        let (rv, gv) = (View::new(res), View::new(&grad));
        with_real!(x.dtype(), self.name(), T => {
            Ok(Some(tensor(backward::<T>(rv.as_slice()?, gv.as_slice()?, x.dim(D::Minus1)?), x.shape())?))
        })
    }
}
