//! What happens with checkpoints and arguments that are not as they should be.

mod common;

use std::collections::HashMap;
use std::fs;
use std::path::Path;

use candle_core::{DType, Device, Tensor};
use common::{FIXTURES, captions, folder, load};
use tempfile::TempDir;
use tgm_clip::{ClipError, ClipModel, Frames, ModelSource, PatchFeatures, ScoreOptions};

/// A copy of a fixture that a test may damage.
fn copy(name: &str) -> TempDir {
    let target = TempDir::new().unwrap();
    for entry in fs::read_dir(folder(name)).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), target.path().join(entry.file_name())).unwrap();
    }
    target
}

fn load_error(folder: &Path) -> ClipError {
    ClipModel::load(&ModelSource::Folder(folder.to_owned()), &Device::Cpu).unwrap_err()
}

fn change_weights(folder: &Path, change: impl FnOnce(&mut HashMap<String, Tensor>)) {
    let path = folder.join("model.safetensors");
    let mut weights = candle_core::safetensors::load(&path, &Device::Cpu).unwrap();
    change(&mut weights);
    candle_core::safetensors::save(&weights, path).unwrap();
}

fn change_config(folder: &Path, from: &str, to: &str) {
    let path = folder.join("config.json");
    let text = fs::read_to_string(&path).unwrap();
    assert!(text.contains(from), "{text}");
    fs::write(path, text.replace(from, to)).unwrap();
}

#[test]
fn a_model_can_be_shared_between_threads() {
    fn check<T: Send + Sync>() {}
    check::<ClipModel>();
}

#[test]
fn a_model_knows_its_sizes() {
    let clip = load("clip-gelu");
    assert_eq!((clip.embedding_dim(), clip.image_size(), clip.patch_size()), (12, 35, 7));
}

#[test]
fn an_integer_type_is_refused() {
    let source = ModelSource::Folder(folder("clip-gelu"));
    let message = ClipModel::load_with_dtype(&source, &Device::Cpu, DType::U8).unwrap_err().to_string();
    assert!(message.contains("got u8, expected f32, bf16 or f16"), "{message}");
}

#[test]
fn embedded_files_make_the_same_model_as_a_folder() {
    let source = ModelSource::Embedded {
        config: include_bytes!("../../../fixtures/clip-gelu/config.json"),
        weights: include_bytes!("../../../fixtures/clip-gelu/model.safetensors"),
        tokenizer: include_bytes!("../../../fixtures/clip-gelu/tokenizer.json"),
    };
    let embedded = ClipModel::load(&source, &Device::Cpu).unwrap();
    let captions = ["a star", "a small cross"];
    let found = embedded.embed_text(&captions).unwrap().embeddings;
    let expected = load("clip-gelu").embed_text(&captions).unwrap().embeddings;
    assert_eq!(common::worst(&found, &expected), 0.0);
}

#[test]
fn the_identity_tells_models_apart_and_is_stable() {
    let identities = FIXTURES.map(|name| load(name).identity().to_owned());
    assert_eq!(identities, FIXTURES.map(|name| load(name).identity().to_owned()));
    assert!(
        identities[0] != identities[1] && identities[1] != identities[2] && identities[0] != identities[2]
    );
    let changed = copy("clip-gelu");
    change_weights(changed.path(), |weights| {
        let bias = weights.get_mut("vision_model.post_layernorm.bias").unwrap();
        *bias = (&*bias + 1e-3).unwrap();
    });
    let changed = ClipModel::load(&ModelSource::Folder(changed.path().to_owned()), &Device::Cpu).unwrap();
    assert_ne!(changed.identity(), identities[1]);
}

#[test]
fn a_folder_without_one_of_its_files_is_named_with_what_was_looked_for() {
    for (file, expected) in [
        ("config.json", "config.json"),
        ("model.safetensors", "model.safetensors, or pytorch_model.bin"),
        ("tokenizer.json", "tokenizer.json, or vocab.json and merges.txt"),
    ] {
        let folder = copy("clip-gelu");
        fs::remove_file(folder.path().join(file)).unwrap();
        let message = load_error(folder.path()).to_string();
        assert!(message.contains(expected), "{message}");
        assert!(message.contains(&folder.path().display().to_string()), "{message}");
    }
}

#[test]
fn a_truncated_weight_file_is_refused() {
    for (name, file) in [("clip-gelu", "model.safetensors"), ("clip-pickle", "pytorch_model.bin")] {
        for keep in [0.0, 0.01, 0.5, 0.99] {
            let folder = copy(name);
            let path = folder.path().join(file);
            let bytes = fs::read(&path).unwrap();
            fs::write(&path, &bytes[..(bytes.len() as f64 * keep) as usize]).unwrap();
            let error = load_error(folder.path());
            assert!(matches!(error, ClipError::Weights { .. }), "{file} {keep}: {error}");
            assert!(error.to_string().contains(&folder.path().display().to_string()), "{error}");
        }
    }
}

#[test]
fn every_missing_misshapen_and_unexpected_weight_is_listed() {
    let folder = copy("clip-gelu");
    change_weights(folder.path(), |weights| {
        weights.remove("text_projection.weight").unwrap();
        weights.remove("vision_model.pre_layrnorm.bias").unwrap();
        let square = Tensor::zeros((16, 16), DType::F32, &Device::Cpu).unwrap();
        weights.insert("visual_projection.weight".into(), square.clone());
        weights.insert("vision_model.encoder.layers.3.mlp.fc1.weight".into(), square);
    });
    let message = load_error(folder.path()).to_string();
    for part in [
        "2 missing: ",
        "text_projection.weight",
        "vision_model.pre_layrnorm.bias",
        "1 of another shape: visual_projection.weight: found [16, 16], expected [12, 16]",
        "1 unexpected: vision_model.encoder.layers.3.mlp.fc1.weight",
    ] {
        assert!(message.contains(part), "{message}");
    }
}

