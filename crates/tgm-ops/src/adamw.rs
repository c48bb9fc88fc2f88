//! AdamW over named parameters.
//!
//! candle's `AdamW` keeps its moments private, so a run could not be resumed, has one weight decay for everything, and
//! takes some ten passes over memory per parameter. This one does one.

use std::collections::{BTreeMap, HashMap};

use candle_core::backend::BackendStorage as _;
use candle_core::backprop::GradStore;
use candle_core::{CpuStorage, DType, Device, InplaceOp1, Layout, Tensor, Var};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use std::sync::Mutex;
use thiserror::Error;

use crate::cpu::TASK;
use crate::params::{ParamError, Params, check_weights};
use crate::simd::multiversion;
use crate::sink::{self, Slot};

/// What can go wrong between a loss and an updated parameter.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum AdamWError {
    /// The loss does not depend on a parameter: a branch of the model is unused, or the graph is cut.
    #[error("no gradient reached parameter `{0}`: the loss does not depend on it")]
    NoGradient(String),
    /// Gradients or optimiser were made before the parameter was.
    #[error(
        "`{0}` is no parameter that this was made for: make gradients and optimiser when all parameters are defined"
    )]
    Unknown(String),
    /// Gradients or optimiser were made for a model of another size.
    #[error("{what} of `{name}` has {found} values, the parameter {expected}")]
    Length {
        /// What has another length: the gradient or the moment.
        what: &'static str,
        /// The parameter.
        name: String,
        /// How many values the parameter has.
        expected: usize,
        /// How many this has.
        found: usize,
    },
    /// A saved state does not belong to these parameters.
    #[error(transparent)]
    State(#[from] ParamError),
    /// candle refused a tensor operation.
    #[error(transparent)]
    Candle(#[from] candle_core::Error),
}

/// Gradients of all parameters, by name, on the host in `f32`: what micro-batches are accumulated in.
///
/// Make it once and [`clear`](Self::clear) it for every step: its memory is as large as the model. A parameter of which
/// nothing was added since has no gradient, and [`AdamW::step`] refuses it.
#[derive(Clone, Debug)]
pub struct Gradients {
    values: BTreeMap<String, Gradient>,
}

/// One parameter's gradient.
#[derive(Clone, Debug)]
struct Gradient {
    values: Vec<f32>,
    /// Whether anything was added since the last [`Gradients::clear`]; otherwise the values are left over.
    filled: bool,
}

impl Gradient {
    fn zeros(len: usize) -> Self {
        Self { values: vec![0.0; len], filled: false }
    }
}

impl Gradients {
    /// Room for every parameter, with nothing added yet.
    pub fn zeros(params: &Params) -> Self {
        Self {
            values: params
                .iter()
                .map(|(name, var)| (name.to_string(), Gradient::zeros(var.elem_count())))
                .collect(),
        }
    }

    /// Back to nothing. The next gradients overwrite what is there, so this costs nothing.
    pub fn clear(&mut self) {
        self.values.values_mut().for_each(|gradient| gradient.filled = false);
    }

    /// Adds the gradients of `loss` with respect to these variables.
    ///
    /// What [`Self::add`] does with the result of [`Tensor::backward`], without the copies: this crate's fused
    /// operations write into the buffers here, while the backward pass runs.
    ///
    /// # Errors
    /// As [`Self::add`], and those of the backward pass.
    pub fn backward<'a>(
        &mut self,
        vars: impl Iterator<Item = (&'a str, &'a Var)>,
        loss: &Tensor,
    ) -> Result<(), AdamWError> {
        let vars: Vec<_> = vars.collect();
        // Before the buffers leave their places.
        for &(name, var) in &vars {
            self.room(name, var.elem_count())?;
        }
        let mut slots = HashMap::new();
        for &(name, var) in vars.iter().filter(|(_, var)| matches!(var.device(), Device::Cpu)) {
            if let Some(gradient) = self.values.get_mut(name) {
                let values = std::mem::take(&mut gradient.values);
                slots.insert(var.id(), Slot { values, filled: gradient.filled, reached: false });
            }
        }
        let (grads, mut slots) = sink::with(slots, || loss.backward());
        let mut rest = Vec::new();
        for (name, var) in vars {
            if let (Some(slot), Some(gradient)) = (slots.remove(&var.id()), self.values.get_mut(name)) {
                (gradient.values, gradient.filled) = (slot.values, slot.filled);
                // A parameter may be reached both ways, when only some of its uses are fused.
                if slot.reached && grads.as_ref().is_ok_and(|grads| grads.get(var).is_none()) {
                    continue;
                }
            }
            rest.push((name, var));
        }
        self.add(rest.into_iter(), &grads?, 1.0)
    }

    /// Adds `scale` times the gradients of one backward pass over these variables.
    ///
    /// # Errors
    /// [`AdamWError::NoGradient`] when the pass did not reach one of them: a layer that silently stays at its initial
    /// value is the commonest fault of a training program, so it is refused here.
    pub fn add<'a>(
        &mut self,
        vars: impl Iterator<Item = (&'a str, &'a Var)>,
        grads: &GradStore,
        scale: f32,
    ) -> Result<(), AdamWError> {
        for (name, var) in vars {
            let grad = grads.get(var).ok_or_else(|| AdamWError::NoGradient(name.to_string()))?;
            self.add_one(name, grad, scale)?;
        }
        Ok(())
    }

    /// Adds `scale` times one parameter's gradient.
    ///
    /// # Errors
    /// [`AdamWError::Unknown`] or [`AdamWError::Length`] when there is no such parameter, or it has another number of
    /// values; and when the gradient cannot be read.
    pub fn add_one(&mut self, name: &str, grad: &Tensor, scale: f32) -> Result<(), AdamWError> {
        let grad = grad.to_dtype(DType::F32)?.to_device(&Device::Cpu)?.contiguous()?;
        let view = crate::cpu::View::new(&grad);
        let grad = view.as_slice::<f32>()?;
        let sum = self.room(name, grad.len())?;
        if !std::mem::replace(&mut sum.filled, true) {
            sum.values.fill(0.0);
        }
        sum.values.par_chunks_mut(TASK).zip(grad.par_chunks(TASK)).for_each(|(sum, grad)| {
            for (sum, &grad) in sum.iter_mut().zip(grad) {
                *sum += scale * grad;
            }
        });
        Ok(())
    }

    /// The place of a parameter's gradient of this many values.
    fn room(&mut self, name: &str, len: usize) -> Result<&mut Gradient, AdamWError> {
        let gradient = self.values.get_mut(name).ok_or_else(|| AdamWError::Unknown(name.to_string()))?;
        check_length("the gradient", name, len, gradient.values.len())?;
        Ok(gradient)
    }

    /// One parameter's gradient, if anything was added to it.
    fn get(&self, name: &str) -> Option<&Vec<f32>> {
        self.values.get(name).filter(|gradient| gradient.filled).map(|gradient| &gradient.values)
    }

    /// The gradients that something was added to, by name, in alphabetical order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &[f32])> {
        let filled = self.values.iter().filter(|(_, gradient)| gradient.filled);
        filled.map(|(name, gradient)| (name.as_str(), gradient.values.as_slice()))
    }

    /// As [`Self::iter`], to be changed: added up over processes.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = (&str, &mut [f32])> {
        let filled = self.values.iter_mut().filter(|(_, gradient)| gradient.filled);
        filled.map(|(name, gradient)| (name.as_str(), gradient.values.as_mut_slice()))
    }

    /// The Euclidean norm over the gradients of [`Self::iter`]; NaN or infinite when any of them is.
    pub fn norm(&self) -> f64 {
        let squares = |gradient: &[f32]| -> f64 {
            let blocks: Vec<f64> = gradient.par_chunks(TASK).map(sum_of_squares).collect();
            blocks.iter().sum()
        };
        self.iter().map(|(_, gradient)| squares(gradient)).sum::<f64>().sqrt()
    }
}

