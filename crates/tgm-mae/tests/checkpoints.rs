//! Models on disk: round trips, and what is refused.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use candle_core::{DType, Device, Tensor};
use tgm_mae::{Checkpoint, CheckpointKind, KeyLayout, MaeConfig, MaeError, VideoMae};
use tgm_ops::Params;
use tgm_random::Streams;

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures").join(name)
}

fn copy_of(name: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for file in ["config.json", "model.safetensors"] {
        std::fs::copy(fixture(name).join(file), folder.path().join(file)).unwrap();
    }
    folder
}

fn values(t: &Tensor) -> Vec<f32> {
    t.flatten_all().unwrap().to_vec1().unwrap()
}

fn load_file(path: &Path) -> BTreeMap<String, Tensor> {
    candle_core::safetensors::load(path, &Device::Cpu).unwrap().into_iter().collect()
}

/// Fills a model of the checkpoint's size with it.
fn fill(checkpoint: &Checkpoint) -> Result<(), MaeError> {
    let mut params = Params::new(Streams::new(0), &Device::Cpu);
    VideoMae::new(&checkpoint.config, &mut params)?;
    checkpoint.fill(&params)
}

/// Rewrites the weights of a copied folder.
fn edit(folder: &Path, change: impl FnOnce(&mut BTreeMap<String, Tensor>)) {
    let path = folder.join("model.safetensors");
    let mut tensors = load_file(&path);
    change(&mut tensors);
    candle_core::safetensors::save(&tensors.into_iter().collect(), &path).unwrap();
}

#[test]
fn a_hugging_face_folder_exports_to_the_same_tensors() {
    for name in ["mae-plain", "mae-odd"] {
        let checkpoint = Checkpoint::open(&fixture(name), None).unwrap();
        let out = tempfile::tempdir().unwrap();
        let layout = KeyLayout::HuggingFaceLegacy;
        Checkpoint::save_folder(
            out.path(),
            &checkpoint.config,
            checkpoint.kind,
            layout,
            checkpoint.weights(),
        )
        .unwrap();
        let (ours, theirs) = (
            load_file(&out.path().join("model.safetensors")),
            load_file(&fixture(name).join("model.safetensors")),
        );
        assert_eq!(ours.keys().collect::<Vec<_>>(), theirs.keys().collect::<Vec<_>>());
        for (key, tensor) in &theirs {
            assert_eq!((tensor.dims(), values(tensor)), (ours[key].dims(), values(&ours[key])), "{key}");
        }
        assert_eq!(Checkpoint::open(out.path(), None).unwrap().config, checkpoint.config);
    }
}

#[test]
fn our_own_folders_keep_every_setting() {
    let config = MaeConfig { head_norm_eps: 3e-4, qv_bias: false, final_norm: false, ..MaeConfig::micro() };
    let mut params = Params::new(Streams::new(1), &Device::Cpu);
    VideoMae::new(&config, &mut params).unwrap();
    let out = tempfile::tempdir().unwrap();
    let weights = params.snapshot().unwrap();
    Checkpoint::save_folder(out.path(), &config, CheckpointKind::Pretraining, KeyLayout::Native, &weights)
        .unwrap();
    let read = Checkpoint::open(out.path(), None).unwrap();
    assert_eq!(
        (&read.config, read.kind, read.layout),
        (&config, CheckpointKind::Pretraining, KeyLayout::Native)
    );
    assert_eq!(values(&read.weights()["mask_token"]), values(&weights["mask_token"]));
    fill(&read).unwrap();
}

#[test]
fn an_exported_original_file_is_read_back() {
    let checkpoint = Checkpoint::open(&fixture("mae-original/checkpoint.pth"), Some((4, [32, 32]))).unwrap();
    let out = tempfile::tempdir().unwrap();
    let path = out.path().join("original.safetensors");
    Checkpoint::save_file(
        &path,
        &checkpoint.config,
        checkpoint.kind,
        KeyLayout::Original,
        checkpoint.weights(),
    )
    .unwrap();
    let read = Checkpoint::open(&path, Some((4, [32, 32]))).unwrap();
    assert_eq!(read.config, checkpoint.config);
    fill(&read).unwrap();
}

/// A micro model has 4 heads of 32; read back, it had 2 of 64.
#[test]
fn an_exported_file_whose_heads_cannot_be_known_is_refused() {
    let config = MaeConfig::micro();
    let mut params = Params::new(Streams::new(1), &Device::Cpu);
    VideoMae::new(&config, &mut params).unwrap();
    let out = tempfile::tempdir().unwrap();
    let path = out.path().join("original.safetensors");
    let (kind, weights) = (CheckpointKind::Pretraining, params.snapshot().unwrap());
    Checkpoint::save_file(&path, &config, kind, KeyLayout::Original, &weights).unwrap();
    let message = Checkpoint::open(&path, Some((8, [64, 64]))).unwrap_err().to_string();
    assert!(
        message.contains("original.safetensors") && message.contains("no published VideoMAE is 128 wide"),
        "{message}"
    );
}

/// mteb PR 5094: `transformers` 5 loaded VideoMAE's biases as zeros, without a word.
#[test]
fn a_missing_bias_is_an_error_in_the_files_own_words() {
    let folder = copy_of("mae-plain");
    let key = "videomae.encoder.layer.1.attention.attention.q_bias";
    edit(folder.path(), |t| drop(t.remove(key)));
    let message = fill(&Checkpoint::open(folder.path(), None).unwrap()).unwrap_err().to_string();
    assert!(message.ends_with(&format!("does not fit this model: missing `{key}`")), "{message}");
}

