//! How much memory a training step will take.

use tgm_ops::{Compute, Keep, Precision};

use crate::{MaeConfig, TransformerConfig};

/// Bytes of `f32` and of a stored activation.
const F32: usize = 4;
/// The program, its libraries, and what the allocator has not given back. Resident peaks of steps of ViT-S and ViT-B were 260 to 480
/// MiB above what is counted below.
const PROGRAM: usize = 320 << 20;

/// The memory of a training step in bytes, by what it is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryEstimate {
    /// Weights, their gradients and AdamW's two moments, all f32.
    pub parameters: usize,
    /// What the forward pass keeps for the backward pass, clips included, and what the head or the backward pass of one
    /// block needs beside it.
    pub activations: usize,
    /// The program itself and what its allocator holds back; the same for every model.
    pub program: usize,
}

impl MemoryEstimate {
    /// All of it.
    pub fn total(&self) -> usize {
        self.parameters + self.activations + self.program
    }
}

impl MaeConfig {
    /// Estimates a step with `clips` clips at once, `visible` tubelets of each of which the encoder sees, and `parameters`
    /// numbers to learn.
    pub fn memory(
        &self,
        parameters: usize,
        clips: usize,
        visible: usize,
        compute: Compute,
    ) -> MemoryEstimate {
        let (tokens, hidden) = (self.tokens(), self.tokens().saturating_sub(visible));
        let stacks = [(&self.encoder, clips * visible), (&self.decoder, clips * tokens)];
        let kept: usize = stacks.iter().map(|(stack, rows)| rows * stack.depth * kept(stack, compute)).sum();
        let working = stacks.iter().map(|(stack, rows)| rows * working(stack, compute)).max().unwrap_or(0);
        // All tubelets and the visible ones.
        let pixels = clips * (tokens + visible) * self.tubelet_len() * F32;
        // Targets of hidden ones and what predictions differ by from them: gone before the backward pass of a block.
        let head = clips * hidden * self.tubelet_len() * (F32 + element(compute));
        MemoryEstimate {
            parameters: 4 * F32 * parameters,
            activations: kept + pixels + working.max(head),
            program: PROGRAM,
        }
    }
}

fn element(compute: Compute) -> usize {
    match compute.precision.or_f32() {
        Precision::F32 => F32,
        Precision::Bf16 => 2,
    }
}

/// Bytes per token that a block keeps: its input and, unless they are computed again, its activations.
fn kept(stack: &TransformerConfig, compute: Compute) -> usize {
    let input = stack.dim * F32;
    match compute.keep {
        Keep::Activations => input + activations(stack, compute),
        Keep::Inputs => input,
        Keep::Nothing => 0,
    }
}

/// Queries, keys, values and attended values; the MLP's hidden layer; the sum between them.
fn activations(stack: &TransformerConfig, compute: Compute) -> usize {
    (4 * stack.dim + stack.mlp) * element(compute) + stack.dim * F32
}

/// Bytes per token that the backward pass of one block takes for itself: the MLP's hidden layer once more (its gradient takes the
/// place of what was kept), the gradient of queries, keys and values, that of the block's output and of a norm's, and two sums in
/// f32.
fn working(stack: &TransformerConfig, compute: Compute) -> usize {
    let again = if compute.keep == Keep::Inputs { activations(stack, compute) } else { 0 };
    let gradients = (stack.mlp + 5 * stack.dim) * element(compute) + 2 * stack.dim * F32;
    again + gradients
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recomputation_takes_less_and_bfloat16_less_than_f32() {
        let estimate = |precision, keep| {
            MaeConfig::base().memory(94_000_000, 4, 160, Compute { precision, keep }).activations
        };
        let full = estimate(Precision::F32, Keep::Activations);
        assert!(estimate(Precision::F32, Keep::Inputs) < full / 2);
        assert!(estimate(Precision::Bf16, Keep::Activations) <= full);
    }

    /// Peaks of `tgm bench step`, batch 4 at ratio 0.9 and at 0.6, on two threads (docs/performance.md).
    #[test]
    fn the_estimate_is_within_a_tenth_of_measured_peaks() {
        let bf16 = Compute { precision: Precision::Bf16, keep: Keep::Activations };
        let f32 = Compute { precision: Precision::F32, ..bf16 };
        for (model, parameters, visible, compute, measured) in [
            (MaeConfig::small(), 24_200_000, 160, bf16, 900),
            (MaeConfig::small(), 24_400_000, 632, bf16, 1098),
            (MaeConfig::base(), 94_200_000, 160, f32, 2628),
            (MaeConfig::base(), 94_200_000, 160, bf16, 2313),
            (MaeConfig::base(), 95_000_000, 632, bf16, 2795),
        ] {
            if compute.precision.or_f32() != compute.precision {
                continue; // This processor computes bfloat16 in f32.
            }
            let estimate = (model.memory(parameters, 4, visible, compute).total() >> 20) as f64;
            let measured = f64::from(measured);
            assert!((estimate / measured - 1.0).abs() < 0.1, "{estimate} against {measured} MiB");
        }
    }

    #[test]
    fn the_estimate_grows_with_the_batch() {
        let estimate = |clips| MaeConfig::small().memory(24_000_000, clips, 160, Compute::default());
        assert_eq!(estimate(8).activations, 2 * estimate(4).activations);
        assert_eq!(estimate(8).parameters, 384_000_000);
    }
}
