//! Trainable parameters by name, in order, with reproducible initial values.

use std::collections::BTreeMap;

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
    /// A parameter was to begin with values that are no numbers, or that would hardly ever be drawn.
    #[error("parameter `{name}` cannot begin as {init:?}: {reason}")]
    Init {
        /// The parameter.
        name: String,
        /// What was asked for.
        init: Init,
        /// What is wrong with it.
        reason: &'static str,
    },
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

/// Compares weights with the names and shapes of a model's parameters.
///
/// `source_name` says in errors where the weights came from.
///
/// # Errors
/// [`ParamError::Mismatch`] with every name that is missing, left over or of another shape.
pub fn check_weights(
    source_name: &str,
    expected: &BTreeMap<String, Vec<usize>>,
    weights: &BTreeMap<String, Tensor>,
) -> Result<(), ParamError> {
    let missing: Vec<_> = expected.keys().filter(|name| !weights.contains_key(*name)).cloned().collect();
    let unexpected: Vec<_> = weights.keys().filter(|name| !expected.contains_key(*name)).cloned().collect();
    let misshapen: Vec<_> = expected
        .iter()
        .filter_map(|(name, shape)| {
            let found = weights.get(name)?.dims();
            (found != shape.as_slice()).then(|| (name.clone(), shape.clone(), found.to_vec()))
        })
        .collect();
    if missing.is_empty() && unexpected.is_empty() && misshapen.is_empty() {
        return Ok(());
    }
    Err(ParamError::Mismatch { source_name: source_name.to_string(), missing, unexpected, misshapen })
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
        /// Standard deviation before cutting; at most 100 × `cut`.
        std: f64,
        /// The largest absolute value; more than 0.
        cut: f64,
    },
    /// Glorot's uniform initialisation of a weight `[out, in]`: ±√(6 / (in + out)).
    XavierUniform,
}

impl Init {
    /// What keeps a parameter of this shape from beginning like this.
    fn fault(self, shape: &Shape) -> Option<&'static str> {
        let number = |value: f64| (value as f32).is_finite();
        match self {
            Self::Constant(value) | Self::Uniform { bound: value } if !number(value) => {
                Some("the value is no number of f32")
            }
            Self::XavierUniform if shape.dims().iter().sum::<usize>() == 0 => {
                Some("its bound follows from the sizes, and there are none")
            }
            Self::TruncatedNormal { std, .. } if !number(std) || std < 0.0 => {
                Some("the deviation must be a number of 0 or more")
            }
            Self::TruncatedNormal { cut, .. } if cut.is_nan() || cut <= 0.0 => {
                Some("the cut must be larger than 0")
            }
            // One draw in a hundred lies within: far beyond, drawing again until one does takes for ever.
            Self::TruncatedNormal { std, cut } if std > 100.0 * cut => {
                Some("the deviation may be 100 times the cut at most: beyond, nearly every draw lies outside")
            }
            _ => None,
        }
    }

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
    /// [`ParamError::Duplicate`] when the name is taken, [`ParamError::Init`] when nothing can begin like that.
    pub fn define(&mut self, name: &str, shape: impl Into<Shape>, init: Init) -> Result<Tensor, ParamError> {
        let (name, shape) = (format!("{}{name}", self.prefix), shape.into());
        if let Some(reason) = init.fault(&shape) {
            return Err(ParamError::Init { name, init, reason });
        }
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
        let ours = self.vars.iter().map(|(name, var)| (name.clone(), var.dims().to_vec())).collect();
        check_weights(source_name, &ours, values)?;
        for (name, var) in &self.vars {
            var.set(&values[name].to_dtype(DType::F32)?.to_device(&self.device)?.contiguous()?)?;
        }
        Ok(())
    }

    /// Whether every value is a number.
    ///
    /// # Errors
    /// [`ParamError::Candle`].
    pub fn all_finite(&self) -> Result<bool, ParamError> {
        for var in self.vars.values() {
            if !var.flatten_all()?.to_vec1::<f32>()?.iter().all(|value| value.is_finite()) {
                return Ok(false);
            }
        }
        Ok(true)
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

    /// A cut of 0 was never met, and the program never came back.
    #[test]
    fn a_beginning_that_would_never_be_drawn_or_is_no_number_is_refused_by_name() {
        let normal = |std, cut| Init::TruncatedNormal { std, cut };
        let mut p = Params::new(Streams::new(5), &Device::Cpu);
        for init in [
            normal(0.02, 0.0),
            normal(0.02, -1.0),
            normal(0.02, f64::NAN),
            normal(f64::NAN, 1.0),
            normal(-1.0, 1.0),
            normal(f64::INFINITY, 1.0),
            normal(1e30, 1.0),
            Init::Constant(f64::NAN),
            Init::Constant(1e300),
            Init::Uniform { bound: f64::INFINITY },
        ] {
            let error = p.define("x", 3, init).unwrap_err();
            assert!(matches!(&error, ParamError::Init { name, .. } if name == "x"), "{init:?}");
            assert!(error.to_string().starts_with("parameter `x` cannot begin as "), "{error}");
        }
        assert!(matches!(p.define("x", (), Init::XavierUniform), Err(ParamError::Init { .. })));
        for init in [normal(0.0, 1.0), normal(100.0, 1.0), normal(1.0, f64::INFINITY)] {
            let name = format!("{init:?}");
            p.define(&name, 3, init).unwrap();
            assert!(values(&p, &name).iter().all(|v| v.is_finite()));
        }
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
