//! What every process of a run does: its share of the clips, their gradient, and the step that all of them make.

use std::collections::{BTreeMap, HashMap};

use anyhow::{Context, Result, bail, ensure};
use candle_core::{Device, Tensor};
use tgm_data::loader::{Batches, Sample, Subset, TrainLoader};
use tgm_group::Group;
use tgm_mae::VideoMae;
use tgm_ops::{AdamW, Gradients, Params};
use tgm_random::Streams;

use super::{joint, optimizer};
use crate::batch::ClipBatch;
use crate::checkpoint::{DataPrint, Position};
use crate::config::{Config, Plan};
use crate::fault;
use crate::guidance::Guide;
use crate::run_data::{check_files, fingerprint, training_data};
use crate::schedule::learning_rate;
use crate::step::{ContrastiveLosses, Joint, Losses};

/// The model, its optimiser and where both stand; the same in all processes after every step.
pub(super) struct Learner {
    pub config: Config,
    pub plan: Plan,
    pub data: Subset,
    pub data_print: DataPrint,
    pub guide: Guide,
    pub params: Params,
    pub joint: Joint,
    pub optimizer: AdamW,
    pub position: Position,
    /// The step at which the processes met.
    begun: u64,
    pub group: Group,
    /// Of the last step; as large as the model, and kept from step to step.
    pub gradients: Option<Gradients>,
}

/// What a step came to; the same in all processes.
#[derive(Clone, Debug)]
pub(super) struct Stepped {
    pub numbers: Numbers,
    pub lr: f64,
    /// Where the loss or the gradient is not finite.
    pub fault: Option<Fault>,
}

/// A step that was not made.
#[derive(Clone, Debug)]
pub(super) struct Fault {
    /// How many in a row this one is.
    pub in_a_row: u64,
    /// There are too many: the step is not counted, and the run ends.
    pub last: bool,
    /// The ranks of the processes whose own loss is not finite.
    pub ranks: Vec<usize>,
}

impl Learner {
    /// At the first step, by itself.
    pub fn new(config: Config) -> Result<Self> {
        let device = Device::Cpu;
        let data = training_data(&config)?;
        check_files(&data, config.loader.max_bad_share)?;
        let plan = Plan::new(&config, data.rows().len())?;
        let guide = Guide::new(&config, &data, &device)?;
        let mut params = Params::new(Streams::new(config.seed), &device);
        let joint = joint(&config, &plan.model, guide.text_dim(), &mut params)?;
        Ok(Self {
            optimizer: optimizer(&config, &params),
            gradients: None,
            data_print: fingerprint(&data),
            position: Position::default(),
            begun: 0,
            group: Group::alone(),
            config,
            plan,
            data,
            guide,
            params,
            joint,
        })
    }

    /// Micro-batches of a step that are this process's.
    pub fn own_micro_batches(&self) -> usize {
        self.plan.micro_batches / self.group.size()
    }

    /// The loader of the batches of the process of this rank, from the current step on.
    pub fn loader(&self, rank: usize) -> Result<TrainLoader> {
        let batches = Batches {
            part: rank as u64,
            parts: self.group.size() as u64,
            ..Batches::of(self.plan.micro_batch)
                .starting_at(self.position.step * self.own_micro_batches() as u64)
        };
        let streams = Streams::new(self.config.seed);
        Ok(TrainLoader::with_batches(&self.data, &self.config.clip, &self.config.loader, batches, streams)?)
    }

    /// The loader's clips of the next step, masked; `skipped` is told of every video that was replaced.
    pub fn load(&mut self, loader: &mut TrainLoader, skipped: &dyn Fn(&str)) -> Result<ClipBatch> {
        let mut batch = ClipBatch::default();
        for _ in 0..self.own_micro_batches() {
            let loaded = loader.next_batch()?;
            for skip in &loaded.skipped {
                skipped(&format!("skipped: {}", skip.reason));
            }
            batch.skipped += loaded.skipped.len();
            self.add(&mut batch, loaded.samples)?;
        }
        Ok(batch)
    }

    /// Masks clips and adds them to a batch.
    pub fn add(&mut self, batch: &mut ClipBatch, samples: Vec<Sample>) -> Result<()> {
        let texts = self.joint.contrastive.is_some();
        batch.push(samples, &mut self.guide, &self.plan.model, texts, self.params.device())
    }

