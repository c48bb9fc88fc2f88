//! Protocols that train a network on labelled clips: fine-tuning, and the attentive probe on a frozen encoder.
//!
//! Both see augmented clips, not cached features, and differ in what is trained and in their [`Settings`]. The encoder's
//! last norm is dropped for fine-tuning, as VideoMAE does: its classifier has a norm of its own. A [`Learner`] holds all that
//! changes; it can be saved after any step and goes on from there, because every draw has a name.

mod attentive;
mod augment;
mod settings;

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::path::Path;

use candle_core::{Device, Tensor};
use rayon::prelude::*;
use serde::Serialize;
use tgm_data::loader::{EvalLoader, Sample};
use tgm_mae::{Checkpoint, Classifier, DropPath, Encoder, MaeConfig};
use tgm_ops::{AdamW, AdamWConfig, Gradients, Params, log_softmax, on_worker};
use tgm_random::Streams;
use tgm_video::patchify;

use self::augment::{Geometry, Mix, targets};

pub use attentive::AttentiveHead;
pub use settings::{Head, Settings};

use crate::pass::{BadVideo, clip_id, stack};
use crate::scores::softmax;
use crate::store::Digest;
use crate::{Answers, Error, Result, Scores};

/// What was done, for the record.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    /// The settings used.
    pub settings: Settings,
    /// Whether the encoder began at random weights.
    pub random_encoder: bool,
    /// Probability of a mirrored clip in training.
    pub flip: f64,
    /// Steps taken.
    pub steps: u64,
    /// Videos per step, after limiting to the train set.
    pub batch_used: usize,
    /// The peak learning rate: base × batch / 256.
    pub peak_lr: f64,
    /// Cross-entropy of the last step, in nats.
    pub train_loss: f64,
}

enum Network {
    Finetune(Classifier),
    Attentive(Encoder, AttentiveHead),
}

/// How long training takes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Length {
    /// Steps in all.
    pub total: u64,
    /// Of them, warm-up.
    pub warmup: u64,
    /// Videos per step.
    pub batch: usize,
}

impl Length {
    /// For a train set of this size.
    pub fn of(settings: &Settings, videos: usize) -> Self {
        let batch = settings.batch.min(videos).max(1);
        let steps = |epochs: f64| (epochs * videos as f64 / batch as f64).ceil() as u64;
        let total = steps(settings.epochs).max(1);
        // Rounded up, both: a training that is all warm-up, from 0 on, would learn nothing in its only step.
        Self { total, warmup: steps(settings.warmup_epochs).min(total - 1), batch }
    }
}

/// A network that learns classes.
pub struct Learner {
    settings: Settings,
    random_encoder: bool,
    network: Network,
    depth: usize,
    classes: usize,
    params: Params,
    optimizer: AdamW,
    average: Option<BTreeMap<String, Vec<f32>>>,
    streams: Streams,
    length: Length,
    /// Digests of the encoder that training began on, and of the data.
    origin: [String; 2],
    step: u64,
    loss: f64,
}