fn check_length(what: &'static str, name: &str, found: usize, expected: usize) -> Result<(), AdamWError> {
    if found == expected {
        return Ok(());
    }
    Err(AdamWError::Length { what, name: name.to_string(), expected, found })
}

multiversion! {
    fn sum_of_squares(values: &[f32]) -> f64 = sum_of_squares_body;
}

#[inline(always)]
fn sum_of_squares_body<const FMA: bool>(values: &[f32]) -> f64 {
    let mut sums = [0f64; 16];
    let (chunks, rest) = values.as_chunks::<16>();
    for chunk in chunks {
        for (sum, &v) in sums.iter_mut().zip(chunk) {
            *sum += f64::from(v) * f64::from(v);
        }
    }
    sums.iter().sum::<f64>() + rest.iter().map(|&v| f64::from(v) * f64::from(v)).sum::<f64>()
}

/// The settings of [`AdamW`] that do not change during a run.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct AdamWConfig {
    /// Decay of the first moment. VideoMAE pretraining: 0.9.
    pub beta1: f64,
    /// Decay of the second moment. VideoMAE pretraining: 0.95.
    pub beta2: f64,
    /// Added to the root of the second moment. VideoMAE: 1e-8.
    pub eps: f64,
    /// Decoupled weight decay, for parameters of two or more dimensions only: biases, norms, the mask token and
    /// temperatures are left alone, as in VideoMAE. VideoMAE: 0.05.
    pub weight_decay: f64,
}