    /// One step of all processes. A step whose numbers are not finite is not made, and counted, until there are too many in a row: then
    /// nothing is changed.
    pub fn step(&mut self, batch: &ClipBatch, leave: bool) -> Result<Stepped> {
        let mut grads = self.gradients.take().unwrap_or_else(|| Gradients::zeros(&self.params));
        grads.clear();
        let losses = self.joint.gradient(&self.params, batch, &mut grads, &mut self.group)?;
        fault::inject(self.position.step, &mut grads)?;
        self.group.all_reduce(grads.iter_mut().map(|(_, values)| values))?;
        let own = Numbers {
            losses,
            mae_of_copy: copy_loss(&self.joint.mae, batch)? / self.group.size() as f64,
            grad_norm: grads.norm(),
            skipped_videos: batch.skipped,
            leave,
        };
        let (all, ranks) = own.of_all(&mut self.group)?;
        let lr = learning_rate(&self.plan, self.position.step);
        let finite =
            all.losses.total(self.config.contrastive.weight).is_finite() && all.grad_norm.is_finite();
        let fault = if finite {
            self.update(&grads, all.grad_norm, lr)?;
            self.position.skipped_in_a_row = 0;
            None
        } else {
            let in_a_row = self.position.skipped_in_a_row + 1;
            Some(Fault { in_a_row, last: in_a_row > self.config.train.max_skipped, ranks })
        };
        self.gradients = Some(grads);
        match &fault {
            Some(fault) if fault.last => {}
            Some(fault) => {
                self.position.skipped += 1;
                self.position.skipped_in_a_row = fault.in_a_row;
                self.position.step += 1;
            }
            None => self.position.step += 1,
        }
        if all.leave || self.weights_are_compared() {
            self.check_weights()?;
        }
        Ok(Stepped { numbers: all, lr, fault })
    }

    /// Whether a checkpoint is due after this step.
    pub fn checkpoint_is_due(&self) -> bool {
        let (every, step) = (self.config.output.checkpoint_every, self.position.step);
        step == self.plan.length.stop || due(every, step)
    }

    /// Whether the processes of a group compare their weights after this step: before each that may be saved, and after the first, so that
    /// machines which cannot train together do not do so for long.
    fn weights_are_compared(&self) -> bool {
        let step = self.position.step;
        self.checkpoint_is_due() || due(self.config.output.probe_every, step) || step == self.begun + 1
    }

    /// Moves the optimiser.
    pub fn update(&mut self, grads: &Gradients, norm: f64, lr: f64) -> Result<()> {
        let limit = self.config.train.clip_norm;
        let scale = if limit > 0.0 { (limit / (norm + 1e-6)).min(1.0) } else { 1.0 };
        self.optimizer.step(&self.params, grads, lr, scale)?;
        if let Some((head, _)) = &self.joint.contrastive {
            head.constrain()?;
        }
        Ok(())
    }

    /// Gives every process the weights, moments and position of the first.
    pub fn share_state(&mut self) -> Result<()> {
        let first = self.group.rank() == 0;
        let (position, tensors) =
            if first { (serde_json::to_vec(&self.position)?, self.state()?) } else { Default::default() };
        let position = self.group.broadcast(position)?;
        let tensors = self.group.broadcast(tensors)?;
        if !first {
            self.position = serde_json::from_slice(&position).context("the first process's position")?;
            self.take_state(&tensors)?;
        }
        self.begun = self.position.step;
        Ok(())
    }

    fn state(&self) -> Result<Vec<u8>> {
        let weights =
            self.params.snapshot()?.into_iter().map(|(name, value)| (WEIGHT.to_owned() + &name, value));
        let moments =
            self.optimizer.state()?.into_iter().map(|(name, value)| (MOMENT.to_owned() + &name, value));
        let tensors: HashMap<String, Tensor> = weights.chain(moments).collect();
        Ok(safetensors::serialize(&tensors, None)?)
    }

    fn take_state(&mut self, bytes: &[u8]) -> Result<()> {
        let (mut weights, mut moments) = (BTreeMap::new(), BTreeMap::new());
        for (name, value) in candle_core::safetensors::load_buffer(bytes, self.params.device())? {
            if let Some(name) = name.strip_prefix(WEIGHT) {
                weights.insert(name.to_owned(), value);
            } else if let Some(name) = name.strip_prefix(MOMENT) {
                moments.insert(name.to_owned(), value);
            }
        }
        let first = "the first process";
        self.params.load(first, &weights)?;
        Ok(self.optimizer.load_state(first, &moments, self.position.updates())?)
    }

