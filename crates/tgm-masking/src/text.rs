//! Text-guided masking: hide what the caption speaks of.

use rand::{Rng, RngExt, distr::Open01};
use serde::{Deserialize, Serialize};

use crate::{Grid, Mask, MaskError, ScoreMap, masking::positive, select::top_k_per_slot};

/// Settings of [`Masking::Text`](crate::Masking::Text).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "kebab-case", deny_unknown_fields)]
pub struct TextConfig {
    /// Share of tubelets masked in each slot. Default 0.6, the best in TGM's ablation.
    pub ratio: f64,
    /// Which tubelets are masked, given their scores. Default `top-k`, as in TGM.
    pub select: Select,
    /// Temperature of `sample`, in units of the score; `top-k` and `bottom-k` do not use it. Towards 0 the
    /// sample becomes the top k, towards infinity a uniform draw. Default 0.01, the temperature at which CLIP
    /// compares cosines (its logit scale ends at 100); TGM does not sample.
    pub temperature: f64,
}

impl Default for TextConfig {
    fn default() -> Self {
        Self { ratio: 0.6, select: Select::TopK, temperature: 0.01 }
    }
}

/// How scores decide which tubelets are masked. Equal scores are decided at random in all of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Select {
    /// The highest scores (TGM's method).
    #[default]
    TopK,
    /// The lowest scores (TGM's ablation).
    BottomK,
    /// Drawn without replacement with probabilities softmax(score / temperature), by the Gumbel-top-k trick
    /// (arXiv 1903.06059). Not in TGM.
    Sample,
}

impl TextConfig {
    pub(crate) const NAME: &'static str = "text";

    pub(crate) fn validate(&self) -> Result<(), MaskError> {
        positive(Self::NAME, "temperature", self.temperature)
    }

    /// Masks `k` tubelets of each slot by their scores.
    pub(crate) fn mask(
        &self,
        grid: Grid,
        k: usize,
        scores: &ScoreMap,
        rng: &mut impl Rng,
    ) -> Result<Mask, MaskError> {
        let keys: Vec<f64> = scores.values().iter().map(|&score| self.key(score.into(), rng)).collect();
        Mask::from_masked(grid, top_k_per_slot(grid, k, |i| keys[i as usize], rng))
    }

    /// What to sort by, descending.
    fn key(&self, score: f64, rng: &mut impl Rng) -> f64 {
        match self.select {
            Select::TopK => score,
            Select::BottomK => -score,
            // Noise that is never infinite keeps an infinite score where it is.
            Select::Sample => score / self.temperature - (-rng.sample::<f64, _>(Open01).ln()).ln(),
        }
    }
}
