//! The sizes of a video masked autoencoder.

use serde::{Deserialize, Serialize};
use tgm_ops::TargetSpec;

use crate::MaeError;

/// Channel means of ImageNet, which VideoMAE normalises RGB clips with.
pub const IMAGENET_MEAN: [f32; 3] = [0.485, 0.456, 0.406];
/// Channel standard deviations of ImageNet.
pub const IMAGENET_STD: [f32; 3] = [0.229, 0.224, 0.225];

/// The size of a stack of transformer blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TransformerConfig {
    /// Width of a token.
    pub dim: usize,
    /// Number of blocks.
    pub depth: usize,
    /// Attention heads; divides `dim`.
    pub heads: usize,
    /// Width of the hidden layer of the MLP; VideoMAE: 4 × `dim`.
    pub mlp: usize,
}

impl TransformerConfig {
    /// A stack whose MLP is four times as wide as its tokens.
    pub const fn new(dim: usize, depth: usize, heads: usize) -> Self {
        Self { dim, depth, heads, mlp: 4 * dim }
    }
}

/// A model: the clip it takes, its encoder and decoder, and the conventions its weights were trained with.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MaeConfig {
    /// Frames of a clip.
    pub frames: usize,
    /// Height and width of a frame in pixels.
    pub image_size: [usize; 2],
    /// Colour channels.
    pub channels: usize,
    /// Frames per tubelet.
    pub tubelet: usize,
    /// Height and width of a tubelet in pixels.
    pub patch: [usize; 2],
    /// The encoder.
    pub encoder: TransformerConfig,
    /// The decoder.
    pub decoder: TransformerConfig,
    /// Added to the variance in the blocks' layer norms. Original VideoMAE: 1e-6; Hugging Face: 1e-12.
    pub layer_norm_eps: f64,
    /// The same in the decoder's last norm and the classifier's. Original VideoMAE: 1e-6; Hugging Face: 1e-5.
    pub head_norm_eps: f64,
    /// Queries and values have a bias; keys never do.
    pub qv_bias: bool,
    /// The encoder ends in a layer norm. In Hugging Face's words: not `use_mean_pooling`.
    pub final_norm: bool,
    /// The target is standardised per tubelet and channel (`norm_pix_loss`).
    pub normalize_target: bool,
}

impl MaeConfig {
    /// A model for 16 frames of 224×224 in tubelets of 2×16×16, with VideoMAE's conventions.
    pub const fn new(encoder: TransformerConfig, decoder: TransformerConfig) -> Self {
        Self {
            frames: 16,
            image_size: [224, 224],
            channels: 3,
            tubelet: 2,
            patch: [16, 16],
            encoder,
            decoder,
            layer_norm_eps: 1e-6,
            head_norm_eps: 1e-6,
            qv_bias: true,
            final_norm: true,
            normalize_target: true,
        }
    }

    /// For demos and tests on a CPU: 8 frames of 64×64 in tubelets of 2×8×8, a tenth of ViT-S. Ours, not the paper's.
    pub const fn micro() -> Self {
        Self {
            frames: 8,
            image_size: [64, 64],
            patch: [8, 8],
            ..Self::new(TransformerConfig::new(128, 4, 4), TransformerConfig::new(64, 2, 2))
        }
    }

    /// ViT-S (VideoMAE `pretrain_videomae_small_patch16_224`).
    pub const fn small() -> Self {
        Self::new(TransformerConfig::new(384, 12, 6), TransformerConfig::new(192, 4, 3))
    }

    /// ViT-B, the paper's model.
    pub const fn base() -> Self {
        Self::new(TransformerConfig::new(768, 12, 12), TransformerConfig::new(384, 4, 6))
    }

    /// ViT-L.
    pub const fn large() -> Self {
        Self::new(TransformerConfig::new(1024, 24, 16), TransformerConfig::new(512, 12, 8))
    }

    /// ViT-H.
    pub const fn huge() -> Self {
        Self::new(TransformerConfig::new(1280, 32, 16), TransformerConfig::new(640, 12, 8))
    }

    /// A preset by name: `micro`, `small`, `base`, `large` or `huge` (or the initial letter of the last four).
    pub fn preset(name: &str) -> Option<Self> {
        match name {
            "micro" => Some(Self::micro()),
            "s" | "small" => Some(Self::small()),
            "b" | "base" => Some(Self::base()),
            "l" | "large" => Some(Self::large()),
            "h" | "huge" => Some(Self::huge()),
            _ => None,
        }
    }

    /// The tubelet grid: temporal slots, rows, columns. Of a config that [`Self::validate`] refuses because a tubelet has no
    /// extent, 0.
    pub const fn grid(&self) -> [usize; 3] {
        let [height, width] = self.image_size;
        [parts(self.frames, self.tubelet), parts(height, self.patch[0]), parts(width, self.patch[1])]
    }

    /// N: tubelets of a clip.
    pub const fn tokens(&self) -> usize {
        let [slots, rows, cols] = self.grid();
        slots.saturating_mul(rows).saturating_mul(cols)
    }

    /// P: numbers in a tubelet.
    pub const fn tubelet_len(&self) -> usize {
        let [height, width] = self.patch;
        self.tubelet.saturating_mul(height).saturating_mul(width).saturating_mul(self.channels)
    }

    /// How pixels become the target. Channels other than RGB are taken as they are.
    pub fn target(&self) -> TargetSpec {
        let (mean, std) = if self.channels == 3 {
            (IMAGENET_MEAN.to_vec(), IMAGENET_STD.to_vec())
        } else {
            (vec![0.0; self.channels], vec![1.0; self.channels])
        };
        TargetSpec { normalize: self.normalize_target, mean, std }
    }

