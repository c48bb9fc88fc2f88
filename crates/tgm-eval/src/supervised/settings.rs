//! How a network is trained on labels, with the published recipes.

use serde::{Deserialize, Serialize};
use tgm_data::dataset::Flip;
use tgm_ops::{Compute, Keep, Precision};
use tgm_video::{Crop, RandAugment};

use crate::error::first_invalid;
use crate::{Error, Result};

/// What is trained.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Head {
    /// The whole encoder, and a linear layer on its mean token.
    Finetune,
    /// A cross-attention block and a linear layer on the tokens of a frozen encoder.
    Attentive,
}

/// Settings of the training.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// What is trained.
    pub head: Head,
    /// Passes over train.
    pub epochs: f64,
    /// Videos per step; a smaller train set is one batch.
    pub batch: usize,
    /// Clips in memory at once; changes no result beyond rounding.
    pub micro_batch: usize,
    /// Arithmetic of the encoder.
    pub precision: Precision,
    /// Compute the encoder's blocks again in the backward pass instead of keeping their activations: the same gradients in
    /// less memory. Fine-tuning only.
    pub recompute: bool,
    /// Clips of each video in a batch (repeated augmentation). They do not count for the learning rate.
    pub repeats: usize,
    /// Learning rate per 256 videos.
    pub base_lr: f64,
    /// The learning rate at the end, per 256 videos.
    pub min_lr: f64,
    /// Epochs of linear warm-up from 0.
    pub warmup_epochs: f64,
    /// Decoupled weight decay on parameters of two or more dimensions, at the start.
    pub weight_decay: f64,
    /// The same at the end, along half a cosine.
    pub final_weight_decay: f64,
    /// Decay of the optimiser's second moment.
    pub beta2: f64,
    /// Limit on the gradient's norm; 0 for none.
    pub clip_norm: f64,
    /// Each layer below the head learns this much more slowly. Fine-tuning only.
    pub layer_decay: f64,
    /// Rate of stochastic depth in the last block. Fine-tuning only.
    pub drop_path: f64,
    /// Share of the target that is spread over all classes.
    pub label_smoothing: f64,
    /// Beta parameter of mixup; 0 for none.
    pub mixup: f64,
    /// Beta parameter of cutmix; 0 for none.
    pub cutmix: f64,
    /// With both, the probability of cutmix.
    pub cutmix_share: f64,
    /// The part of the picture that is trained on. Published: random resized crops of 8 to 100 % of its area.
    pub crop: Crop,
    /// Probability of a mirrored clip; `auto`: as published, half the clips when fine-tuning on a data set where mirroring changes
    /// no label, else none. Where mirroring turns classes into each other (Something-Something v2), labels follow.
    #[serde(with = "auto")]
    pub flip: Option<f64>,
    /// Probability of random erasing.
    pub erase: f64,
    /// RandAugment; `false` for none.
    pub rand_augment: Option<RandAugment>,
    /// Decay of the moving average of the weights that is scored; 0 scores the weights themselves.
    pub ema: f64,
    /// Attention heads of the attentive probe; in a configuration, 0 for as many as the encoder has.
    pub heads: usize,
}

impl Settings {
    /// VideoMAE's fine-tuning of a ViT-B (800 epochs, Something-Something v2): AdamW, base rate 5·10⁻⁴, 50 epochs, layer decay
    /// 0.75, drop path 0.1, RandAugment, erasing 0.25, mixup 0.8 and cutmix 1, smoothing 0.1, no EMA.
    pub fn finetune() -> Self {
        Self {
            head: Head::Finetune,
            epochs: 50.0,
            batch: 512,
            micro_batch: 8,
            precision: Precision::F32,
            recompute: false,
            repeats: 1,
            base_lr: 5e-4,
            min_lr: 1e-6,
            warmup_epochs: 5.0,
            weight_decay: 0.05,
            final_weight_decay: 0.05,
            beta2: 0.999,
            clip_norm: 0.0,
            layer_decay: 0.75,
            drop_path: 0.1,
            label_smoothing: 0.1,
            mixup: 0.8,
            cutmix: 1.0,
            cutmix_share: 0.5,
            crop: Crop::random_resized(),
            flip: None,
            erase: 0.25,
            rand_augment: Some(RandAugment::default()),
            ema: 0.0,
            heads: 1,
        }
    }

