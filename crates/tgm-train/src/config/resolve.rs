//! What follows from a configuration: the model, the steps, the learning rate.

use tgm_data::loader::MotionSource;
use tgm_mae::MaeConfig;
use tgm_video::Normalization;

use super::{Config, ConfigError, TrainConfig, Unit};

/// The model that a configuration describes.
///
/// # Errors
/// [`ConfigError`] when the preset is unknown or sizes contradict each other.
pub fn model(config: &Config) -> Result<MaeConfig, ConfigError> {
    let preset = MaeConfig::preset(&config.model.preset).ok_or_else(|| {
        let name = &config.model.preset;
        ConfigError(format!("model.preset: `{name}` is none of micro, small, base, large, huge"))
    })?;
    let (size, patch) = (config.clip.size as usize, config.clip.tubelet.patch);
    let model = MaeConfig {
        frames: config.clip.sampling.frames(),
        image_size: [size, size],
        tubelet: config.clip.tubelet.frames,
        patch: [patch, patch],
        encoder: config.model.encoder.unwrap_or(preset.encoder),
        decoder: config.model.decoder.unwrap_or(preset.decoder),
        normalize_target: config.model.normalize_target,
        ..preset
    };
    model.validate().map_err(|e| ConfigError(e.to_string()))?;
    Ok(model)
}

/// How long a run is, in optimiser steps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Length {
    /// The whole schedule.
    pub total: u64,
    /// Its rising part.
    pub warmup: u64,
    /// Where this run stops.
    pub stop: u64,
}

/// What a configuration comes to on a data set.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The model.
    pub model: MaeConfig,
    /// Micro-batches per optimiser step.
    pub micro_batches: usize,
    /// Clips per micro-batch.
    pub micro_batch: usize,
    /// Steps.
    pub length: Length,
    /// The learning rate's peak and end, scaled to the batch.
    pub lr: (f64, f64),
}

impl Plan {
    /// Checks a configuration and derives the rest.
    ///
    /// # Errors
    /// [`ConfigError`] naming the key.
    pub fn new(config: &Config, clips: usize) -> Result<Self, ConfigError> {
        let bad = |message: String| Err(ConfigError(message));
        let train = &config.train;
        if train.batch == 0 {
            return bad("train.batch must be at least 1".into());
        }
        let micro_batch = if train.micro_batch == 0 { train.batch } else { train.micro_batch };
        if !train.batch.is_multiple_of(micro_batch) {
            return bad(format!(
                "train.micro_batch = {micro_batch} does not divide train.batch = {}",
                train.batch
            ));
        }
        if config.contrastive.enabled && train.batch < 2 {
            return bad(
                "contrastive.enabled needs train.batch of 2 or more: there is nothing to contrast".into()
            );
        }
        if !(config.contrastive.weight.is_finite() && config.contrastive.weight >= 0.0) {
            return bad(format!("contrastive.weight = {} must be 0 or more", config.contrastive.weight));
        }
        for (key, value) in [("train.clip_norm", train.clip_norm), ("train.weight_decay", train.weight_decay)]
        {
            if !(value.is_finite() && value >= 0.0) {
                return bad(format!("{key} = {value} must be 0 or more"));
            }
        }
        if !train.betas.iter().all(|b| (0.0..1.0).contains(b)) {
            return bad(format!("train.betas = {:?} must lie between 0 and 1", train.betas));
        }
        config.masking.validate().map_err(|e| ConfigError(format!("masking: {e}")))?;
        let grid = config.clip.grid().map_err(|e| ConfigError(format!("clip: {e}")))?;
        config.masking.masked_per_slot(&grid).map_err(|e| ConfigError(format!("masking: {e}")))?;
        if config.masking.needs_motion() && config.clip.motion == MotionSource::None {
            return bad("masking by motion needs clip.motion = \"auto\", \"codec\" or \"blocks\"".into());
        }
        check_target(config)?;
        let schedule = &config.schedule;
        // No comparison holds for NaN.
        if !(0.0..=schedule.base_lr).contains(&schedule.min_lr) || !schedule.base_lr.is_finite() {
            let (base, min) = (schedule.base_lr, schedule.min_lr);
            return bad(format!(
                "schedule.base_lr = {base} and schedule.min_lr = {min}: 0 ≤ min_lr ≤ base_lr"
            ));
        }
        let scale = train.batch as f64 / 256.0;
        Ok(Self {
            model: model(config)?,
            micro_batches: train.batch / micro_batch,
            micro_batch,
            length: Length::new(config, clips)?,
            lr: (schedule.base_lr * scale, schedule.min_lr * scale),
        })
    }

    /// Whether the micro-batches of a step can be shared by so many processes.
    ///
    /// # Errors
    /// [`ConfigError`] naming what would do.
    pub fn check_share(train: &TrainConfig, processes: usize) -> Result<(), ConfigError> {
        let micro_batch = if train.micro_batch == 0 { train.batch } else { train.micro_batch };
        let (share, rest) = (train.batch / processes, train.batch % processes);
        if rest == 0 && share.is_multiple_of(micro_batch) && share > 0 {
            return Ok(());
        }
        let advice = match (1..=share.min(micro_batch)).rev().find(|&size| share.is_multiple_of(size)) {
            Some(size) if rest == 0 => format!("--set train.micro_batch={size}"),
            _ => format!("a train.batch that is a multiple of {processes}, or other --processes"),
        };
        Err(ConfigError(format!(
            "a batch of {} in micro-batches of {micro_batch} cannot be shared by {processes} processes: give {advice}",
            train.batch
        )))
    }

