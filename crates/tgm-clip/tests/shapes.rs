//! The three CLIPs of OpenAI at their real widths, patches and grids, with one block in each tower and made-up weights: the
//! others differ by their number only.

mod common;

use std::collections::HashMap;

use candle_core::{Device, Tensor};
use common::folder;
use serde_json::json;
use tempfile::TempDir;
use tgm_clip::{ClipModel, Frames, ModelSource, PatchFeatures, Resample, ScoreOptions};

struct Shape {
    patch: usize,
    /// Width and heads of the image tower.
    vision: (usize, usize),
    text: (usize, usize),
    embedding: usize,
}

const VIT_B32: Shape = Shape { patch: 32, vision: (768, 12), text: (512, 8), embedding: 512 };
const VIT_B16: Shape = Shape { patch: 16, ..VIT_B32 };
const VIT_L14: Shape = Shape { patch: 14, vision: (1024, 16), text: (768, 12), embedding: 768 };

const VOCABULARY: usize = 614;
const SIDE: usize = 224;

/// Small numbers without a pattern that matters.
fn weight(shape: &[usize], salt: usize) -> Tensor {
    let count = shape.iter().product::<usize>();
    let mut state = (salt as u32).wrapping_mul(2_654_435_761) + 1;
    let values: Vec<f32> = (0..count)
        .map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (f64::from(state >> 8) / f64::from(1 << 24) - 0.5) as f32 * 0.08
        })
        .collect();
    Tensor::from_vec(values, shape, &Device::Cpu).unwrap()
}

fn weights(shape: &Shape) -> HashMap<String, Tensor> {
    let mut all: Vec<(String, Vec<usize>)> = Vec::new();
    for (tower, (width, _)) in [("text_model", shape.text), ("vision_model", shape.vision)] {
        let layer = format!("{tower}.encoder.layers.0");
        for (name, from, to) in [
            ("self_attn.q_proj", width, width),
            ("self_attn.k_proj", width, width),
            ("self_attn.v_proj", width, width),
            ("self_attn.out_proj", width, width),
            ("mlp.fc1", width, 4 * width),
            ("mlp.fc2", 4 * width, width),
        ] {
            all.push((format!("{layer}.{name}.weight"), vec![to, from]));
            all.push((format!("{layer}.{name}.bias"), vec![to]));
        }
        let own: &[&str] = match tower {
            "text_model" => &["final_layer_norm"],
            _ => &["pre_layrnorm", "post_layernorm"],
        };
        let norms = own.iter().map(|name| format!("{tower}.{name}"));
        for norm in norms.chain(["layer_norm1", "layer_norm2"].map(|name| format!("{layer}.{name}"))) {
            all.push((format!("{norm}.weight"), vec![width]));
            all.push((format!("{norm}.bias"), vec![width]));
        }
    }
    let ((text, _), (vision, _), patch) = (shape.text, shape.vision, shape.patch);
    let patches = (SIDE / patch).pow(2);
    for (name, shape) in [
        ("text_model.embeddings.token_embedding.weight", vec![VOCABULARY, text]),
        ("text_model.embeddings.position_embedding.weight", vec![77, text]),
        ("text_projection.weight", vec![shape.embedding, text]),
        ("vision_model.embeddings.class_embedding", vec![vision]),
        ("vision_model.embeddings.patch_embedding.weight", vec![vision, 3, patch, patch]),
        ("vision_model.embeddings.position_embedding.weight", vec![patches + 1, vision]),
        ("visual_projection.weight", vec![shape.embedding, vision]),
    ] {
        all.push((name.to_owned(), shape));
    }
    let named = all.into_iter().enumerate().map(|(salt, (name, shape))| {
        let is_norm = name.contains("norm") && name.ends_with("weight");
        let values = weight(&shape, salt);
        (name, if is_norm { (values + 1.0).unwrap() } else { values })
    });
    named.chain([("logit_scale".to_owned(), Tensor::new(2.66f32, &Device::Cpu).unwrap())]).collect()
}

fn load(shape: &Shape) -> ClipModel {
    let dir = TempDir::new().unwrap();
    let tower = |(width, heads): (usize, usize)| {
        json!({"hidden_size": width, "num_attention_heads": heads, "intermediate_size": 4 * width,
               "num_hidden_layers": 1})
    };
    let (mut text, mut vision) = (tower(shape.text), tower(shape.vision));
    text["vocab_size"] = VOCABULARY.into();
    text["eos_token_id"] = 2.into();
    vision["patch_size"] = shape.patch.into();
    vision["image_size"] = SIDE.into();
    let config = json!({"model_type": "clip", "projection_dim": shape.embedding, "text_config": text,
                        "vision_config": vision});
    std::fs::write(dir.path().join("config.json"), config.to_string()).unwrap();
    let tokenizer = folder("clip-quick-gelu").join("tokenizer.json");
    std::fs::copy(tokenizer, dir.path().join("tokenizer.json")).unwrap();
    candle_core::safetensors::save(&weights(shape), dir.path().join("model.safetensors")).unwrap();
    ClipModel::load(&ModelSource::Folder(dir.path().to_owned()), &Device::Cpu).unwrap()
}

#[test]
fn all_three_score_the_grid_of_the_masked_autoencoder_by_every_path() {
    let frames: Vec<u8> = (0..2 * SIDE * SIDE * 3).map(|i| (i * 31 % 251) as u8).collect();
    for (name, shape, side) in [("B/32", VIT_B32, 7), ("B/16", VIT_B16, 14), ("L/14", VIT_L14, 16)] {
        let clip = load(&shape);
        assert_eq!(clip.image_size() / clip.patch_size(), side, "{name}");
        let text = clip.embed_text(&["a red circle"]).unwrap().embeddings.get(0).unwrap();
        assert_eq!(text.dims(), [shape.embedding], "{name}");
        let frames = Frames::new(&frames, SIDE, SIDE).unwrap();
        for features in [PatchFeatures::Plain, PatchFeatures::Value, PatchFeatures::Surgery] {
            let score = |resample| {
                let options = ScoreOptions { features, resample };
                clip.score(frames, &text, (14, 14), &options).unwrap()
            };
            let (map, positions) = (score(Resample::Map), score(Resample::Positions));
            assert_eq!((map.len(), positions.len()), (2 * 14 * 14, 2 * 14 * 14));
            assert!(
                map.iter().chain(&positions).all(|score| score.is_finite() && score.abs() <= 2.0),
                "{name}"
            );
            assert!(map.iter().any(|score| (score - map[0]).abs() > 1e-6), "{name}: the map is flat");
            // A grid of 14×14 is CLIP's own here: nothing is left to interpolate in either way.
            assert_eq!(map == positions, side == 14, "{name} {features:?}");
        }
    }
}
