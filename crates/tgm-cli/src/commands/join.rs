//! `tgm join`.

use std::path::PathBuf;

use anyhow::{Result, bail};
use tgm_group::Group;
use tgm_train::config::{Config, ConfigError};
use tgm_train::progress::say;
use tgm_train::stop::Stop;
use tgm_train::trainer::Member;

/// Take part in a run that another process leads (`tgm pretrain --processes N --listen HOST:PORT`).
///
/// The leader tells this process the configuration and the weights, and writes everything down. What is needed here is a copy of the
/// videos, and, where the masks are guided by text, the same CLIP or score cache. Memory and speed are those of a run with a batch of
/// this process's share.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  tgm pretrain --config tgm-base --data clips.csv --processes 4 --listen 10.0.0.1:29500    on the first machine
  tgm join 10.0.0.1:29500 --data /local/clips.csv                                         on three others
  srun sh -c 'if [ $SLURM_PROCID = 0 ]; then tgm pretrain …; else tgm join $HEAD:29500; fi'

Ctrl-C and SIGTERM here end the run in all processes after the current step, saved by the first one. Whoever can reach the port can
take part and read the run's weights: use a network of your own. Of three processes or more, neighbours also connect to each other, on ports
that the system chooses: a firewall between the machines must let them.")]
pub(super) struct Args {
    /// Where the first process listens.
    #[arg(value_name = "HOST:PORT")]
    address: String,
    /// This machine's copy of the manifest, folder or shards. Default: where the first process has it.
    #[arg(long, value_name = "MANIFEST|FOLDER|SHARDS")]
    data: Option<PathBuf>,
    /// Accept absolute paths in the manifest, and paths that leave its folder.
    #[arg(long)]
    allow_outside: bool,
    /// This machine's copy of the score cache. Default: where the first process has it.
    #[arg(long, value_name = "DIR")]
    scores: Option<PathBuf>,
    /// Threads that decode. Default: as many as there are processors.
    #[arg(long, value_name = "N")]
    workers: Option<usize>,
    /// Set what is different on this machine: text.model (its copy of the same CLIP), or a key of [loader]; may be repeated.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    settings: Vec<String>,
}

pub(super) fn run(args: Args) -> Result<()> {
    let stop = Stop::on_signals()?;
    if let Some(other) = args.settings.iter().find(|setting| !is_of_one_machine(setting)) {
        return Err(ConfigError(format!(
            "--set {other}: only text.model and the keys of [loader] may differ between machines; the first process says the rest"
        ))
        .into());
    }
    say(&format!("joining {}", args.address));
    let group = Group::join(&args.address)?;
    let mut member = Member::new(group, &args.settings, &|config| adjust(&args, config))?.stopped_by(stop);
    say(&member.describe());
    match member.run()? {
        (_, true) => Ok(()),
        (step, false) => bail!(
            "a process was stopped by a signal: the run ends after step {step}, saved by the first process"
        ),
    }
}

/// Whether a setting changes nothing that is computed.
fn is_of_one_machine(setting: &str) -> bool {
    let key = setting.split('=').next().unwrap_or_default().trim();
    key == "text.model" || key.starts_with("loader.")
}

/// Puts in what is different on this machine.
fn adjust(args: &Args, config: &mut Config) -> Result<()> {
    if let Some(data) = &args.data {
        config.data.manifest = Some(std::path::absolute(data)?);
    }
    config.data.allow_outside |= args.allow_outside;
    if let Some(scores) = &args.scores {
        if config.text.cache.is_none() {
            return Err(ConfigError("--scores: the run has no score cache".into()).into());
        }
        config.text.cache = Some(std::path::absolute(scores)?);
    }
    if let Some(workers) = args.workers {
        config.loader.workers = workers;
    }
    Ok(())
}