    /// V-JEPA's attentive probe: AdamW, rate 10⁻³ at 256 videos to 0 without warm-up, weight decay 0.01 to 10⁻⁶, gradients cut at
    /// norm 1, 20 epochs, RandAugment, erasing 0.25, neither mixup nor smoothing.
    pub fn attentive(heads: usize) -> Self {
        Self {
            head: Head::Attentive,
            epochs: 20.0,
            batch: 256,
            base_lr: 1e-3,
            min_lr: 0.0,
            warmup_epochs: 0.0,
            weight_decay: 0.01,
            final_weight_decay: 1e-6,
            clip_norm: 1.0,
            layer_decay: 1.0,
            drop_path: 0.0,
            label_smoothing: 0.0,
            mixup: 0.0,
            cutmix: 0.0,
            heads,
            ..Self::finetune()
        }
    }

    /// Refuses values that make no sense, and those of settings that the head does not read.
    ///
    /// # Errors
    /// [`Error::Setting`] naming the first.
    pub fn check(&self) -> Result<()> {
        self.check_values()?;
        self.check_read()
    }

    /// What a head does not read must be as its defaults have it: whoever sets it expects something of it.
    fn check_read(&self) -> Result<()> {
        let (unread, allowed) = match self.head {
            Head::Finetune => {
                let own = Self::finetune();
                let unread = vec![("heads", self.heads.to_string(), own.heads.to_string())];
                (unread, "has no effect on fine-tuning: leave it out")
            }
            Head::Attentive => {
                let own = Self::attentive(self.heads);
                let unread = vec![
                    ("layer_decay", self.layer_decay.to_string(), own.layer_decay.to_string()),
                    ("drop_path", self.drop_path.to_string(), own.drop_path.to_string()),
                    ("recompute", self.recompute.to_string(), own.recompute.to_string()),
                ];
                (unread, "has no effect on the attentive probe: leave it out")
            }
        };
        match unread.into_iter().find(|(_, value, own)| value != own) {
            Some((name, value, _)) => Err(Error::setting(name, value, allowed)),
            None => Ok(()),
        }
    }

    fn check_values(&self) -> Result<()> {
        let share = |value: f64| (0.0..=1.0).contains(&value);
        let least = |value: f64| value >= 0.0 && value.is_finite();
        // Of smaller parameters nearly every draw is 0, and drawn again.
        let beta = |value: f64| value == 0.0 || (value >= 1e-3 && value.is_finite());
        let below_one = |value: f64| (0.0..1.0).contains(&value);
        let checks = [
            ("epochs", self.epochs, self.epochs > 0.0 && self.epochs.is_finite(), "must be positive"),
            ("batch", self.batch as f64, self.batch >= 1, "must be positive"),
            ("micro_batch", self.micro_batch as f64, self.micro_batch >= 1, "must be positive"),
            ("repeats", self.repeats as f64, self.repeats >= 1, "must be positive"),
            ("base_lr", self.base_lr, self.base_lr > 0.0 && self.base_lr.is_finite(), "must be positive"),
            ("min_lr", self.min_lr, least(self.min_lr), "must not be negative"),
            (
                "warmup_epochs",
                self.warmup_epochs,
                least(self.warmup_epochs) && self.warmup_epochs < self.epochs,
                "must be below epochs",
            ),
            ("weight_decay", self.weight_decay, least(self.weight_decay), "must not be negative"),
            (
                "final_weight_decay",
                self.final_weight_decay,
                least(self.final_weight_decay),
                "must not be negative",
            ),
            ("beta2", self.beta2, below_one(self.beta2), "must lie between 0 and below 1"),
            ("clip_norm", self.clip_norm, least(self.clip_norm), "must not be negative"),
            (
                "layer_decay",
                self.layer_decay,
                self.layer_decay > 0.0 && self.layer_decay <= 1.0,
                "must lie above 0 and up to 1",
            ),
            ("drop_path", self.drop_path, below_one(self.drop_path), "must lie between 0 and below 1"),
            (
                "label_smoothing",
                self.label_smoothing,
                below_one(self.label_smoothing),
                "must lie between 0 and below 1",
            ),
            ("mixup", self.mixup, beta(self.mixup), "must be 0, or at least 0.001"),
            ("cutmix", self.cutmix, beta(self.cutmix), "must be 0, or at least 0.001"),
            ("cutmix_share", self.cutmix_share, share(self.cutmix_share), "must lie between 0 and 1"),
            (
                "flip",
                self.flip.unwrap_or(0.0),
                share(self.flip.unwrap_or(0.0)),
                "must lie between 0 and 1, or be `auto`",
            ),
            ("erase", self.erase, share(self.erase), "must lie between 0 and 1"),
            ("ema", self.ema, below_one(self.ema), "must lie between 0 and below 1"),
        ];
        first_invalid(checks)
    }

