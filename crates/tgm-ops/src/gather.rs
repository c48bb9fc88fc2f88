//! Picking tokens by index, per sample.

use candle_core::backend::BackendStorage as _;
use candle_core::{CpuStorage, CustomOp2, DType, Layout, Result, Shape, Tensor, WithDType, bail};
use rayon::prelude::*;

use crate::cpu::{Real, View, add_assign, fused, slice, tensor, with_real};

/// `out[b, k] = x[b, index[b, k]]`.
///
/// `x` is `[B, N, D]`, or `[N, D]` for a table shared by all samples; `index` is `[B, K]` of type `u32`; the result is
/// `[B, K, D]`. An index may occur more than once; gradients add up. Of no tokens, the result is empty.
///
/// # Errors
/// When the shapes do not fit, or an index is `N` or larger.
pub fn gather_tokens(x: &Tensor, index: &Tensor) -> Result<Tensor> {
    let (batch, _) = index.dims2()?;
    let x = if x.rank() == 2 { x.unsqueeze(0)? } else { x.clone() };
    let (samples, _, _) = x.dims3()?;
    if index.dtype() != DType::U32 || (samples != batch && samples != 1) {
        bail!("gather_tokens: {:?} by an index {:?} of type {:?}", x.shape(), index.shape(), index.dtype());
    }
    if fused(&[&x]) {
        x.contiguous()?.apply_op2(&index.contiguous()?, Gather)
    } else {
        crate::composed::gather_tokens(&x, index)
    }
}

struct Gather;

/// Sizes of one gather: `x` `[samples, tokens, dim]` by `index` `[batch, kept]`.
struct Sizes {
    samples: usize,
    tokens: usize,
    dim: usize,
    batch: usize,
    kept: usize,
}

impl Sizes {
    fn new(x: &[usize], index: &[usize]) -> Self {
        Self { samples: x[0], tokens: x[1], dim: x[2], batch: index[0], kept: index[1] }
    }

    fn forward<T: Real>(&self, x: &[T], index: &[u32]) -> Result<Vec<T>> {
        if let Some(&bad) = index.iter().find(|&&i| i as usize >= self.tokens) {
            bail!("gather_tokens: index {bad} among {} tokens", self.tokens);
        }
        let sample = self.tokens * self.dim;
        let mut out = vec![T::zero(); self.batch * self.kept * self.dim];
        if out.is_empty() {
            return Ok(out);
        }
        out.par_chunks_mut(self.kept * self.dim).zip(index.par_chunks(self.kept)).enumerate().for_each(
            |(b, (out, index))| {
                let x = if self.samples == 1 { x } else { &x[b * sample..][..sample] };
                for (row, &i) in out.chunks_exact_mut(self.dim).zip(index) {
                    row.copy_from_slice(&x[i as usize * self.dim..][..self.dim]);
                }
            },
        );
        Ok(out)
    }

    fn backward<T: Real>(&self, index: &[u32], grad: &[T]) -> Vec<T> {
        let sample = self.tokens * self.dim;
        let mut dx = vec![T::zero(); self.samples * sample];
        if dx.is_empty() || grad.is_empty() {
            return dx;
        }
        // A table shared by all samples collects from all of them, so it is one task.
        let per_task = if self.samples == 1 { index.len() } else { self.kept };
        (dx.par_chunks_mut(sample), index.par_chunks(per_task), grad.par_chunks(per_task * self.dim))
            .into_par_iter()
            .for_each(|(dx, index, grad)| {
                for (row, &i) in grad.chunks_exact(self.dim).zip(index) {
                    add_assign(&mut dx[i as usize * self.dim..][..self.dim], row);
                }
            });
        dx
    }
}

impl CustomOp2 for Gather {
    fn name(&self) -> &'static str {
        "tgm-gather-tokens"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        xl: &Layout,
        index: &CpuStorage,
        il: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let sizes = Sizes::new(xl.dims(), il.dims());
        with_real!(x.dtype(), self.name(), T => {
            let out = sizes.forward::<T>(slice(x, xl)?, slice(index, il)?)?;
            Ok((T::to_cpu_storage_owned(out), (sizes.batch, sizes.kept, sizes.dim).into()))
        })
    }

    fn bwd(
        &self,
        x: &Tensor,
        index: &Tensor,
        _res: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let sizes = Sizes::new(x.dims(), index.dims());
        let grad = grad.contiguous()?;
        let (iv, gv) = (View::new(index), View::new(&grad));
        with_real!(x.dtype(), self.name(), T => {
            Ok((Some(tensor(sizes.backward::<T>(iv.as_slice()?, gv.as_slice()?), x.shape())?), None))
        })
    }
}
