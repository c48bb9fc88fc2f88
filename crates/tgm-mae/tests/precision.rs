//! The same model in other arithmetic, and with other things kept for the backward pass: the same gradients.

use candle_core::{DType, Device, Tensor};
use tgm_mae::{MaeConfig, TokenSplit, VideoMae};
use tgm_ops::gradcheck::randn;
use tgm_ops::{Compute, Gradients, Keep, Params, Precision};
use tgm_random::Streams;

/// Gradients of the reconstruction loss of one batch at ratio 0.75, as training takes them.
fn gradients(compute: Compute) -> Gradients {
    gradients_of(compute, |model, input, split| model.loss(input, split).unwrap().loss)
}

fn gradients_of(compute: Compute, loss: impl Fn(&VideoMae, &Tensor, &TokenSplit) -> Tensor) -> Gradients {
    let config = MaeConfig::micro();
    let mut params = Params::new(Streams::new(3), &Device::Cpu);
    let model = VideoMae::new(&config, &mut params).unwrap().with_compute(compute);
    let masked: Vec<bool> = (0..config.tokens()).map(|i| i % 4 != 1).collect();
    let split = TokenSplit::from_bools(&[masked.clone(), masked], &Device::Cpu).unwrap();
    let input = randn("tubelets", &[2, config.tokens(), config.tubelet_len()], DType::F32).unwrap();
    let mut grads = Gradients::zeros(&params);
    grads.backward(params.iter(), &loss(&model, &input, &split)).unwrap();
    grads
}

fn norm(values: &mut dyn Iterator<Item = f32>) -> f64 {
    values.map(|v| f64::from(v) * f64::from(v)).sum::<f64>().sqrt()
}

/// How far the gradients of each parameter are apart, by name.
fn distances<'a>(a: &'a Gradients, b: &'a Gradients) -> impl Iterator<Item = (&'a str, f64)> {
    a.iter().zip(b.iter()).map(|((name, a), (_, b))| {
        let difference = norm(&mut a.iter().zip(b).map(|(a, b)| a - b));
        (name, difference / norm(&mut b.iter().copied()))
    })
}

#[test]
fn the_loss_without_predictions_is_the_loss_and_has_its_gradients() {
    for (precision, bar) in [(Precision::F32, 1e-6), (Precision::Bf16, 5e-3)] {
        let compute = Compute { precision, keep: Keep::Activations };
        let lean = gradients(compute);
        let whole = gradients_of(compute, |model, input, split| {
            let (whole, lean) = (model.forward(input, split).unwrap(), model.loss(input, split).unwrap());
            let [a, b] = [&whole.loss, &lean.loss].map(|loss| loss.to_scalar::<f32>().unwrap());
            assert!((a / b - 1.0).abs() < 1e-4, "{a} and {b} in {precision}");
            assert!((tgm_ops::variance(&whole.target).unwrap() - lean.of_mean).abs() < 1e-9);
            whole.loss
        });
        for (name, off) in distances(&lean, &whole) {
            assert!(off <= bar, "{name} is off by {off} in {precision}");
        }
    }
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
    for (name, off) in distances(&narrow, &wide) {
        assert!(off <= 2e-2, "{name} is off by {off}");
    }
}
