//! Trainable parameters by name, in order, with reproducible initial values.

use std::collections::{BTreeMap, BTreeSet};

use candle_core::{DType, Device, Shape, Tensor, Var};
use rand::RngExt;
use tgm_random::{Stream, Streams};
use thiserror::Error;

/// What can go wrong with named parameters.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ParamError {
    /// Two layers of a model asked for a parameter of the same name.
    #[error("parameter `{0}` is defined twice")]
    Duplicate(String),
    /// A set of weights does not fit the model: names are missing, left over, or of another shape.
    #[error("{source_name} does not fit this model:{}", describe(.missing, .unexpected, .misshapen))]
    Mismatch {
        /// Where the weights came from.
        source_name: String,
        /// Parameters that the weights do not have.
        missing: Vec<String>,
        /// Weights that the model has no place for.
        unexpected: Vec<String>,
        /// Weights of another shape: name, the model's shape, the weights' shape.
        misshapen: Vec<(String, Vec<usize>, Vec<usize>)>,
    },
    /// candle refused to make or to write a tensor.
    #[error(transparent)]
    Candle(#[from] candle_core::Error),
}

fn describe(
    missing: &[String],
    unexpected: &[String],
    misshapen: &[(String, Vec<usize>, Vec<usize>)],
) -> String {
    let list = |names: &[String]| {
        let shown = names.iter().take(6).map(|n| format!("`{n}`")).collect::<Vec<_>>().join(", ");
        if names.len() > 6 { format!("{shown} and {} more", names.len() - 6) } else { shown }
    };
    let mut text = String::new();
    if !missing.is_empty() {
        text += &format!(" missing {};", list(missing));
    }
    if !unexpected.is_empty() {
        text += &format!(" unexpected {};", list(unexpected));
    }
    if let Some((name, model, found)) = misshapen.first() {
        text += &format!(" `{name}` should be {model:?} and is {found:?}");
        if misshapen.len() > 1 {
            text += &format!(" (and {} more of another shape)", misshapen.len() - 1);
        }
    }
    text.trim_end_matches(';').to_string()
}

/// How a parameter begins.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Init {
    /// Every element the same.
    Constant(f64),
    /// Uniform in ±`bound`.
    Uniform {
        /// The largest absolute value.
        bound: f64,
    },
    /// Normal with mean 0, drawn again until it lies within ±`cut`.
    TruncatedNormal {
        /// Standard deviation before cutting.
        std: f64,
        /// The largest absolute value.
        cut: f64,
    },
    /// Glorot's uniform initialisation of a weight `[out, in]`: ±√(6 / (in + out)).
    XavierUniform,
}

impl Init {
    fn values(self, shape: &Shape, stream: &mut Stream) -> Vec<f32> {
        let count = shape.elem_count();
        let uniform = |bound: f64, stream: &mut Stream| -> Vec<f32> {
            (0..count).map(|_| ((stream.random::<f64>() * 2.0 - 1.0) * bound) as f32).collect()
        };
        match self {
            Self::Constant(value) => vec![value as f32; count],
            Self::Uniform { bound } => uniform(bound, stream),
            Self::XavierUniform => {
                let fans: usize = shape.dims().iter().sum();
                uniform((6.0 / fans as f64).sqrt(), stream)
            }
            Self::TruncatedNormal { std, cut } => (0..count)
                .map(|_| {
                    let mut draws = std::iter::repeat_with(|| std * standard_normal(stream));
                    draws.find(|v| v.abs() <= cut).map_or(0.0, |v| v as f32)
                })
                .collect(),
        }
    }
}

/// One standard normal number (Box–Muller).
pub(crate) fn standard_normal(stream: &mut Stream) -> f64 {
    let (u, v): (f64, f64) = (1.0 - stream.random::<f64>(), stream.random());
    (-2.0 * u.ln()).sqrt() * (std::f64::consts::TAU * v).cos()
}

/// The trainable parameters of a model: `f32` variables by name, in alphabetical order.
///
/// Each initial value is drawn from a stream named after its parameter, so that adding a layer leaves the others'
/// initial values as they were. (candle's own generator cannot be seeded on the CPU, and its `VarMap` iterates in
/// another order in every process.)
#[derive(Clone, Debug)]
pub struct Params {
    vars: BTreeMap<String, Var>,
    streams: Streams,
    device: Device,
    prefix: String,
}

impl Params {
    /// No parameters yet.
    pub fn new(streams: Streams, device: &Device) -> Self {
        Self { vars: BTreeMap::new(), streams, device: device.clone(), prefix: String::new() }
    }

    /// Runs `build` with `name.` put before every parameter name that it defines.
    ///
    /// # Errors
    /// Those of `build`.
    pub fn scope<T, E>(
        &mut self,
        name: impl std::fmt::Display,
        build: impl FnOnce(&mut Self) -> Result<T, E>,
    ) -> Result<T, E> {
        let outer = self.prefix.clone();
        self.prefix = format!("{outer}{name}.");
        let built = build(self);
        self.prefix = outer;
        built
    }

