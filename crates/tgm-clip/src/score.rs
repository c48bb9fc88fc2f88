//! How well each patch of a frame matches a caption.

use candle_core::{D, DType, Tensor};
use serde::{Deserialize, Serialize};
use tgm_masking::{Grid, ScoreMap};

use crate::{ClipError, ClipModel, Frames, PatchFeatures};

/// How CLIP's patch grid (7×7 for ViT-B/32 at 224 pixels) becomes the grid of the masked autoencoder (14×14). The paper
/// does not say how.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Resample {
    /// CLIP sees the frame at the size that it was trained on; the score map is interpolated bilinearly onto a finer grid,
    /// and averaged onto a coarser one.
    #[default]
    Map,
    /// CLIP sees the frame enlarged until it has one patch per cell; its position embedding is interpolated (bicubic,
    /// as in `transformers`). About four times the work for 14×14 from ViT-B/32, and a finer map.
    Positions,
}

/// Everything that changes scores beside model, frames and text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ScoreOptions {
    /// Which features stand for a patch. Default: `plain`, the paper's likely reading.
    pub features: PatchFeatures,
    /// How a map gets the wanted grid. Default: `map`, the cheaper one.
    pub resample: Resample,
}

/// Frames that go through CLIP together: enough to fill the matrix products, little enough to stay in a few 100 MB.
const FRAMES_PER_PASS: usize = 16;

impl ClipModel {
    /// Scores `[F, rows, cols]`, frame by frame and row by row: the cosine between each patch and the text embedding
    /// `[E]` (of any length). For [`PatchFeatures::Surgery`] the cosine with the empty caption is subtracted.
    ///
    /// The map covers the whole frame whatever its shape: the sides are scaled independently to the square that CLIP
    /// takes, or to `rows × cols` patches. [`ScoreMap::from_frames`] makes tubelets of its frames.
    ///
    /// # Errors
    /// [`ClipError::Shape`] for a text embedding of another dimension; [`ClipError::Map`] for a grid that cannot be, or when
    /// the model gives a score that is NaN.
    pub fn score(
        &self,
        frames: Frames<'_>,
        text: &Tensor,
        grid: (usize, usize),
        options: &ScoreOptions,
    ) -> Result<Vec<f32>, ClipError> {
        let expected = [self.embedding_dim()];
        if text.dims() != expected {
            return Err(wrong_text(text, &expected));
        }
        let mut all = self.score_each(frames, &text.unsqueeze(0)?, grid, options)?;
        Ok(all.pop().unwrap_or_default())
    }

    /// As [`ClipModel::score`] for `K` texts `[K, E]`, which share one pass of the image tower: one list of scores for each.
    ///
    /// # Errors
    /// As [`ClipModel::score`].
    pub fn score_each(
        &self,
        frames: Frames<'_>,
        texts: &Tensor,
        (rows, cols): (usize, usize),
        options: &ScoreOptions,
    ) -> Result<Vec<Vec<f32>>, ClipError> {
        let wanted = Grid::new(frames.count(), rows, cols)?;
        let directions = self.directions(texts, options.features)?;
        let count = directions.dim(1)?;
        let side = self.image_size() / self.patch_size();
        let (height, width, grid) = match options.resample {
            Resample::Map => (self.image_size(), self.image_size(), (side, side)),
            Resample::Positions => (rows * self.patch_size(), cols * self.patch_size(), (rows, cols)),
        };
        let mut scores = vec![Vec::with_capacity(wanted.len()); count];
        for chunk in frames.chunks(FRAMES_PER_PASS) {
            let pixels = chunk.to_pixels(height, width, self.device())?;
            let features = unit(&self.patch_features(&pixels, options.features)?)?;
            let maps = features.broadcast_matmul(&directions)?.permute((2, 0, 1))?.contiguous()?;
            let own = Grid::new(chunk.count(), grid.0, grid.1)?;
            for (i, scores) in scores.iter_mut().enumerate() {
                let map = ScoreMap::new(own, maps.get(i)?.flatten_all()?.to_vec1()?)?;
                scores.extend(map.resampled(rows, cols)?.into_values());
            }
        }
        Ok(scores)
    }

    /// What unit patch features are multiplied with: `[E, K]`.
    fn directions(&self, texts: &Tensor, features: PatchFeatures) -> Result<Tensor, ClipError> {
        match *texts.dims() {
            [count, width] if count > 0 && width == self.embedding_dim() => {}
            _ => return Err(wrong_text(texts, &[texts.dim(0).unwrap_or(1).max(1), self.embedding_dim()])),
        }
        let texts = unit(&texts.to_device(self.device())?.to_dtype(DType::F32)?)?;
        let directions = match features {
            PatchFeatures::Plain | PatchFeatures::Value => texts,
            PatchFeatures::Surgery => texts.broadcast_sub(self.empty_caption())?,
        };
        Ok(directions.t()?.contiguous()?)
    }
}

fn wrong_text(text: &Tensor, expected: &[usize]) -> ClipError {
    ClipError::Shape {
        what: "text embedding",
        got: format!("{:?}", text.dims()),
        expected: format!("{expected:?}"),
    }
}

/// `x / |x|` along the last dimension; a zero vector stays zero.
pub(crate) fn unit(x: &Tensor) -> candle_core::Result<Tensor> {
    let norm = x.sqr()?.sum_keepdim(D::Minus1)?.sqrt()?.maximum(1e-12)?;
    x.broadcast_div(&norm)
}
