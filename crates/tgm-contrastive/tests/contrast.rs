//! The loss and its gradients against PyTorch (`fixtures/scripts/contrastive_golden.py`), and its behaviour at the edges.

use std::collections::HashMap;

use candle_core::{DType, Device, Tensor, Var};
use tgm_contrastive::{ContrastiveConfig, ContrastiveError, ContrastiveHead};
use tgm_ops::Params;
use tgm_random::Streams;

fn head(dim: usize, text_dim: usize, config: ContrastiveConfig) -> (ContrastiveHead, Params) {
    let mut params = Params::new(Streams::new(0), &Device::Cpu);
    let head = ContrastiveHead::new(dim, text_dim, &config, &mut params).unwrap();
    (head, params)
}

fn golden() -> HashMap<String, Tensor> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixtures/contrastive-golden/golden.safetensors");
    let tensors = candle_core::safetensors::load(path, &Device::Cpu).unwrap();
    tensors.into_iter().map(|(k, t)| (k, t.to_dtype(DType::F32).unwrap())).collect()
}

fn zeros(shape: &[usize]) -> Tensor {
    Tensor::zeros(shape, DType::F32, &Device::Cpu).unwrap()
}

fn assert_close(a: &Tensor, b: &Tensor, what: &str) {
    let flat = |t: &Tensor| t.flatten_all().unwrap().to_vec1::<f32>().unwrap();
    for (a, b) in flat(a).into_iter().zip(flat(b)) {
        assert!((a - b).abs() <= 1e-4 * b.abs().max(0.1), "{what}: {a}, expected {b}");
    }
}

#[test]
fn loss_and_gradients_equal_pytorch_with_and_without_identical_captions() {
    let golden = golden();
    for (case, captions) in [("plain", ["a", "b", "c", "d", "e"]), ("masked", ["a", "b", "c", "b", "e"])] {
        let (head, params) = head(7, 3, ContrastiveConfig::default());
        let weights =
            [("contrastive.projection.weight", "projection"), ("contrastive.log_scale", "log_scale")];
        params
            .load("golden", &weights.map(|(ours, theirs)| (ours.into(), golden[theirs].clone())).into())
            .unwrap();
        let pooled = Var::from_tensor(&golden["pooled"]).unwrap();
        let out = head.loss(&pooled, &golden["texts"], &captions).unwrap();
        assert_close(&out.loss, &golden[&format!("{case}.loss")], case);
        let grads = out.loss.backward().unwrap();
        let grad = |name: &str| &golden[&format!("{case}.grad.{name}")];
        assert_close(grads.get(&pooled).unwrap(), grad("pooled"), case);
        for (ours, theirs) in weights {
            assert_close(grads.get(params.get(ours).unwrap()).unwrap(), grad(theirs), theirs);
        }
    }
}

#[test]
fn identical_captions_are_ordinary_negatives_when_asked() {
    let texts = golden()["texts"].clone();
    let pooled = golden()["pooled"].clone();
    let loss = |mask_identical_captions, captions: [&str; 5]| {
        let (head, _) = head(7, 3, ContrastiveConfig { mask_identical_captions, ..Default::default() });
        head.loss(&pooled, &texts, &captions).unwrap().loss.to_scalar::<f32>().unwrap()
    };
    assert_eq!(loss(false, ["a", "b", "c", "b", "e"]), loss(false, ["a", "b", "c", "d", "e"]));
    assert!(loss(true, ["a", "b", "c", "b", "e"]) < loss(true, ["a", "b", "c", "d", "e"]));
}

/// The loss was divided by ln B, though clips with the same caption are no candidates: guessing looked better than it is.
#[test]
fn guessing_is_1_whatever_captions_are_repeated() {
    for mask_identical_captions in [true, false] {
        let (head, _) = head(4, 4, ContrastiveConfig { mask_identical_captions, ..Default::default() });
        for captions in [["a", "b", "c", "d", "e"], ["a", "b", "a", "c", "a"], ["a", "a", "a", "a", "b"]] {
            let out = head.loss(&zeros(&[5, 4]), &zeros(&[5, 4]), &captions).unwrap();
            assert!((out.relative - 1.0).abs() < 1e-6, "{captions:?}: {}", out.relative);
        }
    }
}