    /// How the encoder computes while it is trained.
    pub(super) fn compute(&self) -> Compute {
        let keep = if self.recompute { Keep::Inputs } else { Keep::Activations };
        Compute { precision: self.precision, keep }
    }

    /// The probability of a mirrored clip on a data set of this kind.
    pub fn flip_on(&self, data: &Flip) -> f64 {
        match (self.flip, self.head, data) {
            (Some(probability), ..) => probability,
            // VideoMAE's `ssv2.py` mirrors everything but Something-Something; V-JEPA's `eval.py` nothing.
            (None, Head::Finetune, Flip::Always) => 0.5,
            _ => 0.0,
        }
    }

    /// The learning rate of a step: warm-up from 0, then half a cosine (VideoMAE's `cosine_scheduler`).
    pub fn lr(&self, peak: f64, step: u64, total: u64, warmup: u64) -> f64 {
        if step < warmup {
            return peak * step as f64 / (warmup.max(2) - 1) as f64;
        }
        let end = self.min_lr * peak / self.base_lr;
        half_cosine(peak, end, (step - warmup) as f64 / (total - warmup).max(1) as f64)
    }

    /// The weight decay of a step.
    pub fn decay(&self, step: u64, total: u64) -> f64 {
        half_cosine(self.weight_decay, self.final_weight_decay, step as f64 / total.max(1) as f64)
    }

    /// The factor on the learning rate of a parameter of an encoder of `depth` blocks: the embedding is layer 0, block i is
    /// layer i + 1, and what lies above learns at the full rate (BEiT, VideoMAE).
    ///
    /// ```
    /// use tgm_eval::supervised::Settings;
    ///
    /// let settings = Settings { layer_decay: 0.5, ..Settings::finetune() };
    /// let scale = |name| settings.layer_scale(name, 2);
    /// assert_eq!(scale("classifier.head.weight"), 1.0);
    /// assert_eq!(scale("encoder.blocks.1.norm1.weight"), 0.5);
    /// assert_eq!(scale("encoder.blocks.0.norm1.weight"), 0.25);
    /// assert_eq!(scale("encoder.embed.weight"), 0.125);
    /// ```
    pub fn layer_scale(&self, name: &str, depth: usize) -> f64 {
        let layer = match name.strip_prefix("encoder.") {
            Some(rest) if rest.starts_with("embed.") => 0,
            Some(rest) => {
                let number = rest.strip_prefix("blocks.").and_then(|rest| rest.split('.').next());
                number.and_then(|number| number.parse::<usize>().ok()).map_or(depth + 1, |block| block + 1)
            }
            None => depth + 1,
        };
        self.layer_decay.powi((depth + 1 - layer.min(depth + 1)) as i32)
    }
}

/// A number, or `auto` for none.
mod auto {
    use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

    #[derive(Serialize, Deserialize)]
    #[serde(untagged)]
    enum Value {
        Number(f64),
        Word(String),
    }

