//! The affine map.
//!
//! `f32` goes through this crate's own [product](crate::product) where the processor has AVX2 or AVX-512, in f32 or in bfloat16;
//! `f64`, and `f32` elsewhere, through the `gemm` crate.

use candle_core::backend::BackendStorage as _;
use std::marker::PhantomData;

use candle_core::{
    CpuStorage, CustomOp2, CustomOp3, D, DType, Device, Layout, Result, Shape, Tensor, WithDType, bail,
};
use rayon::prelude::*;

use crate::cpu::{Real, View, column_sums, fused, rows_per_task, slice, tensor, with_real};
use crate::gemm::{Into, Mat, MatMut, Threads, matmul};
use crate::precision::{Compute, Keep, Precision};
use crate::product::finish::{Accumulate, Store};
use crate::product::{Matrix, Out, available, product};
use crate::simd::{Bf16, Elem};
use crate::{block, sink};

/// `x Wᵀ + b`: `x` is `[…, I]`, `weight` `[O, I]` as PyTorch stores it, `bias` `[O]`; the result is `[…, O]`.
///
/// # Errors
/// When the shapes do not fit, or I or O is 0.
pub fn linear(x: &Tensor, weight: &Tensor, bias: Option<&Tensor>) -> Result<Tensor> {
    linear_with(x, weight, bias, Compute::default())
}

/// [`linear()`] in a given precision, with or without a backward pass. Input and output are `f32` in both precisions.
/// Without a backward pass the weight may be in bfloat16.
///
/// # Errors
/// As [`linear()`].
pub fn linear_with(x: &Tensor, weight: &Tensor, bias: Option<&Tensor>, compute: Compute) -> Result<Tensor> {
    if compute.keep == Keep::Nothing {
        let (weight, bias) = (weight.detach(), bias.map(Tensor::detach));
        let compute = Compute { keep: Keep::Inputs, ..compute };
        return linear_with(&x.detach(), &weight, bias.as_ref(), compute);
    }
    let (out, dim) = weight.dims2()?;
    let fits = x.dim(D::Minus1)? == dim && bias.is_none_or(|b| b.dims() == [out]);
    if !fits || out == 0 || dim == 0 {
        let bias = bias.map(Tensor::shape);
        bail!("linear: input {:?} with weight {:?} and bias {bias:?}", x.shape(), weight.shape());
    }
    let narrow = weight.dtype() == DType::BF16 && !weight.track_op();
    let f32s = [Some(x), bias].into_iter().flatten().all(|t| t.dtype() == DType::F32);
    if f32s && (narrow || weight.dtype() == DType::F32) && available() && matches!(x.device(), Device::Cpu) {
        return match compute.precision.or_f32() {
            Precision::F32 => product_linear::<f32>(x, weight, bias),
            Precision::Bf16 => product_linear::<Bf16>(x, weight, bias),
        };
    }
    let weight = &if narrow { weight.to_dtype(x.dtype())? } else { weight.clone() };
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

fn product_linear<E: Elem>(x: &Tensor, weight: &Tensor, bias: Option<&Tensor>) -> Result<Tensor> {
    let (x, weight, op) = (x.contiguous()?, weight.contiguous()?, Product::<E>(PhantomData));
    match bias {
        None => x.apply_op2(&weight, op),
        Some(bias) => x.apply_op3(&weight, &bias.contiguous()?, op),
    }
}

/// The affine map with products of `E`.
struct Product<E>(PhantomData<E>);

impl<E: Elem> Product<E> {
    fn forward(x: &[f32], weight: (&CpuStorage, &Layout), bias: Option<&[f32]>) -> Result<Vec<f32>> {
        let (storage, layout) = weight;
        let (out, dim) = layout.shape().dims2()?;
        let rows = x.len() / dim;
        let mut y = vec![0f32; rows * out];
        let finish = Store { out: Out::new(&mut y), stride: out, bias };
        let x = Matrix::rows(x, rows, dim, dim);
        match storage.dtype() {
            DType::BF16 => {
                let weight = Bf16::slice(slice(storage, layout)?);
                product::<E, _, _, _>(x, Matrix::rows(weight, out, dim, dim), &finish);
            }
            _ => product::<E, _, f32, _>(x, Matrix::rows(slice(storage, layout)?, out, dim, dim), &finish),
        }
        Ok(y)
    }
}

/// Gradients of the input and the weight, from that of the output `[rows, O]`.
pub(crate) fn product_backward<E: Elem, G: Elem>(
    x: &Tensor,
    weight: &Tensor,
    grad: &[G],
) -> Result<(Option<Tensor>, Option<Tensor>)> {
    let (out, dim) = weight.dims2()?;
    let rows = grad.len() / out;
    let (xv, wv) = (View::new(x), View::new(weight));
    // An input that nobody learns from, such as pixels, needs no gradient.
    let dx = if x.track_op() {
        let mut dx = vec![0f32; rows * dim];
        let finish = Store { out: Out::new(&mut dx), stride: dim, bias: None };
        let weight = Matrix::cols(wv.as_slice::<f32>()?, dim, out, dim);
        product::<E, _, _, _>(Matrix::rows(grad, rows, out, out), weight, &finish);
        Some(tensor(dx, x.shape())?)
    } else {
        None
    };
    let x = Matrix::cols(xv.as_slice::<f32>()?, dim, rows, dim);
    let dweight = sink::deliver(weight, |dweight, add| {
        // A product over no rows writes nothing, and the buffer may hold an earlier gradient.
        if rows == 0 && !add {
            dweight.fill(0.0);
        }
        let finish = Accumulate { out: Out::new(dweight), stride: dim, add };
        product::<E, _, _, _>(Matrix::cols(grad, out, rows, out), x, &finish);
    })?;
    Ok((dx, dweight))
}

impl<E: Elem> CustomOp2 for Product<E> {
    fn name(&self) -> &'static str {
        "tgm-linear-product"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        xl: &Layout,
        weight: &CpuStorage,
        wl: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let y = Self::forward(slice(x, xl)?, (weight, wl), None)?;
        Ok((f32::to_cpu_storage_owned(y), output_shape(xl, wl.dims()[0])))
    }

    fn bwd(
        &self,
        x: &Tensor,
        weight: &Tensor,
        _res: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let grad = grad.contiguous()?;
        let gv = View::new(&grad);
        product_backward::<E, f32>(x, weight, gv.as_slice()?)
    }
}