#[test]
fn one_missing_part_of_a_packed_weight_names_that_part_alone() {
    let folder = copy_of("mae-plain");
    let key = "videomae.encoder.layer.0.attention.attention.key.weight";
    edit(folder.path(), |t| drop(t.remove(key)));
    let message = fill(&Checkpoint::open(folder.path(), None).unwrap()).unwrap_err().to_string();
    assert!(message.ends_with(&format!("does not fit this model: missing `{key}`")), "{message}");
}

#[test]
fn a_left_over_key_is_an_error() {
    let folder = copy_of("mae-plain");
    edit(folder.path(), |t| drop(t.insert("surprise".into(), t["mask_token"].clone())));
    let message = fill(&Checkpoint::open(folder.path(), None).unwrap()).unwrap_err().to_string();
    assert!(message.ends_with("unexpected `surprise`"), "{message}");
}

#[test]
fn a_checkpoint_of_another_size_names_a_parameter_and_both_shapes() {
    let checkpoint = Checkpoint::open(&fixture("mae-plain"), None).unwrap();
    let mut params = Params::new(Streams::new(0), &Device::Cpu);
    let mut config = checkpoint.config.clone();
    config.decoder.mlp = 32;
    VideoMae::new(&config, &mut params).unwrap();
    let message = checkpoint.fill(&params).unwrap_err().to_string();
    assert!(message.contains("should be [32] and is [28]"), "{message}");
}

#[test]
fn what_is_no_checkpoint_is_said_to_be_none() {
    let empty = tempfile::tempdir().unwrap();
    for path in [empty.path().to_path_buf(), empty.path().join("absent")] {
        let message = Checkpoint::open(&path, None).unwrap_err().to_string();
        assert!(
            message.contains("no checkpoint here") && message.contains(&path.display().to_string()),
            "{message}"
        );
    }
}

#[test]
fn a_truncated_weight_file_is_an_error_that_names_it() {
    let folder = copy_of("mae-plain");
    let path = folder.path().join("model.safetensors");
    let bytes = std::fs::read(&path).unwrap();
    std::fs::write(&path, &bytes[..bytes.len() / 2]).unwrap();
    let message = Checkpoint::open(folder.path(), None).unwrap_err().to_string();
    assert!(message.contains("model.safetensors"), "{message}");
}

/// The two shapes of a head that were indexed as if they had a first dimension to count classes by: none, and one.
fn heads_that_are_no_matrix() -> [(Tensor, &'static str); 2] {
    let of = |shape: &[usize]| Tensor::zeros(shape, DType::F32, &Device::Cpu).unwrap();
    [(of(&[]), "[]"), (of(&[7]), "[7]")]
}

/// A scalar made the program panic.
#[test]
fn a_head_that_is_no_matrix_is_an_error_that_names_its_key_and_shape() {
    for (head, shape) in heads_that_are_no_matrix() {
        let folder = copy_of("mae-classifier-mean");
        edit(folder.path(), |t| drop(t.insert("classifier.weight".into(), head)));
        let error = Checkpoint::open(folder.path(), None).unwrap_err();
        assert!(matches!(error, MaeError::File { .. }), "{error:?}");
        let said = format!("`classifier.weight` is {shape}, not a matrix");
        assert!(error.to_string().contains(&said), "{error}");
    }
}

#[test]
fn in_an_original_file_too_a_head_that_is_no_matrix_is_an_error() {
    let out = tempfile::tempdir().unwrap();
    let path = out.path().join("original.safetensors");
    let read = Checkpoint::open(&fixture("mae-classifier-mean"), None).unwrap();
    Checkpoint::save_file(&path, &read.config, read.kind, KeyLayout::Original, read.weights()).unwrap();
    for (head, shape) in heads_that_are_no_matrix() {
        let mut tensors = load_file(&path);
        tensors.insert("head.weight".into(), head);
        candle_core::safetensors::save(&tensors.into_iter().collect(), &path).unwrap();
        let error = Checkpoint::open(&path, Some((4, [32, 32]))).unwrap_err();
        assert!(matches!(error, MaeError::File { .. }), "{error:?}");
        let said = format!("`head.weight` is {shape}, not a matrix");
        assert!(error.to_string().contains(&said), "{error}");
    }
}

#[test]
fn another_programs_config_is_refused() {
    let folder = copy_of("mae-plain");
    std::fs::write(folder.path().join("config.json"), r#"{"model_type": "vit"}"#).unwrap();
    let message = Checkpoint::open(folder.path(), None).unwrap_err().to_string();
    assert!(message.contains("config.json") && message.contains("`vit`"), "{message}");
}

#[test]
fn an_unsupported_activation_is_refused_not_ignored() {
    let folder = copy_of("mae-plain");
    let path = folder.path().join("config.json");
    let text = std::fs::read_to_string(&path).unwrap().replace("\"gelu\"", "\"relu\"");
    std::fs::write(&path, text).unwrap();
    let message = Checkpoint::open(folder.path(), None).unwrap_err().to_string();
    assert!(message.contains("hidden_act `relu`"), "{message}");
}
