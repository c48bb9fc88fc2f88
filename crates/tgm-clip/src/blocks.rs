//! The pre-norm transformer block that both towers are made of (`modeling_clip.py` in `transformers`).
//!
//! The towers are frozen, so nothing here has a backward pass: [`tgm_ops::block`] in inference, and where it is not fused
//! or the attention is masked, candle's forward-only layer norm and softmax. Attention weights and
//! layer-norm statistics are f32 whatever the weights are. So are activations where [`tgm_ops`] computes ([`activations`]):
//! its products round them on the way, and a conversion between any two layers costs more than the memory that it saves.

use candle_core::{DType, Device, Module, Result, Tensor};
use tgm_ops::{BlockParams, Compute, Precision, block_is_fused};

use crate::config::{Activation, BlockConfig};
use crate::weights::Weights;

/// The type of activations in a tower whose matrices are of type `dtype`.
pub(crate) fn activations(dtype: DType, device: &Device) -> DType {
    if is_fused(dtype, device) { DType::F32 } else { dtype }
}

fn is_fused(dtype: DType, device: &Device) -> bool {
    matches!(dtype, DType::F32 | DType::BF16) && block_is_fused(device)
}

fn compute(dtype: DType) -> Compute {
    Compute::inference(if dtype == DType::BF16 { Precision::Bf16 } else { Precision::F32 })
}

/// `x Wᵀ + b`.
#[derive(Debug)]
pub(crate) struct Linear {
    weight: Tensor,
    bias: Option<Tensor>,
}

impl Linear {
    /// `weight` is `[O, I]`, `bias` `[O]` in the type of activations.
    pub fn new(weight: Tensor, bias: Option<Tensor>) -> Self {
        Self { weight, bias }
    }
}

impl Module for Linear {
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let dtype = self.weight.dtype();
        if is_fused(dtype, x.device()) {
            return tgm_ops::linear_with(x, &self.weight, self.bias.as_ref(), compute(dtype));
        }
        candle_nn::Linear::new(self.weight.clone(), self.bias.clone()).forward(x)
    }
}

#[derive(Debug)]
pub(crate) struct LayerNorm {
    weight: Tensor,
    bias: Tensor,
    eps: f32,
}

impl LayerNorm {
    pub fn new(weight: Tensor, bias: Tensor, eps: f32) -> Self {
        Self { weight, bias, eps }
    }
}

impl Module for LayerNorm {
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        candle_nn::ops::layer_norm(&x.contiguous()?, &self.weight, &self.bias, self.eps)
    }
}

/// Multi-head self-attention on `[B, N, C]`.
#[derive(Debug)]
pub(crate) struct Attention {
    query: Linear,
    key: Linear,
    value: Linear,
    out: Linear,
    /// Weights and biases of queries, keys and values, one below the other.
    qkv: Tensor,
    bias: Tensor,
    heads: usize,
}

impl Attention {
    fn load(weights: &mut Weights, name: &str, config: &BlockConfig) -> Result<Self> {
        let width = config.width;
        let mut linear = |part: &str| weights.linear(&format!("{name}.{part}_proj"), width, width);
        let [query, key, value] = [linear("q")?, linear("k")?, linear("v")?];
        let out = linear("out")?;
        // One matrix in memory, of which queries, keys and values are views.
        let qkv = Tensor::cat(&[&query.weight, &key.weight, &value.weight], 0)?;
        let biases: Vec<&Tensor> =
            [&query, &key, &value].into_iter().filter_map(|l| l.bias.as_ref()).collect();
        let bias = Tensor::cat(&biases, 0)?;
        let part = |i: usize| -> Result<Linear> {
            Ok(Linear::new(qkv.narrow(0, i * width, width)?, Some(bias.narrow(0, i * width, width)?)))
        };
        Ok(Self { query: part(0)?, key: part(1)?, value: part(2)?, out, qkv, bias, heads: config.heads })
    }

    /// Ordinary attention. `mask`, if any, is added to the f32 logits: `[N, N]`.
    pub fn forward(&self, x: &Tensor, mask: Option<&Tensor>) -> Result<Tensor> {
        self.attend(&self.query.forward(x)?, &self.key.forward(x)?, &self.value.forward(x)?, mask)
    }

    /// Ordinary attention, and attention in which queries and keys are replaced by the values.
    pub fn forward_with_value_attention(&self, x: &Tensor) -> Result<(Tensor, Tensor)> {
        let value = self.value.forward(x)?;
        let ordinary = self.attend(&self.query.forward(x)?, &self.key.forward(x)?, &value, None)?;
        Ok((ordinary, self.attend(&value, &value, &value, None)?))
    }

