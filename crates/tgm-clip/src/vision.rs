//! The image tower, and the three ways to read patch features from it.

use candle_core::{DType, IndexOp, Module, Result, Tensor};
use serde::{Deserialize, Serialize};

use crate::blocks::{Block, LayerNorm, Linear, activations};
use crate::config::Config;
use crate::interpolate::bicubic;
use crate::weights::Weights;

/// Which features of the image tower stand for a patch. All of them pass the post layer norm and the projection,
/// so that they live in the space of the text embeddings; CLIP itself was trained with the class token only.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PatchFeatures {
    /// The patch tokens of the last block: the likely reading of Text-Guided Video Masked Autoencoder
    /// (arXiv 2408.00759), which only says that CLIP encodes frames patch by patch. CLIP Surgery reports that they
    /// prefer the background.
    #[default]
    Plain,
    /// The value path of the last block, `out_proj(v_proj(layer_norm1(x)))`: MaskCLIP (Zhou et al., arXiv
    /// 2112.01071), which drops queries and keys of the last attention. The residual and the
    /// feed-forward part are dropped too, which is how the paper describes it for attention pooling; its released
    /// code for vision transformers keeps them.
    Value,
    /// CLIP Surgery (Li et al., arXiv 2304.05653): beside the last six blocks runs a second path that adds up
    /// attention of the values among themselves and skips the feed-forward parts (`clip_surgery_model.py`;
    /// fewer than six blocks: all of them). When *scores* are computed from them, the unit embedding of the empty
    /// caption is subtracted from that of the text: the removal of redundant features for a single text in the
    /// released code, here without its prompt templates.
    Surgery,
}

impl PatchFeatures {
    /// The name in configurations, options and files.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::Value => "value",
            Self::Surgery => "surgery",
        }
    }
}

/// Blocks with a second path in CLIP Surgery, counted from the end.
const SURGERY_BLOCKS: usize = 6;

#[derive(Debug)]
pub(crate) struct VisionTower {
    /// From `3·p·p` to C: a convolution whose stride is its kernel size is a matrix product over patches.
    patch_embedding: Linear,
    class_embedding: Tensor,
    /// `[1 + side², C]`, class token first.
    positions: Tensor,
    pre_norm: LayerNorm,
    blocks: Vec<Block>,
    post_norm: LayerNorm,
    projection: Linear,
    patch_size: usize,
    side: usize,
    /// The type of activations.
    dtype: DType,
}

impl VisionTower {
    pub fn load(weights: &mut Weights, config: &Config, dtype: DType) -> Result<Self> {
        let vision = &config.vision;
        let blocks = vision.blocks();
        let (width, patch, side) = (blocks.width, vision.patch_size, vision.side());
        let embeddings = "vision_model.embeddings";
        Ok(Self {
            patch_embedding: Linear::new(
                weights
                    .take(&format!("{embeddings}.patch_embedding.weight"), &[width, 3, patch, patch])?
                    .reshape((width, 3 * patch * patch))?,
                None,
            ),
            class_embedding: weights.take_wide(&format!("{embeddings}.class_embedding"), &[width])?,
            positions: weights
                .take_wide(&format!("{embeddings}.position_embedding.weight"), &[side * side + 1, width])?,
            // The misspelt name is that of the checkpoints.
            pre_norm: weights.layer_norm("vision_model.pre_layrnorm", width, blocks.eps)?,
            blocks: Block::load_stack(weights, "vision_model", vision.num_hidden_layers, &blocks)?,
            post_norm: weights.layer_norm("vision_model.post_layernorm", width, blocks.eps)?,
            projection: weights.linear_no_bias("visual_projection", width, config.projection_dim)?,
            patch_size: patch,
            side,
            dtype: activations(dtype, weights.device()),
        })
    }

    /// Projected class-token embeddings `[F, E]` of pixels `[F, 3, H, W]`.
    pub fn image_embedding(&self, pixels: &Tensor) -> Result<Tensor> {
        let mut x = self.embed(pixels)?;
        for block in &self.blocks {
            x = block.forward(&x, None)?;
        }
        self.project(&x.i((.., 0))?)
    }

