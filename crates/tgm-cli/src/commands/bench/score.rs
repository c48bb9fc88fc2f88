//! `tgm bench score`: frames per second through CLIP's image tower.

use std::collections::HashMap;
use std::path::Path;

use anyhow::{Context, Result};
use candle_core::DType;
use clap::ValueEnum;
use serde_json::json;
use tgm_ops::Precision;
use tgm_ops::gradcheck::randn;

use super::options::{Options, Threads, fast_precisions, precision};
use super::python::MODELS;
use super::rates::{Bench, Work, header};
use super::record::{Record, Row};
use super::scratch::Scratch;
use super::turns::{Kind, Spec};

/// Frames per second through CLIP's image tower to projected patch features, with random weights.
///
/// With --peers `transformers` does the same work on the same weights and frames, in turn with ours.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  tgm bench score --peers --json score.json
  tgm bench score --size b32 --precision bf16")]
pub(in crate::commands) struct Args {
    /// Model sizes.
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = [Size::B32, Size::B16])]
    size: Vec<Size>,
    /// Precisions. Default: those that the processor has fast instructions for.
    #[arg(long, value_parser = precision(), value_delimiter = ',', default_values_t = fast_precisions())]
    precision: Vec<Precision>,
    /// Frames of 224² that go through together.
    #[arg(long, default_value_t = 16, value_parser = crate::commands::at_least_one)]
    batch: usize,
    #[command(flatten)]
    threads: Threads,
    #[command(flatten)]
    options: Options,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Size {
    /// ViT-B/32.
    B32,
    /// ViT-B/16.
    B16,
    /// ViT-L/14.
    L14,
}

/// What differs between the sizes.
struct Tower {
    name: &'static str,
    hidden: usize,
    layers: usize,
    heads: usize,
    patch: usize,
    projection: usize,
}

impl Tower {
    /// Floating-point operations for a frame: its matrix products.
    fn flops(&self) -> f64 {
        let (dim, patches) = (self.hidden, (SIDE / self.patch).pow(2));
        let tokens = patches + 1;
        let block = 12 * tokens * dim * dim + 2 * tokens * tokens * dim;
        let ends = patches * dim * (3 * self.patch * self.patch + self.projection);
        2.0 * (self.layers * block + ends) as f64
    }
}

impl Size {
    const fn tower(self) -> Tower {
        match self {
            Self::B32 => {
                Tower { name: "vit-b32", hidden: 768, layers: 12, heads: 12, patch: 32, projection: 512 }
            }
            Self::B16 => {
                Tower { name: "vit-b16", hidden: 768, layers: 12, heads: 12, patch: 16, projection: 512 }
            }
            Self::L14 => {
                Tower { name: "vit-l14", hidden: 1024, layers: 24, heads: 16, patch: 14, projection: 768 }
            }
        }
    }
}

const SIDE: usize = 224;

pub(super) fn run(args: &Args) -> Result<()> {
    Record::new(rows(args)?).write(args.options.json.as_deref())
}

/// Measures every row and prints it.
pub(super) fn rows(args: &Args) -> Result<Vec<Row>> {
    let options = &args.options;
    let python = options.peers.then(|| MODELS.interpreter()).transpose()?;
    let folder = Scratch::new("score")?;
    let bench = Bench { folder: folder.path(), python: python.as_deref(), rounds: options.rounds };
    let input = folder.path().join("input.safetensors");
    let pixels = randn("frames", &[args.batch, 3, SIDE, SIDE], DType::F32)?;
    candle_core::safetensors::save(&HashMap::from([("pixel_values", pixels)]), &input)?;
    println!("{}", header("frames/s"));
    let mut rows = Vec::new();
    for &size in &args.size {
        let tower = size.tower();
        let model = folder.path().join(tower.name);
        write_model(&model, &tower)?;
        for &precision in &args.precision {
            let spec = Spec {
                work: Kind::Score,
                model: model.display().to_string(),
                input: input.display().to_string(),
                precision,
                threads: args.threads.count(),
                contrastive: false,
                recompute: false,
            };
            let name = format!("score/{}/{precision}/b{}", tower.name, args.batch);
            let turn = Work { unit: "frames/s", count: args.batch, flops: tower.flops() };
            rows.push(bench.row(name, &turn, &spec)?);
        }
    }
    Ok(rows)
}

