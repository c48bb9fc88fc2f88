//! `tgm forward`: a model on stored tensors, so that its numbers can be checked from outside.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use candle_core::{DType, Device, Tensor};
use tgm_mae::{Checkpoint, CheckpointKind, Classifier, TokenSplit, VideoMae, tubelets_from_pixels};
use tgm_ops::Params;
use tgm_random::Streams;

use crate::model_io;

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
    let input = Input::read(&args.input)?;
    let pixels = input.tensor("pixel_values")?.to_dtype(DType::F32)?;
    let tubelets = tubelets_from_pixels(&checkpoint.config, &pixels)
        .with_context(|| args.input.display().to_string())?;
    let mut params = Params::new(Streams::new(0), &Device::Cpu);
    let out = match checkpoint.kind {
        CheckpointKind::Pretraining => {
            let model = VideoMae::new(&checkpoint.config, &mut params)?;
            checkpoint.fill(&params)?;
            let split = input.split(checkpoint.config.tokens())?;
            pretraining(&checkpoint, &params, &model, &tubelets, &split, args.grads)?
        }
        CheckpointKind::Classification { classes } => {
            ensure!(!args.grads, "--grads needs a loss, which a classifier without labels does not have");
            let model = Classifier::new(&checkpoint.config, classes, &mut params)?;
            checkpoint.fill(&params)?;
            HashMap::from([("logits".to_string(), model.forward(&tubelets)?)])
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

/// A file of tensors.
struct Input<'a> {
    path: &'a Path,
    tensors: HashMap<String, Tensor>,
}

impl<'a> Input<'a> {
    fn read(path: &'a Path) -> Result<Self> {
        let bytes = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
        let tensors = read_tensors(&bytes).with_context(|| path.display().to_string())?;
        Ok(Self { path, tensors })
    }

    fn tensor(&self, name: &str) -> Result<&Tensor> {
        self.tensors.get(name).with_context(|| format!("{}: has no tensor `{name}`", self.path.display()))
    }

    fn split(&self, tokens: usize) -> Result<TokenSplit> {
        let masked = self.tensor("bool_masked_pos")?;
        if masked.rank() != 2 || masked.dims()[1] != tokens {
            bail!(
                "{}: bool_masked_pos is {:?}, this model needs [B, {tokens}]",
                self.path.display(),
                masked.dims()
            );
        }
        let rows = masked.to_dtype(DType::U8)?.to_vec2::<u8>()?;
        let flags: Vec<Vec<bool>> = rows.iter().map(|row| row.iter().map(|&m| m != 0).collect()).collect();
        TokenSplit::from_bools(&flags, &Device::Cpu).with_context(|| self.path.display().to_string())
    }
}

/// Reads safetensors; booleans, which candle does not know, become `u8`.
fn read_tensors(bytes: &[u8]) -> Result<HashMap<String, Tensor>> {
    let file = safetensors::SafeTensors::deserialize(bytes)?;
    let read = |(name, view): (String, safetensors::tensor::TensorView<'_>)| -> Result<(String, Tensor)> {
        let tensor = if view.dtype() == safetensors::Dtype::BOOL {
            Tensor::from_slice(view.data(), view.shape(), &Device::Cpu)?
        } else {
            candle_core::safetensors::Load::load(&view, &Device::Cpu)?
        };
        Ok((name, tensor))
    };
    file.tensors().into_iter().map(read).collect()
}
