//! Every operation with each of its sizes 0 in turn: an error or an empty result, never a panic, and never a NaN.

use candle_core::{DType, Device, Result, Tensor, Var};
use tgm_ops::{
    Activation, BlockParams, Compute, Gradients, Init, Keep, Params, Pooling, Precision, TargetSpec,
    attention, block, gather_tokens, gelu, layer_norm, linear, linear_mse, linear_with, log_softmax, mse,
    variance,
};
use tgm_random::Streams;

/// Sizes by letter: four, but for one that is 0. `Q` is three times `D`.
struct Sizes {
    zero: char,
    dtype: DType,
}

impl Sizes {
    fn shape(&self, letters: &str) -> Vec<usize> {
        let size = |letter| if letter == self.zero { 0 } else { 4 };
        letters.chars().map(|letter| if letter == 'Q' { 3 * size('D') } else { size(letter) }).collect()
    }

    /// A variable of this shape, as a tensor.
    fn of(&self, letters: &str) -> Tensor {
        Var::zeros(self.shape(letters), self.dtype, &Device::Cpu).unwrap().as_tensor().clone()
    }

    fn index(&self, letters: &str) -> Tensor {
        Tensor::zeros(self.shape(letters), DType::U32, &Device::Cpu).unwrap()
    }

    fn block(&self) -> BlockParams {
        BlockParams {
            norm1: [self.of("D"), self.of("D")],
            qkv: self.of("QD"),
            qkv_bias: Some(self.of("Q")),
            proj: [self.of("DD"), self.of("D")],
            norm2: [self.of("D"), self.of("D")],
            fc1: [self.of("MD"), self.of("M")],
            fc2: [self.of("DM"), self.of("D")],
            heads: 2,
            eps: 1e-6,
            activation: Activation::Gelu,
        }
    }
}

fn target(normalize: bool) -> TargetSpec {
    TargetSpec { normalize, mean: vec![0.5; 2], std: vec![0.2; 2] }
}

const BF16: Compute = Compute { precision: Precision::Bf16, keep: Keep::Activations };

fn inference() -> Compute {
    Compute::inference(Precision::F32)
}

/// An operation, and the letters of its sizes.
type Case = (&'static str, &'static str, fn(&Sizes) -> Result<Tensor>);

const CASES: &[Case] = &[
    ("layer_norm", "BND", |s| layer_norm(&s.of("BND"), &s.of("D"), &s.of("D"), 1e-6)),
    ("linear", "BNIO", |s| linear(&s.of("BNI"), &s.of("OI"), Some(&s.of("O")))),
    ("linear without bias", "BNIO", |s| linear(&s.of("BNI"), &s.of("OI"), None)),
    ("linear in bfloat16", "BNIO", |s| linear_with(&s.of("BNI"), &s.of("OI"), Some(&s.of("O")), BF16)),
    ("linear for inference", "BNIO", |s| linear_with(&s.of("BNI"), &s.of("OI"), None, inference())),
    ("gelu", "BND", |s| gelu(&s.of("BND"))),
    ("log_softmax", "BND", |s| log_softmax(&s.of("BND"))),
    ("attention", "BND", |s| attention(&s.of("BNQ"), 2)),
    ("gather_tokens", "BNKD", |s| gather_tokens(&s.of("BND"), &s.index("BK"))),
    ("gather_tokens from a table", "BNKD", |s| gather_tokens(&s.of("ND"), &s.index("BK"))),
    ("mse", "BND", |s| mse(&s.of("BND"), &s.of("BND"))),
    ("variance", "BN", |s| Tensor::new(variance(&s.of("BN"))?, &Device::Cpu)),
    ("linear_mse", "BNIO", |s| {
        linear_mse(&s.of("BNI"), &s.of("OI"), &s.of("O"), s.of("BNO"), Compute::default())
    }),
    ("linear_mse in bfloat16", "BNIO", |s| {
        linear_mse(&s.of("BNI"), &s.of("OI"), &s.of("O"), s.of("BNO"), BF16)
    }),
    ("target", "BKP", |s| target(true).target(&s.of("BKP"))),
    ("target of pixels", "BKP", |s| target(false).target(&s.of("BKP"))),
    ("target_at", "BNKP", |s| target(true).target_at(&s.of("BNP"), &s.index("BK"))),
    ("block", "BNDM", |s| block(&s.of("BND"), &s.block(), Compute::default())),
    ("block in bfloat16", "BNDM", |s| block(&s.of("BND"), &s.block(), BF16)),
    ("block for inference", "BNDM", |s| block(&s.of("BND"), &s.block(), inference())),
    ("mean", "BND", |s| Pooling::Mean.apply(&s.of("BND"))),
    ("max", "BND", |s| Pooling::Max.apply(&s.of("BND"))),
];

#[test]
fn every_operation_with_a_size_of_0_is_an_error_or_empty() {
    for (name, letters, run) in CASES {
        let full = run(&Sizes { zero: '-', dtype: DType::F32 }).unwrap();
        assert!(full.elem_count() > 0, "{name} with no size of 0");
        for dtype in [DType::F32, DType::F64, DType::BF16] {
            for zero in letters.chars() {
                let Ok(out) = run(&Sizes { zero, dtype }) else { continue };
                assert_eq!(out.elem_count(), 0, "{name} with {zero} = 0 in {dtype:?}");
                // Whether candle has a backward pass for it or not: it may not panic.
                let _ = out.sum_all().and_then(|sum| sum.backward());
            }
        }
    }
}

/// A product over no rows wrote nothing, and the gradient of the step before stayed.
#[test]
fn the_gradient_of_an_empty_batch_is_0_and_not_the_last_one() {
    let mut params = Params::new(Streams::new(0), &Device::Cpu);
    let weight = params.define("weight", (3, 2), Init::Constant(1.0)).unwrap();
    let loss = |rows: usize| {
        let x = Tensor::ones((rows, 2), DType::F32, &Device::Cpu).unwrap();
        linear(&x, &weight, None).unwrap().sum_all().unwrap()
    };
    let mut grads = Gradients::zeros(&params);
    for rows in [1, 0] {
        grads.clear();
        grads.backward(params.iter(), &loss(rows)).unwrap();
        assert_eq!(grads.iter().collect::<Vec<_>>(), [("weight", &[rows as f32; 6][..])]);
    }
}
