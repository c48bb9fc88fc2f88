//! Every operation: its gradients against central differences in f64, its fused path against its composed one, and both
//! against what PyTorch computed (`fixtures/scripts/ops_golden.py`).

use std::collections::HashMap;

use candle_core::{DType, Device, Result, Tensor, Var};
use tgm_ops::gradcheck::{max_gradient_error, randn};
use tgm_ops::{TargetSpec, attention, composed, gather_tokens, gelu, layer_norm, linear, log_softmax, mse};

type Op = fn(&[Tensor]) -> Result<Tensor>;

/// An operation in both paths, and inputs in f64.
struct Case {
    name: &'static str,
    fused: Op,
    composed: Op,
    inputs: Vec<Tensor>,
}

fn index() -> Tensor {
    Tensor::new(&[[5u32, 0, 0], [2, 3, 1]], &Device::Cpu).unwrap()
}

fn cases() -> Vec<Case> {
    let f64s = |name: &str, shape: &[usize]| randn(name, shape, DType::F64).unwrap();
    vec![
        Case {
            name: "layer_norm",
            fused: |t| layer_norm(&t[0], &t[1], &t[2], 1e-6),
            composed: |t| composed::layer_norm(&t[0], &t[1], &t[2], 1e-6),
            inputs: vec![f64s("x", &[3, 5, 13]), f64s("w", &[13]), f64s("b", &[13])],
        },
        Case {
            name: "linear with bias",
            fused: |t| linear(&t[0], &t[1], Some(&t[2])),
            composed: |t| composed::linear(&t[0], &t[1], Some(&t[2])),
            inputs: vec![f64s("x", &[2, 7, 5]), f64s("w", &[11, 5]), f64s("b", &[11])],
        },
        Case {
            name: "linear without bias",
            fused: |t| linear(&t[0], &t[1], None),
            composed: |t| composed::linear(&t[0], &t[1], None),
            inputs: vec![f64s("x", &[7, 5]), f64s("w", &[11, 5])],
        },
        Case {
            name: "gelu",
            fused: |t| gelu(&t[0]),
            composed: |t| composed::gelu(&t[0]),
            inputs: vec![f64s("x", &[4, 9])],
        },
        Case {
            name: "log_softmax",
            fused: |t| log_softmax(&t[0]),
            composed: |t| composed::log_softmax(&t[0]),
            inputs: vec![f64s("x", &[4, 9])],
        },
        Case {
            name: "attention within a block",
            fused: |t| attention(&t[0], 2),
            composed: |t| composed::attention(&t[0], 2),
            inputs: vec![f64s("qkv", &[2, 9, 3 * 6])],
        },
        Case {
            name: "attention over several blocks",
            fused: |t| attention(&t[0], 1),
            composed: |t| composed::attention(&t[0], 1),
            inputs: vec![f64s("qkv", &[1, 131, 3 * 3])],
        },
        Case {
            name: "gather_tokens",
            fused: |t| gather_tokens(&t[0], &index()),
            composed: |t| composed::gather_tokens(&t[0], &index()),
            inputs: vec![f64s("x", &[2, 6, 4])],
        },
        Case {
            name: "gather_tokens from a shared table",
            fused: |t| gather_tokens(&t[0], &index()),
            composed: |t| composed::gather_tokens(&t[0].unsqueeze(0)?, &index()),
            inputs: vec![f64s("x", &[6, 4])],
        },
        Case {
            name: "mse",
            fused: |t| mse(&t[0], &(&t[0].detach() * 0.5)?.tanh()?),
            composed: |t| composed::mse(&t[0], &(&t[0].detach() * 0.5)?.tanh()?),
            inputs: vec![f64s("p", &[2, 3, 17])],
        },
    ]
}

