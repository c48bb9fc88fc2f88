//! VideoMAE's reconstruction target.

use candle_core::{CpuStorage, DType, Device, InplaceOp1, Layout, Result, Tensor, bail};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::gather_tokens;
use crate::simd::multiversion;

/// How the pixels of a tubelet become the target of the reconstruction.
///
/// Source: VideoMAE `engine_for_pretraining.py` and `transformers` `modeling_videomae.py`. The clip's channel
/// normalisation is undone first. With `normalize`, each tubelet is standardised *per channel* over its pixels, with the
/// unbiased variance and 1e-6 added to the root. Without, the target is the pixel in [0, 1].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TargetSpec {
    /// Standardise every tubelet (`norm_pix_loss`).
    pub normalize: bool,
    /// Channel means that the clip was normalised with.
    pub mean: Vec<f32>,
    /// Channel standard deviations that the clip was normalised with.
    pub std: Vec<f32>,
}

impl TargetSpec {
    /// The target of tubelets `[B, K, P]`, laid out pixel-major and channel-minor. `f32`, without gradient.
    ///
    /// # Errors
    /// When `P` is not a multiple of the number of channels, or is 0, or a tubelet to be standardised has a single pixel.
    pub fn target(&self, tubelets: &Tensor) -> Result<Tensor> {
        self.rewrite(tubelets.detach().to_dtype(DType::F32)?.to_device(&Device::Cpu)?.copy()?)
    }

    /// The target of some of a clip's tubelets: those that `index` `[B, K]` picks from `[B, N, P]`, in one copy.
    ///
    /// # Errors
    /// As [`Self::target`] and [`gather_tokens`].
    pub fn target_at(&self, tubelets: &Tensor, index: &Tensor) -> Result<Tensor> {
        let picked = gather_tokens(&tubelets.detach(), index)?;
        self.rewrite(picked.to_dtype(DType::F32)?.to_device(&Device::Cpu)?)
    }

    /// Turns tubelets that nobody else holds into their target.
    fn rewrite(&self, tubelets: Tensor) -> Result<Tensor> {
        let (_, _, len) = tubelets.dims3()?;
        let channels = self.mean.len();
        if channels == 0 || self.std.len() != channels || len == 0 || len % channels != 0 {
            bail!("target: tubelets of {len} values with {channels} means and {} deviations", self.std.len());
        }
        if self.normalize && len == channels {
            bail!("target: a tubelet of one pixel has no variance to normalise by");
        }
        let tubelets = tubelets.contiguous()?;
        tubelets.inplace_op1(&Rewrite { spec: self, len })?;
        Ok(tubelets)
    }
}

/// [`TargetSpec::rewrite`] of all tubelets of `len` values.
struct Rewrite<'a> {
    spec: &'a TargetSpec,
    len: usize,
}

impl InplaceOp1 for Rewrite<'_> {
    fn name(&self) -> &'static str {
        "tgm-target"
    }

    fn cpu_fwd(&self, storage: &mut CpuStorage, layout: &Layout) -> Result<()> {
        let (CpuStorage::F32(values), Some((start, end))) = (storage, layout.contiguous_offsets()) else {
            bail!("target: wanted are contiguous tubelets in f32");
        };
        values[start..end].par_chunks_mut(self.len).for_each(|tubelet| rewrite(tubelet, self.spec));
        Ok(())
    }
}

multiversion! {
    fn rewrite(tubelet: &mut [f32], spec: &TargetSpec) = rewrite_body;
}

/// Numbers per channel that are summed side by side.
const SUMS: usize = 16;

/// Turns one tubelet into its target. Statistics are taken in `f64`: the variance of a nearly flat tubelet is the
/// difference of nearly equal numbers.
///
/// Whole pixels are handled side by side, so that position `l` of a chunk always belongs to channel `l % channels`.
#[inline(always)]
fn rewrite_body<const FMA: bool>(tubelet: &mut [f32], spec: &TargetSpec) {
    let channels = spec.mean.len();
    let lanes = channels * SUMS;
    let spread = |values: &[f32]| -> Vec<f32> { (0..lanes).map(|l| values[l % channels]).collect() };
    let (mean, std) = (spread(&spec.mean), spread(&spec.std));
    let mut sums = vec![0f64; lanes];
    for chunk in tubelet.chunks_mut(lanes) {
        for (((v, sum), &mean), &std) in chunk.iter_mut().zip(&mut sums).zip(&mean).zip(&std) {
            *v = *v * std + mean;
            *sum += f64::from(*v);
        }
    }
    if !spec.normalize {
        return;
    }
    let pixels = (tubelet.len() / channels) as f64;
    // Every lane gets its channel's sum.
    let gather = |sums: &[f64]| -> Vec<f64> {
        (0..lanes).map(|l| sums.iter().skip(l % channels).step_by(channels).sum()).collect()
    };
    let means: Vec<f64> = gather(&sums).iter().map(|sum| sum / pixels).collect();
    sums.fill(0.0);
    for chunk in tubelet.chunks(lanes) {
        for ((&v, sum), &mean) in chunk.iter().zip(&mut sums).zip(&means) {
            *sum += (f64::from(v) - mean) * (f64::from(v) - mean);
        }
    }
    let scale = |sum: &f64| 1.0 / ((sum / (pixels - 1.0)).sqrt() + 1e-6);
    let scales: Vec<f64> = gather(&sums).iter().map(scale).collect();
    for chunk in tubelet.chunks_mut(lanes) {
        for ((v, &mean), &scale) in chunk.iter_mut().zip(&means).zip(&scales) {
            *v = ((f64::from(*v) - mean) * scale) as f32;
        }
    }
}
