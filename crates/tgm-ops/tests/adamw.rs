//! The optimiser against PyTorch's, its saved state, and what it refuses.

use std::collections::HashMap;

use candle_core::{DType, Device, Tensor};
use tgm_ops::{AdamW, AdamWConfig, AdamWError, Gradients, Init, Params};
use tgm_random::Streams;

fn golden() -> HashMap<String, Tensor> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixtures/ops-golden/golden.safetensors");
    candle_core::safetensors::load(path, &Device::Cpu).unwrap()
}

fn params(golden: &HashMap<String, Tensor>) -> Params {
    let mut params = Params::new(Streams::new(0), &Device::Cpu);
    for name in ["matrix", "vector"] {
        params.define(name, golden[&format!("adamw.{name}.0")].shape(), Init::Constant(0.0)).unwrap();
    }
    let start = ["matrix", "vector"].map(|n| (n.to_string(), golden[&format!("adamw.{n}.0")].clone()));
    params.load("golden", &start.into_iter().collect()).unwrap();
    params
}

/// Takes the golden steps `from..=to`.
fn take_steps(params: &Params, adamw: &mut AdamW, golden: &HashMap<String, Tensor>, from: usize, to: usize) {
    for step in from..=to {
        let mut grads = Gradients::zeros(params);
        for name in ["matrix", "vector"] {
            grads.add_one(name, &golden[&format!("adamw.{name}.grad.{step}")], 1.0).unwrap();
        }
        let scale = (1.0 / (grads.norm() + 1e-6)).min(1.0);
        adamw.step(params, &grads, 0.01 * step as f64, scale).unwrap();
    }
}

fn values(params: &Params) -> Vec<f32> {
    params.iter().flat_map(|(_, v)| v.flatten_all().unwrap().to_vec1::<f32>().unwrap()).collect()
}

#[test]
fn five_clipped_steps_equal_pytorch() {
    let golden = golden();
    let params = params(&golden);
    let mut adamw = AdamW::new(&params, AdamWConfig::default());
    take_steps(&params, &mut adamw, &golden, 1, 5);
    let want: Vec<f32> = ["matrix", "vector"]
        .iter()
        .flat_map(|n| golden[&format!("adamw.{n}.5")].flatten_all().unwrap().to_vec1::<f32>().unwrap())
        .collect();
    for (got, want) in values(&params).iter().zip(&want) {
        assert!((got - want).abs() < 1e-6, "{got} against {want}");
    }
}

#[test]
fn a_rate_per_name_moves_each_parameter_as_that_rate_alone_would() {
    let golden = golden();
    let step = |lr_of: &dyn Fn(&str) -> f64| {
        let params = params(&golden);
        let mut grads = Gradients::zeros(&params);
        for name in ["matrix", "vector"] {
            grads.add_one(name, &golden[&format!("adamw.{name}.grad.1")], 1.0).unwrap();
        }
        let mut adamw = AdamW::new(&params, AdamWConfig::default());
        adamw.step_with(&params, &grads, lr_of, 1.0).unwrap();
        ["matrix", "vector"].map(|n| params.get(n).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap())
    };
    let [fast, slow] = [step(&|_| 0.1), step(&|_| 0.01)];
    let mixed = step(&|name| if name == "matrix" { 0.1 } else { 0.01 });
    assert_eq!(mixed, [fast[0].clone(), slow[1].clone()]);
    assert_ne!(fast[1], slow[1]);
}

#[test]
fn a_restored_state_continues_to_the_same_bits() {
    let golden = golden();
    let (unbroken, broken) = (params(&golden), params(&golden));
    let mut adamw = AdamW::new(&unbroken, AdamWConfig::default());
    take_steps(&unbroken, &mut adamw, &golden, 1, 5);

    let mut first = AdamW::new(&broken, AdamWConfig::default());
    take_steps(&broken, &mut first, &golden, 1, 2);
    let (state, steps) = (first.state().unwrap(), first.steps());
    drop(first);
    let mut second = AdamW::new(&broken, AdamWConfig::default());
    second.load_state("state", &state, steps).unwrap();
    take_steps(&broken, &mut second, &golden, 3, 5);

    let bits = |p: &Params| values(p).into_iter().map(f32::to_bits).collect::<Vec<_>>();
    assert_eq!(bits(&unbroken), bits(&broken));
}

