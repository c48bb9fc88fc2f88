//! The differentiable building blocks that a video masked autoencoder needs and candle lacks, has slow, or has
//! without a backward pass.
//!
//! candle 0.11's own `layer_norm`, `softmax_last_dim` and fused attention silently cut the autograd graph, so a
//! model built from `candle_nn` modules trains with part of its parameters frozen and nobody is told. Every
//! operation here is a candle custom op with an analytic backward pass, and each exists twice:
//!
//! * a **fused** path for `f32`/`f64` tensors on the CPU: one pass over memory, in parallel, no transposed copies;
//! * a **composed** path made of plain candle operations, in [`composed`]: the oracle of the tests, and what runs on
//!   any other device or data type.
//!
//! The public functions pick the path; models call them and never candle's counterparts. Results do not depend
//! on the number of threads: reductions are cut into blocks of fixed size which are added in order.
//!
//! | function | computes |
//! |---|---|
//! | [`layer_norm()`] | layer normalisation over the last dimension |
//! | [`block()`] | a whole transformer block, in f32 or bfloat16, with its activations freed by the backward pass |
//! | [`linear()`] | `x Wᵀ + b` |
//! | [`gelu()`] | the exact (erf) GELU |
//! | [`attention()`] | multi-head self-attention over packed q, k, v without the N×N matrix |
//! | [`gather_tokens()`] | rows of `[B, N, D]` by per-sample index |
//! | [`log_softmax()`] | over the last dimension |
//! | [`mse()`] | mean squared error |
//! | [`linear_mse()`] | the two in one, without keeping the prediction |
//! | [`TargetSpec`] | VideoMAE's normalised pixel target |
//! | [`AdamW`] | the optimiser over named parameters, with clipping and saveable state |
//!
//! ```
//! use candle_core::{Device, Tensor, Var};
//!
//! let x = Var::new(&[[1f32, 2.0, 4.0], [0.0, -1.0, 3.0]], &Device::Cpu)?;
//! let weight = Var::new(&[1f32, 1.0, 1.0], &Device::Cpu)?;
//! let bias = Var::new(&[0f32, 0.0, 0.0], &Device::Cpu)?;
//! let y = tgm_ops::layer_norm(&x, &weight, &bias, 1e-6)?;
//! let grads = y.sqr()?.sum_all()?.backward()?;
//! assert!(grads.get(&weight).is_some(), "candle_nn's fused layer norm would have lost this one");
//! # Ok::<(), candle_core::Error>(())
//! ```
#![deny(missing_docs)]

mod adamw;
mod attention;
mod block;
mod buffer;
pub mod composed;
mod cpu;
mod gather;
mod gelu;
mod gemm;
pub mod gradcheck;
mod layer_norm;
mod linear;
mod linear_mse;
mod mse;
mod params;
mod peak;
mod pooling;
mod precision;
mod product;
mod simd;
mod sink;
mod softmax;
mod target;
mod worker;

// Their types are in the signatures here: one version for all, and no second dependency to name them.
pub use candle_core;
pub use tgm_random;

pub use adamw::{AdamW, AdamWConfig, AdamWError, Gradients};
pub use attention::attention;
pub use block::{BlockParams, block, block_dropping, block_is_fused, block_tail};
pub use buffer::release_buffers;
pub use gather::gather_tokens;
pub use gelu::gelu;
pub use layer_norm::layer_norm;
pub use linear::{linear, linear_with};
pub use linear_mse::linear_mse;
pub use mse::{mse, variance};
pub use params::{Init, ParamError, Params, check_weights};
pub use peak::peak_flops;
pub use pooling::Pooling;
pub use precision::{Compute, Keep, Precision};
pub use product::finish::Activation;
pub use softmax::log_softmax;
pub use target::TargetSpec;
pub use worker::on_worker;
