//! The affine map.

use candle_core::backend::BackendStorage as _;
use candle_core::{CpuStorage, CustomOp2, CustomOp3, D, Layout, Result, Shape, Tensor, WithDType, bail};
use rayon::prelude::*;

use crate::cpu::{Real, View, column_sums, fused, rows_per_task, slice, tensor, with_real};
use crate::gemm::{Into, Mat, MatMut, Threads, matmul};

/// `x Wᵀ + b`: `x` is `[…, I]`, `weight` `[O, I]` as PyTorch stores it, `bias` `[O]`; the result is `[…, O]`.
///
/// # Errors
/// When the shapes do not fit.
pub fn linear(x: &Tensor, weight: &Tensor, bias: Option<&Tensor>) -> Result<Tensor> {
    let (out, dim) = weight.dims2()?;
    if x.dim(D::Minus1)? != dim || bias.is_some_and(|b| b.dims() != [out]) {
        let bias = bias.map(Tensor::shape);
        bail!("linear: input {:?} with weight {:?} and bias {bias:?}", x.shape(), weight.shape());
    }
    match bias {
        None if fused(&[x, weight]) => x.contiguous()?.apply_op2(&weight.contiguous()?, Linear),
        Some(bias) if fused(&[x, weight, bias]) => {
            x.contiguous()?.apply_op3(&weight.contiguous()?, &bias.contiguous()?, Linear)
        }
        _ => crate::composed::linear(x, weight, bias),
    }
}

struct Linear;

fn forward<T: Real>(x: &[T], weight: &[T], bias: Option<&[T]>, out: usize) -> Vec<T> {
    let dim = weight.len() / out;
    let rows = x.len() / dim;
    let mut y = vec![T::zero(); rows * out];
    if let Some(bias) = bias {
        y.par_chunks_mut(rows_per_task(out) * out).for_each(|rows| {
            rows.chunks_exact_mut(out).for_each(|row| row.copy_from_slice(bias));
        });
    }
    let into = if bias.is_some() { Into::Add } else { Into::Overwrite };
    let (a, b) = (Mat::new(x, rows, dim, dim), Mat::new(weight, out, dim, dim).t());
    matmul(MatMut::new(&mut y, rows, out, out), into, T::one(), a, b, Threads::All);
    y
}

/// Gradients of the input and the weight. Both products read their operands in place, transposed by stride.
fn backward<T: Real>(x: &[T], weight: &[T], grad: &[T], out: usize) -> (Vec<T>, Vec<T>) {
    let dim = weight.len() / out;
    let rows = x.len() / dim;
    let grad = Mat::new(grad, rows, out, out);
    let mut dx = vec![T::zero(); x.len()];
    let mut dweight = vec![T::zero(); weight.len()];
    let weight = Mat::new(weight, out, dim, dim);
    matmul(MatMut::new(&mut dx, rows, dim, dim), Into::Overwrite, T::one(), grad, weight, Threads::All);
    let x = Mat::new(x, rows, dim, dim);
    matmul(MatMut::new(&mut dweight, out, dim, dim), Into::Overwrite, T::one(), grad.t(), x, Threads::All);
    (dx, dweight)
}

fn output_shape(x: &Layout, out: usize) -> Shape {
    let mut dims = x.dims().to_vec();
    if let Some(last) = dims.last_mut() {
        *last = out;
    }
    dims.into()
}

impl CustomOp2 for Linear {
    fn name(&self) -> &'static str {
        "tgm-linear"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        xl: &Layout,
        weight: &CpuStorage,
        wl: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let out = wl.dims()[0];
        with_real!(x.dtype(), "tgm-linear", T => {
            let y = forward::<T>(slice(x, xl)?, slice(weight, wl)?, None, out);
            Ok((T::to_cpu_storage_owned(y), output_shape(xl, out)))
        })
    }

    fn bwd(
        &self,
        x: &Tensor,
        weight: &Tensor,
        _res: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let grad = grad.contiguous()?;
        let (xv, wv, gv) = (View::new(x), View::new(weight), View::new(&grad));
        with_real!(x.dtype(), "tgm-linear", T => {
            let (dx, dw) = backward::<T>(xv.as_slice()?, wv.as_slice()?, gv.as_slice()?, weight.dims()[0]);
            Ok((Some(tensor(dx, x.shape())?), Some(tensor(dw, weight.shape())?)))
        })
    }
}

impl CustomOp3 for Linear {
    fn name(&self) -> &'static str {
        "tgm-linear-bias"
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
        let out = wl.dims()[0];
        with_real!(x.dtype(), "tgm-linear-bias", T => {
            let y = forward::<T>(slice(x, xl)?, slice(weight, wl)?, Some(slice(bias, bl)?), out);
            Ok((T::to_cpu_storage_owned(y), output_shape(xl, out)))
        })
    }

    fn bwd(
        &self,
        x: &Tensor,
        weight: &Tensor,
        bias: &Tensor,
        _res: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let grad = grad.contiguous()?;
        let out = weight.dims()[0];
        let (xv, wv, gv) = (View::new(x), View::new(weight), View::new(&grad));
        with_real!(x.dtype(), "tgm-linear-bias", T => {
            let (dx, dw) = backward::<T>(xv.as_slice()?, wv.as_slice()?, gv.as_slice()?, out);
            let db = column_sums::<T>(gv.as_slice()?, out);
            Ok((Some(tensor(dx, x.shape())?), Some(tensor(dw, weight.shape())?), Some(tensor(db, bias.shape())?)))
        })
    }
}