    /// Checks that all sizes fit together.
    ///
    /// # Errors
    /// [`MaeError::Config`] naming the first that does not.
    pub fn validate(&self) -> Result<(), MaeError> {
        self.limits()?;
        let divides = |what: &str, whole: usize, part: usize| {
            if part == 0 || whole == 0 || !whole.is_multiple_of(part) {
                return Err(MaeError::Config(format!(
                    "{what}: {whole} is not a positive multiple of {part}"
                )));
            }
            Ok(())
        };
        divides("frames per tubelet", self.frames, self.tubelet)?;
        divides("height per patch", self.image_size[0], self.patch[0])?;
        divides("width per patch", self.image_size[1], self.patch[1])?;
        if self.tokens() > 1 << 24 {
            return Err(MaeError::Config(format!(
                "{} tubelets in a clip: at most {}",
                self.tokens(),
                1 << 24
            )));
        }
        for (name, part) in [("encoder", &self.encoder), ("decoder", &self.decoder)] {
            divides(&format!("{name} width per head"), part.dim, part.heads)?;
            if part.mlp == 0 || part.depth == 0 {
                return Err(MaeError::Config(format!("{name}: {part:?} has an empty layer")));
            }
        }
        if self.channels == 0 {
            return Err(MaeError::Config("a clip needs at least one channel".into()));
        }
        for (name, eps) in [("layer_norm_eps", self.layer_norm_eps), ("head_norm_eps", self.head_norm_eps)] {
            if !eps.is_finite() || eps < 0.0 {
                return Err(MaeError::Config(format!("{name} = {eps}: must be a number of 0 or more")));
            }
        }
        Ok(())
    }

    /// Refuses sizes that no model has before memory is asked for, or a product wraps: a configuration may come from anywhere.
    fn limits(&self) -> Result<(), MaeError> {
        const SIDE: usize = 1 << 14;
        const WIDTH: usize = 1 << 16;
        const DEPTH: usize = 1 << 10;
        let [height, width] = self.image_size;
        let mut sizes = vec![
            ("frames", self.frames, SIDE),
            ("height", height, SIDE),
            ("width", width, SIDE),
            ("channels", self.channels, DEPTH),
        ];
        for part in [&self.encoder, &self.decoder] {
            sizes.extend([
                ("dim", part.dim, WIDTH),
                ("mlp", part.mlp, 4 * WIDTH),
                ("depth", part.depth, DEPTH),
            ]);
        }
        match sizes.into_iter().find(|(_, size, most)| size > most) {
            Some((what, size, most)) => Err(MaeError::Config(format!("{what} = {size}: at most {most}"))),
            None => Ok(()),
        }
    }
}

/// How many whole parts there are; none of no extent.
const fn parts(whole: usize, part: usize) -> usize {
    match whole.checked_div(part) {
        Some(parts) => parts,
        None => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_base_preset_has_the_papers_sizes() {
        let config = MaeConfig::base();
        assert_eq!((config.grid(), config.tokens(), config.tubelet_len()), ([8, 14, 14], 1568, 1536));
    }

    /// `hidden_size = 2^62` was a panic, `num_hidden_layers = 2^40` the end of all memory, and `num_frames = 2^62` wrapped to no tokens.
    #[test]
    fn sizes_that_no_model_has_are_refused_by_name() {
        let huge = 1 << 62;
        let base = MaeConfig::base();
        let encoder = |encoder| MaeConfig { encoder, ..base.clone() };
        for (name, config) in [
            ("frames", MaeConfig { frames: huge, ..base.clone() }),
            ("dim", encoder(TransformerConfig { dim: huge, ..base.encoder })),
            ("depth", encoder(TransformerConfig { depth: 1 << 40, ..base.encoder })),
        ] {
            let error = config.validate().unwrap_err().to_string();
            assert!(error.contains(name), "{error}");
        }
    }

    /// The grid of a config that nobody had validated was a division by zero.
    #[test]
    fn a_tubelet_of_no_extent_has_no_grid_and_no_model() {
        let base = MaeConfig::base();
        for config in [
            MaeConfig { tubelet: 0, ..base.clone() },
            MaeConfig { patch: [0, 16], ..base.clone() },
            MaeConfig { patch: [16, 0], ..base.clone() },
        ] {
            assert_eq!((config.tokens(), config.tubelet_len()), (0, 0));
            let mut params = tgm_ops::Params::new(tgm_random::Streams::new(0), &candle_core::Device::Cpu);
            assert!(matches!(crate::Decoder::new(&config, &mut params), Err(MaeError::Config(_))));
        }
        let huge = MaeConfig { frames: usize::MAX, tubelet: 1, ..base };
        assert_eq!(huge.tokens(), usize::MAX);
    }

    #[test]
    fn an_eps_that_is_no_number_is_refused() {
        for eps in [f64::NAN, f64::INFINITY, -1e-6] {
            for config in [
                MaeConfig { layer_norm_eps: eps, ..MaeConfig::base() },
                MaeConfig { head_norm_eps: eps, ..MaeConfig::base() },
            ] {
                let error = config.validate().unwrap_err().to_string();
                assert!(error.contains(&format!("norm_eps = {eps}")), "{error}");
            }
        }
    }

    #[test]
    fn every_preset_is_valid() {
        for name in ["micro", "small", "base", "large", "huge"] {
            MaeConfig::preset(name).unwrap().validate().unwrap();
        }
        assert_eq!(MaeConfig::preset("giant"), None);
    }

    #[test]
    fn sizes_that_do_not_divide_are_refused() {
        let config = MaeConfig { image_size: [224, 225], ..MaeConfig::base() };
        assert_eq!(
            config.validate().unwrap_err().to_string(),
            "model config: width per patch: 225 is not a positive multiple of 16"
        );
    }
}
