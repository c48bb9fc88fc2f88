//! `tgm data`.

mod bench;
mod check;
mod clean;
mod copy_settings;
mod inspect;
mod matrix;
mod synth;
mod transcode;

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Result;
use tgm_data::manifest::Manifest;
use tgm_train::run_data::load_manifest;

/// Make, check, look at and speed up data.
#[derive(clap::Subcommand, Debug)]
pub(super) enum Command {
    Bench(bench::Args),
    Check(check::Args),
    Inspect(inspect::Args),
    Synth(synth::Args),
    Transcode(transcode::Args),
}

pub(super) fn run(command: Command) -> Result<()> {
    match command {
        Command::Bench(args) => bench::run(args),
        Command::Check(args) => check::run(args),
        Command::Inspect(args) => inspect::run(args),
        Command::Synth(args) => synth::run(args),
        Command::Transcode(args) => transcode::run(args),
    }
}

/// The manifest that a command works on.
#[derive(clap::Args, Debug)]
struct ManifestArgs {
    /// CSV or JSON Lines with a column `path`; or a folder, a tar archive, or a pattern of them: 'clips-{000..012}.tar'.
    manifest: PathBuf,
    /// Accept absolute paths and paths that leave the manifest's folder.
    #[arg(long)]
    allow_outside: bool,
}

impl ManifestArgs {
    fn load(&self) -> Result<Arc<Manifest>> {
        load_manifest(&self.manifest, self.allow_outside)
    }
}