    /// Whether all processes have the same weights to the bit. They add the same numbers in the same order, but a processor of another kind may
    /// round otherwise.
    fn check_weights(&mut self) -> Result<()> {
        if self.group.size() == 1 {
            return Ok(());
        }
        let mut crc = crc32fast::Hasher::new();
        for (_, var) in self.params.iter() {
            for value in var.flatten_all()?.to_vec1::<f32>()? {
                crc.update(&value.to_le_bytes());
            }
        }
        let all = self.group.all_gather(&crc.finalize().to_le_bytes())?;
        if let Some(other) = all.iter().position(|sum| *sum != all[0]) {
            bail!(
                "after step {} process {other} has other weights than the first: all machines must have the same kind of processor",
                self.position.step
            );
        }
        Ok(())
    }
}

/// Whether something that is done every so many steps is done after this one.
pub(super) fn due(every: u64, step: u64) -> bool {
    every > 0 && step.is_multiple_of(every)
}

/// What the names of tensors begin with while they go from process to process.
const WEIGHT: &str = "weight/";
const MOMENT: &str = "moment/";

/// The numbers of a step: what processes tell each other, and what comes of it over all of them.
#[derive(Clone, Copy, Debug)]
pub(super) struct Numbers {
    pub losses: Losses,
    pub mae_of_copy: f64,
    pub grad_norm: f64,
    /// Videos that could not be read and were replaced.
    pub skipped_videos: usize,
    /// The process was asked to stop; over all, one was.
    pub leave: bool,
}

impl Numbers {
    /// Those of the whole step, and the ranks of the processes whose own losses are not finite.
    fn of_all(self, group: &mut Group) -> Result<(Self, Vec<usize>)> {
        let (mine, contrastive) = (self.losses, self.losses.contrastive.unwrap_or_default());
        let own = [
            mine.mae,
            mine.mae_of_mean,
            self.mae_of_copy,
            self.skipped_videos as f64,
            f64::from(u8::from(self.leave)),
            self.grad_norm,
            contrastive.loss,
            contrastive.relative,
            contrastive.top1,
            contrastive.scale,
        ];
        let bytes: Vec<u8> = own.iter().flat_map(|number| number.to_le_bytes()).collect();
        let numbers = |bytes: &Vec<u8>| -> Result<Vec<f64>> {
            ensure!(bytes.len() == 8 * own.len(), "another process sent other numbers");
            let (numbers, _) = bytes.as_chunks::<8>();
            Ok(numbers.iter().map(|&number| f64::from_le_bytes(number)).collect())
        };
        let all: Vec<Vec<f64>> = group.all_gather(&bytes)?.iter().map(numbers).collect::<Result<_>>()?;
        let sum = |index: usize| all.iter().map(|numbers| numbers[index]).sum::<f64>();
        // What is of the whole step already may be rounded otherwise on another processor: that of the first process counts.
        let [grad_norm, loss, relative, top1, scale] = [5, 6, 7, 8, 9].map(|index| all[0][index]);
        let contrastive = mine.contrastive.map(|_| ContrastiveLosses { loss, relative, top1, scale });
        let ranks = (0..all.len()).filter(|&rank| !all[rank][0].is_finite()).collect();
        Ok((
            Self {
                losses: Losses { mae: sum(0), mae_of_mean: sum(1), contrastive },
                mae_of_copy: sum(2),
                grad_norm,
                skipped_videos: sum(3) as usize,
                leave: sum(4) > 0.0,
            },
            ranks,
        ))
    }
}

/// The reconstruction loss of a model that copies the nearest visible tubelet, over this process's clips.
fn copy_loss(mae: &VideoMae, batch: &ClipBatch) -> Result<f64> {
    let mut sum = 0.0;
    for clips in &batch.micro {
        let micro = clips.micro_batch()?;
        sum += f64::from(mae.copy_loss(&micro.tubelets, &micro.split, &clips.nearest)?.to_scalar::<f32>()?);
    }
    Ok(sum / batch.micro.len() as f64)
}
