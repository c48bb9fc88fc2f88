//! `tgm pretrain`.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use clap::ValueEnum;
use serde::Serialize;
use tgm_data::loader::MotionSource;
use tgm_group::Host;
use tgm_masking::{Masking, MotionBoxConfig, MotionWarpConfig, TextConfig};
use tgm_train::config::{self, Config, ConfigError, Length, Plan, TextView};
use tgm_train::model_io::random_encoder;
use tgm_train::probe::{LabelledClips, Row, compare};
use tgm_train::progress::say;
use tgm_train::run_data::training_data;
use tgm_train::run_dir::{RunDir, write_atomically};
use tgm_train::stop::Stop;
use tgm_train::trainer::{Outcome, Start, Trainer};

use crate::demo;
use crate::rehearsal;

/// Train a video masked autoencoder. Without arguments: the demo, from rendering its data to probes of the result.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  tgm pretrain                                          the demo, end to end, in minutes on two cores
  tgm pretrain --data clips/ --masking tube --contrastive off --set masking.ratio=0.75   the demo's small model on your own clips
  tgm pretrain --config tgm-base --data k400.csv        the paper's setting
  tgm pretrain --data clips.csv --masking motion --contrastive off --set train.batch=16
  tgm pretrain --config videomae-base --init videomae-base/ --data clips.csv --set train.batch=64 --set schedule.unit=steps \
      --set schedule.length=2000 --set schedule.warmup=100   go on from published weights
  tgm pretrain --config tgm-base --data k400.csv --dry-run   memory, time and data, checked beforehand
  tgm pretrain --out runs/demo --resume                 go on where a run was stopped
  tgm pretrain --out runs/demo --auto-resume            start or go on: one command for a scheduler to repeat
  tgm pretrain --data clips.csv --set train.micro_batch=8 --processes 4 --listen 10.0.0.1:29500   with three `tgm join`

