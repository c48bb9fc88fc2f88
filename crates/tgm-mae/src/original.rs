//! The config of an original VideoMAE file, which holds none, from the shapes of its tensors.

use std::collections::BTreeMap;

use candle_core::Tensor;

use crate::{CheckpointKind, ClipSize, MaeConfig, TransformerConfig};

/// Widths of the published VideoMAE and VideoMAEv2 encoders and decoders, and their heads. Most heads are 64 wide; those of
/// ViT-H are 80 and those of ViT-g are 88.
const PUBLISHED: [(usize, usize); 8] =
    [(192, 3), (384, 6), (512, 8), (640, 8), (768, 12), (1024, 16), (1280, 16), (1408, 16)];

/// The heads of a stack of this width: no tensor's shape depends on them, so a wrong guess would go unnoticed.
fn heads(dim: usize) -> Result<usize, String> {
    // Small models for tests: there is no published head of fewer than 64 numbers.
    if dim <= 64 {
        return Ok(1);
    }
    PUBLISHED.iter().find(|(width, _)| *width == dim).map(|(_, heads)| *heads).ok_or_else(|| {
        format!(
            "the file does not tell the number of heads, and no published VideoMAE is {dim} wide: give a folder with a \
             config.json, which tells it (Hugging Face's format, as `tgm export --to hugging-face` writes it)"
        )
    })
}

/// How many classes a head of this shape tells apart.
pub(crate) fn classes(key: &str, dims: &[usize]) -> Result<usize, String> {
    match dims {
        &[classes, _] => Ok(classes),
        other => Err(format!("`{key}` is {other:?}, not a matrix with a row per class")),
    }
}

/// What a file's tensors say about the model, and `clip` about what it takes.
pub(crate) fn infer(
    file: &BTreeMap<String, Tensor>,
    clip: ClipSize,
) -> Result<(MaeConfig, CheckpointKind), String> {
    let pretraining = file.contains_key("encoder.patch_embed.proj.weight");
    let prefix = if pretraining { "encoder." } else { "" };
    let dims = |key: String| -> Result<&[usize], String> {
        file.get(&key).map(Tensor::dims).ok_or_else(|| format!("has no `{key}`"))
    };
    let stack = |prefix: &str| -> Result<TransformerConfig, String> {
        let depth =
            (0..).take_while(|i| file.contains_key(&format!("{prefix}blocks.{i}.norm1.weight"))).count();
        let fc1 = dims(format!("{prefix}blocks.0.mlp.fc1.weight"))?;
        let &[mlp, dim] = fc1 else { return Err(format!("`{prefix}blocks.0.mlp.fc1.weight` is {fc1:?}")) };
        Ok(TransformerConfig { dim, depth, heads: heads(dim)?, mlp })
    };
    let embed = dims(format!("{prefix}patch_embed.proj.weight"))?;
    let &[_, channels, tubelet, height, width] = embed else {
        return Err(format!("`{prefix}patch_embed.proj.weight` is {embed:?}, not a 3-D convolution"));
    };
    let encoder = stack(prefix)?;
    let decoder = if pretraining { stack("decoder.")? } else { MaeConfig::base().decoder };
    let ClipSize { frames, image_size } = clip;
    let kind = if pretraining {
        CheckpointKind::Pretraining
    } else if !file.keys().any(|name| name.starts_with("head.")) {
        CheckpointKind::Encoder
    } else {
        let classes = classes("head.weight", dims("head.weight".into())?)?;
        CheckpointKind::Classification { classes }
    };
    let config = MaeConfig {
        frames,
        image_size,
        channels,
        tubelet,
        patch: [height, width],
        qv_bias: file.contains_key(&format!("{prefix}blocks.0.attn.q_bias")),
        final_norm: file.contains_key(&format!("{prefix}norm.weight")),
        ..MaeConfig::new(encoder, decoder)
    };
    Ok((config, kind))
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::{DType, Device};

    /// The tensors of a pretraining file that sizes follow from, without memory for their numbers.
    fn file(config: &MaeConfig) -> BTreeMap<String, Tensor> {
        let shaped = |shape: &[usize]| {
            Tensor::zeros(1, DType::F32, &Device::Cpu).unwrap().broadcast_as(shape).unwrap()
        };
        let (encoder, decoder) = (&config.encoder, &config.decoder);
        let [height, width] = config.patch;
        let embed = [encoder.dim, config.channels, config.tubelet, height, width];
        let mut file = BTreeMap::from([
            ("encoder.patch_embed.proj.weight".into(), shaped(&embed)),
            ("encoder.blocks.0.attn.q_bias".into(), shaped(&[encoder.dim])),
            ("encoder.norm.weight".into(), shaped(&[encoder.dim])),
        ]);
        for (name, stack) in [("encoder", encoder), ("decoder", decoder)] {
            for i in 0..stack.depth {
                file.insert(format!("{name}.blocks.{i}.norm1.weight"), shaped(&[stack.dim]));
                file.insert(format!("{name}.blocks.{i}.mlp.fc1.weight"), shaped(&[stack.mlp, stack.dim]));
            }
        }
        file
    }

    /// Heads were taken to be 64 wide: ViT-H was opened with 20 and 10 heads, ViT-g with 22, and computed nonsense.
    #[test]
    fn published_models_are_opened_with_their_numbers_of_heads() {
        let giant = MaeConfig {
            patch: [14, 14],
            ..MaeConfig::new(
                TransformerConfig { mlp: 6144, ..TransformerConfig::new(1408, 40, 16) },
                TransformerConfig::new(512, 4, 8),
            )
        };
        for config in [MaeConfig::small(), MaeConfig::base(), MaeConfig::large(), MaeConfig::huge(), giant] {
            let inferred = infer(&file(&config), ClipSize::default());
            assert_eq!(inferred, Ok((config, CheckpointKind::Pretraining)));
        }
    }

    #[test]
    fn an_unpublished_width_is_refused_instead_of_guessed() {
        for dim in [65, 128, 256, 896, 1664] {
            let message = heads(dim).unwrap_err();
            assert!(
                message.contains(&format!("is {dim} wide")) && message.contains("config.json"),
                "{message}"
            );
        }
        assert_eq!((heads(24), heads(64)), (Ok(1), Ok(1)));
    }
}
