//! `tgm pretrain`.

use std::path::{Path, PathBuf};

use anyhow::Result;
use clap::ValueEnum;
use serde::Serialize;
use tgm_data::loader::MotionSource;
use tgm_data::manifest::Manifest;
use tgm_data::synth::WorldConfig;
use tgm_masking::{Masking, MotionBoxConfig, TextConfig};

use crate::config::{self, Config, ConfigError};
use crate::demo;
use crate::model_io::random_encoder;
use crate::probe::{LabelledClips, Row, compare, print_table};
use crate::run_dir::{RunDir, write_atomically};
use crate::trainer::{Outcome, Trainer, subset};

/// Train a video masked autoencoder. Without arguments: the demo, from rendering its data to probes of the result.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  tgm pretrain                                          the demo, end to end, in minutes on two cores
  tgm pretrain --data clips.csv                         the demo's small model on your own clips
  tgm pretrain --config tgm-base --data k400.csv        the paper's setting
  tgm pretrain --data clips.csv --masking motion --contrastive off --set train.batch=16
  tgm pretrain --out runs/demo --resume                 go on where a run was stopped")]
pub(super) struct Args {
    /// A named configuration (demo, tgm-base, mgm-base, videomae-base) or a TOML file.
    #[arg(long, default_value = "demo", value_name = "NAME|FILE")]
    config: String,
    /// The videos: CSV or JSON Lines with the column `path`, and optionally `split`, `label`, `caption`, `start`, `end`.
    #[arg(long, value_name = "MANIFEST")]
    data: Option<PathBuf>,
    /// Which tubelets are hidden, with the strategy's default settings.
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
    #[arg(long)]
    resume: bool,
    /// Set a key of the configuration; may be repeated.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    settings: Vec<String>,
    /// Write the final numbers to a file.
    #[arg(long, value_name = "FILE")]
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
    rows: Vec<Row>,
}

pub(super) fn run(args: Args) -> Result<()> {
    let name = Path::new(&args.config).file_stem().map_or("run".into(), |s| s.to_string_lossy().into_owned());
    let folder = args.out.clone().unwrap_or_else(|| RunDir::default_path(&name, args.resume));
    let (mut config, run) = prepare(&args, &folder)?;
    if config.data.manifest.is_none() && args.config == "demo" {
        config.data.manifest = Some(demo::render(&folder.join("world"), &WorldConfig::default())?);
    }
    // Only now that everything could be read is the folder taken.
    let run = match run {
        Some(run) => run,
        None => {
            crate::trainer::training_data(&config)?;
            RunDir::create(&folder)?
        }
    };
    let mut trainer = Trainer::new(config.clone(), run.clone(), args.resume)?;
    write_atomically(&run.config_file(), config.to_toml()?.as_bytes())?;
    eprintln!("{}", trainer.describe());
    let outcome = trainer.run()?;
    let rows = rows(&config, &trainer, &outcome)?;
    finish(&args, run, outcome, rows)
}

/// The configuration, and the folder of the run when it exists already.
fn prepare(args: &Args, folder: &Path) -> Result<(Config, Option<RunDir>)> {
    if !args.resume {
        let mut config = config::load(&args.config, &args.settings)?;
        apply(args, &mut config)?;
        return Ok((config, None));
    }
    let run = RunDir::open(folder)?;
    let file = run.config_file();
    let text = std::fs::read_to_string(&file)?;
    let stored = config::from_text(&file.display().to_string(), &text, &[])?;
    let mut config = config::from_text(&file.display().to_string(), &text, &args.settings)?;
    apply(args, &mut config)?;
    let changed: Vec<String> =
        config::differences(&stored, &config).into_iter().filter(|d| !may_change(d)).collect();
    if !changed.is_empty() {
        let what = changed.join("; ");
        return Err(ConfigError(format!(
            "--resume continues {} with its own configuration; leave out what would change it: {what}",
            folder.display()
        ))
        .into());
    }
    Ok((config, Some(run)))
}

/// Whether a difference changes nothing that was computed so far.
fn may_change(difference: &str) -> bool {
    ["schedule.stop_at:", "output.", "loader."].iter().any(|key| difference.starts_with(key))
}

/// Puts the options of the command line into the configuration.
fn apply(args: &Args, config: &mut Config) -> Result<()> {
    if let Some(path) = &args.data {
        config.data.manifest = Some(std::path::absolute(path)?);
    }
    if let Some(name) = args.masking {
        // The same strategy keeps the ratio that the configuration gives it.
        if std::mem::discriminant(&name.masking()) != std::mem::discriminant(&config.masking) {
            config.masking = name.masking();
        }
    }
    if config.masking.needs_motion() && config.clip.motion == MotionSource::None {
        config.clip.motion = MotionSource::Auto;
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
fn rows(config: &Config, trainer: &Trainer, outcome: &Outcome) -> Result<Vec<Row>> {
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
    if let Some(clips) = labelled(config)? {
        let (random, _) = random_encoder(&trainer.plan().model, config.seed.wrapping_add(1))?;
        match compare(&clips, trainer.model().encoder(), &random, config.seed) {
            Ok(probes) => rows.extend(probes),
            // The training is done and saved: what the probes lack must not make it look failed.
            Err(error) => tracing::warn!("no probes: {error:#}"),
        }
    }
    Ok(rows)
}

/// Train and test clips, when the manifest has labels and a test split.
fn labelled(config: &Config) -> Result<Option<LabelledClips>> {
    let Some(path) = &config.data.manifest else { return Ok(None) };
    let manifest = std::sync::Arc::new(Manifest::load(path)?);
    let has_split = |name: &String| manifest.split_names().contains(name);
    let data = &config.data;
    if manifest.classes().len() < 2 || !has_split(&data.train_split) || !has_split(&data.test_split) {
        return Ok(None);
    }
    let part = |name: &str| subset(&manifest, name);
    let (train, test) = (part(&data.train_split)?, part(&data.test_split)?);
    Ok(Some(LabelledClips { train, test, clip: config.clip.clone(), loader: config.loader.clone() }))
}

fn finish(args: &Args, run: RunDir, outcome: Outcome, rows: Vec<Row>) -> Result<()> {
    println!("after {} steps", outcome.steps);
    print_table(&rows);
    println!("checkpoint  {}", outcome.checkpoint.display());
    if !outcome.pictures.is_empty() {
        println!("pictures    {} (rows: clip, visible, reconstruction)", run.pictures().display());
    }
    let summary = Summary {
        run: run.path().to_path_buf(),
        checkpoint: outcome.checkpoint,
        pictures: outcome.pictures,
        steps: outcome.steps,
        rows,
    };
    super::write_json(args.json.as_deref(), &summary)
}