impl Learner {
    /// A learner on the encoder of a checkpoint, or on one of random weights.
    ///
    /// # Errors
    /// [`Error::Setting`] for values out of range; [`Error::Model`] when the weights do not fit.
    pub fn new(
        checkpoint: &Checkpoint,
        random_encoder: bool,
        classes: usize,
        length: Length,
        settings: &Settings,
        streams: &Streams,
    ) -> Result<Self> {
        settings.check()?;
        let mut params = Params::new(*streams, &Device::Cpu);
        let mut weights = checkpoint.encoder_weights();
        let source = checkpoint.path.display().to_string();
        let network = match settings.head {
            Head::Finetune => {
                weights.retain(|name, _| !name.starts_with("encoder.norm."));
                let config = MaeConfig { final_norm: false, ..checkpoint.config.clone() };
                let classifier = Classifier::new(&config, classes, &mut params)?;
                if !random_encoder {
                    fill(&params, &source, weights)?;
                }
                Network::Finetune(classifier.with_compute(settings.compute()))
            }
            Head::Attentive => {
                // Frozen: its parameters are none of the learner's, and nothing is kept for a backward pass.
                let mut frozen = Params::new(*streams, &Device::Cpu);
                let encoder = Encoder::new(&checkpoint.config, &mut frozen)?;
                if !random_encoder {
                    fill(&frozen, &source, weights)?;
                }
                let dim = checkpoint.config.encoder.dim;
                Network::Attentive(
                    encoder.with_compute(settings.compute()).for_inference(),
                    AttentiveHead::new(dim, settings.heads, classes, &mut params)?,
                )
            }
        };
        let config =
            AdamWConfig { beta1: 0.9, beta2: settings.beta2, eps: 1e-8, weight_decay: settings.weight_decay };
        Ok(Self {
            settings: settings.clone(),
            random_encoder,
            network,
            depth: checkpoint.config.encoder.depth,
            classes,
            optimizer: AdamW::new(&params, config),
            average: None,
            params,
            streams: *streams,
            length,
            origin: [encoder_digest(checkpoint, random_encoder)?, String::new()],
            step: 0,
            loss: f64::NAN,
        })
    }

    /// With a digest of the data that it learns: states of other data are refused.
    #[must_use]
    pub fn on_data(mut self, digest: String) -> Self {
        self.origin[1] = digest;
        self
    }

    /// Steps taken so far.
    pub fn step(&self) -> u64 {
        self.step
    }

    /// Cross-entropy of the last step.
    pub fn loss(&self) -> f64 {
        self.loss
    }

    /// For the record. `flip` is the probability that the clips it has learnt were mirrored.
    pub fn report(&self, flip: f64) -> Report {
        Report {
            settings: self.settings.clone(),
            random_encoder: self.random_encoder,
            flip,
            steps: self.step,
            batch_used: self.length.batch,
            peak_lr: self.peak(),
            train_loss: self.loss,
        }
    }

    fn peak(&self) -> f64 {
        self.settings.base_lr * self.length.batch as f64 / 256.0
    }

    /// One step on a batch of clips of one size, `repeats` of each video. `labels` has a class per clip. Pixels are normalised as
    /// each [`Sample`] says, in training as in [`Self::classify`].
    ///
    /// # Errors
    /// [`Error::Empty`] without clips; [`Error::Length`] unless there is a label per clip, and all clips are of the first one's
    /// size; [`Error::Label`] for a class that is too large; [`Error::Clip`] when a clip cannot be augmented;
    /// [`Error::LearnerDiverged`] when the loss is not finite.
    pub fn learn(&mut self, samples: &[Sample], labels: &[u32]) -> Result<()> {
        let geometry = self.check_batch(samples, labels)?;
        let mut clips =
            samples.par_iter().map(|sample| self.augmented(sample, &geometry)).collect::<Result<Vec<_>>>()?;
        let mix = Mix::draw(&self.settings, geometry.size(), &mut self.streams.stream("mix", self.step, 0));
        mix.apply(&mut clips, &geometry);
        let kept = mix.kept(geometry.size());
        let targets = targets(labels, self.classes, kept, self.settings.label_smoothing);
        let grads = self.gradient(&clips, &targets, geometry.grid.len())?;

        let norm = grads.norm();
        if !(self.loss.is_finite() && norm.is_finite()) {
            return Err(Error::LearnerDiverged { step: self.step, base_lr: self.settings.base_lr });
        }
        let limit = self.settings.clip_norm;
        let scale = if limit > 0.0 { (limit / (norm + 1e-6)).min(1.0) } else { 1.0 };
        let lr = self.settings.lr(self.peak(), self.step, self.length.total, self.length.warmup);
        self.optimizer.set_weight_decay(self.settings.decay(self.step, self.length.total));
        let (settings, depth) = (&self.settings, self.depth);
        let lr_of = |name: &str| lr * settings.layer_scale(name, depth);
        self.optimizer.step_with(&self.params, &grads, &lr_of, scale)?;
        self.step += 1;
        self.follow()
    }

