//! What the machine can do: the arithmetic that a run's speed is compared with.

use std::time::Instant;

use candle_core::{DType, Device, Tensor};

/// Side of the square matrices.
const SIDE: usize = 768;
/// The fastest of so many products counts.
const TRIALS: usize = 8;

/// Floating-point operations per second of a large `f32` matrix product on all cores, the quickest of a few: the roof under
/// which training runs. Takes some hundredths of a second.
///
/// # Errors
/// When candle fails.
pub fn matmul_flops() -> candle_core::Result<f64> {
    let matrix = |from: f32| -> candle_core::Result<Tensor> {
        Tensor::arange(0f32, (SIDE * SIDE) as f32, &Device::Cpu)?
            .affine(1e-6, f64::from(from))?
            .reshape((SIDE, SIDE))?
            .to_dtype(DType::F32)
    };
    let (a, b) = (matrix(0.5)?, matrix(-0.25)?);
    let mut best = f64::INFINITY;
    for _ in 0..TRIALS {
        let begun = Instant::now();
        std::hint::black_box(a.matmul(&b)?);
        best = best.min(begun.elapsed().as_secs_f64());
    }
    Ok(2.0 * (SIDE as f64).powi(3) / best)
}