#[test]
fn a_state_of_other_parameters_is_refused() {
    let golden = golden();
    let params = params(&golden);
    let mut adamw = AdamW::new(&params, AdamWConfig::default());
    let mut state = adamw.state().unwrap();
    state.remove("second.vector");
    let message = adamw.load_state("optimizer.safetensors", &state, 1).unwrap_err().to_string();
    assert_eq!(message, "optimizer.safetensors does not fit this model: missing `second.vector`");
}

#[test]
fn a_parameter_without_gradient_is_an_error_not_a_silent_standstill() {
    let mut params = Params::new(Streams::new(0), &Device::Cpu);
    let used = params.define("used", 3, Init::Constant(1.0)).unwrap();
    params.define("unused", 3, Init::Constant(1.0)).unwrap();
    let grads = used.sqr().unwrap().sum_all().unwrap().backward().unwrap();
    let error = Gradients::zeros(&params).add(params.iter(), &grads, 1.0).unwrap_err();
    assert!(matches!(error, AdamWError::NoGradient(name) if name == "unused"));
}

/// Parameters `a` and `b` of two and three values, and a gradient of ones for each.
fn two() -> (Params, Gradients) {
    let mut params = Params::new(Streams::new(0), &Device::Cpu);
    params.define("a", 2, Init::Constant(1.0)).unwrap();
    params.define("b", 3, Init::Constant(1.0)).unwrap();
    let mut grads = Gradients::zeros(&params);
    for (name, var) in params.iter() {
        grads.add_one(name, &var.ones_like().unwrap(), 1.0).unwrap();
    }
    (params, grads)
}

/// The last step was taken once more, and counted.
#[test]
fn cleared_gradients_are_none_and_move_nothing() {
    let (params, mut grads) = two();
    let mut adamw = AdamW::new(&params, AdamWConfig::default());
    assert_eq!((grads.iter().count(), grads.norm()), (2, 5f64.sqrt()));
    grads.clear();
    assert_eq!((grads.iter().count(), grads.iter_mut().count(), grads.norm()), (0, 0, 0.0));
    grads.add_one("a", &Tensor::ones(2, DType::F32, &Device::Cpu).unwrap(), 3.0).unwrap();
    assert_eq!(grads.iter().collect::<Vec<_>>(), [("a", &[3.0, 3.0][..])]);
    let error = adamw.step(&params, &grads, 0.1, 1.0).unwrap_err();
    assert!(matches!(error, AdamWError::NoGradient(name) if name == "b"));
    assert_eq!((adamw.steps(), values(&params)), (0, vec![1.0; 5]));
}

/// Of a gradient of another length as much was added as there was room for, and an unknown name was given a place.
#[test]
fn gradients_of_other_names_or_lengths_are_refused_by_name() {
    let (params, mut grads) = two();
    let ones = |len: usize| Tensor::ones(len, DType::F32, &Device::Cpu).unwrap();
    let error = grads.add_one("a", &ones(3), 1.0).unwrap_err().to_string();
    assert_eq!(error, "the gradient of `a` has 3 values, the parameter 2");
    let error = grads.add_one("c", &ones(2), 1.0).unwrap_err();
    assert!(matches!(&error, AdamWError::Unknown(name) if name == "c"), "{error}");
    assert_eq!(grads.iter().map(|(name, _)| name).collect::<Vec<_>>(), ["a", "b"]);

    let mut other = Params::new(Streams::new(0), &Device::Cpu);
    other.define("a", 4, Init::Constant(1.0)).unwrap();
    let loss = other.get("a").unwrap().sqr().unwrap().sum_all().unwrap();
    let error = grads.backward(other.iter(), &loss).unwrap_err();
    assert!(matches!(error, AdamWError::Length { expected: 2, found: 4, .. }), "{error}");
    assert_eq!(grads.norm(), 5f64.sqrt(), "what was there stays");
    let error = AdamW::new(&other, AdamWConfig::default()).step(&params, &grads, 0.1, 1.0).unwrap_err();
    assert!(matches!(error, AdamWError::Length { what: "the moment", .. }), "{error}");
}

#[test]
fn a_non_finite_gradient_shows_in_the_norm() {
    let mut params = Params::new(Streams::new(0), &Device::Cpu);
    params.define("x", 2, Init::Constant(1.0)).unwrap();
    let mut grads = Gradients::zeros(&params);
    grads.add_one("x", &Tensor::new(&[f32::NAN, 1.0], &Device::Cpu).unwrap(), 1.0).unwrap();
    assert!(!grads.norm().is_finite());
}