    /// Refuses a batch unless its clips are of one size, and there is a class for each.
    fn check_batch(&self, samples: &[Sample], labels: &[u32]) -> Result<Geometry> {
        let first = samples.first().ok_or(Error::Empty { what: "batch", missing: "rows" })?;
        let geometry = Geometry { grid: first.grid, tubelet: first.tubelet };
        if labels.len() != samples.len() {
            return Err(Error::Length { what: "labels", expected: samples.len(), got: labels.len() });
        }
        for (sample, &label) in samples.iter().zip(labels) {
            if label as usize >= self.classes {
                let id = clip_id(&sample.path, sample.row);
                return Err(Error::Label { id, label, classes: self.classes });
            }
            let (expected, got) = (geometry.values(), sample.values());
            if got != expected {
                return Err(Error::Length { what: "a clip of the batch", expected, got });
            }
        }
        Ok(geometry)
    }

    /// The tubelets of a clip after RandAugment and erasing.
    fn augmented(&self, sample: &Sample, geometry: &Geometry) -> Result<Vec<f32>> {
        let stream = |purpose| self.streams.stream(purpose, sample.epoch, sample.number);
        let mut tubelets = match &self.settings.rand_augment {
            Some(augment) => {
                let clip = augment.apply(&sample.clip, &mut stream("rand-augment"))?;
                patchify(&clip, sample.tubelet, &sample.normalization)?
            }
            None => sample.tubelets()?,
        };
        geometry.erase(&mut tubelets, self.settings.erase, &mut stream("erase"));
        Ok(tubelets)
    }

    /// The gradient of the mean cross-entropy, in micro-batches; sets the loss.
    fn gradient(&mut self, clips: &[Vec<f32>], targets: &[f32], tokens: usize) -> Result<Gradients> {
        let mut grads = Gradients::zeros(&self.params);
        let (mut loss, mut start) = (0.0, 0);
        let (micro, all) = (self.settings.micro_batch, clips.len());
        let mut stream = self.streams.stream("drop-path", self.step, 0);
        let drop = DropPath::draw(self.settings.drop_path, self.depth, all, &mut stream)?;
        for (clips, targets) in clips.chunks(micro).zip(targets.chunks(micro * self.classes)) {
            let (count, values) = (clips.len(), clips[0].len() / tokens);
            let input = Tensor::from_vec(clips.concat(), (count, tokens, values), &Device::Cpu)?;
            let targets = Tensor::from_slice(targets, (count, self.classes), &Device::Cpu)?;
            let drop = drop.as_ref().map(|drop| drop.narrow(start, count)).transpose()?;
            let part = on_worker(|| -> Result<Tensor> {
                let logits = self.training_logits(&input, drop.as_ref())?;
                let part = ((log_softmax(&logits)? * targets)?.sum_all()? / -(all as f64))?;
                grads.backward(self.params.iter(), &part)?;
                Ok(part)
            })?;
            loss += f64::from(part.to_scalar::<f32>()?);
            start += count;
        }
        self.loss = loss;
        Ok(grads)
    }

    /// Class scores `[B, classes]` of clips `[B, N, P]`, for a backward pass.
    fn training_logits(&self, tubelets: &Tensor, drop: Option<&DropPath>) -> Result<Tensor> {
        Ok(match (&self.network, drop) {
            (Network::Attentive(encoder, head), _) => {
                head.forward(&encoder.forward_all(tubelets)?.detach())?
            }
            (Network::Finetune(classifier), Some(drop)) => classifier.forward_dropping(tubelets, drop)?,
            (Network::Finetune(classifier), None) => classifier.forward(tubelets)?,
        })
    }

    /// Lets the moving average follow.
    fn follow(&mut self) -> Result<()> {
        let decay = self.settings.ema as f32;
        if decay == 0.0 {
            return Ok(());
        }
        let average = self.average.get_or_insert_with(BTreeMap::new);
        for (name, var) in self.params.iter() {
            let values = var.flatten_all()?.to_vec1::<f32>()?;
            match average.get_mut(name) {
                Some(mean) => {
                    mean.iter_mut()
                        .zip(&values)
                        .for_each(|(mean, &v)| *mean = decay * *mean + (1.0 - decay) * v);
                }
                None => drop(average.insert(name.to_owned(), values)),
            }
        }
        Ok(())
    }

