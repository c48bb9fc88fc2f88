//! `tgm import` and `tgm export`.

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use clap::ValueEnum;
use tgm_mae::{Checkpoint, ClipSize, KeyLayout};
use tgm_train::config::ConfigError;
use tgm_train::model_io;

/// Turn a Hugging Face VideoMAE folder or an original .pth file into a checkpoint of this program.
///
/// Of a .pth file tensors are read and nothing is executed.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  tgm import videomae-base/ --out base
  tgm import checkpoint.pth --out small --frames 16 --size 224")]
pub(super) struct ImportArgs {
    /// The folder or file to read.
    from: PathBuf,
    /// The folder to write; must not exist or be empty.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Frames of a clip, for a .pth file, which does not say [default: 16]
    #[arg(long)]
    frames: Option<usize>,
    /// Height and width of a frame, for a .pth file, which does not say [default: 224]
    #[arg(long)]
    size: Option<usize>,
}

/// Write a checkpoint for other programs.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  tgm export runs/demo --to hugging-face --out exported/
  tgm export runs/demo --to original --out model.safetensors")]
pub(super) struct ExportArgs {
    /// A run, one of its checkpoints, or anything that `import` reads.
    from: PathBuf,
    /// The layout.
    #[arg(long)]
    to: Layout,
    /// The folder to write (hugging-face), or the file (original).
    #[arg(long, value_name = "PATH")]
    out: PathBuf,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Layout {
    /// `config.json` and `model.safetensors`, loaded by `VideoMAEForPreTraining.from_pretrained`.
    HuggingFace,
    /// The original repository's names in a safetensors file.
    Original,
}

pub(super) fn import(args: ImportArgs) -> Result<()> {
    let published = ClipSize::default();
    let clip = (args.frames.is_some() || args.size.is_some()).then(|| ClipSize {
        frames: args.frames.unwrap_or(published.frames),
        image_size: args.size.map_or(published.image_size, |size| [size, size]),
    });
    let checkpoint = Checkpoint::open(&args.from, clip)?;
    checkpoint.check()?;
    write_folder(&args.out, &checkpoint, KeyLayout::Native)
}

pub(super) fn export(args: ExportArgs) -> Result<()> {
    let checkpoint = model_io::open(&args.from)?;
    checkpoint.check()?;
    match args.to {
        Layout::HuggingFace => {
            if checkpoint.config.head_norm_eps != 1e-5 {
                tracing::warn!(
                    "transformers computes the last layer norm with eps 1e-5, this model was trained with {:e}",
                    checkpoint.config.head_norm_eps
                );
            }
            write_folder(&args.out, &checkpoint, KeyLayout::HuggingFaceLegacy)
        }
        Layout::Original => {
            ensure!(!args.out.exists(), "{}: exists already", args.out.display());
            // By their names alone readers know what files are.
            if args.out.extension().is_none_or(|ending| ending != "safetensors") {
                let message = format!("{}: the file is a safetensors file; name it so", args.out.display());
                return Err(ConfigError(message).into());
            }
            let layout = KeyLayout::Original;
            Checkpoint::save_file(
                &args.out,
                &checkpoint.config,
                checkpoint.kind,
                layout,
                checkpoint.weights(),
            )?;
            println!("{}", args.out.display());
            Ok(())
        }
    }
}

fn write_folder(out: &std::path::Path, checkpoint: &Checkpoint, layout: KeyLayout) -> Result<()> {
    let occupied = out.read_dir().is_ok_and(|mut entries| entries.next().is_some());
    ensure!(!occupied, "{}: the folder is not empty", out.display());
    std::fs::create_dir_all(out).with_context(|| format!("cannot make the folder {}", out.display()))?;
    Checkpoint::save_folder(out, &checkpoint.config, checkpoint.kind, layout, checkpoint.weights())?;
    println!("{}", out.display());
    Ok(())
}
