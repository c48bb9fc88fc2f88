//! The captions of `transformers` on a tiny random BLIP, and what happens with files that are not as they should be.
#![cfg(feature = "captioner")]

mod common;

use std::collections::HashMap;
use std::fs;
use std::path::Path;

use candle_core::{DType, Device, Tensor};
use common::{captions, folder, golden};
use tempfile::TempDir;
use tgm_clip::captioner::{Caption, CaptionOptions, Captioner};
use tgm_clip::{ClipError, Frames, ModelSource};

const NAME: &str = "blip-tiny";
const SIDE: usize = 32;

fn open(folder: &Path) -> Result<Captioner, ClipError> {
    Captioner::load(&ModelSource::Folder(folder.to_owned()), &Device::Cpu)
}

fn load() -> Captioner {
    open(&folder(NAME)).unwrap()
}

fn bytes() -> Vec<u8> {
    golden(NAME)["frames"].flatten_all().unwrap().to_vec1().unwrap()
}

fn caption(captioner: &Captioner, bytes: &[u8], max_new_tokens: usize) -> Vec<Caption> {
    let frames = Frames::new(bytes, SIDE, SIDE).unwrap();
    captioner.caption(&[frames], &CaptionOptions { max_new_tokens }).unwrap()
}

/// A copy of the fixture that a test may damage.
fn copy() -> TempDir {
    let target = TempDir::new().unwrap();
    for file in ["config.json", "model.safetensors", "tokenizer.json"] {
        fs::copy(folder(NAME).join(file), target.path().join(file)).unwrap();
    }
    target
}

fn change_weights(folder: &Path, change: impl FnOnce(&mut HashMap<String, Tensor>)) {
    let path = folder.join("model.safetensors");
    let mut weights = candle_core::safetensors::load(&path, &Device::Cpu).unwrap();
    change(&mut weights);
    candle_core::safetensors::save(&weights, path).unwrap();
}

#[test]
fn captions_are_those_of_transformers() {
    let found = caption(&load(), &bytes(), 12);
    let ids = golden(NAME)["ids"].to_vec2::<i64>().unwrap();
    const END: i64 = 3;
    for ((caption, text), ids) in found.iter().zip(captions(NAME)).zip(ids) {
        assert_eq!(caption.text, text);
        let after_start = &ids[1..];
        let end = after_start.iter().position(|&id| id == END);
        let expected = &after_start[..end.unwrap_or(after_start.len())];
        assert_eq!(caption.tokens.iter().map(|&id| id.into()).collect::<Vec<i64>>(), expected);
        assert_eq!(caption.complete, end.is_some());
    }
    assert_eq!(found.len(), 6);
}

#[test]
fn a_frame_has_the_same_caption_alone_in_any_batch_and_every_time() {
    let (captioner, bytes) = (load(), bytes());
    let expected = caption(&captioner, &bytes, 12);
    let frames: Vec<Frames<'_>> =
        bytes.chunks(SIDE * SIDE * 3).map(|frame| Frames::new(frame, SIDE, SIDE).unwrap()).collect();
    // 18 frames: more than go through the model together.
    let many = [&frames[..], &frames[..], &frames[..]].concat();
    let together = captioner.caption(&many, &CaptionOptions { max_new_tokens: 12 }).unwrap();
    assert_eq!(together, [&expected[..], &expected[..], &expected[..]].concat());
    for (frame, expected) in frames.iter().zip(&expected) {
        let alone = captioner.caption(&[*frame], &CaptionOptions { max_new_tokens: 12 }).unwrap();
        assert_eq!(&alone[..], std::slice::from_ref(expected));
    }
}

#[test]
fn videos_of_different_sizes_are_captioned_together() {
    let captioner = load();
    let (small, wide) = (vec![9; 2 * 20 * 20 * 3], vec![200; 50 * 70 * 3]);
    let frames = [Frames::new(&small, 20, 20).unwrap(), Frames::new(&wide, 50, 70).unwrap()];
    let captions = captioner.caption(&frames, &CaptionOptions::default()).unwrap_err();
    assert!(captions.to_string().contains("max_new_tokens: got 20, expected 1 to 16"), "{captions}");
    let captions = captioner.caption(&frames, &CaptionOptions { max_new_tokens: 16 }).unwrap();
    assert_eq!(captions.len(), 3);
    assert_eq!(captions[0], captions[1]);
    assert!(captioner.caption(&[], &CaptionOptions { max_new_tokens: 1 }).unwrap().is_empty());
}

#[test]
fn captions_are_cut_at_the_limit_and_say_so() {
    let (captioner, bytes) = (load(), bytes());
    let long = caption(&captioner, &bytes, 12);
    for limit in 1..12 {
        for (cut, long) in caption(&captioner, &bytes, limit).iter().zip(&long) {
            let length = long.tokens.len().min(limit);
            assert_eq!(cut.tokens, long.tokens[..length]);
            assert_eq!(cut.complete, long.complete && long.tokens.len() < limit);
        }
    }
    let frames = Frames::new(&bytes, SIDE, SIDE).unwrap();
    for max_new_tokens in [0, 17] {
        let error = captioner.caption(&[frames], &CaptionOptions { max_new_tokens }).unwrap_err();
        assert!(error.to_string().contains("expected 1 to 16"), "{error}");
    }
}

