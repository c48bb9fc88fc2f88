//! Stochastic depth in the encoder and the classifier.

use candle_core::Device;
use tgm_mae::{Classifier, DropPath, MaeConfig, TransformerConfig};
use tgm_ops::Params;
use tgm_ops::gradcheck::randn;
use tgm_random::Streams;

fn config() -> MaeConfig {
    MaeConfig {
        frames: 4,
        image_size: [16, 16],
        final_norm: false,
        encoder: TransformerConfig::new(16, 3, 2),
        ..MaeConfig::micro()
    }
}

/// Scores of three clips, plain and with paths dropped at a rate.
fn scores(rate: f64) -> (Vec<Vec<f32>>, Vec<Vec<f32>>) {
    let config = config();
    let mut params = Params::new(Streams::new(2), &Device::Cpu);
    let model = Classifier::new(&config, 5, &mut params).unwrap();
    for (name, var) in params.iter().filter(|(name, _)| name.starts_with("classifier")) {
        var.set(&randn(name, var.dims(), candle_core::DType::F32).unwrap()).unwrap();
    }
    let clips = randn("clips", &[3, config.tokens(), config.tubelet_len()], candle_core::DType::F32).unwrap();
    let mut stream = Streams::new(9).stream("drop-path", 0, 0);
    let drop = DropPath::draw(rate, 3, 3, &mut stream).unwrap().unwrap();
    let plain = model.forward(&clips).unwrap().to_vec2().unwrap();
    (plain, model.forward_dropping(&clips, &drop).unwrap().to_vec2().unwrap())
}

/// The blocks beyond those that were drawn for were left out altogether.
#[test]
fn a_draw_for_another_depth_is_refused() {
    let config = config();
    let mut params = Params::new(Streams::new(2), &Device::Cpu);
    let model = Classifier::new(&config, 5, &mut params).unwrap();
    let clips = randn("clips", &[3, config.tokens(), config.tubelet_len()], candle_core::DType::F32).unwrap();
    for depth in [2, 4] {
        let mut stream = Streams::new(9).stream("drop-path", 0, 0);
        let drop = DropPath::draw(0.5, depth, 3, &mut stream).unwrap().unwrap();
        let error = model.forward_dropping(&clips, &drop).unwrap_err().to_string();
        assert!(
            error.starts_with(&format!("drop path was drawn for {depth} blocks, this encoder has 3")),
            "{error}"
        );
    }
}

#[test]
fn a_rate_near_zero_changes_nothing_and_a_high_one_does() {
    let (plain, dropped) = scores(1e-9);
    for (a, b) in plain.concat().iter().zip(dropped.concat()) {
        assert!((a - b).abs() < 1e-4, "{a} {b}");
    }
    let (plain, dropped) = scores(0.9);
    assert!(plain.concat().iter().zip(dropped.concat()).any(|(a, b)| (a - b).abs() > 1e-3));
}
