//! The pre-norm transformer block that both towers are made of (`modeling_clip.py` in `transformers`).
//!
//! The towers are frozen, so candle's forward-only fused layer norm and softmax serve here. Attention weights and
//! layer-norm statistics are f32 whatever the weights are.

use candle_core::{DType, Module, Result, Tensor};
use candle_nn::Linear;

use crate::config::{Activation, BlockConfig};
use crate::weights::Weights;

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
    heads: usize,
}

impl Attention {
    fn load(weights: &mut Weights, name: &str, config: &BlockConfig) -> Result<Self> {
        let mut linear =
            |part: &str| weights.linear(&format!("{name}.{part}_proj"), config.width, config.width);
        Ok(Self {
            query: linear("q")?,
            key: linear("k")?,
            value: linear("v")?,
            out: linear("out")?,
            heads: config.heads,
        })
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
}

impl Block {
    pub fn load(weights: &mut Weights, name: &str, config: &BlockConfig) -> Result<Self> {
        Ok(Self {
            norm1: weights.layer_norm(&format!("{name}.layer_norm1"), config.width, config.eps)?,
            attention: Attention::load(weights, &format!("{name}.self_attn"), config)?,
            norm2: weights.layer_norm(&format!("{name}.layer_norm2"), config.width, config.eps)?,
            fc1: weights.linear(&format!("{name}.mlp.fc1"), config.width, config.hidden)?,
            activation: config.activation,
            fc2: weights.linear(&format!("{name}.mlp.fc2"), config.hidden, config.width)?,
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
        let attended = self.attention.forward(&self.norm1.forward(x)?, mask)?;
        self.add_mlp(&(x + attended)?)
    }

    /// The second half of the block: `x + mlp(norm(x))`.
    pub fn add_mlp(&self, x: &Tensor) -> Result<Tensor> {
        let hidden = self.activation.forward(&self.fc1.forward(&self.norm2.forward(x)?)?)?;
        x + self.fc2.forward(&hidden)?
    }
}
