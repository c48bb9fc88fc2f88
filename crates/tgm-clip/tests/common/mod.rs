//! The committed fixtures: tiny random CLIPs and what `transformers` computes with them.
#![allow(dead_code)] // Every test file uses a part of it.

use std::collections::HashMap;
use std::path::PathBuf;

use candle_core::{DType, Device, Tensor};
use tgm_clip::{ClipModel, ModelSource};

/// Quick-GELU with `eos_token_id` 2; GELU with a token beyond end-of-text; a pickle of 2021 with `vocab.json`.
pub const FIXTURES: [&str; 3] = ["clip-quick-gelu", "clip-gelu", "clip-pickle"];

pub fn folder(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../fixtures").join(name)
}

pub fn load(name: &str) -> ClipModel {
    ClipModel::load(&ModelSource::Folder(folder(name)), &Device::Cpu).unwrap()
}

pub fn captions(name: &str) -> Vec<String> {
    serde_json::from_slice(&std::fs::read(folder(name).join("captions.json")).unwrap()).unwrap()
}

pub fn golden(name: &str) -> HashMap<String, Tensor> {
    candle_core::safetensors::load(folder(name).join("golden.safetensors"), &Device::Cpu).unwrap()
}

/// Largest absolute difference; infinite when the shapes differ or a value is not finite.
pub fn worst(found: &Tensor, expected: &Tensor) -> f32 {
    if found.dims() != expected.dims() {
        return f32::INFINITY;
    }
    let values =
        |x: &Tensor| x.to_dtype(DType::F32).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
    let difference = |(a, b): (f32, f32)| if (a - b).is_finite() { (a - b).abs() } else { f32::INFINITY };
    values(found).into_iter().zip(values(expected)).map(difference).fold(0.0, f32::max)
}

pub fn assert_close(found: &Tensor, expected: &Tensor, bar: f32, what: &str) {
    let worst = worst(found, expected);
    assert!(worst <= bar, "{what}: shapes {:?} and {:?}, off by {worst}", found.dims(), expected.dims());
}

/// `[F, H, W, 3]` as bytes, height and width.
pub fn frames(tensor: &Tensor) -> (Vec<u8>, usize, usize) {
    let (_, height, width, _) = tensor.dims4().unwrap();
    (tensor.flatten_all().unwrap().to_vec1().unwrap(), height, width)
}
