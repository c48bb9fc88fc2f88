//! Every operation of this crate out of plain candle operations: the tests' oracle, and the path for other devices and
//! data types. Statistics and softmax are computed in `f32` for half-precision inputs.

use candle_core::{D, DType, Result, Tensor};

/// The type statistics are computed in: at least `f32`.
fn wide(dtype: DType) -> DType {
    if dtype == DType::F64 { DType::F64 } else { DType::F32 }
}

/// See [`crate::layer_norm()`].
///
/// # Errors
/// When the shapes do not fit.
pub fn layer_norm(x: &Tensor, weight: &Tensor, bias: &Tensor, eps: f64) -> Result<Tensor> {
    let dtype = x.dtype();
    let x = x.to_dtype(wide(dtype))?;
    let centred = x.broadcast_sub(&x.mean_keepdim(D::Minus1)?)?;
    let variance = centred.sqr()?.mean_keepdim(D::Minus1)?;
    let normed = centred.broadcast_div(&(variance + eps)?.sqrt()?)?;
    normed.to_dtype(dtype)?.broadcast_mul(weight)?.broadcast_add(bias)
}

/// See [`crate::linear()`].
///
/// # Errors
/// When the shapes do not fit.
pub fn linear(x: &Tensor, weight: &Tensor, bias: Option<&Tensor>) -> Result<Tensor> {
    let (out, dim) = weight.dims2()?;
    let mut shape = x.dims().to_vec();
    shape.pop();
    shape.push(out);
    let y = x.reshape(((), dim))?.matmul(&weight.t()?)?.reshape(shape)?;
    match bias {
        Some(bias) => y.broadcast_add(bias),
        None => Ok(y),
    }
}

/// See [`crate::gelu()`].
///
/// # Errors
/// When the data type is not a floating-point one.
pub fn gelu(x: &Tensor) -> Result<Tensor> {
    x.gelu_erf()
}

/// See [`crate::log_softmax()`].
///
/// # Errors
/// When the data type is not a floating-point one.
pub fn log_softmax(x: &Tensor) -> Result<Tensor> {
    let shifted = x.broadcast_sub(&x.max_keepdim(D::Minus1)?.detach())?;
    let log_sum = shifted.exp()?.sum_keepdim(D::Minus1)?.log()?;
    shifted.broadcast_sub(&log_sum)
}

/// See [`crate::attention()`].
///
/// # Errors
/// When the shapes do not fit.
pub fn attention(qkv: &Tensor, heads: usize) -> Result<Tensor> {
    let (batch, tokens, width) = qkv.dims3()?;
    let (dim, dtype) = (width / 3, qkv.dtype());
    let qkv = qkv.reshape((batch, tokens, 3, heads, dim / heads))?.permute((2, 0, 3, 1, 4))?;
    let [q, k, v] = [0, 1, 2].map(|i| qkv.get(i).and_then(|t| t.contiguous()));
    let scale = 1.0 / ((dim / heads) as f64).sqrt();
    let scores = (q?.matmul(&k?.t()?.contiguous()?)? * scale)?.to_dtype(wide(dtype))?;
    let weights = log_softmax(&scores)?.exp()?.to_dtype(dtype)?;
    weights.matmul(&v?)?.transpose(1, 2)?.reshape((batch, tokens, dim))
}

/// See [`crate::gather_tokens()`]; here `x` is `[B, N, D]` or `[1, N, D]`.
///
/// # Errors
/// When the shapes do not fit, or an index is out of range.
pub fn gather_tokens(x: &Tensor, index: &Tensor) -> Result<Tensor> {
    let (samples, tokens, dim) = x.dims3()?;
    let (batch, kept) = index.dims2()?;
    let flat = if samples == 1 {
        index.flatten_all()?
    } else {
        let offsets =
            Tensor::arange(0, batch as u32, x.device())?.affine(tokens as f64, 0.0)?.unsqueeze(1)?;
        index.broadcast_add(&offsets)?.flatten_all()?
    };
    x.reshape((samples * tokens, dim))?.index_select(&flat, 0)?.reshape((batch, kept, dim))
}

/// See [`crate::mse()`].
///
/// # Errors
/// When the shapes differ.
pub fn mse(prediction: &Tensor, target: &Tensor) -> Result<Tensor> {
    (prediction - target)?.to_dtype(wide(prediction.dtype()))?.sqr()?.mean_all()
}