impl Default for AdamWConfig {
    fn default() -> Self {
        Self { beta1: 0.9, beta2: 0.95, eps: 1e-8, weight_decay: 0.05 }
    }
}

/// The moments of one parameter.
#[derive(Clone, Debug)]
struct Moments {
    first: Vec<f32>,
    second: Vec<f32>,
}

/// AdamW (Loshchilov and Hutter, 2019) as PyTorch computes it, over all parameters of a model.
#[derive(Debug)]
pub struct AdamW {
    config: AdamWConfig,
    moments: BTreeMap<String, Moments>,
    steps: u64,
}

impl AdamW {
    /// An optimiser that has not taken a step.
    pub fn new(params: &Params, config: AdamWConfig) -> Self {
        let zeros =
            |var: &Var| Moments { first: vec![0.0; var.elem_count()], second: vec![0.0; var.elem_count()] };
        Self {
            config,
            moments: params.iter().map(|(name, var)| (name.to_string(), zeros(var))).collect(),
            steps: 0,
        }
    }

    /// Another weight decay from the next step on, for schedules of it.
    pub fn set_weight_decay(&mut self, weight_decay: f64) {
        self.config.weight_decay = weight_decay;
    }

    /// How many steps have been taken.
    pub fn steps(&self) -> u64 {
        self.steps
    }

    /// Moves every parameter by its gradient, each multiplied by `grad_scale` (1, or what clipping leaves of it).
    ///
    /// # Errors
    /// [`AdamWError::NoGradient`] when nothing was added to a parameter's gradient since it was cleared;
    /// [`AdamWError::Unknown`] or [`AdamWError::Length`] when gradients or optimiser were made for other parameters. Then
    /// nothing has moved.
    pub fn step(
        &mut self,
        params: &Params,
        grads: &Gradients,
        lr: f64,
        grad_scale: f64,
    ) -> Result<(), AdamWError> {
        self.step_with(params, grads, &|_| lr, grad_scale)
    }

    /// As [`AdamW::step`], with a learning rate for each parameter by its name: layer-wise decay.
    ///
    /// # Errors
    /// As [`AdamW::step`].
    pub fn step_with(
        &mut self,
        params: &Params,
        grads: &Gradients,
        lr_of: &dyn Fn(&str) -> f64,
        grad_scale: f64,
    ) -> Result<(), AdamWError> {
        for (name, var) in params.iter() {
            self.check(name, var, grads)?;
        }
        self.steps += 1;
        for (name, var) in params.iter() {
            let lr = lr_of(name);
            let (Some(grad), Some(moments)) = (grads.get(name), self.moments.get_mut(name)) else {
                return Err(AdamWError::NoGradient(name.to_string()));
            };
            let decay = if var.rank() >= 2 { self.config.weight_decay } else { 0.0 };
            let update = Update::new(self.config, self.steps, lr, decay, grad_scale);
            if matches!(var.device(), Device::Cpu) {
                var.inplace_op1(&UpdateOp { update, state: Mutex::new((moments, grad)) })?;
            } else {
                let mut values = var.flatten_all()?.to_vec1::<f32>()?;
                update.apply(&mut values, moments, grad);
                var.set(&Tensor::from_vec(values, var.shape(), var.device())?)?;
            }
        }
        Ok(())
    }

    /// Whether a step has all it needs of a parameter.
    fn check(&self, name: &str, var: &Var, grads: &Gradients) -> Result<(), AdamWError> {
        let moments = self.moments.get(name).ok_or_else(|| AdamWError::Unknown(name.to_string()))?;
        let grad = grads.get(name).ok_or_else(|| AdamWError::NoGradient(name.to_string()))?;
        check_length("the moment", name, moments.first.len(), var.elem_count())?;
        check_length("the gradient", name, grad.len(), var.elem_count())
    }

