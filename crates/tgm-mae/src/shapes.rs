//! Which parameters a model has and their shapes, without making them: what a complete checkpoint holds.

use std::collections::BTreeMap;

use crate::{CheckpointKind, MaeConfig, TransformerConfig};

/// The shape of every parameter, by its name in this crate.
pub(crate) fn shapes(config: &MaeConfig, kind: CheckpointKind) -> BTreeMap<String, Vec<usize>> {
    let (dim, decoder_dim) = (config.encoder.dim, config.decoder.dim);
    let mut shapes = Shapes(BTreeMap::new());
    shapes.dense("encoder.embed", config.tubelet_len(), dim);
    shapes.stack("encoder", &config.encoder, config.qv_bias);
    if config.final_norm {
        shapes.norm("encoder.norm", dim);
    }
    match kind {
        CheckpointKind::Encoder => {}
        CheckpointKind::Pretraining => {
            shapes.add("projection.weight", [decoder_dim, dim]);
            shapes.add("mask_token", [decoder_dim]);
            shapes.stack("decoder", &config.decoder, config.qv_bias);
            shapes.norm("decoder.norm", decoder_dim);
            shapes.dense("decoder.head", decoder_dim, config.tubelet_len());
        }
        CheckpointKind::Classification { classes } => {
            if !config.final_norm {
                shapes.norm("classifier.norm", dim);
            }
            shapes.dense("classifier.head", dim, classes);
        }
    }
    shapes.0
}

struct Shapes(BTreeMap<String, Vec<usize>>);

impl Shapes {
    fn add<const R: usize>(&mut self, name: &str, shape: [usize; R]) {
        self.0.insert(name.to_string(), shape.to_vec());
    }

    /// A weight and a bias of the affine map between these widths.
    fn dense(&mut self, name: &str, from: usize, to: usize) {
        self.add(&format!("{name}.weight"), [to, from]);
        self.add(&format!("{name}.bias"), [to]);
    }

    fn norm(&mut self, name: &str, dim: usize) {
        self.add(&format!("{name}.weight"), [dim]);
        self.add(&format!("{name}.bias"), [dim]);
    }

    fn stack(&mut self, name: &str, stack: &TransformerConfig, qv_bias: bool) {
        let &TransformerConfig { dim, mlp, depth, .. } = stack;
        for i in 0..depth {
            let block = format!("{name}.blocks.{i}");
            self.add(&format!("{block}.attn.qkv.weight"), [3 * dim, dim]);
            if qv_bias {
                self.add(&format!("{block}.attn.q_bias"), [dim]);
                self.add(&format!("{block}.attn.v_bias"), [dim]);
            }
            self.dense(&format!("{block}.attn.proj"), dim, dim);
            self.dense(&format!("{block}.mlp.fc1"), dim, mlp);
            self.dense(&format!("{block}.mlp.fc2"), mlp, dim);
            self.norm(&format!("{block}.norm1"), dim);
            self.norm(&format!("{block}.norm2"), dim);
        }
    }
}

/// The parameters of a model of this kind, as the model itself defines them.
#[cfg(test)]
pub(crate) fn defined(config: &MaeConfig, kind: CheckpointKind, seed: u64) -> tgm_ops::Params {
    use crate::{Classifier, Encoder, VideoMae};
    let mut params = tgm_ops::Params::new(tgm_random::Streams::new(seed), &candle_core::Device::Cpu);
    match kind {
        CheckpointKind::Pretraining => drop(VideoMae::new(config, &mut params).unwrap()),
        CheckpointKind::Encoder => drop(Encoder::new(config, &mut params).unwrap()),
        CheckpointKind::Classification { classes } => {
            drop(Classifier::new(config, classes, &mut params).unwrap())
        }
    }
    params
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shapes_are_those_of_the_models() {
        let kinds = [
            CheckpointKind::Pretraining,
            CheckpointKind::Classification { classes: 7 },
            CheckpointKind::Encoder,
        ];
        for kind in kinds {
            for (qv_bias, final_norm) in [(true, true), (false, false)] {
                let encoder = TransformerConfig { mlp: 40, ..TransformerConfig::new(24, 2, 3) };
                let config = MaeConfig { encoder, qv_bias, final_norm, ..MaeConfig::micro() };
                let params = defined(&config, kind, 0);
                let defined = params.iter().map(|(name, var)| (name.to_string(), var.dims().to_vec()));
                assert_eq!(shapes(&config, kind), defined.collect(), "{kind:?}");
            }
        }
    }
}