    /// Class probabilities of all views of a set, with the moving average of the weights if there is one.
    ///
    /// # Errors
    /// As [`crate::pass::encode_labelled`].
    pub fn classify(
        &self,
        clips: EvalLoader,
        label: &dyn Fn(&str) -> Option<u32>,
        done: &dyn Fn(usize),
    ) -> Result<(Answers, Vec<BadVideo>)> {
        let own = self.params.snapshot().map_err(tgm_mae::MaeError::from)?;
        if let Some(average) = &self.average {
            for (name, var) in self.params.iter() {
                var.set(&Tensor::from_slice(&average[name], var.shape(), &Device::Cpu)?)?;
            }
        }
        let answers = self.answers(clips, label, done);
        self.params.load("the weights", &own).map_err(tgm_mae::MaeError::from)?;
        answers
    }

    fn answers(
        &self,
        clips: EvalLoader,
        label: &dyn Fn(&str) -> Option<u32>,
        done: &dyn Fn(usize),
    ) -> Result<(Answers, Vec<BadVideo>)> {
        let lenient = clips.keeps_going();
        let data = clips.data().clone();
        let (mut scores, mut ids, mut labels, mut bad) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for (position, views) in clips.enumerate() {
            let row = data.manifest().row(data.rows()[position] as usize);
            let id = clip_id(row.path(), row.index() as u32);
            let own = label(&id).ok_or_else(|| Error::Unlabelled { path: row.path().into() })?;
            match views {
                Err(error) if lenient && error.is_bad_video() => {
                    bad.push(BadVideo { id, label: own, reason: error.to_string() });
                }
                views => {
                    for part in views?.chunks(self.settings.micro_batch) {
                        let input = stack(&part.iter().collect::<Vec<_>>())?;
                        for logits in on_worker(|| self.forward(&input))?.to_vec2::<f32>()? {
                            let mut row: Vec<f64> = logits.into_iter().map(f64::from).collect();
                            softmax(&mut row);
                            scores.extend(row);
                            ids.push(id.clone());
                            labels.push(own);
                        }
                    }
                }
            }
            done(position + 1);
        }
        Ok((Answers::new(Scores::new(self.classes, scores)?, ids, labels)?, bad))
    }

    /// Class scores `[B, classes]` of clips `[B, N, P]`.
    fn forward(&self, tubelets: &Tensor) -> Result<Tensor> {
        Ok(match &self.network {
            Network::Finetune(classifier) => classifier.forward(tubelets)?.detach(),
            Network::Attentive(encoder, head) => head.forward(&encoder.forward_all(tubelets)?)?.detach(),
        })
    }

