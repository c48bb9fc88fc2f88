//! V-JEPA's attentive probe: one learnt query looks at all tokens, then a linear layer.
//!
//! `q ← query + proj(attention(q, norm(tokens)))`, `q ← q + mlp(norm(q))`, logits = linear(q). The output projection and the
//! second layer of the MLP begin 1/√2 as large (V-JEPA's `_rescale_blocks`). Reference: facebookresearch/jepa,
//! `src/models/attentive_pooler.py`.

use candle_core::{D, Tensor};
use tgm_mae::MaeError;
use tgm_ops::{Init, Params, gelu, layer_norm, linear, log_softmax};

/// The parameters of the probe.
#[derive(Clone, Debug)]
pub struct AttentiveHead {
    heads: usize,
    query: Tensor,
    norm1: [Tensor; 2],
    q: [Tensor; 2],
    kv: [Tensor; 2],
    proj: [Tensor; 2],
    norm2: [Tensor; 2],
    fc1: [Tensor; 2],
    fc2: [Tensor; 2],
    classifier: [Tensor; 2],
}

const STD: f64 = 0.02;
/// PyTorch's default, which V-JEPA's probe leaves as it is.
const EPS: f64 = 1e-5;

impl AttentiveHead {
    /// Defines the parameters under `probe.`.
    ///
    /// # Errors
    /// [`MaeError::Input`] unless `heads` divides `dim`.
    pub fn new(dim: usize, heads: usize, classes: usize, params: &mut Params) -> Result<Self, MaeError> {
        if heads == 0 || !dim.is_multiple_of(heads) {
            return Err(MaeError::Input(format!("{heads} heads do not divide the width {dim} of a token")));
        }
        params.scope("probe", |params| {
            let weight = |std: f64| Init::TruncatedNormal { std, cut: 2.0 };
            let mut dense =
                |name: &str, out: usize, inner: usize, std: f64| -> Result<[Tensor; 2], MaeError> {
                    let matrix = params.define(&format!("{name}.weight"), (out, inner), weight(std))?;
                    Ok([matrix, params.define(&format!("{name}.bias"), out, Init::Constant(0.0))?])
                };
            let rescaled = STD / std::f64::consts::SQRT_2;
            let q = dense("q", dim, dim, STD)?;
            let kv = dense("kv", 2 * dim, dim, STD)?;
            let proj = dense("proj", dim, dim, rescaled)?;
            let fc1 = dense("fc1", 4 * dim, dim, STD)?;
            let fc2 = dense("fc2", dim, 4 * dim, rescaled)?;
            let classifier = dense("classifier", classes, dim, STD)?;
            let mut norm = |name: &str| -> Result<[Tensor; 2], MaeError> {
                let weight = params.define(&format!("{name}.weight"), dim, Init::Constant(1.0))?;
                Ok([weight, params.define(&format!("{name}.bias"), dim, Init::Constant(0.0))?])
            };
            let (norm1, norm2) = (norm("norm1")?, norm("norm2")?);
            let query = params.define("query", (1, dim), weight(STD))?;
            Ok(Self { heads, query, norm1, q, kv, proj, norm2, fc1, fc2, classifier })
        })
    }

