//! Outputs, losses and gradients against `transformers` (`fixtures/scripts/mae_golden.py`).
//!
//! Bars, f32: outputs within 1e-4 absolute, losses within 1e-5 relative, gradients within 1e-3 relative.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use candle_core::{DType, Device, Tensor};
use tgm_mae::{Checkpoint, CheckpointKind, ClipSize, KeyLayout, TokenSplit, tubelets_from_pixels};

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures").join(name)
}

fn golden(name: &str) -> HashMap<String, Tensor> {
    candle_core::safetensors::load(fixture(name).join("golden.safetensors"), &Device::Cpu).unwrap()
}

fn flat(t: &Tensor) -> Vec<f64> {
    t.to_dtype(DType::F64).unwrap().flatten_all().unwrap().to_vec1().unwrap()
}

fn max_difference(a: &Tensor, b: &Tensor) -> f64 {
    assert_eq!(a.dims(), b.dims());
    flat(a).iter().zip(flat(b)).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max)
}

/// `‖a − b‖ / ‖b‖`.
fn relative_difference(a: &Tensor, b: &Tensor) -> f64 {
    assert_eq!(a.dims(), b.dims());
    let norm = |v: &[f64]| v.iter().map(|x| x * x).sum::<f64>().sqrt();
    let difference: Vec<f64> = flat(a).iter().zip(flat(b)).map(|(a, b)| a - b).collect();
    norm(&difference) / norm(&flat(b)).max(1e-12)
}

fn split(golden: &HashMap<String, Tensor>) -> TokenSplit {
    let masked = golden["bool_masked_pos"].to_vec2::<u8>().unwrap();
    let masked: Vec<Vec<bool>> = masked.iter().map(|row| row.iter().map(|&m| m != 0).collect()).collect();
    TokenSplit::from_bools(&masked, &Device::Cpu).unwrap()
}

fn check_pretraining(name: &str, file: &Path, clip: Option<ClipSize>) {
    let golden = golden(name);
    let checkpoint = Checkpoint::open(file, clip).unwrap();
    let (model, params) = checkpoint.model_with_params(&Device::Cpu).unwrap();
    let tubelets = tubelets_from_pixels(&checkpoint.config, &golden["pixel_values"]).unwrap();
    let out = model.forward(&tubelets, &split(&golden)).unwrap();

    let worst = max_difference(&out.prediction, &golden["logits"]);
    assert!(worst < 1e-4, "{name}: prediction off by {worst}");
    let (loss, want) = (out.loss.to_scalar::<f32>().unwrap(), golden["loss"].to_scalar::<f32>().unwrap());
    assert!(((loss - want) / want).abs() < 1e-5, "{name}: loss {loss}, expected {want}");

    let wanted: BTreeMap<&str, &Tensor> =
        golden.iter().filter_map(|(k, t)| Some((k.strip_prefix("grad.")?, t))).collect();
    if wanted.is_empty() {
        return;
    }
    let grads = out.loss.backward().unwrap();
    let ours = params.iter().map(|(n, v)| (n.to_string(), grads.get(v).expect(n).clone())).collect();
    let grads = checkpoint.in_file_layout(&ours).unwrap();
    assert_eq!(
        grads.keys().map(String::as_str).collect::<Vec<_>>(),
        wanted.keys().copied().collect::<Vec<_>>()
    );
    for (key, want) in wanted {
        let error = relative_difference(&grads[key], want);
        assert!(error < 1e-3, "{name}: gradient of {key} off by {error}");
    }
}

#[test]
fn a_plain_model_equals_transformers() {
    check_pretraining("mae-plain", &fixture("mae-plain"), None);
}

#[test]
fn odd_sizes_without_biases_final_norm_or_target_normalisation_equal_transformers() {
    check_pretraining("mae-odd", &fixture("mae-odd"), None);
}

#[test]
fn names_of_a_state_dict_in_memory_are_read_too() {
    let folder = fixture("mae-state-dict");
    assert_eq!(Checkpoint::open(&folder, None).unwrap().layout, KeyLayout::HuggingFace);
    check_pretraining("mae-state-dict", &folder, None);
}

#[test]
fn an_original_pth_file_is_read_without_executing_its_pickle() {
    check_pretraining(
        "mae-original",
        &fixture("mae-original/checkpoint.pth"),
        Some(ClipSize { frames: 4, image_size: [32, 32] }),
    );
}

#[test]
fn classifiers_equal_transformers_with_and_without_mean_pooling() {
    for name in ["mae-classifier-mean", "mae-classifier-first"] {
        let golden = golden(name);
        let checkpoint = Checkpoint::open(&fixture(name), None).unwrap();
        assert_eq!(checkpoint.kind, CheckpointKind::Classification { classes: 7 });
        let model = checkpoint.classifier(&Device::Cpu).unwrap();
        let tubelets = tubelets_from_pixels(&checkpoint.config, &golden["pixel_values"]).unwrap();
        let worst = max_difference(&model.forward(&tubelets).unwrap(), &golden["logits"]);
        assert!(worst < 1e-4, "{name}: logits off by {worst}");
    }
}
