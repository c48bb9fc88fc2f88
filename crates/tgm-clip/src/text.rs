//! The text tower: causal transformer, read at the end-of-text token.

use candle_core::{DType, Device, Module, Result, Tensor};

use crate::blocks::{Block, LayerNorm, Linear};
use crate::config::Config;
use crate::weights::Weights;

/// How `transformers` finds the end of a text (`CLIPTextModel.forward`).
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum EndOfText {
    /// At the largest id: configurations from before mid-2023 say `"eos_token_id": 2`, which no tokenizer means.
    LargestId,
    /// At the first token with this id.
    Id(u32),
}

impl EndOfText {
    pub fn from_config(eos_token_id: u32) -> Self {
        if eos_token_id == 2 { Self::LargestId } else { Self::Id(eos_token_id) }
    }

    /// Position of the token that carries the meaning of the whole text. Every text ends with end-of-text, so the
    /// last position stands in where the rule finds none.
    fn position(self, ids: &[u32]) -> usize {
        let id = match self {
            Self::LargestId => ids.iter().copied().max().unwrap_or_default(),
            Self::Id(id) => id,
        };
        ids.iter().position(|&i| i == id).unwrap_or(ids.len().saturating_sub(1))
    }
}

#[derive(Debug)]
pub(crate) struct TextTower {
    tokens: Tensor,
    positions: Tensor,
    blocks: Vec<Block>,
    norm: LayerNorm,
    projection: Linear,
    end: EndOfText,
}

impl TextTower {
    pub fn load(weights: &mut Weights, config: &Config) -> Result<Self> {
        let text = &config.text;
        let blocks = text.blocks();
        let embeddings = "text_model.embeddings";
        Ok(Self {
            tokens: weights.take_wide(
                &format!("{embeddings}.token_embedding.weight"),
                &[text.vocab_size, blocks.width],
            )?,
            positions: weights.take_wide(
                &format!("{embeddings}.position_embedding.weight"),
                &[text.max_position_embeddings, blocks.width],
            )?,
            blocks: Block::load_stack(weights, "text_model", text.num_hidden_layers, &blocks)?,
            norm: weights.layer_norm("text_model.final_layer_norm", blocks.width, blocks.eps)?,
            projection: weights.linear_no_bias("text_projection", blocks.width, config.projection_dim)?,
            end: EndOfText::from_config(text.eos_token_id),
        })
    }

    /// Projected embeddings `[B, E]` of `B` texts, none of them empty or longer than the position embedding.
    ///
    /// Attention is causal, so what is padded after the end of a text cannot change it: texts are only padded to
    /// the longest of the batch.
    pub fn forward(&self, texts: &[Vec<u32>]) -> Result<Tensor> {
        let device = self.tokens.device();
        let ends: Vec<usize> = texts.iter().map(|ids| self.end.position(ids)).collect();
        let length = ends.iter().max().map_or(0, |end| end + 1);
        let ids: Vec<u32> = texts
            .iter()
            .flat_map(|ids| ids.iter().copied().chain(std::iter::repeat(0)).take(length))
            .collect();
        let width = self.tokens.dim(1)?;
        let ids = Tensor::from_vec(ids, texts.len() * length, device)?;
        let mut x = self
            .tokens
            .index_select(&ids, 0)?
            .reshape((texts.len(), length, width))?
            .broadcast_add(&self.positions.narrow(0, 0, length)?)?;
        let mask = causal_mask(length, device)?;
        for block in &self.blocks {
            x = block.forward(&x, Some(&mask))?;
        }
        let rows: Vec<u32> = ends.iter().enumerate().map(|(i, end)| (i * length + end) as u32).collect();
        let rows = Tensor::from_vec(rows, texts.len(), device)?;
        let pooled = x.reshape((texts.len() * length, width))?.index_select(&rows, 0)?;
        self.projection.forward(&self.norm.forward(&pooled)?)?.to_dtype(DType::F32)
    }
}

/// `[N, N]`: 0 where a token may look, −∞ at all later tokens.
fn causal_mask(length: usize, device: &Device) -> Result<Tensor> {
    let mask: Vec<f32> = (0..length)
        .flat_map(|i| (0..length).map(move |j| if j > i { f32::NEG_INFINITY } else { 0.0 }))
        .collect();
    Tensor::from_vec(mask, (length, length), device)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_is_the_first_of_several_end_of_text_tokens() {
        let ids = [6, 1, 3, 7, 7, 7];
        assert_eq!(EndOfText::from_config(2).position(&ids), 3);
        assert_eq!(EndOfText::from_config(7).position(&ids), 3);
    }

    #[test]
    fn ids_beyond_end_of_text_mislead_only_the_old_rule() {
        let ids = [6, 9, 3, 7];
        assert_eq!(EndOfText::from_config(2).position(&ids), 1);
        assert_eq!(EndOfText::from_config(7).position(&ids), 3);
    }
}
