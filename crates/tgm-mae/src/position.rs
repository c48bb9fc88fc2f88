//! Fixed sine-cosine positions.

use candle_core::{Device, Result, Tensor};

/// VideoMAE's table `[positions, dim]`: one-dimensional over the *flattened* tubelet grid, sine in even columns and cosine
/// in odd ones, angle `p / 10000^(2⌊j/2⌋ / dim)`. Angles in `f64`, as NumPy computes them for both reference codes.
///
/// # Errors
/// When the device refuses the tensor.
pub fn sinusoid_table(positions: usize, dim: usize, device: &Device) -> Result<Tensor> {
    let value = |position: usize, column: usize| {
        let angle = position as f64 / 10000f64.powf((2 * (column / 2)) as f64 / dim as f64);
        (if column.is_multiple_of(2) { angle.sin() } else { angle.cos() }) as f32
    };
    let table = (0..positions * dim).map(|i| value(i / dim, i % dim)).collect::<Vec<_>>();
    Tensor::from_vec(table, (positions, dim), device)
}
