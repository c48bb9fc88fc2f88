//! The exact GELU.

use candle_core::backend::BackendStorage as _;
use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor, WithDType};
use rayon::prelude::*;

use crate::cpu::{Real, TASK, View, fused, slice, tensor, with_real};

/// `x Φ(x)` with the normal distribution function Φ, by the error function (not the tanh approximation): what
/// VideoMAE, timm and `transformers` call `gelu`. Any shape.
///
/// # Errors
/// When the data type is not a floating-point one.
pub fn gelu(x: &Tensor) -> Result<Tensor> {
    if fused(&[x]) { x.contiguous()?.apply_op1(Gelu) } else { crate::composed::gelu(x) }
}

struct Gelu;

/// Φ(x).
fn cdf<T: Real>(x: T) -> T {
    T::real(0.5) * (T::one() + (x * T::real(std::f64::consts::FRAC_1_SQRT_2)).erf())
}

/// The density φ(x).
fn pdf<T: Real>(x: T) -> T {
    let inverse_root_two_pi = 0.5 * std::f64::consts::FRAC_2_SQRT_PI * std::f64::consts::FRAC_1_SQRT_2;
    T::real(inverse_root_two_pi) * (T::real(-0.5) * x * x).exp()
}

fn forward<T: Real>(x: &[T]) -> Vec<T> {
    let mut out = vec![T::zero(); x.len()];
    out.par_chunks_mut(TASK).zip(x.par_chunks(TASK)).for_each(|(out, x)| {
        for (out, &x) in out.iter_mut().zip(x) {
            *out = x * cdf(x);
        }
    });
    out
}

fn backward<T: Real>(x: &[T], grad: &[T]) -> Vec<T> {
    let mut dx = vec![T::zero(); x.len()];
    (dx.par_chunks_mut(TASK), x.par_chunks(TASK), grad.par_chunks(TASK)).into_par_iter().for_each(
        |(dx, x, grad)| {
            for ((dx, &x), &g) in dx.iter_mut().zip(x).zip(grad) {
                *dx = g * (cdf(x) + x * pdf(x));
            }
        },
    );
    dx
}

impl CustomOp1 for Gelu {
    fn name(&self) -> &'static str {
        "tgm-gelu"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        with_real!(x.dtype(), self.name(), T => {
            Ok((T::to_cpu_storage_owned(forward::<T>(slice(x, layout)?)), layout.shape().clone()))
        })
    }

    fn bwd(&self, x: &Tensor, _res: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        let grad = grad.contiguous()?;
        let (xv, gv) = (View::new(x), View::new(&grad));
        with_real!(x.dtype(), self.name(), T => {
            Ok(Some(tensor(backward::<T>(xv.as_slice()?, gv.as_slice()?), x.shape())?))
        })
    }
}
