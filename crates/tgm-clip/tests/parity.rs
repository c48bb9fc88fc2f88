//! The numbers of `transformers` (and of PyTorch, for the value and surgery paths) on random weights.

mod common;

use candle_core::{DType, Device, Module, Tensor};
use common::{FIXTURES, assert_close, captions, folder, frames, golden, load};
use tgm_clip::tgm_masking::{Grid, ScoreMap};
use tgm_clip::{ClipModel, Frames, ModelSource, PatchFeatures, Resample, ScoreOptions};

const BAR: f32 = 1e-4;
const PATHS: [(PatchFeatures, &str); 3] =
    [(PatchFeatures::Plain, "plain"), (PatchFeatures::Value, "value"), (PatchFeatures::Surgery, "surgery")];

fn embed(clip: &ClipModel, captions: &[String]) -> tgm_clip::TextEmbeddings {
    clip.embed_text(&captions.iter().map(String::as_str).collect::<Vec<_>>()).unwrap()
}

#[test]
fn token_ids_are_those_of_transformers() {
    for name in FIXTURES {
        let (clip, expected) = (load(name), golden(name)["input_ids"].to_vec2::<i64>().unwrap());
        for (caption, expected) in captions(name).iter().zip(expected) {
            let tokens = clip.tokenize(caption).unwrap();
            let ids: Vec<i64> = tokens.ids.iter().map(|&id| id.into()).collect();
            assert_eq!(ids, expected[..ids.len()], "{name}: {caption}");
            let padding = ids[ids.len() - 1];
            assert!(expected[ids.len()..].iter().all(|&id| id == padding), "{name}: {caption} is cut short");
        }
    }
}

#[test]
fn text_embeddings_are_those_of_transformers() {
    for name in FIXTURES {
        let found = embed(&load(name), &captions(name));
        assert_close(&found.embeddings, &golden(name)["text_embeds"], BAR, name);
    }
}

#[test]
fn a_caption_has_the_same_embedding_alone_and_in_any_batch() {
    let (clip, captions) = (load("clip-gelu"), captions("clip-gelu"));
    let many: Vec<String> = captions.iter().cycle().take(150).cloned().collect();
    let together = embed(&clip, &many).embeddings;
    for (i, caption) in many.iter().enumerate() {
        let alone = embed(&clip, std::slice::from_ref(caption)).embeddings;
        assert_close(&together.narrow(0, i, 1).unwrap(), &alone, 1e-5, caption);
    }
}

#[test]
fn image_embeddings_are_those_of_transformers_at_any_size() {
    for name in FIXTURES {
        let (clip, golden) = (load(name), golden(name));
        for size in ["square", "wide"] {
            let (bytes, height, width) = frames(&golden[&format!("{size}.frames")]);
            let pixels = clip.preprocess(Frames::new(&bytes, height, width).unwrap(), height, width).unwrap();
            let found = clip.image_embedding(&pixels).unwrap();
            assert_close(&found, &golden[&format!("{size}.image_embeds")], BAR, &format!("{name} {size}"));
        }
    }
}

#[test]
fn patch_features_of_every_path_are_those_of_pytorch_at_any_size() {
    for name in FIXTURES {
        let (clip, golden) = (load(name), golden(name));
        for size in ["square", "wide"] {
            let (bytes, height, width) = frames(&golden[&format!("{size}.frames")]);
            let pixels = clip.preprocess(Frames::new(&bytes, height, width).unwrap(), height, width).unwrap();
            for (features, path) in PATHS {
                let found = clip.patch_features(&pixels, features).unwrap();
                let what = format!("{name} {size} {path}");
                assert_close(&found, &golden[&format!("{size}.{path}")], BAR, &what);
            }
        }
    }
}

#[test]
fn score_maps_of_every_path_are_those_of_pytorch() {
    for name in FIXTURES {
        let (clip, golden) = (load(name), golden(name));
        let text = golden["text_embeds"].get(0).unwrap();
        for (resample, how, size) in
            [(Resample::Map, "map", "square"), (Resample::Positions, "positions", "wide")]
        {
            let (bytes, height, width) = frames(&golden[&format!("{size}.frames")]);
            for (features, path) in PATHS {
                let options = ScoreOptions { features, resample };
                let frames = Frames::new(&bytes, height, width).unwrap();
                let found = clip.score(frames, &text, (7, 6), &options).unwrap();
                let found = Tensor::from_vec(found, (frames.count(), 7, 6), &Device::Cpu).unwrap();
                assert_close(
                    &found,
                    &golden[&format!("score.{how}.{path}")],
                    BAR,
                    &format!("{name} {how} {path}"),
                );
            }
        }
    }
}

#[test]
fn frames_are_resized_as_clip_resizes_them() {
    for name in FIXTURES {
        let (clip, golden) = (load(name), golden(name));
        let (bytes, height, width) = frames(&golden["resize.source"]);
        for to in ["resize.shrunk", "resize.grown"] {
            let (expected, rows, cols) = frames(&golden[to]);
            let source = Frames::new(&bytes, height, width).unwrap();
            let found = clip.preprocess(source, rows, cols).unwrap();
            let expected = clip.preprocess(Frames::new(&expected, rows, cols).unwrap(), rows, cols).unwrap();
            // Both round to bytes; one level in one of them is 1 / 255 / 0.26.
            assert_close(&found, &expected, 0.016, &format!("{name} {to}"));
        }
    }
}

