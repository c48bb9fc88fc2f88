//! Two-dimensional interpolation as `torch.nn.functional.interpolate(…, align_corners=False)` does it, without
//! antialiasing. It is separable and linear, so it is two matrix products.

use candle_core::{Device, Result, Tensor};

#[derive(Clone, Copy, Debug)]
pub(crate) enum Kernel {
    /// `mode="bilinear"`: for score maps.
    Linear,
    /// `mode="bicubic"` (Keys' kernel with a = −0.75): for position embeddings.
    Cubic,
}

/// `[B, h, w]` to `[B, rows, cols]`.
pub(crate) fn interpolate(x: &Tensor, rows: usize, cols: usize, kernel: Kernel) -> Result<Tensor> {
    let (_, height, width) = x.dims3()?;
    let vertical = kernel.matrix(height, rows, x.device())?;
    let horizontal = kernel.matrix(width, cols, x.device())?;
    vertical.broadcast_matmul(&x.contiguous()?)?.broadcast_matmul(&horizontal.t()?)
}

impl Kernel {
    /// `[to, from]`: row `i` holds the weights of the inputs in output `i`.
    fn matrix(self, from: usize, to: usize, device: &Device) -> Result<Tensor> {
        let mut matrix = vec![0f32; to * from];
        for (i, row) in matrix.chunks_exact_mut(from).enumerate() {
            let centre = (i as f64 + 0.5) * from as f64 / to as f64 - 0.5;
            let (first, weights) = self.weights(centre);
            for (offset, weight) in weights.into_iter().enumerate() {
                // Beyond the border the outermost value is repeated.
                let j = (first + offset as i64).clamp(0, from as i64 - 1);
                row[j as usize] += weight as f32;
            }
        }
        Tensor::from_vec(matrix, (to, from), device)
    }

    /// Weights of four neighbouring inputs around `centre`, and the index of the first.
    fn weights(self, centre: f64) -> (i64, [f64; 4]) {
        const A: f64 = -0.75;
        let floor = centre.floor();
        let t = centre - floor;
        let near = |d: f64| ((A + 2.0) * d - (A + 3.0)) * d * d + 1.0;
        let far = |d: f64| ((A * d - 5.0 * A) * d + 8.0 * A) * d - 4.0 * A;
        let weights = match self {
            Self::Linear => [0.0, 1.0 - t, t, 0.0],
            Self::Cubic => [far(t + 1.0), near(t), near(1.0 - t), far(2.0 - t)],
        };
        (floor as i64 - 1, weights)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_size_changes_nothing() {
        let x = Tensor::arange(0f32, 24.0, &Device::Cpu).unwrap().reshape((2, 3, 4)).unwrap();
        for kernel in [Kernel::Linear, Kernel::Cubic] {
            let y = interpolate(&x, 3, 4, kernel).unwrap();
            assert_eq!(y.to_vec3::<f32>().unwrap(), x.to_vec3::<f32>().unwrap());
        }
    }

    #[test]
    fn bilinear_doubling_has_quarter_weights_and_flat_borders() {
        let x = Tensor::new(&[[[0f32, 4.0]]], &Device::Cpu).unwrap();
        let y = interpolate(&x, 1, 4, Kernel::Linear).unwrap();
        assert_eq!(y.to_vec3::<f32>().unwrap(), [[[0.0, 1.0, 3.0, 4.0]]]);
    }
}
