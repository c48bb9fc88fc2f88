//! The pre-norm transformer block.

use candle_core::Tensor;
use tgm_ops::{Init, ParamError, Params, attention, gelu, layer_norm, linear};

use crate::config::TransformerConfig;

/// A layer norm's parameters.
#[derive(Clone, Debug)]
pub(crate) struct Norm {
    weight: Tensor,
    bias: Tensor,
    eps: f64,
}

impl Norm {
    pub(crate) fn new(dim: usize, eps: f64, params: &mut Params) -> Result<Self, ParamError> {
        let weight = params.define("weight", dim, Init::Constant(1.0))?;
        Ok(Self { weight, bias: params.define("bias", dim, Init::Constant(0.0))?, eps })
    }

    pub(crate) fn forward(&self, x: &Tensor) -> candle_core::Result<Tensor> {
        layer_norm(x, &self.weight, &self.bias, self.eps)
    }
}

/// An affine map's parameters.
#[derive(Clone, Debug)]
pub(crate) struct Dense {
    weight: Tensor,
    bias: Option<Tensor>,
}

impl Dense {
    /// Glorot's uniform weight and a zero bias: what VideoMAE gives every linear layer.
    pub(crate) fn new(from: usize, to: usize, bias: bool, params: &mut Params) -> Result<Self, ParamError> {
        Self::with_init(from, to, bias, Init::XavierUniform, Init::Constant(0.0), params)
    }

    pub(crate) fn with_init(
        from: usize,
        to: usize,
        bias: bool,
        weight: Init,
        bias_init: Init,
        params: &mut Params,
    ) -> Result<Self, ParamError> {
        let weight = params.define("weight", (to, from), weight)?;
        let bias = if bias { Some(params.define("bias", to, bias_init)?) } else { None };
        Ok(Self { weight, bias })
    }

    pub(crate) fn forward(&self, x: &Tensor) -> candle_core::Result<Tensor> {
        linear(x, &self.weight, self.bias.as_ref())
    }
}

/// Self-attention whose keys have no bias.
#[derive(Clone, Debug)]
struct SelfAttention {
    qkv: Tensor,
    /// Biases of queries and values.
    biases: Option<(Tensor, Tensor)>,
    output: Dense,
    heads: usize,
}

impl SelfAttention {
    fn new(config: &TransformerConfig, qv_bias: bool, params: &mut Params) -> Result<Self, ParamError> {
        let dim = config.dim;
        let qkv = params.define("qkv.weight", (3 * dim, dim), Init::XavierUniform)?;
        let mut bias = |name| params.define(name, dim, Init::Constant(0.0));
        let biases = if qv_bias { Some((bias("q_bias")?, bias("v_bias")?)) } else { None };
        let output = params.scope("proj", |p| Dense::new(dim, dim, true, p))?;
        Ok(Self { qkv, biases, output, heads: config.heads })
    }

    fn forward(&self, x: &Tensor) -> candle_core::Result<Tensor> {
        let bias = match &self.biases {
            Some((q, v)) => Some(Tensor::cat(&[q, &q.zeros_like()?, v], 0)?),
            None => None,
        };
        let qkv = linear(x, &self.qkv, bias.as_ref())?;
        self.output.forward(&attention(&qkv, self.heads)?)
    }
}

/// `x + attention(norm(x))`, then `x + mlp(norm(x))`.
#[derive(Clone, Debug)]
pub(crate) struct Block {
    norm1: Norm,
    attention: SelfAttention,
    norm2: Norm,
    fc1: Dense,
    fc2: Dense,
}

impl Block {
    pub(crate) fn new(
        config: &TransformerConfig,
        eps: f64,
        qv_bias: bool,
        params: &mut Params,
    ) -> Result<Self, ParamError> {
        let dim = config.dim;
        Ok(Self {
            norm1: params.scope("norm1", |p| Norm::new(dim, eps, p))?,
            attention: params.scope("attn", |p| SelfAttention::new(config, qv_bias, p))?,
            norm2: params.scope("norm2", |p| Norm::new(dim, eps, p))?,
            fc1: params.scope("mlp.fc1", |p| Dense::new(dim, config.mlp, true, p))?,
            fc2: params.scope("mlp.fc2", |p| Dense::new(config.mlp, dim, true, p))?,
        })
    }

    /// `[B, N, D]` to `[B, N, D]`.
    pub(crate) fn forward(&self, x: &Tensor) -> candle_core::Result<Tensor> {
        self.forward_dropping(x, None)
    }

    /// With each branch multiplied by its factor per sample, `[B, 1, 1]`: attention, then MLP.
    pub(crate) fn forward_dropping(
        &self,
        x: &Tensor,
        factors: Option<&[Tensor; 2]>,
    ) -> candle_core::Result<Tensor> {
        let add = |x: &Tensor, branch: Tensor, which: usize| match factors {
            Some(factors) => x + branch.broadcast_mul(&factors[which])?,
            None => x + branch,
        };
        let x = add(x, self.attention.forward(&self.norm1.forward(x)?)?, 0)?;
        let hidden = gelu(&self.fc1.forward(&self.norm2.forward(&x)?)?)?;
        add(&x, self.fc2.forward(&hidden)?, 1)
    }
}

/// A stack of blocks named `blocks.0`, `blocks.1`, ….
pub(crate) fn stack(
    config: &TransformerConfig,
    eps: f64,
    qv_bias: bool,
    params: &mut Params,
) -> Result<Vec<Block>, ParamError> {
    let block = |i| params.scope(format!("blocks.{i}"), |p| Block::new(config, eps, qv_bias, p));
    (0..config.depth).map(block).collect()
}
