//! The arithmetic of matrix products, and what a forward pass leaves behind for the backward pass.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::product;
use crate::simd::multiplies_pairs;

/// The arithmetic of matrix products and the type of stored activations.
///
/// Softmax, layer-norm statistics, residual sums, losses, gradients of weights, master weights and the optimiser's
/// state are `f32` in both.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Precision {
    /// Single precision.
    #[default]
    F32,
    /// Products of bfloat16 numbers with `f32` sums, and half the memory for activations. Faster than [`F32`](Self::F32)
    /// where the processor multiplies pairs of them faster (AMD's with AVX512-BF16); elsewhere they are multiplied as
    /// `f32`. Without AVX2, computed as [`F32`](Self::F32).
    Bf16,
}

impl Precision {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::F32, Self::Bf16];

    /// The name in configurations, rows and messages.
    pub const fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::Bf16 => "bf16",
        }
    }

    /// Whether this processor computes in this precision.
    pub fn is_native(self) -> bool {
        match self {
            Self::F32 => true,
            Self::Bf16 => product::available(),
        }
    }

    /// Whether the processor multiplies these numbers at least as fast as `f32` ones by instructions of their own. Where it does
    /// not, [`Bf16`](Self::Bf16) saves memory and no time.
    pub fn is_fast(self) -> bool {
        match self {
            Self::F32 => true,
            Self::Bf16 => multiplies_pairs(),
        }
    }

    /// This precision, or f32 where the processor lacks it.
    pub fn or_f32(self) -> Self {
        if self.is_native() { self } else { Self::F32 }
    }
}

impl fmt::Display for Precision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// How a stack of layers computes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Compute {
    /// The arithmetic of matrix products.
    pub precision: Precision,
    /// What the backward pass will find.
    pub keep: Keep,
}

impl Compute {
    /// Forward only: nothing is kept, and no gradient reaches the parameters.
    pub fn inference(precision: Precision) -> Self {
        Self { precision, keep: Keep::Nothing }
    }
}

/// What a forward pass keeps for the backward pass.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Keep {
    /// The intermediate results of every block.
    #[default]
    Activations,
    /// The inputs of the blocks; the backward pass computes each block again. Gradients are the same to the bit.
    Inputs,
    /// Nothing: there will be no backward pass.
    Nothing,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn configurations_and_messages_use_the_same_names() {
        for precision in Precision::ALL {
            let value = serde::de::value::StrDeserializer::<serde::de::value::Error>::new(precision.name());
            assert_eq!(Precision::deserialize(value), Ok(precision));
            assert_eq!(format!("{precision:>5}").trim_start(), precision.name());
        }
    }
}
