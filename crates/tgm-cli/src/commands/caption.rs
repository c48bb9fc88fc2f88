//! `tgm caption`.

use std::path::PathBuf;

use anyhow::{Context, Result};
use candle_core::Device;
use tgm_clip::ModelSource;
use tgm_clip::captioner::{CaptionOptions, Captioner};
use tgm_train::run_data::load_manifest;

use super::read::ReadArgs;
use crate::captioning::{Captioned, caption};

/// Describe videos that have no caption: BLIP looks at three evenly spaced frames of each.
///
/// Rows that have captions keep them. An interrupted call is continued by calling it again.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  tgm caption --data clips.csv --out captioned.csv
  tgm caption --data clips.csv --out captioned.csv --model blip-image-captioning-base/
  tgm score --data captioned.csv --out scores           then score patches against the captions")]
pub(super) struct Args {
    /// The videos.
    #[arg(long, value_name = "MANIFEST")]
    data: PathBuf,
    /// Accept absolute paths in the manifest, and paths that leave its folder.
    #[arg(long)]
    allow_outside: bool,
    /// The manifest to write: CSV, or JSON Lines when named .jsonl. All other columns are kept.
    #[arg(long, value_name = "MANIFEST")]
    out: PathBuf,
    /// The BLIP: a folder, or `hub:OWNER/NAME@REVISION`. Default: BLIP base for captioning, downloaded once.
    #[arg(long)]
    model: Option<String>,
    /// Most tokens of a caption.
    #[arg(long, default_value_t = CaptionOptions::default().max_new_tokens, value_name = "N")]
    max_tokens: usize,
    /// Write new captions for rows that have some, too.
    #[arg(long)]
    replace: bool,
    #[command(flatten)]
    read: ReadArgs,
    /// Write the counts to a file.
    #[arg(long, value_name = "FILE", value_parser = crate::commands::result_file)]
    json: Option<PathBuf>,
}

pub(super) fn run(args: Args) -> Result<()> {
    let source = match &args.model {
        Some(model) => model.parse::<ModelSource>().with_context(|| format!("--model {model}"))?,
        None => ModelSource::blip_base(),
    };
    let manifest = load_manifest(&args.data, args.allow_outside)?;
    let captioner = Captioner::load(&source, &Device::Cpu)?;
    let options = CaptionOptions { max_new_tokens: args.max_tokens };
    let captioned = caption(&manifest, &captioner, &options, &args.read.options(), args.replace, &args.out)?;
    print(&captioned);
    println!("{}", args.out.display());
    super::write_json(args.json.as_deref(), &captioned)
}

fn print(result: &Captioned) {
    let Captioned { videos, captions, cut, .. } = result;
    println!("{captions} captions for {videos} videos, {cut} of them cut at the limit of tokens");
    for (count, what) in [
        (result.continued, "videos had theirs from an interrupted call"),
        (result.kept, "rows have captions and keep them"),
        (result.silent, "videos have none, because the model says nothing of them"),
        (
            result.bad.len(),
            "videos could not be read and have none; `tgm data check` writes a manifest without bad videos",
        ),
    ] {
        if count > 0 {
            println!("{count} {what}");
        }
    }
}