    pub(super) fn serialize<S: Serializer>(value: &Option<f64>, to: S) -> Result<S::Ok, S::Error> {
        value.map_or_else(|| Value::Word("auto".into()), Value::Number).serialize(to)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<f64>, D::Error> {
        match Value::deserialize(from) {
            Ok(Value::Number(number)) => Ok(Some(number)),
            Ok(Value::Word(word)) if word == "auto" => Ok(None),
            _ => Err(de::Error::custom("expected a number or \"auto\"")),
        }
    }
}

fn half_cosine(from: f64, to: f64, done: f64) -> f64 {
    to + 0.5 * (from - to) * (1.0 + (std::f64::consts::PI * done.min(1.0)).cos())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_rises_from_zero_to_the_peak_and_falls_to_the_end() {
        let settings = Settings { min_lr: 5e-5, ..Settings::finetune() };
        let at = |step| settings.lr(1.0, step, 100, 11);
        assert_eq!((at(0), at(10), at(11)), (0.0, 1.0, 1.0));
        assert!((at(100) - 0.1).abs() < 1e-12);
        let jepa = Settings::attentive(4);
        assert_eq!(jepa.lr(1.0, 0, 10, 0), 1.0, "no warm-up");
        assert_eq!((jepa.decay(0, 10), jepa.decay(10, 10)), (0.01, 1e-6));
    }

    /// VideoMAE: `args.min_lr = args.min_lr * total_batch_size / 256`.
    #[test]
    fn the_last_rate_grows_with_the_batch_as_the_first_does() {
        let settings = Settings::finetune();
        let peak = settings.base_lr * 512.0 / 256.0;
        assert!((settings.lr(peak, 100, 100, 5) / 2e-6 - 1.0).abs() < 1e-9);
    }

    #[test]
    fn clips_are_mirrored_where_the_published_recipes_mirror_them() {
        let swap = Flip::Swap(vec![(0, 1)]);
        let (finetune, attentive) = (Settings::finetune(), Settings::attentive(4));
        let of =
            |settings: &Settings| [&Flip::Always, &swap, &Flip::Never].map(|data| settings.flip_on(data));
        assert_eq!((of(&finetune), of(&attentive)), ([0.5, 0.0, 0.0], [0.0; 3]));
        assert_eq!(of(&Settings { flip: Some(0.5), ..attentive }), [0.5; 3]);
    }

    #[test]
    fn senseless_settings_are_refused_by_name() {
        for (settings, name) in [
            (Settings { batch: 0, ..Settings::finetune() }, "batch"),
            (Settings { drop_path: 1.0, ..Settings::finetune() }, "drop_path"),
            (Settings { warmup_epochs: 50.0, ..Settings::finetune() }, "warmup_epochs"),
            (Settings { mixup: 1e-7, ..Settings::finetune() }, "mixup"),
            (Settings { erase: 1.5, ..Settings::finetune() }, "erase"),
            (Settings { cutmix_share: -0.1, ..Settings::finetune() }, "cutmix_share"),
            (Settings { base_lr: f64::NAN, ..Settings::finetune() }, "base_lr"),
        ] {
            assert!(matches!(settings.check(), Err(Error::Setting { name: found, .. }) if found == name));
        }
        Settings::finetune().check().unwrap();
        Settings::attentive(4).check().unwrap();
    }

    #[test]
    fn settings_that_a_head_does_not_read_are_refused_by_name() {
        let probe = || Settings::attentive(4);
        for (settings, name, head) in [
            (Settings { drop_path: 0.2, ..probe() }, "drop_path", "the attentive probe"),
            (Settings { layer_decay: 0.75, ..probe() }, "layer_decay", "the attentive probe"),
            (Settings { recompute: true, ..probe() }, "recompute", "the attentive probe"),
            (Settings { heads: 12, ..Settings::finetune() }, "heads", "fine-tuning"),
        ] {
            let error = settings.check().unwrap_err().to_string();
            let said = format!("has no effect on {head}: leave it out");
            assert!(error.contains(&format!("`{name}`")) && error.contains(&said), "{error}");
        }
        Settings { recompute: true, drop_path: 0.2, layer_decay: 0.5, ..Settings::finetune() }
            .check()
            .unwrap();
    }
}
