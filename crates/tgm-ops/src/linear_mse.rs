//! The last layer and its loss as one operation.
//!
//! Predictions, targets and the gradient of predictions are the largest tensors of a masked autoencoder's step: `[B, M, P]` in f32
//! each, with P of 1,536 where tokens have 384. Here only their difference exists, in the element type of the products, and it becomes its own
//! gradient in place.

use std::sync::{Mutex, PoisonError};

use candle_core::{CpuStorage, CustomOp3, D, DType, Device, Layout, Result, Shape, Tensor, WithDType, bail};
use rayon::prelude::*;

use crate::block::rows::column_sums;
use crate::buffer::Buffer;
use crate::cpu::{TASK, View};
use crate::linear::{linear_with, product_backward};
use crate::precision::{Compute, Keep, Precision};
use crate::product::finish::Subtract;
use crate::product::{Matrix, Out, available, product};
use crate::simd::{Bf16, Elem, multiversion};
use crate::{mse, sink};

/// The mean over all elements of `(x Wᵀ + b − target)²`, a scalar: [`mse`] of [`linear_with`], without keeping the prediction.
///
/// `x` is `[…, D]`, `weight` `[P, D]`, `bias` `[P]` and `target` `[…, P]`. The target gets no gradient, and is given away because its memory
/// is wanted back before the backward pass. In bfloat16 the difference is rounded, and the loss is that of the rounded one.
///
/// On the fused path one backward pass finds what the forward pass left; a second one over the same graph is an error.
///
/// # Errors
/// When the shapes do not fit, or a dimension is 0.
pub fn linear_mse(
    x: &Tensor,
    weight: &Tensor,
    bias: &Tensor,
    target: Tensor,
    compute: Compute,
) -> Result<Tensor> {
    let (out, dim) = weight.dims2()?;
    let mut predicted = x.dims().to_vec();
    if let Some(last) = predicted.last_mut() {
        *last = out;
    }
    let fits = x.dim(D::Minus1)? == dim && bias.dims() == [out] && target.dims() == predicted;
    if !fits || dim == 0 || target.elem_count() == 0 {
        bail!(
            "linear_mse: input {:?} with weight {:?} and bias {:?} against target {:?}",
            x.shape(),
            weight.shape(),
            bias.shape(),
            target.shape()
        );
    }
    let fused = [x, weight, bias, &target]
        .iter()
        .all(|t| t.dtype() == DType::F32 && matches!(t.device(), Device::Cpu));
    if !fused || !available() || compute.keep == Keep::Nothing {
        return mse(&linear_with(x, weight, Some(bias), compute)?, &target);
    }
    let target = target.contiguous()?;
    match compute.precision.or_f32() {
        Precision::F32 => apply::<f32>(x, weight, bias, &target),
        Precision::Bf16 => apply::<Bf16>(x, weight, bias, &target),
    }
}

fn apply<E: Elem>(x: &Tensor, weight: &Tensor, bias: &Tensor, target: &Tensor) -> Result<Tensor> {
    let (x, weight, bias) = (x.contiguous()?, weight.contiguous()?, bias.contiguous()?);
    let difference = {
        let (xv, wv, bv, tv) = (View::new(&x), View::new(&weight), View::new(&bias), View::new(target));
        let (out, dim) = weight.dims2()?;
        let x: &[f32] = xv.as_slice()?;
        let rows = x.len() / dim;
        let mut difference = Buffer::<E>::new(rows * out);
        let finish = Subtract {
            out: Out::new(&mut difference),
            stride: out,
            bias: bv.as_slice()?,
            target: tv.as_slice()?,
        };
        let weight = Matrix::rows(wv.as_slice::<f32>()?, out, dim, dim);
        product::<E, _, _, _>(Matrix::rows(x, rows, dim, dim), weight, &finish);
        difference
    };
    x.apply_op3(&weight, &bias, LinearMse(Mutex::new(Some(difference))))
}

/// Holds the difference of prediction and target `[rows, P]` until the backward pass takes it.
struct LinearMse<E: Elem>(Mutex<Option<Buffer<E>>>);

impl<E: Elem> LinearMse<E> {
    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Buffer<E>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

multiversion! {
    fn sum_of_squares<E: Elem>(values: &[E]) -> f64 = sum_of_squares_body;
}

#[inline(always)]
fn sum_of_squares_body<const FMA: bool, E: Elem>(values: &[E]) -> f64 {
    let mut sums = [0f64; 16];
    let square = |v: &E| f64::from(v.get()) * f64::from(v.get());
    let (chunks, rest) = values.as_chunks::<16>();
    for chunk in chunks {
        sums.iter_mut().zip(chunk).for_each(|(sum, v)| *sum += square(v));
    }
    sums.iter().sum::<f64>() + rest.iter().map(square).sum::<f64>()
}

multiversion! {
    fn scale_part<E: Elem>(values: &mut [E], factor: f32) = scale_body;
}

#[inline(always)]
fn scale_body<const FMA: bool, E: Elem>(values: &mut [E], factor: f32) {
    values.iter_mut().for_each(|v| *v = E::put(v.get() * factor));
}

impl<E: Elem> CustomOp3 for LinearMse<E> {
    fn name(&self) -> &'static str {
        "tgm-linear-mse"
    }

    fn cpu_fwd(
        &self,
        _: &CpuStorage,
        _: &Layout,
        _: &CpuStorage,
        _: &Layout,
        _: &CpuStorage,
        _: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let saved = self.lock();
        let Some(difference) = saved.as_deref() else { bail!("linear_mse: the difference is gone") };
        let sums: Vec<f64> = difference.par_chunks(TASK).map(sum_of_squares).collect();
        let loss = (sums.iter().sum::<f64>() / difference.len() as f64) as f32;
        Ok((f32::to_cpu_storage_owned(vec![loss]), Shape::from(())))
    }

