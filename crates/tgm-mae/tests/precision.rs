//! The same model in other arithmetic, and with other things kept for the backward pass: the same gradients.

use candle_core::{DType, Device};
use tgm_mae::{MaeConfig, TokenSplit, VideoMae};
use tgm_ops::gradcheck::randn;
use tgm_ops::{Compute, Gradients, Keep, Params, Precision};
use tgm_random::Streams;

/// Gradients of the reconstruction loss of one batch at ratio 0.75.
fn gradients(compute: Compute) -> Gradients {
    let config = MaeConfig::micro();
    let mut params = Params::new(Streams::new(3), &Device::Cpu);
    let model = VideoMae::new(&config, &mut params).unwrap().with_compute(compute);
    let masked: Vec<bool> = (0..config.tokens()).map(|i| i % 4 != 1).collect();
    let split = TokenSplit::from_bools(&[masked.clone(), masked], &Device::Cpu).unwrap();
    let input = randn("tubelets", &[2, config.tokens(), config.tubelet_len()], DType::F32).unwrap();
    let mut grads = Gradients::zeros(&params);
    grads.backward(params.iter(), &model.forward(&input, &split).unwrap().loss).unwrap();
    grads
}

#[test]
fn recomputation_changes_no_bit_of_any_gradient() {
    for precision in Precision::ALL {
        let kept = gradients(Compute { precision, keep: Keep::Activations });
        let again = gradients(Compute { precision, keep: Keep::Inputs });
        for ((name, kept), (_, again)) in kept.iter().zip(again.iter()) {
            assert!(kept == again, "{name} in {precision}");
        }
    }
}

#[test]
fn gradients_in_bfloat16_are_within_two_hundredths_of_those_in_f32() {
    let in_precision = |precision| gradients(Compute { precision, keep: Keep::Activations });
    let (narrow, wide) = (in_precision(Precision::Bf16), in_precision(Precision::F32));
    for ((name, narrow), (_, wide)) in narrow.iter().zip(wide.iter()) {
        let norm = |values: &mut dyn Iterator<Item = f32>| {
            values.map(|v| f64::from(v) * f64::from(v)).sum::<f64>().sqrt()
        };
        let off = norm(&mut narrow.iter().zip(wide).map(|(a, b)| a - b)) / norm(&mut wide.iter().copied());
        assert!(off <= 2e-2, "{name} is off by {off}");
    }
}
