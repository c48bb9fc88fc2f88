//! Two-dimensional interpolation as `torch.nn.functional.interpolate(…, mode="bicubic", align_corners=False)` does it
//! (Keys' kernel with a = −0.75), for position embeddings. It is separable and linear, so it is two matrix products.

use candle_core::{Device, Result, Tensor};

/// `[B, h, w]` to `[B, rows, cols]`.
pub(crate) fn bicubic(x: &Tensor, rows: usize, cols: usize) -> Result<Tensor> {
    let (_, height, width) = x.dims3()?;
    let vertical = matrix(height, rows, x.device())?;
    let horizontal = matrix(width, cols, x.device())?;
    vertical.broadcast_matmul(&x.contiguous()?)?.broadcast_matmul(&horizontal.t()?)
}

/// `[to, from]`: row `i` holds the weights of the inputs in output `i`.
fn matrix(from: usize, to: usize, device: &Device) -> Result<Tensor> {
    let mut matrix = vec![0f32; to * from];
    for (i, row) in matrix.chunks_exact_mut(from).enumerate() {
        let centre = (i as f64 + 0.5) * from as f64 / to as f64 - 0.5;
        let (first, weights) = weights(centre);
        for (offset, weight) in weights.into_iter().enumerate() {
            // Beyond the border the outermost value is repeated.
            let j = (first + offset as i64).clamp(0, from as i64 - 1);
            row[j as usize] += weight as f32;
        }
    }
    Tensor::from_vec(matrix, (to, from), device)
}

/// Weights of four neighbouring inputs around `centre`, and the index of the first.
fn weights(centre: f64) -> (i64, [f64; 4]) {
    const A: f64 = -0.75;
    let floor = centre.floor();
    let t = centre - floor;
    let near = |d: f64| ((A + 2.0) * d - (A + 3.0)) * d * d + 1.0;
    let far = |d: f64| ((A * d - 5.0 * A) * d + 8.0 * A) * d - 4.0 * A;
    (floor as i64 - 1, [far(t + 1.0), near(t), near(1.0 - t), far(2.0 - t)])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_size_changes_nothing() {
        let x = Tensor::arange(0f32, 24.0, &Device::Cpu).unwrap().reshape((2, 3, 4)).unwrap();
        let y = bicubic(&x, 3, 4).unwrap();
        assert_eq!(y.to_vec3::<f32>().unwrap(), x.to_vec3::<f32>().unwrap());
    }
}
