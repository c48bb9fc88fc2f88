//! A run that begins with the weights of another model in place of drawn ones.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Result, ensure};
use candle_core::Tensor;
use tgm_contrastive::ContrastiveHead;
use tgm_ops::Params;

use crate::model_io;

/// Mismatches that an error names.
const NAMED: usize = 3;

/// Puts a checkpoint's encoder, and its decoder if it has one that fits, in the place of the drawn weights. Returns what was taken, in
/// words. A contrastive head is left as it is.
///
/// # Errors
/// When there is no checkpoint, or its encoder is not of this model's size.
pub fn start_from(params: &Params, path: &Path) -> Result<String> {
    let checkpoint = model_io::open(path)?;
    let theirs = checkpoint.weights();
    let misfits = |encoder: bool| -> Vec<String> {
        let ours = params.iter().filter(|(name, _)| {
            !name.starts_with(ContrastiveHead::PREFIX) && name.starts_with(ENCODER) == encoder
        });
        ours.filter_map(|(name, var)| misfit(name, var.dims(), theirs.get(name))).collect()
    };
    let wrong = misfits(true);
    ensure!(
        wrong.is_empty(),
        "{}: its encoder is not of this model's size ({}); choose the same with --config, or --set model.preset=NAME",
        path.display(),
        wrong[..wrong.len().min(NAMED)].join(", ")
    );
    let whole = misfits(false).is_empty();
    let mut weights: BTreeMap<String, Tensor> = params.snapshot()?;
    for (name, tensor) in theirs {
        if weights.contains_key(name) && (whole || name.starts_with(ENCODER)) {
            weights.insert(name.clone(), tensor.clone());
        }
    }
    params.load(&path.display().to_string(), &weights)?;
    let what = if whole { "encoder and decoder" } else { "encoder (its decoder is none or of another size)" };
    Ok(format!("{what} of {}", path.display()))
}

const ENCODER: &str = "encoder.";

/// What is wrong with their tensor of this name, if anything.
fn misfit(name: &str, dims: &[usize], theirs: Option<&Tensor>) -> Option<String> {
    match theirs {
        None => Some(format!("no {name}")),
        Some(tensor) if tensor.dims() != dims => {
            Some(format!("{name} is {:?} there and {dims:?} here", tensor.dims()))
        }
        Some(_) => None,
    }
}
