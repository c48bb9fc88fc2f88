//! Pretraining steps on clips of noise: what a step costs, apart from data.

use anyhow::{Context, Result};
use candle_core::{DType, Device, Tensor};
use tgm_mae::{MaeConfig, TokenSplit, VideoMae};
use tgm_masking::{Cues, Grid, Masking};
use tgm_ops::gradcheck::randn;
use tgm_ops::{AdamW, AdamWConfig, Compute, Gradients, Params};
use tgm_random::Streams;

use crate::step::{Joint, Losses, MicroBatch};

/// A model with random weights, its optimiser, and one batch of noise under tube masks.
pub struct SyntheticStep {
    params: Params,
    joint: Joint,
    adamw: AdamW,
    gradients: Gradients,
    batch: MicroBatch,
}

impl SyntheticStep {
    /// `clips` clips, a share `ratio` of whose tubelets is hidden.
    ///
    /// # Errors
    /// When the configuration or the ratio is impossible.
    pub fn new(config: &MaeConfig, compute: Compute, ratio: f64, clips: usize) -> Result<Self> {
        let mut params = Params::new(Streams::new(0), &Device::Cpu);
        let mae = VideoMae::new(config, &mut params)?.with_compute(compute);
        let [slots, rows, cols] = config.grid();
        let grid = Grid::new(slots, rows, cols)?;
        let masks: Result<Vec<_>, _> = (0..clips as u64)
            .map(|clip| {
                let mut stream = Streams::new(0).stream("mask", 0, clip);
                Masking::Tube { ratio }.mask(&grid, &Cues::default(), &mut stream)
            })
            .collect();
        let masks = masks.with_context(|| format!("tube masking at ratio {ratio}"))?;
        let batch = MicroBatch {
            tubelets: randn("clips", &[clips, config.tokens(), config.tubelet_len()], DType::F32)?,
            split: TokenSplit::from_masks(&masks, &Device::Cpu)?,
            texts: None,
            captions: Vec::new(),
        };
        let (adamw, gradients) = (AdamW::new(&params, AdamWConfig::default()), Gradients::zeros(&params));
        Ok(Self { params, joint: Joint { mae, contrastive: None }, adamw, gradients, batch })
    }

    /// Forward, backward, optimiser.
    ///
    /// # Errors
    /// When a parameter gets no gradient.
    pub fn step(&mut self) -> Result<Losses> {
        self.gradients.clear();
        let batch = std::slice::from_ref(&self.batch);
        let losses = self.joint.gradient(&self.params, batch, &mut self.gradients)?;
        let norm = self.gradients.norm();
        anyhow::ensure!(norm.is_finite(), "the gradient's norm is {norm}");
        self.adamw.step(&self.params, &self.gradients, 1e-4, 1.0)?;
        Ok(losses)
    }

    /// The encoder on all tubelets, without gradient: `[B, N, D]`.
    ///
    /// # Errors
    /// When the model fails.
    pub fn features(&self) -> Result<Tensor> {
        Ok(self.joint.mae.encoder().for_inference().forward_all(&self.batch.tubelets)?)
    }
}
