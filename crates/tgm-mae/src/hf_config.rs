//! Hugging Face's `config.json` of a VideoMAE model, to and from [`MaeConfig`].

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::checkpoint::CheckpointKind;
use crate::{MaeConfig, TransformerConfig};

/// Hugging Face writes `224` or `[224, 224]`.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(untagged)]
enum Side {
    Square(usize),
    Rectangle([usize; 2]),
}

impl From<Side> for [usize; 2] {
    fn from(side: Side) -> Self {
        match side {
            Side::Square(side) => [side, side],
            Side::Rectangle(sides) => sides,
        }
    }
}

/// The keys of `config.json` that matter, with the defaults of `transformers`' `VideoMAEConfig`.
#[derive(Debug, Deserialize)]
#[serde(default)]
struct HfConfig {
    image_size: Side,
    patch_size: Side,
    num_channels: usize,
    num_frames: usize,
    tubelet_size: usize,
    hidden_size: usize,
    num_hidden_layers: usize,
    num_attention_heads: usize,
    intermediate_size: usize,
    hidden_act: String,
    layer_norm_eps: f64,
    #[serde(alias = "qv_bias")]
    qkv_bias: bool,
    use_mean_pooling: bool,
    decoder_num_attention_heads: usize,
    decoder_hidden_size: usize,
    decoder_num_hidden_layers: usize,
    decoder_intermediate_size: usize,
    norm_pix_loss: bool,
    architectures: Option<Vec<String>>,
    num_labels: Option<usize>,
    id2label: Option<Map<String, Value>>,
}

impl Default for HfConfig {
    fn default() -> Self {
        Self {
            image_size: Side::Square(224),
            patch_size: Side::Square(16),
            num_channels: 3,
            num_frames: 16,
            tubelet_size: 2,
            hidden_size: 768,
            num_hidden_layers: 12,
            num_attention_heads: 12,
            intermediate_size: 3072,
            hidden_act: "gelu".into(),
            layer_norm_eps: 1e-12,
            qkv_bias: true,
            use_mean_pooling: true,
            decoder_num_attention_heads: 6,
            decoder_hidden_size: 384,
            decoder_num_hidden_layers: 4,
            decoder_intermediate_size: 1536,
            norm_pix_loss: true,
            architectures: None,
            num_labels: None,
            id2label: None,
        }
    }
}

/// `nn.LayerNorm`'s default, which `transformers` uses for the decoder's last norm and `fc_norm` whatever the config says.
const HF_HEAD_NORM_EPS: f64 = 1e-5;

/// Reads a Hugging Face config. The number of classes is taken from the weights later on, so it is not asked here.
pub(crate) fn parse(text: &str) -> Result<(MaeConfig, bool), String> {
    let hf: HfConfig = serde_json::from_str(text).map_err(|e| e.to_string())?;
    if hf.hidden_act != "gelu" {
        return Err(format!("hidden_act `{}` is not supported, only `gelu`", hf.hidden_act));
    }
    let classification = match &hf.architectures {
        Some(names) => names.iter().any(|n| n == "VideoMAEForVideoClassification"),
        None => hf.num_labels.is_some() || hf.id2label.is_some(),
    };
    let config = MaeConfig {
        frames: hf.num_frames,
        image_size: hf.image_size.into(),
        channels: hf.num_channels,
        tubelet: hf.tubelet_size,
        patch: hf.patch_size.into(),
        encoder: TransformerConfig {
            dim: hf.hidden_size,
            depth: hf.num_hidden_layers,
            heads: hf.num_attention_heads,
            mlp: hf.intermediate_size,
        },
        decoder: TransformerConfig {
            dim: hf.decoder_hidden_size,
            depth: hf.decoder_num_hidden_layers,
            heads: hf.decoder_num_attention_heads,
            mlp: hf.decoder_intermediate_size,
        },
        layer_norm_eps: hf.layer_norm_eps,
        head_norm_eps: HF_HEAD_NORM_EPS,
        qv_bias: hf.qkv_bias,
        final_norm: !hf.use_mean_pooling,
        normalize_target: hf.norm_pix_loss,
    };
    Ok((config, classification))
}

/// Writes a Hugging Face config. `transformers` has no place for another eps of the last norms than 1e-5.
pub(crate) fn write(config: &MaeConfig, kind: CheckpointKind) -> String {
    let side = |[h, w]: [usize; 2]| if h == w { json!(h) } else { json!([h, w]) };
    let mut value = json!({
        "model_type": "videomae",
        "image_size": side(config.image_size),
        "patch_size": side(config.patch),
        "num_channels": config.channels,
        "num_frames": config.frames,
        "tubelet_size": config.tubelet,
        "hidden_size": config.encoder.dim,
        "num_hidden_layers": config.encoder.depth,
        "num_attention_heads": config.encoder.heads,
        "intermediate_size": config.encoder.mlp,
        "hidden_act": "gelu",
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
        "initializer_range": 0.02,
        "layer_norm_eps": config.layer_norm_eps,
        "qkv_bias": config.qv_bias,
        "use_mean_pooling": !config.final_norm,
        "decoder_num_attention_heads": config.decoder.heads,
        "decoder_hidden_size": config.decoder.dim,
        "decoder_num_hidden_layers": config.decoder.depth,
        "decoder_intermediate_size": config.decoder.mlp,
        "norm_pix_loss": config.normalize_target,
        "torch_dtype": "float32",
    });
    match kind {
        CheckpointKind::Pretraining => value["architectures"] = json!(["VideoMAEForPreTraining"]),
        CheckpointKind::Encoder => value["architectures"] = json!(["VideoMAEModel"]),
        CheckpointKind::Classification { classes } => {
            value["architectures"] = json!(["VideoMAEForVideoClassification"]);
            let labels = (0..classes).map(|i| (i.to_string(), json!(format!("LABEL_{i}"))));
            value["id2label"] = Value::Object(labels.collect());
            let ids = (0..classes).map(|i| (format!("LABEL_{i}"), json!(i)));
            value["label2id"] = Value::Object(ids.collect());
        }
    }
    format!("{value:#}\n")
}

/// This crate's own `config.json`.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct NativeConfig {
    pub(crate) model_type: String,
    pub(crate) kind: CheckpointKind,
    pub(crate) model: MaeConfig,
}

/// The `model_type` of this crate's own `config.json`.
pub(crate) const NATIVE_TYPE: &str = "tgm-mae";

/// The `model_type` that a `config.json` names.
pub(crate) fn model_type(text: &str) -> Result<String, String> {
    #[derive(Deserialize)]
    struct Type {
        model_type: Option<String>,
    }
    let found: Type = serde_json::from_str(text).map_err(|e| e.to_string())?;
    found.model_type.ok_or_else(|| "no `model_type`".to_string())
}