#[test]
fn a_configuration_of_another_model_is_refused() {
    let folder = copy("clip-gelu");
    change_config(folder.path(), "\"hidden_act\": \"gelu\"", "\"hidden_act\": \"mish\"");
    assert!(matches!(load_error(folder.path()), ClipError::Config { .. }));
    let folder = copy("clip-gelu");
    change_config(folder.path(), "\"num_hidden_layers\": 3", "\"num_hidden_layers\": 2");
    assert!(
        matches!(load_error(folder.path()), ClipError::WeightNames { missing, .. } if missing.is_empty())
    );
}

#[test]
fn a_tokenizer_of_another_model_is_refused() {
    let other = copy("clip-quick-gelu");
    fs::copy(folder("clip-gelu").join("tokenizer.json"), other.path().join("tokenizer.json")).unwrap();
    let message = load_error(other.path()).to_string();
    assert!(message.contains("outside the vocabulary of 614"), "{message}");

    let damaged = copy("clip-gelu");
    fs::write(damaged.path().join("tokenizer.json"), "{}").unwrap();
    assert!(matches!(load_error(damaged.path()), ClipError::Tokenizer { .. }));

    let wrong_end = copy("clip-gelu");
    change_config(wrong_end.path(), "\"eos_token_id\": ", "\"eos_token_id\": 1");
    let message = load_error(wrong_end.path()).to_string();
    assert!(message.contains("eos_token_id in config.json is 1"), "{message}");
}

#[test]
fn captions_longer_than_the_model_takes_are_cut_and_counted() {
    for name in FIXTURES {
        let (clip, captions) = (load(name), captions(name));
        let captions: Vec<&str> = captions.iter().map(String::as_str).collect();
        let limit = if name == "clip-pickle" { 16 } else { 77 };
        let expected = captions.iter().filter(|caption| clip.tokenize(caption).unwrap().truncated).count();
        assert_eq!(clip.embed_text(&captions).unwrap().truncated, expected, "{name}");
        assert!(expected >= 1, "{name}: no caption is too long");
        let longest = captions.iter().map(|caption| clip.tokenize(caption).unwrap().ids.len()).max();
        assert_eq!(longest, Some(limit), "{name}");
    }
}

#[test]
fn an_empty_caption_and_no_caption_are_embedded() {
    let clip = load("clip-gelu");
    assert_eq!(clip.tokenize("").unwrap().ids.len(), 2);
    assert_eq!(clip.tokenize(" \n\t ").unwrap().ids, clip.tokenize("").unwrap().ids);
    assert_eq!(clip.embed_text(&[""]).unwrap().embeddings.dims(), [1, 12]);
    assert_eq!(clip.embed_text(&[]).unwrap().embeddings.dims(), [0, 12]);
}

#[test]
fn frames_grids_and_texts_of_the_wrong_shape_are_refused_with_their_sizes() {
    let clip = load("clip-gelu");
    let bytes = [0; 2 * 8 * 8 * 3];
    for (len, height, width) in [(0, 8, 8), (8 * 8 * 3 - 1, 8, 8), (100, 0, 8)] {
        let message = Frames::new(&bytes[..len], height, width).unwrap_err().to_string();
        assert!(message.contains(&format!("{len} bytes")), "{message}");
    }
    let frames = Frames::new(&bytes, 8, 8).unwrap();
    let text = Tensor::zeros(13, DType::F32, &Device::Cpu).unwrap();
    let options = ScoreOptions::default();
    assert!(clip.score(frames, &text, (2, 2), &options).unwrap_err().to_string().contains("[13]"));
    let text = Tensor::zeros(12, DType::F32, &Device::Cpu).unwrap();
    assert!(clip.score(frames, &text, (0, 2), &options).unwrap_err().to_string().contains("0×2"));
    let scores = clip.score(frames, &text, (2, 2), &options).unwrap();
    assert_eq!(scores, [0.0; 8], "a text without direction matches nothing, and is no NaN");
    let small = clip.preprocess(frames, 6, 40).unwrap();
    assert!(
        clip.patch_features(&small, PatchFeatures::Plain).unwrap_err().to_string().contains("at least 7")
    );
}

/// A side of 0 was resized to, and panicked behind that.
#[test]
fn pixels_without_height_or_width_are_refused_with_their_size() {
    let clip = load("clip-gelu");
    let bytes = [0; 8 * 8 * 3];
    let frames = Frames::new(&bytes, 8, 8).unwrap();
    for (height, width, size) in [(0, 224, "0×224"), (224, 0, "224×0"), (0, 0, "0×0")] {
        let message = clip.preprocess(frames, height, width).unwrap_err().to_string();
        assert!(message.contains(size) && message.contains("at least 1×1"), "{message}");
    }
}

#[test]
fn options_have_a_readable_form_that_refuses_unknown_keys() {
    let json = serde_json::to_string(&ScoreOptions::default()).unwrap();
    assert_eq!(json, r#"{"features":"plain","resample":"map"}"#);
    assert_eq!(serde_json::from_str::<ScoreOptions>("{}").unwrap(), ScoreOptions::default());
    assert!(serde_json::from_str::<ScoreOptions>(r#"{"feature": "value"}"#).is_err());
}