    /// The moments as tensors named `first.NAME` and `second.NAME`. The number of steps is [`AdamW::steps`].
    ///
    /// # Errors
    /// When a tensor cannot be made.
    pub fn state(&self) -> Result<BTreeMap<String, Tensor>, AdamWError> {
        let mut state = BTreeMap::new();
        for (name, moments) in &self.moments {
            for (kind, values) in [("first", &moments.first), ("second", &moments.second)] {
                state.insert(
                    format!("{kind}.{name}"),
                    Tensor::from_slice(values, values.len(), &Device::Cpu)?,
                );
            }
        }
        Ok(state)
    }

    /// Puts a state that [`AdamW::state`] returned back. Either all of it fits, or nothing is changed.
    ///
    /// # Errors
    /// [`ParamError::Mismatch`] when names or sizes differ.
    pub fn load_state(
        &mut self,
        source_name: &str,
        state: &BTreeMap<String, Tensor>,
        steps: u64,
    ) -> Result<(), AdamWError> {
        let expected = self.moments.iter().flat_map(|(name, moments)| {
            ["first", "second"].map(|kind| (format!("{kind}.{name}"), vec![moments.first.len()]))
        });
        check_weights(source_name, &expected.collect(), state)?;
        for (name, moments) in &mut self.moments {
            for (kind, values) in [("first", &mut moments.first), ("second", &mut moments.second)] {
                *values = state[&format!("{kind}.{name}")].to_dtype(DType::F32)?.to_vec1()?;
            }
        }
        self.steps = steps;
        Ok(())
    }
}

/// The constants of one step for one parameter.
struct Update {
    beta1: f32,
    beta2: f32,
    eps: f32,
    keep: f32,
    step_size: f32,
    root_scale: f32,
    grad_scale: f32,
}

impl Update {
    fn new(config: AdamWConfig, steps: u64, lr: f64, decay: f64, grad_scale: f64) -> Self {
        let correction = |beta: f64| 1.0 - beta.powf(steps as f64);
        Self {
            beta1: config.beta1 as f32,
            beta2: config.beta2 as f32,
            eps: config.eps as f32,
            keep: (1.0 - lr * decay) as f32,
            step_size: (lr / correction(config.beta1)) as f32,
            root_scale: correction(config.beta2).sqrt().recip() as f32,
            grad_scale: grad_scale as f32,
        }
    }

    fn apply(&self, values: &mut [f32], moments: &mut Moments, grad: &[f32]) {
        let chunks = values.par_chunks_mut(TASK).zip(grad.par_chunks(TASK));
        let moments = moments.first.par_chunks_mut(TASK).zip(moments.second.par_chunks_mut(TASK));
        chunks
            .zip(moments)
            .for_each(|((values, grad), (first, second))| update(self, values, grad, first, second));
    }
}

multiversion! {
    fn update(with: &Update, values: &mut [f32], grad: &[f32], first: &mut [f32], second: &mut [f32]) = update_body;
}

#[inline(always)]
fn update_body<const FMA: bool>(
    with: &Update,
    values: &mut [f32],
    grad: &[f32],
    first: &mut [f32],
    second: &mut [f32],
) {
    for (((value, &grad), first), second) in values.iter_mut().zip(grad).zip(first).zip(second) {
        let grad = grad * with.grad_scale;
        *first += (1.0 - with.beta1) * (grad - *first);
        *second = with.beta2 * *second + (1.0 - with.beta2) * grad * grad;
        let root = second.sqrt() * with.root_scale + with.eps;
        *value = *value * with.keep - with.step_size * *first / root;
    }
}

/// [`Update`] on a variable's own storage.
struct UpdateOp<'a> {
    update: Update,
    state: Mutex<(&'a mut Moments, &'a Vec<f32>)>,
}

impl InplaceOp1 for UpdateOp<'_> {
    fn name(&self) -> &'static str {
        "tgm-adamw"
    }

    fn cpu_fwd(&self, storage: &mut CpuStorage, layout: &Layout) -> candle_core::Result<()> {
        let CpuStorage::F32(values) = storage else {
            candle_core::bail!("AdamW updates f32 variables, not {:?}", storage.dtype());
        };
        let Some((start, end)) = layout.contiguous_offsets() else {
            candle_core::bail!("AdamW updates contiguous variables");
        };
        let mut state = self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let (moments, grad) = &mut *state;
        self.update.apply(&mut values[start..end], moments, grad);
        Ok(())
    }
}
