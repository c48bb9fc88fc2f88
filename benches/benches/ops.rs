//! Every operation with its backward pass, fused against composed, at the sizes of ViT-B's encoder at tube 0.9 (4 × 160 tokens).

use candle_core::{DType, Result, Tensor, Var};
use criterion::{Criterion, criterion_group, criterion_main};
use tgm_ops::gradcheck::randn;
use tgm_ops::{attention, composed, gelu, layer_norm, linear};

const TOKENS: [usize; 2] = [4, 160];
const DIM: usize = 768;

fn var(name: &str, shape: &[usize]) -> Var {
    randn(name, shape, DType::F32).and_then(|t| Var::from_tensor(&t)).expect("a small tensor")
}

fn forward_backward(op: impl Fn() -> Result<Tensor>) {
    op().and_then(|out| out.sum_all()?.backward()).expect("fitting shapes");
}

fn ops(c: &mut Criterion) {
    let [batch, tokens] = TOKENS;
    let x = var("x", &[batch, tokens, DIM]);
    let wide = var("wide", &[batch, tokens, 4 * DIM]);
    let qkv = var("qkv", &[batch, tokens, 3 * DIM]);
    let (norm_weight, norm_bias) = (var("nw", &[DIM]), var("nb", &[DIM]));
    let (weight, bias) = (var("w", &[4 * DIM, DIM]), var("b", &[4 * DIM]));
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
    bench("attention", &|| attention(&qkv, 12), &|| composed::attention(&qkv, 12));
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(10);
    targets = ops
}
criterion_main!(benches);