#[test]
fn gradients_equal_central_differences() {
    for case in cases().iter().filter(|c| c.name != "mse") {
        // candle's own backward of the erf GELU uses rounded constants, hence the wider bar of the composed path.
        for (path, op, bar) in [("fused", case.fused, 1e-7), ("composed", case.composed, 1e-6)] {
            let error = max_gradient_error(&case.inputs, 40, op).unwrap();
            assert!(error < bar, "{} ({path}): gradient off by {error}", case.name);
        }
    }
}

#[test]
fn the_gradient_of_mse_equals_central_differences_and_ignores_the_target() {
    let (p, t) = (randn("p", &[2, 17], DType::F64).unwrap(), randn("t", &[2, 17], DType::F64).unwrap());
    for f in [mse, composed::mse] {
        assert!(max_gradient_error(std::slice::from_ref(&p), 40, |x| f(&x[0], &t)).unwrap() < 1e-7);
    }
    let target = Var::from_tensor(&t).unwrap();
    let grads = mse(&Var::from_tensor(&p).unwrap(), &target).unwrap().backward().unwrap();
    assert!(grads.get(&target).is_none());
}

#[test]
fn fused_and_composed_paths_agree_in_f32() {
    for case in cases() {
        let run = |op: Op| -> (Tensor, Vec<Tensor>) {
            let vars: Vec<Var> = case
                .inputs
                .iter()
                .map(|t| Var::from_tensor(&t.to_dtype(DType::F32).unwrap()).unwrap())
                .collect();
            let tensors: Vec<Tensor> = vars.iter().map(|v| v.as_tensor().clone()).collect();
            let out = op(&tensors).unwrap();
            let grads = out.sin().unwrap().sum_all().unwrap().backward().unwrap();
            (out, vars.iter().map(|v| grads.get(v).unwrap().clone()).collect())
        };
        let ((fused, fused_grads), (composed, composed_grads)) = (run(case.fused), run(case.composed));
        assert_close(&fused, &composed, 1e-5, case.name);
        for (a, b) in fused_grads.iter().zip(&composed_grads) {
            assert_close(a, b, 3e-5, case.name);
        }
    }
}

#[test]
fn views_that_are_not_contiguous_give_the_same_result() {
    let x = randn("x", &[9, 4, 2], DType::F32).unwrap().permute((2, 1, 0)).unwrap();
    let [w, b] = ["w", "b"].map(|n| randn(n, &[9], DType::F32).unwrap());
    let strided = layer_norm(&x, &w, &b, 1e-6).unwrap();
    assert_close(&strided, &layer_norm(&x.contiguous().unwrap(), &w, &b, 1e-6).unwrap(), 0.0, "layer_norm");
    let qkv = x.narrow(2, 3, 6).unwrap();
    assert_close(
        &attention(&qkv, 2).unwrap(),
        &composed::attention(&qkv.contiguous().unwrap(), 2).unwrap(),
        1e-6,
        "attention",
    );
}

#[test]
fn half_precision_takes_the_composed_path() {
    let x = randn("x", &[3, 8], DType::BF16).unwrap();
    let [w, b] = ["w", "b"].map(|n| randn(n, &[8], DType::BF16).unwrap());
    assert_eq!(layer_norm(&x, &w, &b, 1e-6).unwrap().dtype(), DType::BF16);
    assert_eq!(gelu(&x).unwrap().dtype(), DType::BF16);
}

#[test]
fn shapes_that_do_not_fit_are_errors_that_name_them() {
    let t = |shape: &[usize]| Tensor::zeros(shape, DType::F32, &Device::Cpu).unwrap();
    let message = |r: Result<Tensor>| r.unwrap_err().to_string();
    assert!(message(layer_norm(&t(&[2, 3]), &t(&[4]), &t(&[4]), 1e-6)).contains("[2, 3]"));
    assert!(message(linear(&t(&[2, 3]), &t(&[5, 4]), None)).contains("[5, 4]"));
    assert!(message(attention(&t(&[1, 2, 10]), 2)).contains("2 heads"));
    assert!(message(gather_tokens(&t(&[2, 3, 4]), &index())).contains("index 5 among 3"));
    assert!(message(mse(&t(&[2]), &t(&[3]))).contains("[3]"));
}