    /// Every token's own value through the output projection: attention that looks at nothing else.
    pub fn forward_value(&self, x: &Tensor) -> Result<Tensor> {
        self.out.forward(&self.value.forward(x)?)
    }

    fn attend(&self, query: &Tensor, key: &Tensor, value: &Tensor, mask: Option<&Tensor>) -> Result<Tensor> {
        let (batch, tokens, width) = query.dims3()?;
        let split = |x: &Tensor| {
            x.reshape((batch, tokens, self.heads, width / self.heads))?
                .transpose(1, 2)?
                .to_dtype(DType::F32)?
                .contiguous()
        };
        let scale = 1.0 / ((width / self.heads) as f64).sqrt();
        let mut logits = (split(query)? * scale)?.matmul(&split(key)?.t()?)?;
        if let Some(mask) = mask {
            logits = logits.broadcast_add(mask)?;
        }
        let mixed = candle_nn::ops::softmax_last_dim(&logits)?.matmul(&split(value)?)?;
        let mixed = mixed.transpose(1, 2)?.reshape((batch, tokens, width))?.to_dtype(query.dtype())?;
        self.out.forward(&mixed)
    }
}

/// `x + attention(norm(x))`, then `x + mlp(norm(x))`.
#[derive(Debug)]
pub(crate) struct Block {
    pub norm1: LayerNorm,
    pub attention: Attention,
    norm2: LayerNorm,
    fc1: Linear,
    activation: Activation,
    fc2: Linear,
    /// The same block for the fused operation, where there is one.
    fused: Option<BlockParams>,
}

impl Block {
    pub fn load(weights: &mut Weights, name: &str, config: &BlockConfig) -> Result<Self> {
        let mut block = Self {
            norm1: weights.layer_norm(&format!("{name}.layer_norm1"), config.width, config.eps)?,
            attention: Attention::load(weights, &format!("{name}.self_attn"), config)?,
            norm2: weights.layer_norm(&format!("{name}.layer_norm2"), config.width, config.eps)?,
            fc1: weights.linear(&format!("{name}.mlp.fc1"), config.width, config.hidden)?,
            activation: config.activation,
            fc2: weights.linear(&format!("{name}.mlp.fc2"), config.hidden, config.width)?,
            fused: None,
        };
        block.fused = block.fused_params();
        Ok(block)
    }

    fn fused_params(&self) -> Option<BlockParams> {
        let activation = match self.activation {
            Activation::QuickGelu => tgm_ops::Activation::QuickGelu,
            Activation::Gelu => tgm_ops::Activation::Gelu,
            Activation::GeluNew => return None,
        };
        let qkv = &self.attention.qkv;
        if !is_fused(qkv.dtype(), qkv.device()) {
            return None;
        }
        let norm = |norm: &LayerNorm| [norm.weight.clone(), norm.bias.clone()];
        let layer = |layer: &Linear| Some([layer.weight.clone(), layer.bias.clone()?]);
        Some(BlockParams {
            norm1: norm(&self.norm1),
            qkv: qkv.clone(),
            qkv_bias: Some(self.attention.bias.clone()),
            proj: layer(&self.attention.out)?,
            norm2: norm(&self.norm2),
            fc1: layer(&self.fc1)?,
            fc2: layer(&self.fc2)?,
            heads: self.attention.heads,
            eps: f64::from(self.norm1.eps),
            activation,
        })
    }

    /// All blocks of one tower.
    pub fn load_stack(
        weights: &mut Weights,
        tower: &str,
        count: usize,
        config: &BlockConfig,
    ) -> Result<Vec<Self>> {
        (0..count).map(|i| Self::load(weights, &format!("{tower}.encoder.layers.{i}"), config)).collect()
    }

    /// `[B, N, C]` to `[B, N, C]`.
    pub fn forward(&self, x: &Tensor, mask: Option<&Tensor>) -> Result<Tensor> {
        if let (Some(params), None) = (&self.fused, mask) {
            return tgm_ops::block(x, params, compute(params.qkv.dtype()));
        }
        let attended = self.attention.forward(&self.norm1.forward(x)?, mask)?;
        self.add_mlp(&(x + attended)?)
    }

    /// The second half of the block: `x + mlp(norm(x))`.
    pub fn add_mlp(&self, x: &Tensor) -> Result<Tensor> {
        let hidden = self.activation.forward(&self.fc1.forward(&self.norm2.forward(x)?)?)?;
        x + self.fc2.forward(&hidden)?
    }
}