    fn bwd(
        &self,
        x: &Tensor,
        weight: &Tensor,
        bias: &Tensor,
        _res: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let Some(mut dy) = self.lock().take() else {
            bail!("linear_mse: a second backward pass over one graph; compute the loss again")
        };
        let factor = (f64::from(grad.to_scalar::<f32>()?) * 2.0 / dy.len() as f64) as f32;
        dy.par_chunks_mut(TASK).for_each(|part| scale_part(part, factor));
        let (dx, dweight) = product_backward::<E, E>(x, weight, &dy)?;
        let dbias = sink::deliver_values(bias, &column_sums(&dy, bias.elem_count()))?;
        Ok((dx, dweight, dbias))
    }
}

#[cfg(test)]
mod tests {
    use candle_core::Var;

    use super::*;
    use crate::gradcheck::randn;

    fn values(t: &Tensor) -> Vec<f32> {
        t.flatten_all().unwrap().to_vec1().unwrap()
    }

    /// Sizes that fill no tile, and many.
    const SIZES: [[usize; 4]; 3] = [[1, 1, 1, 1], [2, 5, 13, 37], [2, 70, 48, 100]];

    /// The loss, and gradients of input, weight and bias.
    fn run(
        [batch, rows, dim, out]: [usize; 4],
        loss: impl Fn(&Tensor, &Tensor, &Tensor, Tensor) -> Tensor,
    ) -> (f32, Vec<Vec<f32>>) {
        let var =
            |name: &str, shape: &[usize]| Var::from_tensor(&randn(name, shape, DType::F32).unwrap()).unwrap();
        let vars = [var("x", &[batch, rows, dim]), var("w", &[out, dim]), var("b", &[out])];
        let target = randn("t", &[batch, rows, out], DType::F32).unwrap();
        let loss = loss(&vars[0], &vars[1], &vars[2], target);
        let grads = (&loss * 0.7).unwrap().backward().unwrap();
        (loss.to_scalar().unwrap(), vars.iter().map(|v| values(grads.get(v).unwrap())).collect())
    }

    fn distance(a: &[f32], b: &[f32]) -> f32 {
        let norm = |v: &mut dyn Iterator<Item = f32>| v.map(|v| v * v).sum::<f32>().sqrt();
        norm(&mut a.iter().zip(b).map(|(a, b)| a - b)) / norm(&mut b.iter().copied())
    }

    #[test]
    fn it_is_the_mse_of_the_linear_layer() {
        for size in SIZES {
            for precision in Precision::ALL {
                let compute = Compute { precision, keep: Keep::Activations };
                let (loss, grads) = run(size, |x, w, b, t| linear_mse(x, w, b, t, compute).unwrap());
                let (want, want_grads) =
                    run(size, |x, w, b, t| mse(&linear_with(x, w, Some(b), compute).unwrap(), &t).unwrap());
                let bar = if precision.or_f32() == Precision::F32 { 1e-6 } else { 6e-3 };
                assert!((loss / want - 1.0).abs() < bar, "{size:?} {precision}: {loss} and {want}");
                for (got, want) in grads.iter().zip(&want_grads) {
                    let off = distance(got, want);
                    assert!(off < bar, "{size:?} {precision}: a gradient is off by {off}");
                }
            }
        }
    }

    #[test]
    fn other_types_take_the_path_of_two_operations() {
        let t = |name: &str, shape: &[usize]| randn(name, shape, DType::F64).unwrap();
        let (x, w, b, target) = (t("x", &[3, 5]), t("w", &[7, 5]), t("b", &[7]), t("t", &[3, 7]));
        let got = linear_mse(&x, &w, &b, target.clone(), Compute::default()).unwrap();
        let want =
            crate::composed::mse(&crate::composed::linear(&x, &w, Some(&b)).unwrap(), &target).unwrap();
        let scalar = |t: Tensor| t.to_scalar::<f64>().unwrap();
        assert!((scalar(got) - scalar(want)).abs() < 1e-12);
    }

    #[test]
    fn a_second_backward_pass_is_an_error_and_not_a_gradient_of_nothing() {
        if !available() {
            eprintln!("skipped: the fused path needs AVX2");
            return;
        }
        let t =
            |name: &str, shape: &[usize]| Var::from_tensor(&randn(name, shape, DType::F32).unwrap()).unwrap();
        let target = randn("t", &[3, 7], DType::F32).unwrap();
        let (x, w, b) = (t("x", &[3, 5]), t("w", &[7, 5]), t("b", &[7]));
        let loss = linear_mse(&x, &w, &b, target, Compute::default()).unwrap();
        loss.backward().unwrap();
        assert!(loss.backward().unwrap_err().to_string().contains("second backward pass"));
    }

    #[test]
    fn shapes_that_do_not_fit_are_named() {
        let t = |shape: &[usize]| Tensor::zeros(shape, DType::F32, &Device::Cpu).unwrap();
        let message = |x: &[usize], target: &[usize]| {
            let loss = linear_mse(&t(x), &t(&[7, 5]), &t(&[7]), t(target), Compute::default());
            loss.unwrap_err().to_string()
        };
        assert!(message(&[3, 4], &[3, 7]).contains("[3, 4]"));
        assert!(message(&[3, 5], &[3, 6]).contains("[3, 6]"));
    }
}