    /// Bytes that so many clips take while they wait for the model: one for each value.
    pub fn clip_bytes(&self, clips: usize) -> usize {
        clips * self.model.tokens() * self.model.tubelet_len()
    }
}

/// Plain pixels as the target are got back from normalised ones by ImageNet's statistics. A standardised target is the same
/// with any.
fn check_target(config: &Config) -> Result<(), ConfigError> {
    if config.model.normalize_target || config.clip.normalization == Normalization::IMAGENET {
        return Ok(());
    }
    Err(ConfigError(
        "clip.normalization is not ImageNet's, and model.normalize_target = false makes a target of plain pixels, which only \
         ImageNet's gives back: leave clip.normalization out, or set model.normalize_target = true"
            .into(),
    ))
}

impl Length {
    fn new(config: &Config, clips: usize) -> Result<Self, ConfigError> {
        let schedule = &config.schedule;
        if !(schedule.length > 0.0 && (0.0..=schedule.length).contains(&schedule.warmup)) {
            let (length, warmup) = (schedule.length, schedule.warmup);
            return Err(ConfigError(format!(
                "schedule: length = {length} and warmup = {warmup}: 0 ≤ warmup ≤ length"
            )));
        }
        let steps_per_unit = match schedule.unit {
            Unit::Steps => 1.0,
            Unit::Epochs => clips as f64 / config.train.batch as f64,
        };
        let planned = ((schedule.length * steps_per_unit).round() as u64).max(1);
        let stop = if schedule.stop_at == 0 { planned } else { schedule.stop_at };
        if stop > planned {
            // Stretched, it would jump back to high rates when a run at its end goes on.
            return Err(ConfigError(format!(
                "--steps (schedule.stop_at) = {stop} lies beyond the {planned} steps of the learning-rate schedule: give a longer \
                 one, as with --set schedule.unit=steps --set schedule.length={stop}"
            )));
        }
        let warmup = ((schedule.warmup / schedule.length) * planned as f64).round() as u64;
        Ok(Self { total: planned, warmup, stop })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::load;

    #[test]
    fn the_learning_rate_follows_from_the_global_batch() {
        let mut config =
            Config { train: TrainConfig { batch: 512, ..Default::default() }, ..Config::default() };
        config.train.micro_batch = 32;
        let plan = Plan::new(&config, 10_000).unwrap();
        assert_eq!((plan.lr, plan.micro_batches), ((3e-4, 2e-5), 16));
        assert_eq!(plan.length, Length { total: 3906, warmup: 195, stop: 3906 });
    }

    #[test]
    fn the_clips_of_a_batch_take_memory_whatever_the_micro_batch_is() {
        let plan = Plan::new(&load("videomae-base-ssv2", &[]).unwrap(), 10_000).unwrap();
        assert_eq!(plan.clip_bytes(2048), 2048 * 16 * 224 * 224 * 3);
    }

    #[test]
    fn stopping_early_leaves_the_schedule_as_it_is() {
        let mut config = load("demo", &[]).unwrap();
        let whole = Plan::new(&config, 480).unwrap().length;
        config.schedule.stop_at = 20;
        assert_eq!(Plan::new(&config, 480).unwrap().length, Length { stop: 20, ..whole });
    }

    #[test]
    fn a_stop_beyond_the_schedule_is_refused_with_the_setting_that_allows_it() {
        let mut config = load("demo", &[]).unwrap();
        let planned = Plan::new(&config, 480).unwrap().length.total;
        config.schedule.stop_at = planned + 1;
        let error = Plan::new(&config, 480).unwrap_err().to_string();
        assert!(error.contains(&format!("--set schedule.length={}", planned + 1)), "{error}");
        config.schedule.stop_at = planned;
        assert_eq!(Plan::new(&config, 480).unwrap().length.stop, planned);
    }

    /// The target undid ImageNet's normalisation whatever the clips were normalised by.
    #[test]
    fn another_normalization_than_imagenets_needs_a_standardised_target() {
        let plan = |settings: &[&str]| {
            let settings: Vec<String> = settings.iter().map(|s| (*s).to_string()).collect();
            Plan::new(&load("tgm-base", &settings).unwrap(), 100)
        };
        let none = "clip.normalization={ mean = [0.0, 0.0, 0.0], std = [1.0, 1.0, 1.0] }";
        let imagenet = "clip.normalization={ mean = [0.485, 0.456, 0.406], std = [0.229, 0.224, 0.225] }";
        let plain = "model.normalize_target=false";
        plan(&[none]).unwrap();
        plan(&[imagenet, plain]).unwrap();
        let error = plan(&[none, plain]).unwrap_err().to_string();
        assert!(error.contains("clip.normalization") && error.contains("model.normalize_target"), "{error}");
    }

    #[test]
    fn impossible_settings_name_their_key() {
        let message = |setting: &str| {
            let config = load("tgm-base", &[setting.to_string()]).unwrap();
            Plan::new(&config, 100).unwrap_err().to_string()
        };
        assert!(message("train.micro_batch=1000").contains("train.micro_batch"));
        assert!(message("train.batch=1").contains("train.batch"));
        assert!(message("masking.ratio=0.001").contains("masking"));
        assert!(message("schedule.warmup=1e9").contains("warmup"));
        assert!(message("model.preset=giant").contains("giant"));
        assert!(message("clip.size=100").contains("patch"));
    }
}
