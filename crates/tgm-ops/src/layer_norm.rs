//! Layer normalisation over the last dimension.

use candle_core::backend::BackendStorage as _;
use candle_core::{CpuStorage, CustomOp3, D, Layout, Result, Shape, Tensor, WithDType, bail};
use rayon::prelude::*;

use crate::cpu::{Real, View, fused, rows_per_task, slice, sum_blocks, tensor, with_real};

/// `(x − mean) / √(var + eps) · weight + bias` over the last dimension, with the biased variance.
///
/// `x` is `[…, D]`; `weight` and `bias` are `[D]`. Statistics are taken in `f32` for half-precision inputs.
///
/// # Errors
/// When the shapes do not fit, or D is 0.
pub fn layer_norm(x: &Tensor, weight: &Tensor, bias: &Tensor, eps: f64) -> Result<Tensor> {
    let dim = x.dim(D::Minus1)?;
    if dim == 0 || weight.dims() != [dim] || bias.dims() != [dim] {
        bail!(
            "layer_norm: input {:?} with weight {:?} and bias {:?}",
            x.shape(),
            weight.shape(),
            bias.shape()
        );
    }
    if fused(&[x, weight, bias]) {
        x.contiguous()?.apply_op3(&weight.contiguous()?, &bias.contiguous()?, LayerNorm { eps })
    } else {
        crate::composed::layer_norm(x, weight, bias, eps)
    }
}

struct LayerNorm {
    eps: f64,
}

/// Mean and reciprocal standard deviation of one row.
fn statistics<T: Real>(row: &[T], eps: T) -> (T, T) {
    let n = T::real(row.len() as f64);
    let mean = row.iter().copied().sum::<T>() / n;
    let variance = row.iter().map(|&v| (v - mean) * (v - mean)).sum::<T>() / n;
    (mean, (variance + eps).sqrt().recip())
}

impl LayerNorm {
    fn forward<T: Real>(&self, x: &[T], weight: &[T], bias: &[T]) -> Vec<T> {
        let dim = weight.len();
        let mut out = vec![T::zero(); x.len()];
        let task = rows_per_task(dim) * dim;
        out.par_chunks_mut(task).zip(x.par_chunks(task)).for_each(|(out, x)| {
            for (out, x) in out.chunks_exact_mut(dim).zip(x.chunks_exact(dim)) {
                let (mean, scale) = statistics(x, T::real(self.eps));
                for (((out, &x), &w), &b) in out.iter_mut().zip(x).zip(weight).zip(bias) {
                    *out = (x - mean) * scale * w + b;
                }
            }
        });
        out
    }

    /// Gradients of the input, the weight and the bias.
    fn backward<T: Real>(&self, x: &[T], weight: &[T], grad: &[T]) -> (Vec<T>, Vec<T>, Vec<T>) {
        let dim = weight.len();
        let n = T::real(dim as f64);
        let mut dx = vec![T::zero(); x.len()];
        let task = rows_per_task(dim) * dim;
        // Each task leaves its share of the weight's and the bias's gradient, one behind the other.
        let shares: Vec<Vec<T>> = (dx.par_chunks_mut(task), x.par_chunks(task), grad.par_chunks(task))
            .into_par_iter()
            .map(|(dx, x, grad)| {
                let mut share = vec![T::zero(); 2 * dim];
                let (dweight, dbias) = share.split_at_mut(dim);
                for ((dx, x), grad) in
                    dx.chunks_exact_mut(dim).zip(x.chunks_exact(dim)).zip(grad.chunks_exact(dim))
                {
                    let (mean, scale) = statistics(x, T::real(self.eps));
                    let (mut sum, mut dot) = (T::zero(), T::zero());
                    for i in 0..dim {
                        let normed = (x[i] - mean) * scale;
                        let inner = grad[i] * weight[i];
                        sum += inner;
                        dot += inner * normed;
                        dweight[i] += grad[i] * normed;
                        dbias[i] += grad[i];
                    }
                    let (sum, dot) = (sum / n, dot / n);
                    for i in 0..dim {
                        let normed = (x[i] - mean) * scale;
                        dx[i] = scale * (grad[i] * weight[i] - sum - normed * dot);
                    }
                }
                share
            })
            .collect();
        let mut dweight = sum_blocks(shares, 2 * dim);
        let dbias = dweight.split_off(dim);
        (dx, dweight, dbias)
    }
}

impl CustomOp3 for LayerNorm {
    fn name(&self) -> &'static str {
        "tgm-layer-norm"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        xl: &Layout,
        weight: &CpuStorage,
        wl: &Layout,
        bias: &CpuStorage,
        bl: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        with_real!(x.dtype(), self.name(), T => {
            let out = self.forward::<T>(slice(x, xl)?, slice(weight, wl)?, slice(bias, bl)?);
            Ok((T::to_cpu_storage_owned(out), xl.shape().clone()))
        })
    }

    fn bwd(
        &self,
        x: &Tensor,
        weight: &Tensor,
        _bias: &Tensor,
        _res: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let grad = grad.contiguous()?;
        let (xv, wv, gv) = (View::new(x), View::new(weight), View::new(&grad));
        with_real!(x.dtype(), self.name(), T => {
            let (dx, dw, db) = self.backward::<T>(xv.as_slice()?, wv.as_slice()?, gv.as_slice()?);
            Ok((Some(tensor(dx, x.shape())?), Some(tensor(dw, weight.shape())?), Some(tensor(db, weight.shape())?)))
        })
    }
}
