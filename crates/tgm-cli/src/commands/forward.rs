//! `tgm forward`: a model on stored tensors, so that its numbers can be checked from outside.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use candle_core::{DType, Device, Tensor};
use tgm_mae::{Checkpoint, CheckpointKind, TokenSplit, VideoMae, tubelets_from_pixels};
use tgm_ops::Params;
use tgm_train::model_io;

use crate::tensors::StoredTensors;

/// Run a model on stored tensors and store what it computes.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Input:   pixel_values [B, T, C, H, W] f32, normalised; for pretraining also bool_masked_pos [B, N], u8 (1 = masked)
Output:  logits [B, N_masked, P] and loss; with --grads also grad.KEY for every parameter, named as in the checkpoint;
         for a classifier logits [B, classes]

Example:
  tgm forward --checkpoint videomae-base/ --input clip.safetensors --output out.safetensors --grads")]
pub(super) struct Args {
    /// A run, one of its checkpoints, a Hugging Face VideoMAE folder, or an original .pth file.
    #[arg(long, value_name = "PATH")]
    checkpoint: PathBuf,
    /// A safetensors file.
    #[arg(long, value_name = "FILE")]
    input: PathBuf,
    /// The safetensors file to write.
    #[arg(long, value_name = "FILE")]
    output: PathBuf,
    /// Also store the gradient of the loss with respect to every parameter.
    #[arg(long)]
    grads: bool,
}

pub(super) fn run(args: Args) -> Result<()> {
    let checkpoint = model_io::open(&args.checkpoint)?;
    let input = StoredTensors::read(&args.input)?;
    let pixels = input.get("pixel_values")?.to_dtype(DType::F32)?;
    let tubelets = tubelets_from_pixels(&checkpoint.config, &pixels)
        .with_context(|| args.input.display().to_string())?;
    let out = match checkpoint.kind {
        CheckpointKind::Classification { .. } => {
            ensure!(!args.grads, "--grads needs a loss, which a classifier without labels does not have");
            let model = checkpoint.classifier(&Device::Cpu)?;
            HashMap::from([("logits".to_string(), model.forward(&tubelets)?)])
        }
        // What has no decoder says so.
        _ => {
            let (model, params) = checkpoint.model_with_params(&Device::Cpu)?;
            let split = input.split(checkpoint.config.tokens())?;
            pretraining(&checkpoint, &params, &model, &tubelets, &split, args.grads)?
        }
    };
    candle_core::safetensors::save(&out, &args.output)
        .with_context(|| format!("cannot write {}", args.output.display()))?;
    let mut names: Vec<_> = out.iter().map(|(name, t)| format!("{name} {:?}", t.dims())).collect();
    names.sort();
    println!("{}: {}", args.output.display(), names.iter().take(4).cloned().collect::<Vec<_>>().join(", "));
    Ok(())
}

fn pretraining(
    checkpoint: &Checkpoint,
    params: &Params,
    model: &VideoMae,
    tubelets: &Tensor,
    split: &TokenSplit,
    grads: bool,
) -> Result<HashMap<String, Tensor>> {
    let result = model.forward(tubelets, split)?;
    let mut out =
        HashMap::from([("logits".to_string(), result.prediction), ("loss".to_string(), result.loss.clone())]);
    if grads {
        let store = result.loss.backward()?;
        let ours: BTreeMap<String, Tensor> = params
            .iter()
            .map(|(name, var)| {
                let grad = store.get(var).with_context(|| format!("no gradient reached {name}"))?;
                Ok((name.to_string(), grad.clone()))
            })
            .collect::<Result<_>>()?;
        let theirs = checkpoint.in_file_layout(&ours)?;
        out.extend(theirs.into_iter().map(|(key, grad)| (format!("grad.{key}"), grad)));
    }
    Ok(out)
}
