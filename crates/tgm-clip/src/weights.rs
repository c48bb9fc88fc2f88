//! Weights by name: every parameter must be found, and every weight used.

use std::collections::HashMap;

use candle_core::{DType, Device, Result, Tensor};

use crate::ClipError;
use crate::blocks::{LayerNorm, Linear, activations};
use crate::source::WeightFile;

/// The tensors of one checkpoint, handed out once each.
///
/// A missing or misshapen parameter is noted and replaced by zeros, so that [`Weights::finish`] can name all of
/// them at once.
pub(crate) struct Weights {
    model: String,
    tensors: HashMap<String, Tensor>,
    device: Device,
    dtype: DType,
    missing: Vec<String>,
    wrong_shape: Vec<String>,
}

impl Weights {
    pub fn read(
        file: WeightFile,
        model: &str,
        device: &Device,
        dtype: DType,
    ) -> std::result::Result<Self, ClipError> {
        let tensors = match file {
            WeightFile::Safetensors(bytes) => candle_core::safetensors::load_buffer(&bytes, &Device::Cpu),
            // Reads the tensors that the pickle lists; nothing in it is executed.
            WeightFile::Pickle(path) => {
                candle_core::pickle::read_all(path).map(|tensors| tensors.into_iter().collect())
            }
        };
        let tensors =
            tensors.map_err(|e| ClipError::Weights { model: model.to_owned(), reason: e.to_string() })?;
        Ok(Self {
            model: model.to_owned(),
            tensors,
            device: device.clone(),
            dtype,
            missing: Vec::new(),
            wrong_shape: Vec::new(),
        })
    }

    /// A matrix.
    pub fn take(&mut self, name: &str, shape: &[usize]) -> Result<Tensor> {
        self.take_as(name, shape, self.dtype)
    }

    /// A parameter that is added or multiplied element by element: in the type of activations.
    pub fn take_wide(&mut self, name: &str, shape: &[usize]) -> Result<Tensor> {
        self.take_as(name, shape, activations(self.dtype, &self.device))
    }

    fn take_as(&mut self, name: &str, shape: &[usize], dtype: DType) -> Result<Tensor> {
        match self.tensors.remove(name) {
            Some(tensor) if tensor.dims() == shape => tensor.to_device(&self.device)?.to_dtype(dtype),
            Some(tensor) => {
                self.wrong_shape.push(format!("{name}: found {:?}, expected {shape:?}", tensor.dims()));
                Tensor::zeros(shape, dtype, &self.device)
            }
            None => {
                self.missing.push(name.to_owned());
                Tensor::zeros(shape, dtype, &self.device)
            }
        }
    }

    /// Where the parameters go.
    pub fn device(&self) -> &Device {
        &self.device
    }

    pub fn linear(&mut self, name: &str, from: usize, to: usize) -> Result<Linear> {
        let weight = self.take(&format!("{name}.weight"), &[to, from])?;
        let bias = self.take_wide(&format!("{name}.bias"), &[to])?;
        Ok(Linear::new(weight, Some(bias)))
    }

    pub fn linear_no_bias(&mut self, name: &str, from: usize, to: usize) -> Result<Linear> {
        Ok(Linear::new(self.take(&format!("{name}.weight"), &[to, from])?, None))
    }

    pub fn layer_norm(&mut self, name: &str, width: usize, eps: f32) -> Result<LayerNorm> {
        let weight = self.take_wide(&format!("{name}.weight"), &[width])?;
        let bias = self.take_wide(&format!("{name}.bias"), &[width])?;
        Ok(LayerNorm::new(weight, bias, eps))
    }

    /// Fails unless every parameter was found and every weight used.
    pub fn finish(self) -> std::result::Result<(), ClipError> {
        let mut unexpected: Vec<String> =
            self.tensors.into_keys().filter(|name| !is_known_extra(name)).collect();
        unexpected.sort();
        if self.missing.is_empty() && self.wrong_shape.is_empty() && unexpected.is_empty() {
            return Ok(());
        }
        Err(ClipError::WeightNames {
            model: self.model,
            missing: self.missing,
            wrong_shape: self.wrong_shape,
            unexpected,
        })
    }
}

/// What a BLIP's checkpoints need.
#[cfg(feature = "captioner")]
impl Weights {
    pub fn contains(&self, name: &str) -> bool {
        self.tensors.contains_key(name)
    }

    /// Two names for one parameter: where a checkpoint has only one of them, it serves as both.
    pub fn tie(&mut self, a: &str, b: &str) {
        for (from, to) in [(a, b), (b, a)] {
            if let Some(tensor) = self.tensors.get(from).filter(|_| !self.contains(to)) {
                self.tensors.insert(to.to_owned(), tensor.clone());
            }
        }
    }

    /// Forgets a weight that need not be used.
    pub fn discard(&mut self, name: &str) {
        self.tensors.remove(name);
    }
}

/// Buffers that older checkpoints store, and the temperature of CLIP's own loss.
fn is_known_extra(name: &str) -> bool {
    name.ends_with(".position_ids") || name == "logit_scale"
}