    /// Class scores `[B, classes]` of tokens `[B, N, D]`.
    ///
    /// # Errors
    /// When the shapes do not fit.
    pub fn forward(&self, tokens: &Tensor) -> Result<Tensor, MaeError> {
        let (batch, count, dim) = tokens.dims3()?;
        let per_head = dim / self.heads;
        let dense = |x: &Tensor, [weight, bias]: &[Tensor; 2]| linear(x, weight, Some(bias));
        let norm = |x: &Tensor, [weight, bias]: &[Tensor; 2]| layer_norm(x, weight, bias, EPS);

        // [heads, 1, per_head]: the same query for every clip.
        let q = dense(&self.query, &self.q)?.reshape((1, self.heads, per_head))?.transpose(0, 1)?;
        let kv =
            dense(&norm(tokens, &self.norm1)?, &self.kv)?.reshape((batch, count, 2, self.heads, per_head))?;
        let part = |which: usize| kv.narrow(2, which, 1)?.squeeze(2)?.transpose(1, 2)?.contiguous();
        let (k, v) = (part(0)?, part(1)?); // [B, heads, N, per_head]
        let q = q.unsqueeze(0)?.broadcast_as((batch, self.heads, 1, per_head))?.contiguous()?;
        let scores = (q.matmul(&k.transpose(2, 3)?.contiguous()?)? * (per_head as f64).sqrt().recip())?;
        let attended = log_softmax(&scores)?.exp()?.matmul(&v)?; // [B, heads, 1, per_head]
        let attended = attended.reshape((batch, dim))?;

        let pooled = dense(&attended, &self.proj)?.broadcast_add(&self.query)?;
        let hidden = gelu(&dense(&norm(&pooled, &self.norm2)?, &self.fc1)?)?;
        let pooled = (&pooled + dense(&hidden, &self.fc2)?)?;
        debug_assert_eq!(pooled.dim(D::Minus1)?, dim);
        Ok(dense(&pooled, &self.classifier)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::{DType, Device};
    use tgm_ops::gradcheck::randn;
    use tgm_random::Streams;

    fn head() -> (AttentiveHead, Params) {
        let mut params = Params::new(Streams::new(1), &Device::Cpu);
        (AttentiveHead::new(12, 3, 4, &mut params).unwrap(), params)
    }

    #[test]
    fn every_parameter_gets_the_gradient_of_finite_differences() {
        let (head, params) = head();
        // Larger weights than the initial ones, so that no gradient is all rounding.
        for (name, var) in params.iter() {
            var.set(&(randn(name, var.dims(), DType::F32).unwrap() * 0.3).unwrap()).unwrap();
        }
        let tokens = randn("tokens", &[2, 5, 12], DType::F32).unwrap();
        let weights = randn("weights", &[2, 4], DType::F32).unwrap();
        let loss = || (head.forward(&tokens).unwrap() * &weights).unwrap().sum_all().unwrap();
        let grads = loss().backward().unwrap();
        for (name, var) in params.iter() {
            let gradient = grads.get(var).unwrap_or_else(|| panic!("{name} gets no gradient"));
            let direction = randn("direction", var.dims(), DType::F32).unwrap();
            let expected = (gradient * &direction).unwrap().sum_all().unwrap().to_scalar::<f32>().unwrap();
            let start = var.as_tensor().copy().unwrap();
            let moved = |by: f64| {
                var.set(&(&start + (&direction * by).unwrap()).unwrap()).unwrap();
                loss().to_scalar::<f32>().unwrap()
            };
            let numeric = (moved(5e-3) - moved(-5e-3)) / 1e-2;
            var.set(&start).unwrap();
            assert!(
                (expected - numeric).abs() < 0.02 * (1.0 + numeric.abs()),
                "{name}: {expected} is not {numeric}"
            );
        }
    }

    #[test]
    fn the_order_of_the_tokens_does_not_matter() {
        let (head, _) = head();
        let tokens = randn("tokens", &[1, 5, 12], DType::F32).unwrap();
        let order = Tensor::new(&[3u32, 0, 4, 2, 1], &Device::Cpu).unwrap();
        let shuffled = tokens.index_select(&order, 1).unwrap();
        let [a, b] =
            [&tokens, &shuffled].map(|t| head.forward(t).unwrap().to_vec2::<f32>().unwrap()[0].clone());
        assert!(a.iter().zip(&b).all(|(a, b)| (a - b).abs() < 1e-5), "{a:?} {b:?}");
    }

    #[test]
    fn heads_that_do_not_divide_the_width_are_refused() {
        let mut params = Params::new(Streams::new(1), &Device::Cpu);
        assert!(AttentiveHead::new(12, 5, 4, &mut params).is_err());
    }
}