#[test]
fn frames_are_scored_alike_alone_and_in_any_batch() {
    let clip = load("clip-quick-gelu");
    let text = clip.embed_text(&["a blue square"]).unwrap().embeddings.get(0).unwrap();
    let frame = |i: usize| (0..20 * 24 * 3).map(move |j| ((i * 37 + j * j) % 251) as u8);
    let bytes: Vec<u8> = (0..35).flat_map(frame).collect();
    let options = ScoreOptions::default();
    let together = clip.score(Frames::new(&bytes, 20, 24).unwrap(), &text, (5, 6), &options).unwrap();
    for i in 0..35 {
        let bytes: Vec<u8> = frame(i).collect();
        let alone = clip.score(Frames::new(&bytes, 20, 24).unwrap(), &text, (5, 6), &options).unwrap();
        for (a, b) in alone.iter().zip(&together[i * 30..]) {
            assert!((a - b).abs() < 1e-5, "frame {i}: {a} and {b}");
        }
    }
    assert!(ScoreMap::from_frames(Grid::new(17, 5, 6).unwrap(), 2, &together[..34 * 30]).is_ok());
}

#[test]
fn several_texts_share_a_pass_and_have_their_own_scores() {
    let (clip, golden) = (load("clip-gelu"), golden("clip-gelu"));
    let (bytes, height, width) = frames(&golden["square.frames"]);
    let frames = Frames::new(&bytes, height, width).unwrap();
    let texts = &golden["text_embeds"];
    for (features, path) in PATHS {
        let options = ScoreOptions { features, ..ScoreOptions::default() };
        let together = clip.score_each(frames, texts, (6, 5), &options).unwrap();
        assert_eq!(together.len(), texts.dim(0).unwrap());
        for (i, found) in together.iter().enumerate() {
            let alone = clip.score(frames, &texts.get(i).unwrap(), (6, 5), &options).unwrap();
            assert!(found.iter().zip(&alone).all(|(a, b)| (a - b).abs() < 1e-6), "{path}: text {i}");
        }
    }
}

#[test]
fn the_length_of_the_text_embedding_does_not_matter() {
    let (clip, golden) = (load("clip-gelu"), golden("clip-gelu"));
    let (bytes, height, width) = frames(&golden["square.frames"]);
    let frames = Frames::new(&bytes, height, width).unwrap();
    let text = golden["text_embeds"].get(1).unwrap();
    for (features, path) in PATHS {
        let options = ScoreOptions { features, ..ScoreOptions::default() };
        let score = |text: &Tensor| {
            let scores = clip.score(frames, text, (5, 5), &options).unwrap();
            Tensor::from_vec(scores, (75,), &Device::Cpu).unwrap()
        };
        assert_close(&score(&text), &score(&(&text * 7.5).unwrap()), 1e-5, path);
    }
}

#[test]
fn surgery_of_the_empty_caption_says_nothing() {
    let (clip, golden) = (load("clip-quick-gelu"), golden("clip-quick-gelu"));
    let (bytes, height, width) = frames(&golden["square.frames"]);
    let text = clip.embed_text(&[""]).unwrap().embeddings.get(0).unwrap();
    let options = ScoreOptions { features: PatchFeatures::Surgery, ..ScoreOptions::default() };
    let scores = clip.score(Frames::new(&bytes, height, width).unwrap(), &text, (4, 4), &options).unwrap();
    assert!(scores.iter().all(|score| score.abs() < 1e-6));
}

#[test]
fn bf16_scores_stay_close_to_f32() {
    for name in FIXTURES {
        let golden = golden(name);
        let source = ModelSource::Folder(folder(name));
        let clip = ClipModel::load_with_dtype(&source, &Device::Cpu, DType::BF16).unwrap();
        let text = clip.embed_text(&[&captions(name)[0]]).unwrap().embeddings.get(0).unwrap();
        assert_eq!(text.dtype(), DType::F32);
        let (bytes, height, width) = frames(&golden["wide.frames"]);
        for (features, path) in PATHS {
            let options = ScoreOptions { features, resample: Resample::Positions };
            let found =
                clip.score(Frames::new(&bytes, height, width).unwrap(), &text, (7, 6), &options).unwrap();
            let found = Tensor::from_vec(found, (2, 7, 6), &Device::Cpu).unwrap();
            // Cosines lie in ±1; bf16 has 8 bits.
            assert_close(
                &found,
                &golden[&format!("score.positions.{path}")],
                0.05,
                &format!("{name} {path}"),
            );
        }
    }
}

/// A second oracle: candle's own CLIP is right for quick-GELU, an epsilon of 1e-5 and end-of-text as the largest id.
#[test]
fn candle_transformers_agrees_where_it_applies() {
    use candle_transformers::models::clip::text_model::{Activation, ClipTextConfig, ClipTextTransformer};
    let name = "clip-quick-gelu";
    let golden = golden(name);
    let weights =
        candle_core::safetensors::load(folder(name).join("model.safetensors"), &Device::Cpu).unwrap();
    let projection = candle_nn::Linear::new(weights["text_projection.weight"].clone(), None);
    let (vocab_size, embed_dim) = weights["text_model.embeddings.token_embedding.weight"].dims2().unwrap();
    let config = ClipTextConfig {
        vocab_size,
        embed_dim,
        activation: Activation::QuickGelu,
        intermediate_size: weights["text_model.encoder.layers.0.mlp.fc1.bias"].dim(0).unwrap(),
        max_position_embeddings: 77,
        pad_with: None,
        num_hidden_layers: 2,
        num_attention_heads: 2,
        projection_dim: 20,
    };
    let builder = candle_nn::VarBuilder::from_tensors(weights, DType::F32, &Device::Cpu);
    let tower = ClipTextTransformer::new(builder.pp("text_model"), &config).unwrap();
    let ids = golden["input_ids"].to_dtype(DType::U32).unwrap();
    let theirs = projection.forward(&tower.forward(&ids).unwrap()).unwrap();
    assert_close(&embed(&load(name), &captions(name)).embeddings, &theirs, BAR, name);
}
