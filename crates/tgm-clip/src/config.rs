//! `config.json` of a CLIP in the Hugging Face layout; defaults as in `transformers` (`configuration_clip.py`).

use candle_core::{Module, Tensor};
use serde::Deserialize;

use crate::ClipError;

/// What the two towers look like.
#[derive(Debug)]
pub(crate) struct Config {
    pub text: TextConfig,
    pub vision: VisionConfig,
    /// Dimension of the space shared by texts and images.
    pub projection_dim: usize,
}

/// Size of a stack of transformer blocks.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BlockConfig {
    pub width: usize,
    pub hidden: usize,
    pub heads: usize,
    pub activation: Activation,
    pub eps: f32,
}

#[derive(Clone, Copy, Debug, Deserialize, PartialEq)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Activation {
    /// `x · sigmoid(1.702 x)`: OpenAI's checkpoints.
    QuickGelu,
    /// Exact GELU: LAION's and most later checkpoints.
    Gelu,
    /// GELU by its tanh approximation.
    #[serde(alias = "gelu_pytorch_tanh")]
    GeluNew,
}

impl Module for Activation {
    fn forward(&self, x: &Tensor) -> candle_core::Result<Tensor> {
        match self {
            Self::QuickGelu => x * candle_nn::ops::sigmoid(&(x * 1.702)?)?,
            Self::Gelu => x.gelu_erf(),
            Self::GeluNew => x.gelu(),
        }
    }
}

#[derive(Debug, Deserialize)]
#[serde(default)]
pub(crate) struct TextConfig {
    pub vocab_size: usize,
    hidden_size: usize,
    intermediate_size: usize,
    pub num_hidden_layers: usize,
    num_attention_heads: usize,
    pub max_position_embeddings: usize,
    hidden_act: Activation,
    layer_norm_eps: f32,
    pub eos_token_id: u32,
}

impl Default for TextConfig {
    fn default() -> Self {
        Self {
            vocab_size: 49_408,
            hidden_size: 512,
            intermediate_size: 2_048,
            num_hidden_layers: 12,
            num_attention_heads: 8,
            max_position_embeddings: 77,
            hidden_act: Activation::QuickGelu,
            layer_norm_eps: 1e-5,
            eos_token_id: 49_407,
        }
    }
}

#[derive(Debug, Deserialize)]
#[serde(default)]
pub(crate) struct VisionConfig {
    hidden_size: usize,
    intermediate_size: usize,
    pub num_hidden_layers: usize,
    num_attention_heads: usize,
    num_channels: usize,
    pub image_size: usize,
    pub patch_size: usize,
    hidden_act: Activation,
    layer_norm_eps: f32,
}

impl Default for VisionConfig {
    fn default() -> Self {
        Self {
            hidden_size: 768,
            intermediate_size: 3_072,
            num_hidden_layers: 12,
            num_attention_heads: 12,
            num_channels: 3,
            image_size: 224,
            patch_size: 32,
            hidden_act: Activation::QuickGelu,
            layer_norm_eps: 1e-5,
        }
    }
}

impl TextConfig {
    pub fn blocks(&self) -> BlockConfig {
        BlockConfig {
            width: self.hidden_size,
            hidden: self.intermediate_size,
            heads: self.num_attention_heads,
            activation: self.hidden_act,
            eps: self.layer_norm_eps,
        }
    }
}

impl VisionConfig {
    pub fn blocks(&self) -> BlockConfig {
        BlockConfig {
            width: self.hidden_size,
            hidden: self.intermediate_size,
            heads: self.num_attention_heads,
            activation: self.hidden_act,
            eps: self.layer_norm_eps,
        }
    }

    /// Patches along one side of the square images that the tower was trained on.
    pub fn side(&self) -> usize {
        self.image_size / self.patch_size
    }
}

/// The file. Before 2023 `transformers` also wrote `*_config_dict`, which wins when it is there.
#[derive(Deserialize)]
struct File {
    text_config: Option<TextConfig>,
    text_config_dict: Option<TextConfig>,
    vision_config: Option<VisionConfig>,
    vision_config_dict: Option<VisionConfig>,
    #[serde(default = "default_projection_dim")]
    projection_dim: usize,
}

fn default_projection_dim() -> usize {
    512
}

impl Config {
    /// Reads and checks the bytes of `config.json`; `model` names the model in errors.
    pub fn parse(bytes: &[u8], model: &str) -> Result<Self, ClipError> {
        let error = |reason: String| ClipError::Config { model: model.to_owned(), reason };
        let file: File = serde_json::from_slice(bytes).map_err(|e| error(e.to_string()))?;
        let text = file.text_config_dict.or(file.text_config);
        let vision = file.vision_config_dict.or(file.vision_config);
        let (Some(text), Some(vision)) = (text, vision) else {
            return Err(error("no text_config and vision_config: not the configuration of a CLIP".into()));
        };
        for (tower, blocks) in [("text", text.blocks()), ("vision", vision.blocks())] {
            if blocks.heads == 0 || blocks.width == 0 || blocks.width % blocks.heads != 0 {
                return Err(error(format!(
                    "{tower}_config: hidden_size {} is not a multiple of num_attention_heads {}",
                    blocks.width, blocks.heads
                )));
            }
        }
        if text.max_position_embeddings < 2 {
            return Err(error(format!(
                "max_position_embeddings {}: at least 2",
                text.max_position_embeddings
            )));
        }
        if vision.num_channels != 3 {
            return Err(error(format!("num_channels {}: only RGB is supported", vision.num_channels)));
        }
        if vision.num_hidden_layers == 0 {
            return Err(error("vision_config: num_hidden_layers 0: at least 1".into()));
        }
        if vision.patch_size == 0 || vision.patch_size > vision.image_size {
            return Err(error(format!(
                "patch_size {} does not fit image_size {}",
                vision.patch_size, vision.image_size
            )));
        }
        Ok(Self { text, vision, projection_dim: file.projection_dim })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reason(json: &str) -> String {
        Config::parse(json.as_bytes(), "m").unwrap_err().to_string()
    }

    #[test]
    fn absent_keys_have_the_defaults_of_transformers() {
        let config =
            Config::parse(br#"{"text_config": {}, "vision_config": {"patch_size": 16}}"#, "m").unwrap();
        assert_eq!((config.text.vocab_size, config.text.max_position_embeddings), (49_408, 77));
        assert_eq!((config.vision.side(), config.projection_dim), (14, 512));
        assert_eq!(config.text.blocks().activation, Activation::QuickGelu);
    }

    #[test]
    fn a_configuration_that_cannot_work_is_refused_with_the_value() {
        assert!(reason("{").contains("EOF"));
        assert!(reason(r#"{"model_type": "bert"}"#).contains("not the configuration of a CLIP"));
        assert!(
            reason(r#"{"text_config": {"num_attention_heads": 7}, "vision_config": {}}"#).contains("heads 7")
        );
        assert!(
            reason(r#"{"text_config": {}, "vision_config": {"patch_size": 0}}"#).contains("patch_size 0")
        );
        assert!(
            reason(r#"{"text_config": {}, "vision_config": {"num_channels": 1}}"#).contains("num_channels 1")
        );
        assert!(reason(r#"{"text_config": {"hidden_act": "mish"}, "vision_config": {}}"#).contains("mish"));
    }
}
