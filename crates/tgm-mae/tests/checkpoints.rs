//! Models on disk: round trips, and what is refused.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use candle_core::{DType, Device, Tensor};
use tgm_mae::{
    Checkpoint, CheckpointKind, Classifier, ClipSize, KeyLayout, MaeConfig, MaeError, VideoMae,
    tubelets_from_pixels,
};
use tgm_ops::Params;
use tgm_random::Streams;

/// The clips of the fixtures' models.
const SMALL: ClipSize = ClipSize { frames: 4, image_size: [32, 32] };

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

/// The weights of a model of `config` whose parameters are defined in `scope`.
fn weights_in(scope: &str, config: &MaeConfig) -> BTreeMap<String, Tensor> {
    let mut params = Params::new(Streams::new(1), &Device::Cpu);
    match scope {
        "" => drop(VideoMae::new(config, &mut params).unwrap()),
        scope => drop(params.scope(scope, |p| VideoMae::new(config, p)).unwrap()),
    }
    params.snapshot().unwrap()
}

/// Such weights were written without what had another name, and the result was that all went well.
#[test]
fn weights_that_are_not_whole_are_refused_before_anything_is_written() {
    let config = MaeConfig::micro();
    let (out, kind) = (tempfile::tempdir().unwrap(), CheckpointKind::Pretraining);
    let refused = |weights: BTreeMap<String, Tensor>, said: &str| {
        for layout in [KeyLayout::Native, KeyLayout::HuggingFace, KeyLayout::HuggingFaceLegacy] {
            let error = Checkpoint::save_folder(out.path(), &config, kind, layout, &weights).unwrap_err();
            let message = error.to_string();
            assert!(
                message.contains(&out.path().display().to_string()) && message.contains(said),
                "{message}"
            );
        }
        let file = out.path().join("model.safetensors");
        assert!(Checkpoint::save_file(&file, &config, kind, KeyLayout::Original, &weights).is_err());
        assert_eq!(std::fs::read_dir(out.path()).unwrap().count(), 0, "{said}");
    };
    refused(weights_in("backbone", &config), "unexpected `backbone.decoder.blocks.0.");
    let whole = weights_in("", &config);
    let changed = |change: &dyn Fn(&mut BTreeMap<String, Tensor>)| {
        let mut weights = whole.clone();
        change(&mut weights);
        weights
    };
    refused(changed(&|w| drop(w.remove("mask_token"))), "missing `mask_token`");
    refused(
        changed(&|w| drop(w.insert("mask_tokens".into(), w["mask_token"].clone()))),
        "unexpected `mask_tokens`",
    );
    let narrow = changed(&|w| drop(w.insert("mask_token".into(), w["mask_token"].narrow(0, 0, 3).unwrap())));
    refused(narrow, "`mask_token` should be [64] and is [3]");
    refused(changed(&|w| w.retain(|name, _| name.starts_with("encoder."))), "missing `decoder.blocks.0.");
}

