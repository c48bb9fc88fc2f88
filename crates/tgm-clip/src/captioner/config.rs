//! `config.json` of a BLIP in the Hugging Face layout; defaults as in `transformers` (`configuration_blip.py`), which
//! leaves keys out and which candle's own configuration does not know.

use candle_nn::Activation;
use candle_transformers::models::{blip, blip_text};
use serde::Deserialize;

use crate::ClipError;

/// What the model looks like, and the ids around its captions.
#[derive(Debug)]
pub(super) struct Config {
    pub model: blip::Config,
    /// Begins every caption; usually an id that the tokenizer does not have.
    pub start: u32,
    /// Ends every caption.
    pub end: u32,
}

#[derive(Debug, Deserialize)]
#[serde(default)]
struct TextConfig {
    vocab_size: usize,
    hidden_size: usize,
    intermediate_size: usize,
    num_hidden_layers: usize,
    num_attention_heads: usize,
    max_position_embeddings: usize,
    hidden_act: Activation,
    layer_norm_eps: f64,
    bos_token_id: u32,
    /// What BLIP's `generate` ends at; `eos_token_id` is 2 in every checkpoint and means nothing.
    sep_token_id: u32,
}

impl Default for TextConfig {
    fn default() -> Self {
        Self {
            vocab_size: 30_524,
            hidden_size: 768,
            intermediate_size: 3_072,
            num_hidden_layers: 12,
            num_attention_heads: 8,
            max_position_embeddings: 512,
            hidden_act: Activation::Gelu,
            layer_norm_eps: 1e-12,
            bos_token_id: 30_522,
            sep_token_id: 102,
        }
    }
}

#[derive(Debug, Deserialize)]
#[serde(default)]
struct VisionConfig {
    hidden_size: usize,
    intermediate_size: usize,
    num_hidden_layers: usize,
    num_attention_heads: usize,
    num_channels: usize,
    image_size: usize,
    patch_size: usize,
    hidden_act: Activation,
    layer_norm_eps: f64,
}

impl Default for VisionConfig {
    fn default() -> Self {
        Self {
            hidden_size: 768,
            intermediate_size: 3_072,
            num_hidden_layers: 12,
            num_attention_heads: 12,
            num_channels: 3,
            image_size: 384,
            patch_size: 16,
            hidden_act: Activation::Gelu,
            layer_norm_eps: 1e-5,
        }
    }
}

#[derive(Deserialize)]
struct File {
    model_type: Option<String>,
    text_config: Option<TextConfig>,
    vision_config: Option<VisionConfig>,
}

impl Config {
    /// Reads and checks the bytes of `config.json`; `model` names the model in errors.
    pub fn parse(bytes: &[u8], model: &str) -> Result<Self, ClipError> {
        let error = |reason: String| ClipError::Config { model: model.to_owned(), reason };
        let file: File = serde_json::from_slice(bytes).map_err(|e| error(e.to_string()))?;
        if let Some(other) = file.model_type.filter(|kind| kind != "blip") {
            return Err(error(format!("model_type {other}: captions need a BLIP (`blip`)")));
        }
        let (Some(text), Some(vision)) = (file.text_config, file.vision_config) else {
            return Err(error("no text_config and vision_config: not the configuration of a BLIP".into()));
        };
        check(&text, &vision).map_err(error)?;
        Ok(Self { start: text.bos_token_id, end: text.sep_token_id, model: for_candle(&text, &vision) })
    }
}

fn check(text: &TextConfig, vision: &VisionConfig) -> Result<(), String> {
    for (tower, width, heads) in [
        ("text", text.hidden_size, text.num_attention_heads),
        ("vision", vision.hidden_size, vision.num_attention_heads),
    ] {
        if heads == 0 || width == 0 || width % heads != 0 {
            return Err(format!(
                "{tower}_config: hidden_size {width} is not a multiple of num_attention_heads {heads}"
            ));
        }
    }
    if vision.num_channels != 3 {
        return Err(format!("num_channels {}: only RGB is supported", vision.num_channels));
    }
    if vision.patch_size == 0 || vision.patch_size > vision.image_size {
        return Err(format!(
            "patch_size {} does not fit image_size {}",
            vision.patch_size, vision.image_size
        ));
    }
    if text.max_position_embeddings == 0 {
        return Err("max_position_embeddings 0: at least 1".into());
    }
    for (name, id) in [("bos_token_id", text.bos_token_id), ("sep_token_id", text.sep_token_id)] {
        if id as usize >= text.vocab_size {
            return Err(format!("{name} {id} is outside the vocabulary of {}", text.vocab_size));
        }
    }
    Ok(())
}

fn for_candle(text: &TextConfig, vision: &VisionConfig) -> blip::Config {
    // The heads for retrieval and matching, which captioning does not have.
    const UNUSED: usize = 0;
    blip::Config {
        text_config: blip_text::Config {
            vocab_size: text.vocab_size,
            hidden_size: text.hidden_size,
            // Whatever the file says: `transformers` overrides it too.
            encoder_hidden_size: vision.hidden_size,
            intermediate_size: text.intermediate_size,
            projection_dim: UNUSED,
            num_hidden_layers: text.num_hidden_layers,
            num_attention_heads: text.num_attention_heads,
            max_position_embeddings: text.max_position_embeddings,
            hidden_act: text.hidden_act,
            layer_norm_eps: text.layer_norm_eps,
            is_decoder: true,
        },
        vision_config: blip::VisionConfig {
            hidden_size: vision.hidden_size,
            intermediate_size: vision.intermediate_size,
            projection_dim: UNUSED,
            num_hidden_layers: vision.num_hidden_layers,
            num_attention_heads: vision.num_attention_heads,
            image_size: vision.image_size,
            patch_size: vision.patch_size,
            hidden_act: vision.hidden_act,
            layer_norm_eps: vision.layer_norm_eps,
        },
        projection_dim: UNUSED,
        image_text_hidden_size: UNUSED,
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
        let json = br#"{"text_config": {"num_attention_heads": 12, "encoder_hidden_size": 5},
                        "vision_config": {"hidden_size": 1024, "num_attention_heads": 16}}"#;
        let config = Config::parse(json, "m").unwrap();
        assert_eq!((config.start, config.end), (30_522, 102));
        assert_eq!(config.model.vision_config.image_size, 384);
        assert_eq!(config.model.text_config.encoder_hidden_size, 1024, "the width of the image tower");
        assert_eq!(config.model.text_config.hidden_act, Activation::Gelu);
    }

    #[test]
    fn a_configuration_that_cannot_work_is_refused_with_the_value() {
        assert!(reason("{").contains("EOF"));
        assert!(reason(r#"{"model_type": "clip"}"#).contains("model_type clip"));
        assert!(reason(r#"{"model_type": "blip"}"#).contains("not the configuration of a BLIP"));
        for (text, vision, part) in [
            (r#""num_attention_heads": 7"#, "", "text_config: hidden_size 768"),
            ("", r#""num_attention_heads": 0"#, "heads 0"),
            ("", r#""patch_size": 0"#, "patch_size 0"),
            ("", r#""num_channels": 1"#, "num_channels 1"),
            (r#""vocab_size": 100"#, "", "bos_token_id 30522 is outside the vocabulary of 100"),
            (r#""max_position_embeddings": 0"#, "", "max_position_embeddings 0"),
            (r#""hidden_act": "quick_gelu""#, "", "quick_gelu"),
        ] {
            let message = reason(&format!(r#"{{"text_config": {{{text}}}, "vision_config": {{{vision}}}}}"#));
            assert!(message.contains(part), "{message}");
        }
    }
}