    /// Writes everything that going on needs. The file appears only when it is complete.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub fn save(&self, file: &Path) -> Result<()> {
        let mut tensors: HashMap<String, Tensor> = HashMap::new();
        let named = |prefix: &str, name: &str| format!("{prefix}/{name}");
        for (name, tensor) in self.params.snapshot().map_err(tgm_mae::MaeError::from)? {
            tensors.insert(named("weights", &name), tensor);
        }
        for (name, tensor) in self.optimizer.state()? {
            tensors.insert(named("optimizer", &name), tensor);
        }
        for (name, values) in self.average.iter().flatten() {
            tensors.insert(named("average", name), Tensor::from_slice(values, values.len(), &Device::Cpu)?);
        }
        let about = HashMap::from([
            ("step".to_owned(), self.step.to_string()),
            ("loss".to_owned(), self.loss.to_string()),
            ("settings".to_owned(), self.identity()),
        ]);
        let failed =
            |error: String| Error::Store { file: file.to_owned(), source: std::io::Error::other(error) };
        let beside = file.with_extension("tmp");
        safetensors::serialize_to_file(&tensors, Some(about), &beside)
            .map_err(|error| failed(error.to_string()))?;
        let publish =
            || std::fs::File::open(&beside)?.sync_all().and_then(|()| std::fs::rename(&beside, file));
        publish().map_err(|source: std::io::Error| Error::Store { file: file.to_owned(), source })
    }

    /// Goes on from a file that [`Self::save`] wrote.
    ///
    /// # Errors
    /// [`Error::OtherFeatures`] when it was made from another encoder, other data or with other settings than those of memory
    /// ([`Settings::micro_batch`], [`Settings::recompute`]); [`Error::Store`] when it cannot be read.
    pub fn restore(&mut self, file: &Path) -> Result<()> {
        let bytes = std::fs::read(file).map_err(|source| Error::Store { file: file.to_owned(), source })?;
        let failed =
            |error: String| Error::Store { file: file.to_owned(), source: std::io::Error::other(error) };
        let (_, header) =
            safetensors::SafeTensors::read_metadata(&bytes).map_err(|e| failed(e.to_string()))?;
        let about = header.metadata().clone().unwrap_or_default();
        let value = |key: &str| about.get(key).cloned().unwrap_or_default();
        if value("settings") != self.identity() {
            return Err(Error::OtherFeatures { file: file.to_owned() });
        }
        let (mut weights, mut state, mut average) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        for (name, tensor) in candle_core::safetensors::load_buffer(&bytes, &Device::Cpu)? {
            match name.split_once('/') {
                Some(("weights", name)) => drop(weights.insert(name.to_owned(), tensor)),
                Some(("optimizer", name)) => drop(state.insert(name.to_owned(), tensor)),
                Some(("average", name)) => drop(average.insert(name.to_owned(), tensor.to_vec1::<f32>()?)),
                _ => return Err(failed(format!("unknown tensor `{name}`"))),
            }
        }
        let name = file.display().to_string();
        let step = value("step").parse().map_err(|_| failed("no step".to_owned()))?;
        self.params.load(&name, &weights).map_err(tgm_mae::MaeError::from)?;
        self.optimizer.load_state(&name, &state, step)?;
        self.average = (!average.is_empty()).then_some(average);
        self.step = step;
        self.loss = value("loss").parse().unwrap_or(f64::NAN);
        Ok(())
    }

    /// What a saved state must share with this learner.
    fn identity(&self) -> String {
        let Self { length, classes, origin: [encoder, data], .. } = self;
        // What is in memory at once changes no result beyond rounding: a machine with less of it may go on.
        let settings = Settings { micro_batch: 1, recompute: false, ..self.settings.clone() };
        format!("{settings:?} {length:?} {classes} {} {encoder} {data}", self.streams.seed())
    }
}

impl fmt::Debug for Learner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Learner")
            .field("settings", &self.settings)
            .field("random_encoder", &self.random_encoder)
            .field("classes", &self.classes)
            .field("length", &self.length)
            .field("step", &self.step)
            .field("loss", &self.loss)
            .finish_non_exhaustive()
    }
}

/// Of the model's sizes, and of its weights unless they are not used.
fn encoder_digest(checkpoint: &Checkpoint, random: bool) -> Result<String> {
    let mut digest = Digest::default();
    digest.bytes(format!("{:?}", checkpoint.config).as_bytes());
    let weights = if random { BTreeMap::new() } else { checkpoint.encoder_weights() };
    weights.iter().try_for_each(|(name, tensor)| digest.tensor(name, tensor))?;
    Ok(digest.text())
}

/// Fills the parameters of the encoder; the head keeps its initial values.
fn fill(params: &Params, source: &str, mut weights: BTreeMap<String, Tensor>) -> Result<()> {
    for (name, tensor) in params.snapshot().map_err(tgm_mae::MaeError::from)? {
        if !name.starts_with("encoder.") {
            weights.insert(name, tensor);
        }
    }
    Ok(params.load(source, &weights).map_err(tgm_mae::MaeError::from)?)
}