fn golden() -> HashMap<String, Tensor> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixtures/ops-golden/golden.safetensors");
    candle_core::safetensors::load(path, &Device::Cpu).unwrap()
}

/// Output and gradients of `op` against PyTorch's, in f64 and, looser, in f32.
fn against_pytorch(name: &str, keys: &[&str], op: impl Fn(&[Tensor]) -> Result<Tensor>) {
    let golden = golden();
    for (dtype, tolerance) in [(DType::F64, 1e-10), (DType::F32, 2e-5)] {
        let at = |kind: &str| golden[&format!("{name}.{kind}")].to_dtype(dtype).unwrap();
        let vars: Vec<Var> =
            keys.iter().map(|k| Var::from_tensor(&at(&format!("in.{k}"))).unwrap()).collect();
        let tensors: Vec<Tensor> = vars.iter().map(|v| v.as_tensor().clone()).collect();
        let out = op(&tensors).unwrap();
        assert_close(&out, &at("out"), tolerance, name);
        let grads = (out * at("weights")).unwrap().sum_all().unwrap().backward().unwrap();
        for (key, var) in keys.iter().zip(&vars) {
            assert_close(
                grads.get(var).unwrap(),
                &at(&format!("grad.{key}")),
                tolerance,
                &format!("{name}.{key}"),
            );
        }
    }
}

#[test]
fn outputs_and_gradients_equal_pytorch() {
    against_pytorch("layer_norm", &["x", "weight", "bias"], |t| layer_norm(&t[0], &t[1], &t[2], 1e-6));
    against_pytorch("linear", &["x", "weight", "bias"], |t| linear(&t[0], &t[1], Some(&t[2])));
    against_pytorch("gelu", &["input"], |t| gelu(&t[0]));
    against_pytorch("log_softmax", &["x"], |t| log_softmax(&t[0]));
    against_pytorch("attention", &["qkv"], |t| attention(&t[0], 3));
    against_pytorch("gather", &["x"], |t| gather_tokens(&t[0], &index()));
    let target = golden()["mse.in.target"].clone();
    against_pytorch("mse", &["input"], |t| mse(&t[0], &target.to_dtype(t[0].dtype())?));
}

#[test]
fn the_target_equals_pytorch_also_where_a_tubelet_is_flat() {
    let golden = golden();
    let (mean, std) = (vec![0.485, 0.456, 0.406], vec![0.229, 0.224, 0.225]);
    for (normalize, want) in [(true, "target.normalized"), (false, "target.pixels")] {
        let spec = TargetSpec { normalize, mean: mean.clone(), std: std.clone() };
        let got = spec.target(&golden["target.in"]).unwrap();
        let error = (got - golden[want].to_dtype(DType::F32).unwrap()).unwrap().abs().unwrap();
        let error = error.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        // The constant channel is 0/1e-6 in exact arithmetic; in f32 the rounding of 0.25 to and fro shows, at 1e-2.
        // The nearly constant one has a deviation of 3e-5, so its error is that of the pixel over 3e-5.
        let worst = error.into_iter().fold(0.0, f32::max);
        assert!(worst < if normalize { 0.05 } else { 1e-6 }, "{want}: off by {worst}");
    }
}

fn assert_close(a: &Tensor, b: &Tensor, tolerance: f64, what: &str) {
    assert_eq!(a.dims(), b.dims(), "{what}");
    let flat = |t: &Tensor| t.to_dtype(DType::F64).unwrap().flatten_all().unwrap().to_vec1::<f64>().unwrap();
    for (i, (a, b)) in flat(a).into_iter().zip(flat(b)).enumerate() {
        assert!((a - b).abs() <= tolerance * b.abs().max(1.0), "{what}: element {i} is {a}, expected {b}");
    }
}
