//! Our side of `bench step` and `bench score`: one kind of work, done whenever a line arrives. See [`super::turns`].

use std::io::BufRead;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result};
use candle_core::{DType, Device, Tensor};
use tgm_clip::{ClipModel, ModelSource, PatchFeatures};
use tgm_contrastive::{ContrastiveConfig, ContrastiveHead};
use tgm_group::Group;
use tgm_mae::{Checkpoint, TokenSplit, tubelets_from_pixels};
use tgm_ops::{AdamW, AdamWConfig, Compute, Gradients, Keep, Params, Precision};
use tgm_train::environment::peak_memory_mib;
use tgm_train::step::{Joint, MicroBatch};

use super::turns::{Kind, Spec};
use crate::tensors::StoredTensors;

/// Do one kind of work for a bench.
#[derive(clap::Args, Debug)]
pub(in crate::commands) struct Args {
    /// What to do.
    spec: PathBuf,
}

/// Units of work before the first timed one, as many as the peers do.
const WARM_UP: usize = 3;
/// That of CLIP's text embeddings, which the contrastive head maps to.
pub(super) const TEXT_DIM: usize = 512;

/// One unit of work; returns the number that all programs must agree on.
type Work = Box<dyn FnMut() -> Result<f64>>;

pub(super) fn run(args: Args) -> Result<()> {
    let text = std::fs::read_to_string(&args.spec)
        .with_context(|| format!("cannot read {}", args.spec.display()))?;
    let spec: Spec = serde_json::from_str(&text).with_context(|| args.spec.display().to_string())?;
    let mut work = match spec.work {
        Kind::Step => step(&spec)?,
        Kind::Features => features(&spec)?,
        Kind::Score => score(&spec)?,
    };
    let value = work()?;
    for _ in 1..WARM_UP {
        work()?;
    }
    println!("{}", serde_json::json!({ "value": value }));
    for line in std::io::stdin().lock().lines() {
        line?;
        let start = Instant::now();
        work()?;
        println!("{}", serde_json::json!({ "seconds": start.elapsed().as_secs_f64() }));
    }
    let peak = peak_memory_mib().context("peak memory is known on Linux only")?;
    println!("{}", serde_json::json!({ "peak_mb": peak }));
    Ok(())
}

/// Forward, backward and AdamW, as the trainer does them.
fn step(spec: &Spec) -> Result<Work> {
    let checkpoint = Checkpoint::open(Path::new(&spec.model), None)?;
    let input = StoredTensors::read(Path::new(&spec.input))?;
    let keep = if spec.recompute { Keep::Inputs } else { Keep::Activations };
    let compute = Compute { precision: spec.precision, keep };
    let (mae, mut params) = checkpoint.model_with_params(&Device::Cpu)?;
    let mae = mae.with_compute(compute);
    let config = checkpoint.config.clone();
    // As large as the model: freed before the optimiser's state takes its place.
    drop(checkpoint);
    let tubelets = tubelets_from_pixels(&config, input.get("pixel_values")?)?;
    let split: TokenSplit = input.split(config.tokens())?;
    let clips = tubelets.dim(0)?;
    let contrastive = if spec.contrastive {
        let dim = config.encoder.dim;
        let head = ContrastiveHead::new(dim, TEXT_DIM, &ContrastiveConfig::default(), &mut params)?;
        set(&params, "contrastive.projection.weight", input.get("head.projection")?)?;
        set(&params, "contrastive.log_scale", input.get("head.log_scale")?)?;
        Some((head, 1.0))
    } else {
        None
    };
    let batch = vec![MicroBatch {
        tubelets,
        split,
        texts: if spec.contrastive { Some(input.get("texts")?.clone()) } else { None },
        captions: (0..clips).map(|clip| format!("caption {clip}")).collect(),
    }];
    let joint = Joint { mae, contrastive };
    let mut adamw = AdamW::new(&params, AdamWConfig::default());
    let mut grads = Gradients::zeros(&params);
    Ok(Box::new(move || {
        grads.clear();
        let losses = joint.gradient(&params, &batch, &mut grads, &mut Group::alone())?;
        grads.norm();
        adamw.step(&params, &grads, 1e-4, 1.0)?;
        Ok(losses.total(1.0))
    }))
}

fn set(params: &Params, name: &str, value: &Tensor) -> Result<()> {
    let var = params.get(name).with_context(|| format!("no parameter {name}"))?;
    Ok(var.set(value)?)
}

/// The encoder on all tubelets, mean-pooled.
fn features(spec: &Spec) -> Result<Work> {
    let checkpoint = Checkpoint::open(Path::new(&spec.model), None)?;
    let input = StoredTensors::read(Path::new(&spec.input))?;
    let encoder = checkpoint.encoder(&Device::Cpu)?.with_compute(Compute::inference(spec.precision));
    let tubelets = tubelets_from_pixels(&checkpoint.config, input.get("pixel_values")?)?;
    Ok(Box::new(move || root_mean_square(&encoder.forward_all(&tubelets)?.detach().mean(1)?)))
}

/// CLIP's projected patch features.
fn score(spec: &Spec) -> Result<Work> {
    let dtype = match spec.precision {
        Precision::F32 => DType::F32,
        Precision::Bf16 => DType::BF16,
    };
    let clip =
        ClipModel::load_with_dtype(&ModelSource::Folder(spec.model.clone().into()), &Device::Cpu, dtype)?;
    let pixels = StoredTensors::read(Path::new(&spec.input))?.get("pixel_values")?.clone();
    Ok(Box::new(move || root_mean_square(&clip.patch_features(&pixels, PatchFeatures::Plain)?)))
}

fn root_mean_square(x: &Tensor) -> Result<f64> {
    Ok(f64::from(x.to_dtype(DType::F32)?.sqr()?.mean_all()?.to_scalar::<f32>()?).sqrt())
}
