//! A chain that ties many parameters to one operation.

use std::sync::{Arc, Mutex, PoisonError};

use candle_core::{CpuStorage, CustomOp3, DType, Device, Layout, Result, Shape, Tensor, bail};

/// Gradients of parameters on their way from the operation to the chain; `None` for those that went elsewhere.
#[derive(Clone, Default)]
pub(super) struct Stash(Arc<Mutex<Vec<Option<Tensor>>>>);

impl Stash {
    pub(super) fn put(&self, grads: Vec<Option<Tensor>>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = grads;
    }

    fn take(&self, index: usize) -> Option<Tensor> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get_mut(index)?.take()
    }
}

/// One link: the chain so far and two parameters. It computes nothing.
struct Link {
    stash: Stash,
    /// Index of its first parameter.
    first: usize,
}

/// The end of a chain that holds the parameters; gradients are handed out in their order.
///
/// # Errors
/// When a tensor cannot be made.
pub(super) fn link<'a>(params: impl Iterator<Item = &'a Tensor>, stash: &Stash) -> Result<Tensor> {
    let params: Vec<&Tensor> = params.collect();
    let mut end = Tensor::zeros(1, DType::F32, &Device::Cpu)?;
    let nothing = end.clone();
    for (i, pair) in params.chunks(2).enumerate() {
        let second = pair.get(1).copied().unwrap_or(&nothing);
        end = end.apply_op3(pair[0], second, Link { stash: stash.clone(), first: 2 * i })?;
    }
    Ok(end)
}

impl CustomOp3 for Link {
    fn name(&self) -> &'static str {
        "tgm-link"
    }

    fn cpu_fwd(
        &self,
        chain: &CpuStorage,
        _: &Layout,
        _: &CpuStorage,
        _: &Layout,
        _: &CpuStorage,
        _: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        match chain {
            CpuStorage::F32(_) => Ok((CpuStorage::F32(vec![0.0]), Shape::from(1))),
            _ => bail!("a chain of links is f32"),
        }
    }

    fn bwd(
        &self,
        chain: &Tensor,
        _: &Tensor,
        _: &Tensor,
        _: &Tensor,
        _: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let nothing = Tensor::zeros(chain.shape(), DType::F32, &Device::Cpu)?;
        Ok((Some(nothing), self.stash.take(self.first), self.stash.take(self.first + 1)))
    }
}
