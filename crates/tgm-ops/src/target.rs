//! VideoMAE's reconstruction target.

use candle_core::{DType, Result, Tensor, bail};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::cpu::{View, tensor};

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
    /// When `P` is not a multiple of the number of channels, or a tubelet to be standardised has a single pixel.
    pub fn target(&self, tubelets: &Tensor) -> Result<Tensor> {
        let (_, _, len) = tubelets.dims3()?;
        let channels = self.mean.len();
        if channels == 0 || self.std.len() != channels || len % channels != 0 {
            bail!("target: tubelets of {len} values with {channels} means and {} deviations", self.std.len());
        }
        if self.normalize && len == channels {
            bail!("target: a tubelet of one pixel has no variance to normalise by");
        }
        let tubelets = tubelets.to_dtype(DType::F32)?.to_device(&candle_core::Device::Cpu)?.contiguous()?;
        let mut out = View::new(&tubelets).as_slice::<f32>()?.to_vec();
        out.par_chunks_mut(len).for_each(|tubelet| {
            for channel in 0..channels {
                self.channel(tubelet, channel);
            }
        });
        tensor(out, tubelets.shape())
    }

    /// Rewrites one channel of one tubelet. Statistics are taken in `f64`: the variance of a nearly flat tubelet is the
    /// difference of nearly equal numbers.
    fn channel(&self, tubelet: &mut [f32], channel: usize) {
        let channels = self.mean.len();
        let (mean, std) = (self.mean[channel], self.std[channel]);
        for v in tubelet[channel..].iter_mut().step_by(channels) {
            *v = *v * std + mean;
        }
        if !self.normalize {
            return;
        }
        let pixels = (tubelet.len() / channels) as f64;
        let values = || tubelet[channel..].iter().step_by(channels).map(|&v| f64::from(v));
        let mean = values().sum::<f64>() / pixels;
        let variance = values().map(|v| (v - mean) * (v - mean)).sum::<f64>() / (pixels - 1.0);
        let scale = 1.0 / (variance.sqrt() + 1e-6);
        for v in tubelet[channel..].iter_mut().step_by(channels) {
            *v = ((f64::from(*v) - mean) * scale) as f32;
        }
    }
}
