//! The pre-norm transformer block.

use candle_core::Tensor;
use tgm_ops::{
    Activation, BlockParams, Compute, Init, ParamError, Params, layer_norm, linear_mse, linear_with, mse,
};

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

    pub(crate) fn forward(&self, x: &Tensor, compute: Compute) -> candle_core::Result<Tensor> {
        linear_with(x, &self.weight, self.bias.as_ref(), compute)
    }

    /// The mean squared error of [`Self::forward`] against a target, a scalar.
    pub(crate) fn error(&self, x: &Tensor, target: Tensor, compute: Compute) -> candle_core::Result<Tensor> {
        match &self.bias {
            Some(bias) => linear_mse(x, &self.weight, bias, target, compute),
            None => mse(&self.forward(x, compute)?, &target),
        }
    }
}

/// `x + attention(norm(x))`, then `x + mlp(norm(x))`. Keys have no bias.
#[derive(Clone, Debug)]
pub(crate) struct Block {
    params: BlockParams,
    /// Biases of queries and values.
    biases: Option<(Tensor, Tensor)>,
}

impl Block {
    pub(crate) fn new(
        config: &TransformerConfig,
        eps: f64,
        qv_bias: bool,
        params: &mut Params,
    ) -> Result<Self, ParamError> {
        let (dim, mlp) = (config.dim, config.mlp);
        let norm = |name: &str, params: &mut Params| {
            params.scope(name, |p| {
                Ok::<_, ParamError>([
                    p.define("weight", dim, Init::Constant(1.0))?,
                    p.define("bias", dim, Init::Constant(0.0))?,
                ])
            })
        };
        // Glorot's uniform weight and a zero bias: what VideoMAE gives every linear layer.
        let dense = |name: &str, from: usize, to: usize, params: &mut Params| {
            params.scope(name, |p| {
                Ok::<_, ParamError>([
                    p.define("weight", (to, from), Init::XavierUniform)?,
                    p.define("bias", to, Init::Constant(0.0))?,
                ])
            })
        };
        let qkv = params.define("attn.qkv.weight", (3 * dim, dim), Init::XavierUniform)?;
        let mut bias = |name| params.define(name, dim, Init::Constant(0.0));
        let biases = if qv_bias { Some((bias("attn.q_bias")?, bias("attn.v_bias")?)) } else { None };
        let params = BlockParams {
            norm1: norm("norm1", params)?,
            qkv,
            qkv_bias: None,
            proj: dense("attn.proj", dim, dim, params)?,
            norm2: norm("norm2", params)?,
            fc1: dense("mlp.fc1", dim, mlp, params)?,
            fc2: dense("mlp.fc2", mlp, dim, params)?,
            heads: config.heads,
            eps,
            activation: Activation::Gelu,
        };
        Ok(Self { params, biases })
    }

    /// `[B, N, D]` to `[B, N, D]`.
    pub(crate) fn forward(&self, x: &Tensor, compute: Compute) -> candle_core::Result<Tensor> {
        tgm_ops::block(x, &self.with_bias()?, compute)
    }

    /// The last `tail` tokens of what [`Self::forward`] gives, `[B, tail, D]`.
    pub(crate) fn forward_tail(
        &self,
        x: &Tensor,
        tail: usize,
        compute: Compute,
    ) -> candle_core::Result<Tensor> {
        tgm_ops::block_tail(x, &self.with_bias()?, tail, compute)
    }

    /// With what each branch adds multiplied by its factor per sample, `B` numbers each: attention, then MLP.
    pub(crate) fn forward_dropping(
        &self,
        x: &Tensor,
        [attention, mlp]: &[Vec<f32>; 2],
        compute: Compute,
    ) -> candle_core::Result<Tensor> {
        tgm_ops::block_dropping(x, &self.with_bias()?, [attention, mlp], compute)
    }

    /// The parameters with the bias of queries, keys and values in one.
    fn with_bias(&self) -> candle_core::Result<BlockParams> {
        let Some((q, v)) = &self.biases else { return Ok(self.params.clone()) };
        let bias = Tensor::cat(&[q, &q.zeros_like()?, v], 0)?;
        Ok(BlockParams { qkv_bias: Some(bias), ..self.params.clone() })
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