    /// Defines a parameter. The tensor is the variable itself: gradients reach it, and updates show in it.
    ///
    /// # Errors
    /// [`ParamError::Duplicate`] when the name is taken.
    pub fn define(&mut self, name: &str, shape: impl Into<Shape>, init: Init) -> Result<Tensor, ParamError> {
        let (name, shape) = (format!("{}{name}", self.prefix), shape.into());
        let mut stream = self.streams.stream(&format!("init/{name}"), 0, 0);
        let values = init.values(&shape, &mut stream);
        let var = Var::from_tensor(&Tensor::from_vec(values, shape, &self.device)?)?;
        let tensor = var.as_tensor().clone();
        if self.vars.contains_key(&name) {
            return Err(ParamError::Duplicate(name));
        }
        self.vars.insert(name, var);
        Ok(tensor)
    }

    /// The device the parameters live on.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// All parameters in alphabetical order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Var)> {
        self.vars.iter().map(|(name, var)| (name.as_str(), var))
    }

    /// One parameter.
    pub fn get(&self, name: &str) -> Option<&Var> {
        self.vars.get(name)
    }

    /// How many numbers there are to learn.
    pub fn count(&self) -> usize {
        self.vars.values().map(|v| v.elem_count()).sum()
    }

    /// Copies of all values, by name.
    ///
    /// # Errors
    /// When a copy cannot be made.
    pub fn snapshot(&self) -> Result<BTreeMap<String, Tensor>, ParamError> {
        self.iter().map(|(name, var)| Ok((name.to_string(), var.as_detached_tensor().copy()?))).collect()
    }

    /// Sets every parameter. Either all names and shapes fit, or nothing is changed.
    ///
    /// `source_name` says in errors where the values came from.
    ///
    /// # Errors
    /// [`ParamError::Mismatch`] with both sets of names.
    pub fn load(&self, source_name: &str, values: &BTreeMap<String, Tensor>) -> Result<(), ParamError> {
        let ours: BTreeSet<&String> = self.vars.keys().collect();
        let theirs: BTreeSet<&String> = values.keys().collect();
        let names = |set: Vec<&&String>| set.into_iter().map(|n| (*n).clone()).collect::<Vec<_>>();
        let missing = names(ours.difference(&theirs).collect());
        let unexpected = names(theirs.difference(&ours).collect());
        let misshapen: Vec<_> = self
            .iter()
            .filter_map(|(name, var)| {
                let found = values.get(name)?.dims();
                (found != var.dims()).then(|| (name.to_string(), var.dims().to_vec(), found.to_vec()))
            })
            .collect();
        if !(missing.is_empty() && unexpected.is_empty() && misshapen.is_empty()) {
            return Err(ParamError::Mismatch {
                source_name: source_name.to_string(),
                missing,
                unexpected,
                misshapen,
            });
        }
        for (name, var) in &self.vars {
            var.set(&values[name].to_dtype(DType::F32)?.to_device(&self.device)?.contiguous()?)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn params(names: &[&str]) -> Params {
        let mut params = Params::new(Streams::new(5), &Device::Cpu);
        for name in names {
            params.define(name, (3, 4), Init::XavierUniform).expect("unique names");
        }
        params
    }

    fn values(params: &Params, name: &str) -> Vec<f32> {
        params.get(name).expect("defined").flatten_all().unwrap().to_vec1().unwrap()
    }

    #[test]
    fn initial_values_depend_on_the_name_alone() {
        let (a, b) = (params(&["x", "y"]), params(&["w", "y", "x"]));
        assert_eq!(values(&a, "x"), values(&b, "x"));
        assert_ne!(values(&a, "x"), values(&a, "y"));
    }

    #[test]
    fn xavier_stays_inside_its_bound_and_fills_it() {
        let v = values(&params(&["x"]), "x");
        let bound = (6.0f32 / 7.0).sqrt();
        assert!(v.iter().all(|x| x.abs() <= bound));
        assert!(v.iter().any(|x| x.abs() > bound / 2.0));
    }

    #[test]
    fn truncated_normal_is_cut() {
        let mut p = Params::new(Streams::new(5), &Device::Cpu);
        p.define("t", 4000, Init::TruncatedNormal { std: 0.02, cut: 0.02 }).unwrap();
        let v = values(&p, "t");
        assert!(v.iter().all(|x| x.abs() <= 0.02));
        let deviation = (v.iter().map(|x| x * x).sum::<f32>() / 4000.0).sqrt();
        assert!(
            (deviation / 0.02 - 0.54).abs() < 0.02,
            "a normal cut at one sigma has a deviation of 0.54 sigma"
        );
    }

    #[test]
    fn a_name_cannot_be_defined_twice() {
        let mut p = params(&["x"]);
        assert!(matches!(p.define("x", 1, Init::Constant(0.0)), Err(ParamError::Duplicate(n)) if n == "x"));
    }

    #[test]
    fn loading_is_all_or_nothing_and_names_both_sets() {
        let p = params(&["a", "b", "c"]);
        let before = values(&p, "a");
        let zeros = |shape: &[usize]| Tensor::zeros(shape, DType::F32, &Device::Cpu).unwrap();
        let file = [("a", zeros(&[3, 4])), ("c", zeros(&[4, 3])), ("d", zeros(&[1]))];
        let file = file.into_iter().map(|(n, t)| (n.to_string(), t)).collect();
        let message = p.load("weights.safetensors", &file).unwrap_err().to_string();
        assert_eq!(
            message,
            "weights.safetensors does not fit this model: missing `b`; unexpected `d`; `c` should be [3, 4] and is [4, 3]"
        );
        assert_eq!(values(&p, "a"), before);
    }
}
