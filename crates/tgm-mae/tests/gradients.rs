//! Every parameter of every model learns: the end-to-end gradient against finite differences.

use candle_core::{Device, Tensor};
use tgm_mae::{Classifier, MaeConfig, TokenSplit, TransformerConfig, VideoMae};
use tgm_ops::Params;
use tgm_ops::gradcheck::randn;
use tgm_random::Streams;

fn config() -> MaeConfig {
    MaeConfig {
        frames: 4,
        image_size: [12, 8],
        patch: [4, 4],
        encoder: TransformerConfig::new(12, 2, 3),
        decoder: TransformerConfig::new(8, 1, 2),
        ..MaeConfig::micro()
    }
}

/// Checks the directional derivative along the gradient of each parameter in turn, and that it is neither zero nor
/// infinite. Parameters are f32, so the step is large and the bar is 2 %.
fn check_every_parameter(params: &Params, loss: impl Fn() -> Tensor) {
    let grads = loss().backward().unwrap();
    let value = || f64::from(loss().to_scalar::<f32>().unwrap());
    for (name, var) in params.iter() {
        let grad = grads.get(var).unwrap_or_else(|| panic!("{name} has no gradient")).clone();
        let norm = f64::from(grad.sqr().unwrap().sum_all().unwrap().to_scalar::<f32>().unwrap()).sqrt();
        assert!(norm.is_finite() && norm > 0.0, "{name}: gradient of norm {norm}");
        let start = var.as_detached_tensor().copy().unwrap();
        let step = (0.002 / norm).clamp(0.005, 0.2);
        let at = |by: f64| {
            var.set(&(&start + (&grad * (by / norm)).unwrap()).unwrap()).unwrap();
            value()
        };
        let numeric = (at(step) - at(-step)) / (2.0 * step);
        var.set(&start).unwrap();
        assert!((numeric - norm).abs() < 0.02 * norm + 2e-4, "{name}: slope {numeric}, gradient {norm}");
    }
}

fn tubelets(config: &MaeConfig) -> Tensor {
    randn("tubelets", &[2, config.tokens(), config.tubelet_len()], candle_core::DType::F32).unwrap()
}

#[test]
fn every_parameter_of_the_masked_autoencoder_gets_its_gradient() {
    for (qv_bias, final_norm) in [(true, true), (false, false)] {
        let config = MaeConfig { qv_bias, final_norm, ..config() };
        let mut params = Params::new(Streams::new(2), &Device::Cpu);
        let model = VideoMae::new(&config, &mut params).unwrap();
        let masked: Vec<Vec<bool>> =
            [1, 2].map(|s| (0..config.tokens()).map(|i| (i + s) % 3 != 0).collect()).to_vec();
        let split = TokenSplit::from_bools(&masked, &Device::Cpu).unwrap();
        let input = tubelets(&config);
        check_every_parameter(&params, || model.forward(&input, &split).unwrap().loss);
    }
}

#[test]
fn every_parameter_of_the_classifier_gets_its_gradient() {
    let config = MaeConfig { final_norm: false, ..config() };
    let mut params = Params::new(Streams::new(2), &Device::Cpu);
    let model = Classifier::new(&config, 3, &mut params).unwrap();
    // The head begins at nearly zero, behind which every gradient is nearly zero, too: scale it up.
    let head = params.get("classifier.head.weight").unwrap();
    head.set(&(head.as_detached_tensor() * 2e4).unwrap()).unwrap();
    let input = tubelets(&config);
    check_every_parameter(&params, || model.forward(&input).unwrap().sqr().unwrap().sum_all().unwrap());
}

/// A split of a smaller grid has indices that are there, and others are meant by them.
#[test]
fn a_split_of_clips_of_another_size_is_refused() {
    let config = config();
    let mut params = Params::new(Streams::new(2), &Device::Cpu);
    let model = VideoMae::new(&config, &mut params).unwrap();
    let split = |tokens: usize| {
        let masked: Vec<bool> = (0..tokens).map(|i| i % 2 == 0).collect();
        TokenSplit::from_bools(&[masked.clone(), masked], &Device::Cpu).unwrap()
    };
    let (input, other) = (tubelets(&config), split(8));
    let fitting = split(config.tokens());
    for error in [
        model.forward(&input, &other).unwrap_err(),
        model.loss(&input, &other).unwrap_err(),
        model.copy_loss(&input, &other, other.targets()).unwrap_err(),
    ] {
        assert!(
            error.to_string().starts_with("a split of clips of 8 tubelets does not fit clips [2, 12,"),
            "{error}"
        );
    }
    // Clips and split that fit each other and not the model.
    let short = input.narrow(1, 0, 8).unwrap();
    let error = model.forward(&short, &other).unwrap_err().to_string();
    assert!(error.contains("this model takes [B, 12, P]"), "{error}");
    assert!(model.encoder().forward_all(&input.narrow(1, 0, 1).unwrap()).is_err(), "no broadcasting");
    assert!(model.forward(&input, &fitting).is_ok());
}

#[test]
fn hidden_tubelets_do_not_reach_the_encoder() {
    let config = config();
    let mut params = Params::new(Streams::new(2), &Device::Cpu);
    let model = VideoMae::new(&config, &mut params).unwrap();
    let masked: Vec<bool> = (0..config.tokens()).map(|i| i % 2 == 0).collect();
    let split = TokenSplit::from_bools(&[masked.clone(), masked.clone()], &Device::Cpu).unwrap();
    let input = tubelets(&config);
    let keep: Vec<f32> = masked.iter().map(|&m| if m { 0.0 } else { 1.0 }).collect();
    let keep = Tensor::from_vec(keep, (1, config.tokens(), 1), &Device::Cpu).unwrap();
    let erased = input.broadcast_mul(&keep).unwrap();
    let predict = |x: &Tensor| {
        model.forward(x, &split).unwrap().prediction.flatten_all().unwrap().to_vec1::<f32>().unwrap()
    };
    assert_eq!(predict(&input), predict(&erased));
}