/// A CLIP of this size with random weights, in Hugging Face's layout. Its text tower, which this bench does not use, is
/// small enough to fit the demo's tokenizer.
fn write_model(folder: &Path, tower: &Tower) -> Result<()> {
    const TEXT: usize = 16;
    let tokenizer = include_bytes!("../../../../../fixtures/tiny-clip/tokenizer.json");
    let tiny: serde_json::Value =
        serde_json::from_slice(include_bytes!("../../../../../fixtures/tiny-clip/config.json"))?;
    let words = tiny["text_config"]["vocab_size"].as_u64().context("the tiny CLIP's vocabulary")? as usize;
    let mut text = tiny["text_config"].clone();
    for (key, value) in [
        ("hidden_size", TEXT),
        ("intermediate_size", TEXT),
        ("num_hidden_layers", 1),
        ("num_attention_heads", 2),
    ] {
        text[key] = value.into();
    }
    text["projection_dim"] = tower.projection.into();
    let config = json!({
        "model_type": "clip",
        "projection_dim": tower.projection,
        "logit_scale_init_value": 2.6592,
        "text_config": text,
        "vision_config": {
            "model_type": "clip_vision_model",
            "hidden_act": "quick_gelu",
            "hidden_size": tower.hidden,
            "intermediate_size": 4 * tower.hidden,
            "image_size": SIDE,
            "layer_norm_eps": 1e-5,
            "num_attention_heads": tower.heads,
            "num_channels": 3,
            "num_hidden_layers": tower.layers,
            "patch_size": tower.patch,
            "projection_dim": tower.projection,
        },
    });
    let mut weights = HashMap::new();
    let mut add = |name: String, shape: &[usize]| -> Result<()> {
        let values = randn(&name, shape, DType::F32)?;
        // Norms near one, all else small: activations of ordinary size.
        let values = match name.contains("norm") && name.ends_with("weight") {
            true => ((values * 0.02)? + 1.0)?,
            false => (values * 0.02)?,
        };
        weights.insert(name, values);
        Ok(())
    };
    add("logit_scale".into(), &[])?;
    add("text_model.embeddings.token_embedding.weight".into(), &[words, TEXT])?;
    add("text_model.embeddings.position_embedding.weight".into(), &[77, TEXT])?;
    for (name, shape) in blocks("text_model", 1, TEXT, TEXT) {
        add(name, &shape)?;
    }
    for part in ["weight", "bias"] {
        add(format!("text_model.final_layer_norm.{part}"), &[TEXT])?;
        add(format!("vision_model.pre_layrnorm.{part}"), &[tower.hidden])?;
        add(format!("vision_model.post_layernorm.{part}"), &[tower.hidden])?;
    }
    let positions = (SIDE / tower.patch).pow(2) + 1;
    add("vision_model.embeddings.class_embedding".into(), &[tower.hidden])?;
    add(
        "vision_model.embeddings.patch_embedding.weight".into(),
        &[tower.hidden, 3, tower.patch, tower.patch],
    )?;
    add("vision_model.embeddings.position_embedding.weight".into(), &[positions, tower.hidden])?;
    for (name, shape) in blocks("vision_model", tower.layers, tower.hidden, 4 * tower.hidden) {
        add(name, &shape)?;
    }
    add("text_projection.weight".into(), &[tower.projection, TEXT])?;
    add("visual_projection.weight".into(), &[tower.projection, tower.hidden])?;
    std::fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    std::fs::write(folder.join("config.json"), serde_json::to_string_pretty(&config)?)?;
    std::fs::write(folder.join("tokenizer.json"), tokenizer)?;
    Ok(candle_core::safetensors::save(&weights, folder.join("model.safetensors"))?)
}

/// Names and shapes of a tower's transformer blocks.
fn blocks(tower: &str, layers: usize, width: usize, hidden: usize) -> Vec<(String, Vec<usize>)> {
    let mut all = Vec::new();
    for layer in 0..layers {
        let name = |part: &str| format!("{tower}.encoder.layers.{layer}.{part}");
        let mut linear = |part: &str, out: usize, input: usize| {
            all.push((name(&format!("{part}.weight")), vec![out, input]));
            all.push((name(&format!("{part}.bias")), vec![out]));
        };
        for projection in ["q_proj", "k_proj", "v_proj", "out_proj"] {
            linear(&format!("self_attn.{projection}"), width, width);
        }
        linear("mlp.fc1", hidden, width);
        linear("mlp.fc2", width, hidden);
        for norm in ["layer_norm1", "layer_norm2"] {
            all.push((name(&format!("{norm}.weight")), vec![width]));
            all.push((name(&format!("{norm}.bias")), vec![width]));
        }
    }
    all
}