Ctrl-C and SIGTERM finish the step, save and leave with exit code 1; a second one leaves at once.")]
pub(super) struct Args {
    /// A named configuration (`tgm config list`) or a TOML file.
    #[arg(long, default_value = "demo", value_name = "NAME|FILE")]
    config: String,
    /// The videos: CSV or JSON Lines with the column `path`, and optionally `split`, `label`, `caption`, `start`, `end`; or a
    /// folder, whose videos' captions are the lines of text files of the same name; or tar shards, 'clips-{000..012}.tar'.
    #[arg(long, value_name = "MANIFEST|FOLDER|SHARDS")]
    data: Option<PathBuf>,
    /// Accept absolute paths in the manifest, and paths that leave its folder.
    #[arg(long)]
    allow_outside: bool,
    /// Begin with the weights of a run, one of its checkpoints, a Hugging Face VideoMAE folder or an original .pth file of the same size.
    #[arg(long, value_name = "PATH")]
    init: Option<PathBuf>,
    /// Which tubelets are hidden. The configuration's own strategy keeps its settings, another one has its defaults; `--set
    /// masking.KEY=VALUE` changes both.
    #[arg(long)]
    masking: Option<MaskingName>,
    /// The contrastive term of the loss.
    #[arg(long)]
    contrastive: Option<Switch>,
    /// Stop after this many steps in all. The learning-rate schedule stays as configured.
    #[arg(long, value_name = "N")]
    steps: Option<u64>,
    /// Folder of the run. Default: runs/CONFIG, numbered when taken.
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Continue the run in the folder from its newest checkpoint, with the configuration it was started with.
    #[arg(long, conflicts_with = "auto_resume")]
    resume: bool,
    /// Continue the run in the folder when there is one, else start it. All other options must stay as they were.
    #[arg(long)]
    auto_resume: bool,
    /// With --resume or --auto-resume: go on although configuration or data is no longer what the run was started with.
    #[arg(long)]
    allow_changes: bool,
    /// Only say what would happen: model size, memory, steps, and the time from ten measured steps; checks the data. (The demo's
    /// world is rendered for it.)
    #[arg(long, conflicts_with_all = ["resume", "auto_resume"])]
    dry_run: bool,
    /// So many processes, on one machine or several, share the micro-batches of every step: this one and those that `tgm join`.
    #[arg(long, value_name = "N", requires = "listen", conflicts_with = "dry_run", value_parser = crate::commands::at_least_one)]
    processes: Option<usize>,
    /// Where the others join: an address of this machine that they can reach.
    #[arg(long, value_name = "HOST:PORT", requires = "processes")]
    listen: Option<String>,
    /// Set a key of the configuration; may be repeated.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    settings: Vec<String>,
    /// Write the final numbers to a file.
    #[arg(long, value_name = "FILE", value_parser = crate::commands::result_file)]
    json: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum MaskingName {
    /// Tubelets drawn anew in every temporal slot.
    Random,
    /// The same places in every slot (VideoMAE).
    Tube,
    /// A rectangle that follows the motion (MGM).
    Motion,
    /// A random map carried along by the motion (MGMAE).
    MotionWarp,
    /// The tubelets that match the caption best (the paper).
    Text,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Switch {
    On,
    Off,
}

impl MaskingName {
    fn masking(self) -> Masking {
        match self {
            Self::Random => Masking::Random { ratio: 0.9 },
            Self::Tube => Masking::Tube { ratio: 0.9 },
            Self::Motion => Masking::MotionBox(MotionBoxConfig::default()),
            Self::MotionWarp => Masking::MotionWarp(MotionWarpConfig::default()),
            Self::Text => Masking::Text(TextConfig::default()),
        }
    }
}

/// The numbers that a run ends in, and where its results lie.
#[derive(Debug, Serialize)]
struct Summary {
    run: PathBuf,
    checkpoint: PathBuf,
    pictures: Vec<PathBuf>,
    steps: u64,
    skipped_steps: u64,
    rows: Vec<Row>,
}

pub(super) fn run(args: Args) -> Result<()> {
    let stop = Stop::on_signals()?;
    // First: who is started at the same time can join while this process still prepares.
    let host = args.listen.as_deref().map(Host::listen).transpose()?;
    let name = Path::new(&args.config).file_stem().map_or("run".into(), |s| s.to_string_lossy().into_owned());
    let go_on = args.resume || args.auto_resume;
    let folder = args.out.clone().unwrap_or_else(|| RunDir::default_path(&name, go_on));
    let (mut config, existing) = prepare(&args, &folder)?;
    let demo = args.config == "demo" && config.data.manifest.is_none();
    // Only when everything could be read is the folder taken.
    if existing.is_none() && demo {
        // Rendering a world takes minutes: what is wrong with the rest is said first.
        demo::check(&config)?;
    } else if existing.is_none() {
        training_data(&config)?;
        // Said before the training, not after it.
        if let Err(error) = LabelledClips::of(&config) {
            tracing::warn!("there will be no probes of the result: {error:#}");
        }
    }
    if let Some(processes) = args.processes {
        Plan::check_share(&config.train, processes)?;
    }
    if args.dry_run {
        if demo {
            demo::prepare(&mut config, &folder)?;
        }
        return super::write_json(args.json.as_deref(), &rehearsal::print(config, RunDir::at(&folder))?);
    }
    let resumed = existing.is_some();
    let (run, _lock) = match existing {
        Some(run) => {
            let lock = run.lock()?;
            (run, lock)
        }
        None => RunDir::create(&folder)?,
    };
    if demo {
        demo::prepare(&mut config, &folder)?;
    } else {
        warn_of_builtin(&config);
    }
    let start = if resumed { Start::Resume { allow_changes: args.allow_changes } } else { Start::Fresh };
    let trainer = begin(&args, host, config.clone(), run.clone(), start);
    if trainer.is_err() && !resumed {
        run.abandon();
    }
    let mut trainer = trainer?.stopped_by(stop);
    write_atomically(&run.config_file(), config.to_toml()?.as_bytes())?;
    let outcome = trainer.run()?;
    if outcome.stopped {
        let group = match (args.processes, &args.listen) {
            (Some(processes), Some(address)) => format!(" --processes {processes} --listen {address}"),
            _ => String::new(),
        };
        bail!(
            "stopped by a signal after step {} of {}, saved in {}; go on with --out {} --resume{group}",
            outcome.steps,
            trainer.plan().length.stop,
            outcome.checkpoint.display(),
            run.path().display()
        );
    }
    let rows = rows(&config, &trainer, &outcome);
    finish(&args, run, outcome, rows)
}

/// A run before its first step, with all its processes.
fn begin(args: &Args, host: Option<Host>, config: Config, run: RunDir, start: Start) -> Result<Trainer> {
    let trainer = Trainer::new(config, run, start)?;
    say(&trainer.describe());
    if let Some(shortage) = trainer.memory_shortage() {
        tracing::warn!("{shortage}");
    }
    let Length { stop, warmup, .. } = trainer.plan().length;
    if stop <= warmup {
        tracing::warn!(
            "the run stops after {stop} steps, within its warm-up of {warmup}: for a shorter schedule, give --set schedule.unit=steps \
             --set schedule.length={stop} --set schedule.warmup={}",
            stop / 10
        );
    }
    let (Some(processes), Some(host)) = (args.processes, host) else { return Ok(trainer) };
    if processes > 1 {
        say(&format!(
            "group     1 of {processes} processes; waiting for the others: tgm join {}",
            reachable(host.address()?)
        ));
    }
    trainer.lead(host, processes, &mut |here, from| {
        say(&format!("group     {here} of {processes} processes, the last from {}", from.ip()));
    })
}

/// How the others name this address.
fn reachable(address: SocketAddr) -> String {
    match address.ip().is_unspecified() {
        true => format!("ADDRESS:{}, with an address of this machine", address.port()),
        false => address.to_string(),
    }
}

/// The configuration, and the folder of the run when it exists already.
fn prepare(args: &Args, folder: &Path) -> Result<(Config, Option<RunDir>)> {
    refuse_twice(args)?;
    let existing = match RunDir::open(folder) {
        Ok(run) if args.resume || args.auto_resume => Some(run),
        Err(error) if args.resume => return Err(error),
        _ => None,
    };
    let asked = || with_masking(args, &|settings| config::load(&args.config, settings));
    let Some(run) = existing else {
        let mut config = asked()?;
        apply(args, &mut config)?;
        return Ok((config, None));
    };
    let file = run.config_file();
    let text = std::fs::read_to_string(&file)?;
    let read = |settings: &[String]| config::from_text(&file.display().to_string(), &text, settings);
    let mut stored = read(&[])?;
    // `--resume` alone keeps everything; `--auto-resume` is given what the run was started with once more.
    let mut config = if args.resume { with_masking(args, &read)? } else { asked()? };
    if config.data.manifest.is_none() {
        config.data.manifest.clone_from(&stored.data.manifest);
        // The demo makes its score maps, too.
        if config.text.cache.is_none() {
            config.text.cache.clone_from(&stored.text.cache);
        }
    }
    apply(args, &mut config)?;
    anchor(&mut stored)?;
    refuse_changes(folder, &stored, &config, args.allow_changes)?;
    Ok((config, Some(run)))
}

/// Refuses an option beside a setting of the same key: one of them would be passed over in silence.
fn refuse_twice(args: &Args) -> Result<(), ConfigError> {
    let options = [
        ("--masking", "masking.kind", args.masking.is_some()),
        ("--contrastive", "contrastive.enabled", args.contrastive.is_some()),
        ("--data", "data.manifest", args.data.is_some()),
        ("--steps", "schedule.stop_at", args.steps.is_some()),
        ("--init", "model.init", args.init.is_some()),
    ];
    let is_set =
        |key| args.settings.iter().any(|setting| setting.split('=').next().unwrap_or_default().trim() == key);
    match options.into_iter().find(|(_, key, given)| *given && is_set(*key)) {
        Some((option, key, _)) => {
            Err(ConfigError(format!("{option} and --set {key} say the same; give one of them")))
        }
        None => Ok(()),
    }
}

/// What `load` makes of the settings, with `--masking` between the configuration and them.
fn with_masking(
    args: &Args,
    load: &dyn Fn(&[String]) -> Result<Config, ConfigError>,
) -> Result<Config, ConfigError> {
    let Some(name) = args.masking else { return load(&args.settings) };
    let same = |masking: &Masking| masking.is_same_kind(&name.masking());
    // The same strategy keeps the ratio that the configuration gives it.
    let config = if same(&load(&[])?.masking) {
        load(&args.settings)?
    } else {
        let table = toml::Value::try_from(name.masking()).map_err(|e| ConfigError(e.to_string()))?;
        load(&[&[format!("masking={table}")], &args.settings[..]].concat())?
    };
    if !same(&config.masking) {
        let name = name.to_possible_value().map_or(String::new(), |value| value.get_name().to_owned());
        return Err(ConfigError(format!("--masking {name} and --set masking… ask for different strategies")));
    }
    Ok(config)
}

/// The CLIP of the demo says nothing about videos of one's own.
fn warn_of_builtin(config: &Config) {
    let asked = config.contrastive.enabled || config.masking.needs_scores();
    let world =
        config.data.manifest.as_deref().and_then(Path::parent).map(|folder| folder.join("world.toml"));
    if asked && config.text.model == "builtin" && !world.is_some_and(|world| world.is_file()) {
        tracing::warn!(
            "text.model = \"builtin\" is a tiny CLIP that knows the synthetic world only; for other videos name a real \
             one: --set text.model=FOLDER, or --set text.model={}",
            config::TextConfig::default().model
        );
    }
}

/// Makes paths absolute: a run can be gone on with from any folder.
fn anchor(config: &mut Config) -> Result<()> {
    for path in
        [&mut config.data.manifest, &mut config.text.cache, &mut config.model.init].into_iter().flatten()
    {
        *path = std::path::absolute(&*path)?;
    }
    // Anything else is the name of a model.
    if config.text.model != "builtin" && Path::new(&config.text.model).is_dir() {
        config.text.model = std::path::absolute(&config.text.model)?.display().to_string();
    }
    Ok(())
}

fn refuse_changes(folder: &Path, stored: &Config, config: &Config, allowed: bool) -> Result<()> {
    let changed: Vec<String> =
        config::differences(stored, config).into_iter().filter(|d| !may_change(d)).collect();
    if changed.is_empty() {
        return Ok(());
    }
    let (what, folder) = (changed.join("; "), folder.display());
    if allowed {
        tracing::warn!("{folder}: the run goes on with another configuration: {what}");
        return Ok(());
    }
    Err(ConfigError(format!(
        "--resume continues {folder} with its own configuration; leave out what would change it, or give \
         --allow-changes: {what}"
    ))
    .into())
}

/// Whether a difference changes nothing that is computed. The data itself is compared with what the checkpoint was trained
/// on, wherever its manifest lies, and a score cache with the model and options that it shall be of.
fn may_change(difference: &str) -> bool {
    let moved = difference.starts_with("text.cache:") && !difference.contains("(absent)");
    moved
        || [
            "schedule.stop_at:",
            "output.",
            "loader.",
            "train.max_skipped:",
            // Gradients are the same but for the order of sums; other machines may need other sizes.
            "train.micro_batch:",
            "data.manifest:",
            "data.allow_outside:",
        ]
        .iter()
        .any(|key| difference.starts_with(key))
}

/// Puts the options of the command line into the configuration.
fn apply(args: &Args, config: &mut Config) -> Result<()> {
    if let Some(path) = &args.data {
        config.data.manifest = Some(path.clone());
    }
    if let Some(path) = &args.init {
        config.model.init = Some(path.clone());
    }
    config.data.allow_outside |= args.allow_outside;
    anchor(config)?;
    if config.masking.needs_motion() && config.clip.motion == MotionSource::None {
        config.clip.motion = MotionSource::Auto;
    }
    if config.masking.needs_scores() && config.text.view == TextView::Frame {
        config.clip.whole_frames = true;
    }
    if let Some(switch) = args.contrastive {
        config.contrastive.enabled = switch == Switch::On;
    }
    if let Some(steps) = args.steps {
        if steps == 0 {
            return Err(ConfigError("--steps must be at least 1".into()).into());
        }
        config.schedule.stop_at = steps;
    }
    Ok(())
}

/// The final table: the loss against the mean, and probes when there are labelled test clips.
fn rows(config: &Config, trainer: &Trainer, outcome: &Outcome) -> Vec<Row> {
    let mut rows = Vec::new();
    if let Some(losses) = outcome.losses {
        let loss = |name: &str, result, baseline| Row {
            name: name.into(),
            result,
            interval: None,
            random_encoder: None,
            baseline,
        };
        rows.push(loss("masked loss (mean: 1)", losses.mae / losses.mae_of_mean, 1.0));
        if let Some(contrast) = losses.contrastive {
            rows.push(loss("contrastive loss / ln B", contrast.relative, 1.0));
        }
    }
    match probes(config, trainer) {
        Ok(probes) => rows.extend(probes),
        // The training is done and saved: what the probes lack must not make it look failed.
        Err(error) => tracing::warn!("no probes: {error:#}"),
    }
    rows
}

fn probes(config: &Config, trainer: &Trainer) -> Result<Vec<Row>> {
    let Some(clips) = LabelledClips::of(config)? else { return Ok(Vec::new()) };
    let (random, _) = random_encoder(&trainer.plan().model, config.seed.wrapping_add(1))?;
    compare(&clips, trainer.model().encoder(), &random, config.seed)
}

fn finish(args: &Args, run: RunDir, outcome: Outcome, rows: Vec<Row>) -> Result<()> {
    let summary = Summary {
        run: run.path().to_path_buf(),
        checkpoint: outcome.checkpoint,
        pictures: outcome.pictures,
        steps: outcome.steps,
        skipped_steps: outcome.skipped_steps,
        rows,
    };
    super::write_json(args.json.as_deref(), &summary)?;
    let skipped = match summary.skipped_steps {
        0 => String::new(),
        n => format!(", {n} of them skipped because their gradient was not finite"),
    };
    println!("after {} steps{skipped}", summary.steps);
    print_table(&summary.rows);
    println!("checkpoint  {}", summary.checkpoint.display());
    if let Some(mib) = tgm_train::environment::peak_memory_mib() {
        println!("memory      {mib:.0} MiB at its peak");
    }
    if !summary.pictures.is_empty() {
        println!("pictures    {} (rows: clip, visible, reconstruction)", run.pictures().display());
    }
    Ok(())
}

/// Prints rows as a table on standard output.
fn print_table(rows: &[Row]) {
    println!(
        "{:<28} {:>9}  {:>15}  {:>14}  {:>9}",
        "", "result", "95 % interval", "random encoder", "baseline"
    );
    for row in rows {
        let interval = row.interval.map_or(String::new(), |[low, high]| format!("{low:.3} – {high:.3}"));
        let random = row.random_encoder.map_or(String::new(), |r| format!("{r:.3}"));
        let (name, result, baseline) = (&row.name, row.result, row.baseline);
        println!("{name:<28} {result:>9.3}  {interval:>15}  {random:>14}  {baseline:>9.3}");
    }
}
