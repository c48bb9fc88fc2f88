//! The mean squared error.

use candle_core::backend::BackendStorage as _;
use candle_core::{CpuStorage, CustomOp2, Device, Layout, Result, Shape, Tensor, WithDType, bail};
use rayon::prelude::*;

use crate::cpu::{Real, TASK, View, fused, slice, tensor, with_real};
use crate::simd::multiversion;

/// The mean over all elements of `(prediction − target)²`, a scalar. The target receives no gradient.
///
/// The sum is accumulated in `f64`.
///
/// # Errors
/// When the shapes differ, or there are no elements.
pub fn mse(prediction: &Tensor, target: &Tensor) -> Result<Tensor> {
    if prediction.shape() != target.shape() || prediction.elem_count() == 0 {
        bail!("mse: prediction {:?} against target {:?}", prediction.shape(), target.shape());
    }
    let target = target.detach();
    if fused(&[prediction, &target]) {
        prediction.contiguous()?.apply_op2(&target.contiguous()?, Mse)
    } else {
        crate::composed::mse(prediction, &target)
    }
}

/// The variance of all elements of an `f32` tensor (biased): the [`mse`] of always answering their mean.
///
/// # Errors
/// When the type is another one, or there are no elements.
pub fn variance(x: &Tensor) -> Result<f64> {
    if x.elem_count() == 0 {
        bail!("variance: {:?} has no elements", x.shape());
    }
    let x = x.to_device(&Device::Cpu)?.contiguous()?;
    let view = View::new(&x);
    let values = view.as_slice::<f32>()?;
    let total = |shift: f64, power: i32| -> f64 {
        let part = |part: &[f32]| shifted_sum(part, shift, power);
        values.par_chunks(TASK).map(part).collect::<Vec<f64>>().iter().sum()
    };
    let n = values.len() as f64;
    Ok(total(total(0.0, 1) / n, 2) / n)
}

multiversion! {
    fn shifted_sum(values: &[f32], shift: f64, power: i32) -> f64 = shifted_sum_body;
}

/// `Σ (v − shift)` or, with a power of 2, of the squares.
#[inline(always)]
fn shifted_sum_body<const FMA: bool>(values: &[f32], shift: f64, power: i32) -> f64 {
    let mut sums = [0f64; 16];
    let term = |v: f32| {
        let d = f64::from(v) - shift;
        if power == 2 { d * d } else { d }
    };
    let (chunks, rest) = values.as_chunks::<16>();
    for chunk in chunks {
        for (sum, &v) in sums.iter_mut().zip(chunk) {
            *sum += term(v);
        }
    }
    sums.iter().sum::<f64>() + rest.iter().map(|&v| term(v)).sum::<f64>()
}

struct Mse;

fn forward<T: Real>(prediction: &[T], target: &[T]) -> T {
    let sums: Vec<f64> = (prediction.par_chunks(TASK), target.par_chunks(TASK))
        .into_par_iter()
        .map(|(p, t)| p.iter().zip(t).map(|(&p, &t)| (p - t).to_f64() * (p - t).to_f64()).sum())
        .collect();
    T::real(sums.iter().sum::<f64>() / prediction.len() as f64)
}

fn backward<T: Real>(prediction: &[T], target: &[T], grad: T) -> Vec<T> {
    let scale = grad * T::real(2.0 / prediction.len() as f64);
    let mut out = vec![T::zero(); prediction.len()];
    (out.par_chunks_mut(TASK), prediction.par_chunks(TASK), target.par_chunks(TASK))
        .into_par_iter()
        .for_each(|(out, p, t)| {
            for ((out, &p), &t) in out.iter_mut().zip(p).zip(t) {
                *out = scale * (p - t);
            }
        });
    out
}

impl CustomOp2 for Mse {
    fn name(&self) -> &'static str {
        "tgm-mse"
    }

    fn cpu_fwd(
        &self,
        p: &CpuStorage,
        pl: &Layout,
        t: &CpuStorage,
        tl: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        with_real!(p.dtype(), self.name(), T => {
            Ok((T::to_cpu_storage_owned(vec![forward::<T>(slice(p, pl)?, slice(t, tl)?)]), Shape::from(())))
        })
    }

    fn bwd(
        &self,
        p: &Tensor,
        t: &Tensor,
        _res: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let (pv, tv) = (View::new(p), View::new(t));
        with_real!(p.dtype(), self.name(), T => {
            let dp = backward::<T>(pv.as_slice()?, tv.as_slice()?, grad.to_scalar()?);
            Ok((Some(tensor(dp, p.shape())?), None))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_variance_is_the_error_of_the_mean() {
        let x = crate::gradcheck::randn("x", &[3, 12_345], candle_core::DType::F32).unwrap();
        let mean = x.mean_all().unwrap().broadcast_as(x.shape()).unwrap();
        let want = f64::from(mse(&x, &mean).unwrap().to_scalar::<f32>().unwrap());
        assert!((variance(&x).unwrap() - want).abs() < 1e-6);
    }
}
