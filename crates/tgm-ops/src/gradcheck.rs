//! Checking analytic gradients against central differences.
//!
//! For the tests of every crate that defines something differentiable.

use candle_core::{DType, Device, Result, Tensor, Var, bail};
use rand::RngExt;
use tgm_random::Streams;

/// Compares the gradients of `f` with central differences in `f64`.
///
/// `f` maps the inputs to a tensor of any shape, which is reduced to a scalar by fixed random weights, so that errors do
/// not cancel. Up to `probes` elements of each input are perturbed. A missing gradient is an error unless the
/// differences are zero, too. The largest error, relative to the larger of 1 and the gradient's size, is returned.
///
/// # Errors
/// When an input is not `f64`, when `f` fails, or when a gradient is missing.
pub fn max_gradient_error(
    inputs: &[Tensor],
    probes: usize,
    f: impl Fn(&[Tensor]) -> Result<Tensor>,
) -> Result<f64> {
    const STEP: f64 = 1e-5;
    let scalar = |inputs: &[Tensor]| -> Result<Tensor> {
        let out = f(inputs)?;
        let mut stream = Streams::new(0).stream("gradcheck/weights", 0, 0);
        let weights: Vec<f64> = (0..out.elem_count()).map(|_| stream.random_range(-1.0..1.0)).collect();
        (&out * Tensor::from_vec(weights, out.shape(), out.device())?)?.sum_all()
    };
    let vars = inputs.iter().map(Var::from_tensor).collect::<Result<Vec<_>>>()?;
    let tensors: Vec<Tensor> = vars.iter().map(|v| v.as_tensor().clone()).collect();
    let grads = scalar(&tensors)?.backward()?;
    let mut worst = 0f64;
    for (which, input) in inputs.iter().enumerate() {
        if input.dtype() != DType::F64 {
            bail!("gradients are checked in f64, input {which} is {:?}", input.dtype());
        }
        let base = input.flatten_all()?.to_vec1::<f64>()?;
        let analytic = match grads.get(&vars[which]) {
            Some(grad) => Some(grad.flatten_all()?.to_vec1::<f64>()?),
            None => None,
        };
        let mut stream = Streams::new(0).stream("gradcheck/probes", 0, which as u64);
        for probe in 0..probes.min(base.len()) {
            let at = if base.len() <= probes { probe } else { stream.random_range(0..base.len()) };
            let moved = |by: f64| -> Result<f64> {
                let mut values = base.clone();
                values[at] += by;
                let mut inputs = inputs.to_vec();
                inputs[which] = Tensor::from_vec(values, input.shape(), &Device::Cpu)?;
                scalar(&inputs)?.to_scalar::<f64>()
            };
            let numeric = (moved(STEP)? - moved(-STEP)?) / (2.0 * STEP);
            let analytic = match &analytic {
                Some(analytic) => analytic[at],
                None if numeric.abs() > 1e-7 => {
                    bail!("input {which} has no gradient, yet the output depends on it")
                }
                None => 0.0,
            };
            if !analytic.is_finite() {
                bail!("the gradient of input {which} at {at} is {analytic}");
            }
            worst = worst.max((analytic - numeric).abs() / numeric.abs().max(1.0));
        }
    }
    Ok(worst)
}

/// Numbers of a named stream, standard normal, for test inputs.
///
/// # Errors
/// When the tensor cannot be made.
pub fn randn(name: &str, shape: &[usize], dtype: DType) -> Result<Tensor> {
    let mut stream = Streams::new(0).stream(name, 0, 0);
    let values = (0..shape.iter().product())
        .map(|_| crate::params::standard_normal(&mut stream))
        .collect::<Vec<f64>>();
    Tensor::from_vec(values, shape, &Device::Cpu)?.to_dtype(dtype)
}