    /// Projected patch features `[F, P, E]` of pixels `[F, 3, H, W]`, patches row by row.
    pub fn patch_features(&self, pixels: &Tensor, features: PatchFeatures) -> Result<Tensor> {
        let x = self.embed(pixels)?;
        let x = match features {
            PatchFeatures::Plain => self.run(x, self.blocks.len())?,
            PatchFeatures::Value => {
                let x = self.run(x, self.blocks.len() - 1)?;
                let last = self.blocks.last().expect("the configuration has at least one block");
                last.attention.forward_value(&last.norm1.forward(&x)?)?
            }
            PatchFeatures::Surgery => self.surgery(x)?,
        };
        self.project(&x.i((.., 1..))?)
    }

    fn run(&self, mut x: Tensor, blocks: usize) -> Result<Tensor> {
        for block in &self.blocks[..blocks] {
            x = block.forward(&x, None)?;
        }
        Ok(x)
    }

    fn surgery(&self, x: Tensor) -> Result<Tensor> {
        let start = self.blocks.len().saturating_sub(SURGERY_BLOCKS);
        let mut x = self.run(x, start)?;
        let mut side = x.clone();
        for block in &self.blocks[start..] {
            let (ordinary, among_values) =
                block.attention.forward_with_value_attention(&block.norm1.forward(&x)?)?;
            side = (side + among_values)?;
            x = block.add_mlp(&(x + ordinary)?)?;
        }
        Ok(side)
    }

    fn project(&self, x: &Tensor) -> Result<Tensor> {
        self.projection.forward(&self.post_norm.forward(x)?)?.to_dtype(DType::F32)
    }

    /// Class token and patches with their positions: `[F, 1 + P, C]`.
    fn embed(&self, pixels: &Tensor) -> Result<Tensor> {
        let (frames, _, height, width) = pixels.dims4()?;
        let p = self.patch_size;
        let (rows, cols) = (height / p, width / p);
        // Like a convolution without padding: what does not fill a patch is left out.
        let patches = pixels
            .to_dtype(self.dtype)?
            .narrow(2, 0, rows * p)?
            .narrow(3, 0, cols * p)?
            .reshape((frames, 3, rows, p, cols, p))?
            .permute((0, 2, 4, 1, 3, 5))?
            .reshape((frames, rows * cols, 3 * p * p))?;
        let patches = self.patch_embedding.forward(&patches)?;
        let class = self.class_embedding.expand((frames, 1, self.class_embedding.dim(0)?))?;
        let x = Tensor::cat(&[class, patches], 1)?.broadcast_add(&self.positions(rows, cols)?)?;
        self.pre_norm.forward(&x)
    }

    /// The position embedding for another grid, as `interpolate_pos_encoding` in `transformers` computes it:
    /// bicubic for the patches, unchanged for the class token. `[1 + rows·cols, C]`.
    fn positions(&self, rows: usize, cols: usize) -> Result<Tensor> {
        if (rows, cols) == (self.side, self.side) {
            return Ok(self.positions.clone());
        }
        let width = self.positions.dim(1)?;
        let patches =
            self.positions.i(1..)?.to_dtype(DType::F32)?.t()?.reshape((width, self.side, self.side))?;
        let patches =
            bicubic(&patches, rows, cols)?.reshape((width, rows * cols))?.t()?.to_dtype(self.dtype)?;
        Tensor::cat(&[self.positions.i(..1)?, patches], 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::{ModelFiles, ModelSource};
    use candle_core::Device;

    #[test]
    fn interpolated_positions_are_those_of_transformers() {
        for name in ["clip-quick-gelu", "clip-gelu", "clip-pickle"] {
            let folder = std::path::Path::new("../../fixtures").join(name);
            let golden =
                candle_core::safetensors::load(folder.join("golden.safetensors"), &Device::Cpu).unwrap();
            let files = ModelFiles::resolve(&ModelSource::Folder(folder)).unwrap();
            let config = Config::parse(&files.config, name).unwrap();
            let mut weights = Weights::read(files.weights, name, &Device::Cpu, DType::F32).unwrap();
            let tower = VisionTower::load(&mut weights, &config, DType::F32).unwrap();
            let found = tower.positions(7, 6).unwrap();
            let worst =
                (found - &golden["wide.position_embedding"]).unwrap().abs().unwrap().max_all().unwrap();
            assert!(worst.to_scalar::<f32>().unwrap() < 1e-5, "{name}: {worst}");
        }
    }
}
