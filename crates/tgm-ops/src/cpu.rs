//! Access to CPU tensors as plain slices, and reductions that do not depend on the number of threads.

use candle_core::{
    CpuStorage, DType, Device, Layout, Result, Shape, Storage, StorageRef, Tensor, WithDType, bail,
};
use rayon::prelude::*;

/// The floating-point types that the fused paths compute in.
pub(crate) trait Real: WithDType + num_traits::Float + std::iter::Sum {
    /// The error function.
    fn erf(self) -> Self;
    /// Exact for `f64`, rounded for `f32`.
    fn real(value: f64) -> Self {
        <Self as WithDType>::from_f64(value)
    }
}

impl Real for f32 {
    fn erf(self) -> Self {
        libm::erff(self)
    }
}

impl Real for f64 {
    fn erf(self) -> Self {
        libm::erf(self)
    }
}

/// Whether the fused CPU path can take these tensors: all on the CPU and all `f32`, or all `f64`.
pub(crate) fn fused(tensors: &[&Tensor]) -> bool {
    let dtype = tensors[0].dtype();
    matches!(dtype, DType::F32 | DType::F64)
        && tensors.iter().all(|t| matches!(t.device(), Device::Cpu) && t.dtype() == dtype)
}

/// Runs `$body` with the type alias `$T` bound to the element type of a fused op.
macro_rules! with_real {
    ($dtype:expr, $op:expr, $T:ident => $body:expr) => {
        match $dtype {
            candle_core::DType::F32 => {
                type $T = f32;
                $body
            }
            candle_core::DType::F64 => {
                type $T = f64;
                $body
            }
            dtype => candle_core::bail!("{}: the fused path computes in f32 or f64, not {dtype:?}", $op),
        }
    };
}
pub(crate) use with_real;

/// The elements of a contiguous view of a storage.
pub(crate) fn slice<'a, T: WithDType>(storage: &'a CpuStorage, layout: &Layout) -> Result<&'a [T]> {
    match layout.contiguous_offsets() {
        Some((start, end)) => Ok(&T::cpu_storage_as_slice(storage)?[start..end]),
        None => bail!("a fused op was given a view of shape {:?} that is not contiguous", layout.shape()),
    }
}

/// A contiguous CPU tensor held open for reading.
pub(crate) struct View<'a> {
    storage: StorageRef<'a>,
    layout: &'a Layout,
}

impl<'a> View<'a> {
    pub(crate) fn new(tensor: &'a Tensor) -> Self {
        let (storage, layout) = tensor.storage_and_layout();
        Self { storage, layout }
    }

    pub(crate) fn as_slice<T: WithDType>(&self) -> Result<&[T]> {
        match &*self.storage {
            Storage::Cpu(storage) => slice(storage, self.layout),
            _ => bail!("a fused CPU op was given a tensor on another device"),
        }
    }
}

/// A CPU tensor from its elements.
pub(crate) fn tensor<T: WithDType>(data: Vec<T>, shape: impl Into<Shape>) -> Result<Tensor> {
    Tensor::from_vec(data, shape.into(), &Device::Cpu)
}

/// Elements per parallel task: small enough to share between cores, large enough to pay for the hand-over.
pub(crate) const TASK: usize = 16 * 1024;

/// How many rows of the given width make one parallel task.
pub(crate) fn rows_per_task(width: usize) -> usize {
    (TASK / width.max(1)).max(1)
}

/// The sum of every column of `[rows, width]`: block sums are added in order, whatever the number of threads.
pub(crate) fn column_sums<T: Real>(data: &[T], width: usize) -> Vec<T> {
    let blocks: Vec<Vec<T>> = data
        .par_chunks(rows_per_task(width) * width)
        .map(|block| {
            let mut sum = vec![T::zero(); width];
            for row in block.chunks_exact(width) {
                add_assign(&mut sum, row);
            }
            sum
        })
        .collect();
    sum_blocks(blocks, width)
}

/// Adds vectors of the given width in order.
pub(crate) fn sum_blocks<T: Real>(blocks: impl IntoIterator<Item = Vec<T>>, width: usize) -> Vec<T> {
    let mut total = vec![T::zero(); width];
    for block in blocks {
        add_assign(&mut total, &block);
    }
    total
}

/// `into += from`, element by element.
pub(crate) fn add_assign<T: Real>(into: &mut [T], from: &[T]) {
    for (a, &b) in into.iter_mut().zip(from) {
        *a += b;
    }
}