#[test]
fn an_exported_original_file_is_read_back() {
    let checkpoint = Checkpoint::open(&fixture("mae-original/checkpoint.pth"), Some(SMALL)).unwrap();
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
    let read = Checkpoint::open(&path, Some(SMALL)).unwrap();
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
    let message =
        Checkpoint::open(&path, Some(ClipSize { frames: 8, image_size: [64, 64] })).unwrap_err().to_string();
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
        let error = Checkpoint::open(&path, Some(SMALL)).unwrap_err();
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

/// It was ignored, and a model for other clips was opened than had been asked for.
#[test]
fn a_clip_is_not_asked_of_a_folder_which_says_it_itself() {
    let message = Checkpoint::open(&fixture("mae-plain"), Some(SMALL)).unwrap_err().to_string();
    assert!(message.contains("mae-plain") && message.contains("4 frames of 32×32"), "{message}");
}

/// A checkpoint of another kind is none, and says what it is.
#[test]
fn a_model_is_made_of_the_checkpoint_of_its_kind_and_an_encoder_of_any() {
    let cpu = &Device::Cpu;
    let open = |name: &str| Checkpoint::open(&fixture(name), None).unwrap();
    let (pretrained, classifier) = (open("mae-plain"), open("mae-classifier-mean"));
    assert!(pretrained.model(cpu).is_ok() && pretrained.encoder(cpu).is_ok());
    assert!(classifier.classifier(cpu).is_ok() && classifier.encoder(cpu).is_ok());
    let message = classifier.model(cpu).unwrap_err().to_string();
    let said = "holds an encoder and a head for 7 classes, no decoder: give a pretraining checkpoint";
    assert!(message.ends_with(said), "{message}");
    let message = pretrained.classifier(cpu).unwrap_err().to_string();
    let said = "holds encoder and decoder, no classification head: give a fine-tuned checkpoint";
    assert!(message.ends_with(said), "{message}");
}

/// The names of both were translated away: "does not fit this model:", and nothing behind it.
#[test]
fn a_checkpoint_in_a_model_of_another_kind_is_an_error_that_names_what_is_over_and_what_is_missing() {
    let checkpoint = Checkpoint::open(&fixture("mae-plain"), None).unwrap();
    let mut params = Params::new(Streams::new(0), &Device::Cpu);
    Classifier::new(&checkpoint.config, 7, &mut params).unwrap();
    let message = checkpoint.fill(&params).unwrap_err().to_string();
    let missing = "missing `classifier.head.bias`, `classifier.head.weight`;";
    assert!(
        message.contains(missing) && message.contains("unexpected `decoder.decoder_layers.0."),
        "{message}"
    );
}

/// Keys that begin otherwise than the encoder's were not looked at when the encoder alone was wanted.
#[test]
fn an_encoder_is_not_made_of_weights_that_are_not_whole() {
    let folder = copy_of("mae-plain");
    let layer = "videomae.encoder.layer.2.output.dense.bias";
    edit(folder.path(), |t| drop(t.insert(layer.into(), t["mask_token"].clone())));
    let message =
        Checkpoint::open(folder.path(), None).unwrap().encoder(&Device::Cpu).unwrap_err().to_string();
    assert!(message.ends_with(&format!("unexpected `{layer}`")), "{message}");
    edit(folder.path(), |t| {
        t.remove(layer);
        t.remove("videomae.encoder.layer.1.attention.attention.q_bias");
    });
    let message =
        Checkpoint::open(folder.path(), None).unwrap().encoder(&Device::Cpu).unwrap_err().to_string();
    assert!(message.ends_with("missing `videomae.encoder.layer.1.attention.attention.q_bias`"), "{message}");
}

/// `mae-plain` as `VideoMAEModel.save_pretrained` writes it: the encoder alone, its names without `videomae.` or with it.
fn bare(prefix: bool) -> tempfile::TempDir {
    let folder = copy_of("mae-plain");
    edit(folder.path(), |tensors| {
        *tensors = std::mem::take(tensors)
            .into_iter()
            .filter_map(|(name, tensor)| {
                let bare = name.strip_prefix("videomae.")?.to_string();
                Some((if prefix { name } else { bare }, tensor))
            })
            .collect();
    });
    let path = folder.path().join("config.json");
    let text = std::fs::read_to_string(&path).unwrap().replace("VideoMAEForPreTraining", "VideoMAEModel");
    std::fs::write(&path, text).unwrap();
    folder
}

/// Two clips for a model of these sizes.
fn clips(config: &MaeConfig) -> Tensor {
    let [height, width] = config.image_size;
    let shape = [2, config.frames, config.channels, height, width];
    let pixels = tgm_ops::gradcheck::randn("pixels", &shape, DType::F32).unwrap();
    tubelets_from_pixels(config, &pixels).unwrap()
}

/// Its names were taken for leftovers, and the decoder's were missing.
#[test]
fn a_bare_hugging_face_model_is_an_encoder() {
    let features = |checkpoint: &Checkpoint| {
        let tubelets = clips(&checkpoint.config);
        values(&checkpoint.encoder(&Device::Cpu).unwrap().forward_all(&tubelets).unwrap())
    };
    let whole = features(&Checkpoint::open(&fixture("mae-plain"), None).unwrap());
    for prefix in [false, true] {
        let folder = bare(prefix);
        let checkpoint = Checkpoint::open(folder.path(), None).unwrap();
        assert_eq!(checkpoint.kind, CheckpointKind::Encoder);
        assert_eq!(features(&checkpoint), whole);
        let message = checkpoint.model(&Device::Cpu).unwrap_err().to_string();
        assert!(
            message.ends_with("holds an encoder alone, no decoder: give a pretraining checkpoint"),
            "{message}"
        );

        let start = if prefix { "videomae." } else { "" };
        let key = format!("{start}encoder.layer.1.attention.attention.key.weight");
        edit(folder.path(), |t| drop(t.remove(&key)));
        let damaged = Checkpoint::open(folder.path(), None).unwrap();
        let message = damaged.encoder(&Device::Cpu).unwrap_err().to_string();
        assert!(message.ends_with(&format!("does not fit this model: missing `{key}`")), "{message}");
    }
}

#[test]
fn an_encoder_alone_is_written_in_every_layout_and_read_back() {
    let read = Checkpoint::open(bare(false).path(), None).unwrap();
    let out = tempfile::tempdir().unwrap();
    for layout in [KeyLayout::Native, KeyLayout::HuggingFace, KeyLayout::HuggingFaceLegacy] {
        Checkpoint::save_folder(out.path(), &read.config, read.kind, layout, read.weights()).unwrap();
        let back = Checkpoint::open(out.path(), None).unwrap();
        assert_eq!((&back.config, back.kind, back.layout), (&read.config, read.kind, layout));
        assert!(back.encoder(&Device::Cpu).is_ok());
    }
    let file = out.path().join("original.safetensors");
    Checkpoint::save_file(&file, &read.config, read.kind, KeyLayout::Original, read.weights()).unwrap();
    let back = Checkpoint::open(&file, Some(SMALL)).unwrap();
    assert_eq!(back.kind, CheckpointKind::Encoder);
    back.check().unwrap();
}

#[test]
fn what_a_classifier_makes_scores_of_can_be_had() {
    for name in ["mae-classifier-mean", "mae-classifier-first"] {
        let checkpoint = Checkpoint::open(&fixture(name), None).unwrap();
        let model = checkpoint.classifier(&Device::Cpu).unwrap();
        let tubelets = clips(&checkpoint.config);
        let features = model.features(&tubelets).unwrap();
        assert_eq!(features.dims(), [2, checkpoint.config.encoder.dim]);
        let [weight, bias] =
            ["weight", "bias"].map(|part| &checkpoint.weights()[&format!("classifier.head.{part}")]);
        let scores = tgm_ops::linear(&features, weight, Some(bias)).unwrap();
        assert_eq!(values(&scores), values(&model.forward(&tubelets).unwrap()), "{name}");
    }
}
