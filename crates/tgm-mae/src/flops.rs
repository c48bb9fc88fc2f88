//! How much arithmetic a model asks for, counted by hand from its sizes.

use crate::{MaeConfig, TransformerConfig};

impl MaeConfig {
    /// Floating-point operations of one forward pass of one clip with `visible` encoded and `targets` reconstructed
    /// tubelets, a multiply-add counted as two. Matrix products only: the rest is less than a hundredth of them.
    ///
    /// A training step costs three times as much, the backward pass being two products for each one of the forward pass.
    pub const fn forward_flops(&self, visible: usize, targets: usize) -> u64 {
        let (visible, targets) = (visible as u64, targets as u64);
        let (dim, decoder_dim) = (self.encoder.dim as u64, self.decoder.dim as u64);
        let pixels = self.tubelet_len() as u64;
        let between = visible * dim * decoder_dim;
        let head = targets * decoder_dim * pixels;
        let blocks = multiply_adds(&self.decoder, visible + targets) - self.undecoded(visible, targets);
        self.encoder_flops(visible as usize) + 2 * (between + blocks + head)
    }

    /// Multiply-adds that the decoder's last block leaves out: after their keys and values, nothing reads visible tokens.
    const fn undecoded(&self, visible: u64, targets: u64) -> u64 {
        if self.decoder.depth == 0 {
            return 0;
        }
        let (dim, mlp) = (self.decoder.dim as u64, self.decoder.mlp as u64);
        visible * (dim * dim + 2 * dim * mlp) + 2 * visible * (visible + targets) * dim
    }
}

impl MaeConfig {
    /// Floating-point operations of the encoder on `tokens` tubelets, embedding included, counted as in
    /// [`forward_flops`](Self::forward_flops).
    pub const fn encoder_flops(&self, tokens: usize) -> u64 {
        let tokens = tokens as u64;
        2 * (tokens * self.tubelet_len() as u64 * self.encoder.dim as u64
            + multiply_adds(&self.encoder, tokens))
    }
}

/// Of a stack of blocks over `tokens` tokens: queries, keys, values and output, the MLP's two layers, and the two products
/// of attention.
const fn multiply_adds(stack: &TransformerConfig, tokens: u64) -> u64 {
    let (dim, mlp) = (stack.dim as u64, stack.mlp as u64);
    stack.depth as u64 * (tokens * (4 * dim * dim + 2 * dim * mlp) + 2 * tokens * tokens * dim)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// VideoMAEv2 (arXiv 2303.16727) gives 35.48 G multiply-adds for ViT-B at 90 % masking. There all 1568 tubelets are embedded
    /// before most of them are dropped, and the visible ones decoded to the end.
    #[test]
    fn the_base_model_costs_what_videomae_v2_says() {
        let config = MaeConfig::base();
        let dropped = (1408 * config.tubelet_len() * config.encoder.dim) as f64;
        let undecoded = config.undecoded(160, 1408) as f64;
        let multiply_adds = (config.forward_flops(160, 1408) as f64 / 2.0 + dropped + undecoded) / 1e9;
        assert!((multiply_adds - 35.48).abs() < 0.1, "{multiply_adds}");
    }
}