impl<E: Elem> CustomOp3 for Product<E> {
    fn name(&self) -> &'static str {
        "tgm-linear-product-bias"
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
        let y = Self::forward(slice(x, xl)?, (weight, wl), Some(slice(bias, bl)?))?;
        Ok((f32::to_cpu_storage_owned(y), output_shape(xl, wl.dims()[0])))
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
        let gv = View::new(&grad);
        let (dx, dweight) = product_backward::<E, f32>(x, weight, gv.as_slice()?)?;
        let sums = block::rows::column_sums(gv.as_slice::<f32>()?, weight.dims()[0]);
        Ok((dx, dweight, sink::deliver_values(bias, &sums)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gradcheck::randn;

    #[test]
    fn inference_takes_a_weight_in_bfloat16() {
        let (x, bias) = (randn("x", &[2, 5, 40], DType::F32).unwrap(), randn("b", &[7], DType::F32).unwrap());
        let narrow = randn("w", &[7, 40], DType::F32).unwrap().to_dtype(DType::BF16).unwrap();
        let wide = narrow.to_dtype(DType::F32).unwrap();
        for compute in Precision::ALL.map(Compute::inference) {
            let run = |weight| linear_with(&x, weight, Some(&bias), compute).unwrap();
            let values = |t: Tensor| t.flatten_all().unwrap().to_vec1::<f32>().unwrap();
            assert_eq!(values(run(&narrow)), values(run(&wide)));
        }
    }
}