#[test]
fn tied_weights_may_be_stored_under_either_name_or_both() {
    const EMBEDDINGS: &str = "text_decoder.bert.embeddings.word_embeddings.weight";
    const HEAD: &str = "text_decoder.cls.predictions";
    let expected = caption(&load(), &bytes(), 12);

    let both = copy();
    change_weights(both.path(), |weights| {
        weights.insert(format!("{HEAD}.decoder.weight"), weights[EMBEDDINGS].clone());
        weights.insert(format!("{HEAD}.decoder.bias"), weights[&format!("{HEAD}.bias")].clone());
        // As in the published checkpoint, which is from 2022.
        let positions = Tensor::arange(0i64, 16, &Device::Cpu).unwrap().unsqueeze(0).unwrap();
        weights.insert("text_decoder.bert.embeddings.position_ids".into(), positions);
    });
    let other = copy();
    change_weights(other.path(), |weights| {
        let embeddings = weights.remove(EMBEDDINGS).unwrap();
        weights.insert(format!("{HEAD}.decoder.weight"), embeddings);
        let bias = weights.remove(&format!("{HEAD}.bias")).unwrap();
        weights.insert(format!("{HEAD}.decoder.bias"), bias);
    });
    for folder in [both, other] {
        assert_eq!(caption(&open(folder.path()).unwrap(), &bytes(), 12), expected);
    }
}

#[test]
fn every_missing_misshapen_and_unexpected_weight_is_listed() {
    let folder = copy();
    change_weights(folder.path(), |weights| {
        weights.remove("vision_model.post_layernorm.bias").unwrap();
        weights.remove("text_decoder.bert.encoder.layer.2.crossattention.self.key.weight").unwrap();
        let square = Tensor::zeros((16, 16), DType::F32, &Device::Cpu).unwrap();
        weights.insert("vision_model.encoder.layers.0.mlp.fc1.weight".into(), square.clone());
        weights.insert("text_encoder.pooler.dense.weight".into(), square);
    });
    let message = open(folder.path()).unwrap_err().to_string();
    for part in [
        "2 missing: ",
        "vision_model.post_layernorm.bias",
        "text_decoder.bert.encoder.layer.2.crossattention.self.key.weight",
        "1 of another shape: vision_model.encoder.layers.0.mlp.fc1.weight: found [16, 16], expected [48, 32]",
        "1 unexpected: text_encoder.pooler.dense.weight",
    ] {
        assert!(message.contains(part), "{message}");
    }
}

#[test]
fn files_that_are_absent_cut_off_or_of_another_model_are_refused() {
    for file in ["config.json", "model.safetensors", "tokenizer.json"] {
        let folder = copy();
        fs::remove_file(folder.path().join(file)).unwrap();
        let message = open(folder.path()).unwrap_err().to_string();
        assert!(message.contains(file) && message.contains("not a model folder"), "{message}");
    }
    let cut = copy();
    let path = cut.path().join("model.safetensors");
    let bytes = fs::read(&path).unwrap();
    fs::write(&path, &bytes[..bytes.len() / 2]).unwrap();
    assert!(matches!(open(cut.path()).unwrap_err(), ClipError::Weights { .. }));

    let clip = open(&folder("clip-gelu")).unwrap_err().to_string();
    assert!(clip.contains("model_type clip"), "{clip}");

    let tokenizer = copy();
    fs::copy(folder("clip-gelu").join("tokenizer.json"), tokenizer.path().join("tokenizer.json")).unwrap();
    assert!(matches!(open(tokenizer.path()).unwrap_err(), ClipError::Tokenizer { .. }));

    let end = copy();
    let config = fs::read_to_string(end.path().join("config.json")).unwrap();
    fs::write(end.path().join("config.json"), config.replace("\"sep_token_id\": 3", "\"sep_token_id\": 4"))
        .unwrap();
    let message = open(end.path()).unwrap_err().to_string();
    assert!(message.contains("sep_token_id in config.json is 4"), "{message}");
}

#[test]
fn a_captioner_can_be_shared_between_threads() {
    fn check<T: Send + Sync>() {}
    check::<Captioner>();
}

#[test]
fn the_default_model_is_pinned_to_a_commit() {
    let ModelSource::Hub { repo, revision } = ModelSource::blip_base() else { panic!("not on the hub") };
    assert_eq!(repo, "Salesforce/blip-image-captioning-base");
    assert!(revision.len() == 40 && revision.bytes().all(|byte| byte.is_ascii_hexdigit()), "{revision}");
}