#[test]
fn where_no_caption_is_left_out_the_loss_is_divided_by_ln_b() {
    let golden = golden();
    for (mask_identical_captions, captions) in
        [(true, ["a", "b", "c", "d", "e"]), (false, ["a", "b", "c", "b", "e"])]
    {
        let (head, _) = head(7, 3, ContrastiveConfig { mask_identical_captions, ..Default::default() });
        let out = head.loss(&golden["pooled"], &golden["texts"], &captions).unwrap();
        assert_eq!(out.relative, f64::from(out.loss.to_scalar::<f32>().unwrap()) / 5f64.ln());
    }
}

/// Its loss of 0 was reported as a perfect result, and its forced matches as hits.
#[test]
fn a_batch_of_one_caption_has_no_loss_and_counts_as_guessed() {
    let (head, _) = head(4, 4, ContrastiveConfig::default());
    let out = head.loss(&zeros(&[3, 4]), &zeros(&[3, 4]), &["same"; 3]).unwrap();
    assert_eq!((out.loss.to_scalar::<f32>().unwrap(), out.relative, out.top1), (0.0, 1.0, 0.0));
}

#[test]
fn perfect_matches_have_no_loss_and_full_accuracy() {
    let (head, params) = head(3, 3, ContrastiveConfig { temperature: 0.01, ..Default::default() });
    let eye = Tensor::eye(3, DType::F32, &Device::Cpu).unwrap();
    params.get("contrastive.projection.weight").unwrap().set(&eye).unwrap();
    let out = head.loss(&eye, &eye, &["a", "b", "c"]).unwrap();
    assert!(out.relative < 1e-6 && out.top1 == 1.0 && (out.scale - 100.0).abs() < 1e-3);
}

#[test]
fn the_temperature_cannot_pass_its_bound_and_can_come_back() {
    let (head, params) = head(3, 3, ContrastiveConfig::default());
    let var = params.get("contrastive.log_scale").unwrap();
    for (set, want) in [(9.0f32, 100f32.ln()), (2.0, 2.0)] {
        var.set(&Tensor::new(set, &Device::Cpu).unwrap()).unwrap();
        head.constrain().unwrap();
        assert!((var.to_scalar::<f32>().unwrap() - want).abs() < 1e-6);
    }
}

/// The name was looked up without its scope, and not found: the temperature had no bound.
#[test]
fn the_temperature_of_a_head_in_a_scope_has_its_bound_too() {
    let mut params = Params::new(Streams::new(0), &Device::Cpu);
    let config = ContrastiveConfig::default();
    let head = params.scope("student", |p| ContrastiveHead::new(3, 3, &config, p)).unwrap();
    let var = params.get("student.contrastive.log_scale").unwrap();
    var.set(&Tensor::new(9f32, &Device::Cpu).unwrap()).unwrap();
    head.constrain().unwrap();
    assert_eq!(var.to_scalar::<f32>().unwrap(), 100f32.ln());
}

#[test]
fn a_fixed_temperature_is_no_parameter() {
    let (head, params) = head(3, 3, ContrastiveConfig { learn_temperature: false, ..Default::default() });
    assert_eq!(params.iter().map(|(n, _)| n).collect::<Vec<_>>(), ["contrastive.projection.weight"]);
    head.constrain().unwrap();
}

#[test]
fn wrong_shapes_and_lone_clips_are_refused() {
    let (head, _) = head(4, 3, ContrastiveConfig::default());
    let error = head.loss(&zeros(&[2, 4]), &zeros(&[2, 5]), &["a", "b"]).unwrap_err();
    assert_eq!(error.to_string(), "[2, 4] videos against [2, 5] text embeddings and 2 captions");
    let error = head.loss(&zeros(&[1, 4]), &zeros(&[1, 3]), &["a"]).unwrap_err();
    assert!(matches!(error, ContrastiveError::BatchTooSmall(1)));
    assert!(head.pool(&zeros(&[2, 4])).is_err());
    let mut params = Params::new(Streams::new(0), &Device::Cpu);
    let config = ContrastiveConfig { temperature: 0.001, ..Default::default() };
    assert!(ContrastiveHead::new(4, 3, &config, &mut params).unwrap_err().to_string().contains("0.001"));
}
