//! The captioner on frames that the tests make.

use std::collections::HashMap;
use std::path::PathBuf;

use super::*;

fn load() -> (Captioner, HashMap<String, Tensor>) {
    let folder = PathBuf::from("../../fixtures/blip-tiny");
    let golden = candle_core::safetensors::load(folder.join("golden.safetensors"), &Device::Cpu).unwrap();
    (Captioner::load(&ModelSource::Folder(folder), &Device::Cpu).unwrap(), golden)
}

fn worst(found: &Tensor, expected: &Tensor) -> f32 {
    assert_eq!(found.dims(), expected.dims());
    (found - expected).unwrap().abs().unwrap().flatten_all().unwrap().max(0).unwrap().to_scalar().unwrap()
}

#[test]
fn image_tokens_are_those_of_transformers() {
    let (captioner, golden) = load();
    let frames = golden["frames"].flatten_all().unwrap().to_vec1::<u8>().unwrap();
    let pixels = Frames::new(&frames, 32, 32).unwrap().to_pixels(32, 32, &Device::Cpu).unwrap();
    let worst = worst(&captioner.vision.forward(&pixels).unwrap(), &golden["image_tokens"]);
    assert!(worst < 1e-4, "{worst}");
}

#[test]
fn logits_of_every_step_are_those_of_transformers() {
    let (captioner, golden) = load();
    for (i, ids) in golden["ids"].to_vec2::<i64>().unwrap().into_iter().enumerate() {
        let image_tokens = golden["image_tokens"].i(i..=i).unwrap();
        let mut writer = Writer::new(&captioner.decoder);
        for (step, id) in ids.into_iter().enumerate() {
            let found = writer.step(id as u32, &image_tokens).unwrap();
            let worst = worst(&found, &golden["logits"].i((i, step)).unwrap());
            // Logits reach 10, and the random weights amplify what f32 rounds.
            assert!(worst < 1e-3, "image {i}, step {step}: {worst}");
        }
    }
}

#[test]
fn frames_are_resized_as_by_the_image_processor() {
    let (_, golden) = load();
    let bytes = |name: &str| golden[name].flatten_all().unwrap().to_vec1::<u8>().unwrap();
    let (source, resized) = (bytes("resize.source"), bytes("resize.resized"));
    let pixels = |bytes: &[u8], height, width| {
        Frames::new(bytes, height, width).unwrap().to_pixels(32, 32, &Device::Cpu).unwrap()
    };
    // Both round to bytes; one level in one of them is 1 / 255 / 0.26.
    let worst = worst(&pixels(&source, 45, 60), &pixels(&resized, 32, 32));
    assert!(worst < 0.016, "{worst}");
}

#[test]
fn key_frames_are_the_centres_of_thirds() {
    assert_eq!(key_frames(1), [0]);
    assert_eq!(key_frames(3), [0, 1, 2]);
    for frames in 3..200 {
        let expected = [1, 3, 5].map(|k| frames * k / 6);
        assert_eq!(key_frames(frames), expected, "{frames}");
        assert!(expected[0] < expected[1] && expected[1] < expected[2] && expected[2] < frames);
    }
    assert!(key_frames(usize::MAX)[2] > usize::MAX / 6 * 5 - 6);
}
