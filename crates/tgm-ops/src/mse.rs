//! The mean squared error.

use candle_core::backend::BackendStorage as _;
use candle_core::{CpuStorage, CustomOp2, Layout, Result, Shape, Tensor, WithDType, bail};
use rayon::prelude::*;

use crate::cpu::{Real, TASK, View, fused, slice, tensor, with_real};

/// The mean over all elements of `(prediction − target)²`, a scalar. The target receives no gradient.
///
/// The sum is accumulated in `f64`.
///
/// # Errors
/// When the shapes differ.
pub fn mse(prediction: &Tensor, target: &Tensor) -> Result<Tensor> {
    if prediction.shape() != target.shape() {
        bail!("mse: prediction {:?} against target {:?}", prediction.shape(), target.shape());
    }
    let target = target.detach();
    if fused(&[prediction, &target]) {
        prediction.contiguous()?.apply_op2(&target.contiguous()?, Mse)
    } else {
        crate::composed::mse(prediction, &target)
    }
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
