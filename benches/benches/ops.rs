//! Every operation with its backward pass, fused against composed, at the sizes of ViT-B's encoder at tube 0.9 (4 × 160
//! tokens), and the parts of a step that have no composed twin: whole blocks in both precisions, and the optimiser.

use candle_core::{DType, Device, Result, Tensor, Var};
use criterion::{Criterion, criterion_group, criterion_main};
use tgm_ops::gradcheck::randn;
use tgm_ops::{
    Activation, AdamW, AdamWConfig, BlockParams, Compute, Gradients, Init, Keep, Params, Precision,
    attention, block, composed, gather_tokens, gelu, layer_norm, linear, linear_with, mse,
};
use tgm_random::Streams;

const TOKENS: [usize; 2] = [4, 160];
const DIM: usize = 768;
const HEADS: usize = 12;
/// Tubelets of a clip, hidden ones, and numbers in each.
const CLIP: [usize; 3] = [1568, 1408, 1536];

fn var(name: &str, shape: &[usize]) -> Var {
    randn(name, shape, DType::F32).and_then(|t| Var::from_tensor(&t)).expect("a small tensor")
}

fn forward_backward(op: impl Fn() -> Result<Tensor>) {
    op().and_then(|out| out.sum_all()?.backward()).expect("fitting shapes");
}

fn ops(c: &mut Criterion) {
    let [batch, tokens] = TOKENS;
    let [clip, hidden, pixels] = CLIP;
    let x = var("x", &[batch, tokens, DIM]);
    let wide = var("wide", &[batch, tokens, 4 * DIM]);
    let qkv = var("qkv", &[batch, tokens, 3 * DIM]);
    let (norm_weight, norm_bias) = (var("nw", &[DIM]), var("nb", &[DIM]));
    let (weight, bias) = (var("w", &[4 * DIM, DIM]), var("b", &[4 * DIM]));
    let (prediction, target) = (var("p", &[batch, hidden, pixels]), var("t", &[batch, hidden, pixels]));
    let decoded = var("decoded", &[batch, clip, DIM / 2]);
    let index = (0..batch * hidden).map(|i| (i % hidden) as u32).collect();
    let index = Tensor::from_vec(index, (batch, hidden), &Device::Cpu).expect("as many as the shape says");
    let mut bench = |name: &str, fused: &dyn Fn() -> Result<Tensor>, plain: &dyn Fn() -> Result<Tensor>| {
        c.bench_function(&format!("{name}/fused"), |b| b.iter(|| forward_backward(fused)));
        c.bench_function(&format!("{name}/composed"), |b| b.iter(|| forward_backward(plain)));
    };
    bench("layer_norm", &|| layer_norm(&x, &norm_weight, &norm_bias, 1e-6), &|| {
        composed::layer_norm(&x, &norm_weight, &norm_bias, 1e-6)
    });
    bench("linear", &|| linear(&x, &weight, Some(bias.as_tensor())), &|| {
        composed::linear(&x, &weight, Some(bias.as_tensor()))
    });
    bench("gelu", &|| gelu(&wide), &|| composed::gelu(&wide));
    bench("attention", &|| attention(&qkv, HEADS), &|| composed::attention(&qkv, HEADS));
    bench("gather_tokens", &|| gather_tokens(&decoded, &index), &|| {
        composed::gather_tokens(&decoded, &index)
    });
    bench("mse", &|| mse(&prediction, &target), &|| composed::mse(&prediction, &target.detach()));
}

/// The products of one MLP layer, and a whole block, in both precisions.
fn precisions(c: &mut Criterion) {
    let [batch, tokens] = TOKENS;
    let x = var("x", &[batch, tokens, DIM]);
    let pair = |name: &str, out: usize, input: usize| {
        let scaled = (var(name, &[out, input]).as_tensor() * 0.02).expect("a number");
        [Var::from_tensor(&scaled).expect("a tensor").into_inner(), var(name, &[out]).into_inner()]
    };
    let norm = |name: &str| [var(name, &[DIM]).into_inner(), var(name, &[DIM]).into_inner()];
    let [qkv, qkv_bias] = pair("qkv", 3 * DIM, DIM);
    let params = BlockParams {
        norm1: norm("norm1"),
        qkv,
        qkv_bias: Some(qkv_bias),
        proj: pair("proj", DIM, DIM),
        norm2: norm("norm2"),
        fc1: pair("fc1", 4 * DIM, DIM),
        fc2: pair("fc2", DIM, 4 * DIM),
        heads: HEADS,
        eps: 1e-6,
        activation: Activation::Gelu,
    };
    for precision in Precision::ALL {
        let [weight, bias] = &params.fc1;
        for (name, keep) in [("kept", Keep::Activations), ("recomputed", Keep::Inputs)] {
            let compute = Compute { precision, keep };
            c.bench_function(&format!("block/{precision}/{name}"), |b| {
                b.iter(|| forward_backward(|| block(&x, &params, compute)));
            });
        }
        let compute = Compute { precision, keep: Keep::Activations };
        c.bench_function(&format!("product/{precision}"), |b| {
            b.iter(|| forward_backward(|| linear_with(&x, weight, Some(bias), compute)));
        });
        c.bench_function(&format!("block/{precision}/inference"), |b| {
            b.iter(|| block(&x, &params, Compute::inference(precision)).expect("fitting shapes"));
        });
    }
}

/// One step over the parameters of a block.
fn adamw(c: &mut Criterion) {
    let mut params = Params::new(Streams::new(0), &Device::Cpu);
    for i in 0..12 {
        params.define(&format!("w{i}"), (DIM, DIM), Init::Constant(0.1)).expect("a new name");
    }
    let (mut optimizer, mut gradients) =
        (AdamW::new(&params, AdamWConfig::default()), Gradients::zeros(&params));
    for (name, var) in params.iter() {
        gradients.add_one(name, &var.zeros_like().expect("as large"), 1.0).expect("a gradient each");
    }
    c.bench_function("adamw/7M", |b| {
        b.iter(|| optimizer.step(&params, &gradients, 1e-4, 1.0).expect("all gradients"));
    });
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(10);
    targets = ops, precisions, adamw
}
criterion_main!(benches);
