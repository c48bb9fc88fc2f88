//! `tgm eval`.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use candle_core::Device;
use clap::ValueEnum;
use serde::Serialize;
use tgm_data::dataset::{Check, Dataset};
use tgm_eval::{joint, retrieval, zero_shot};
use tgm_mae::Checkpoint;
use tgm_random::Streams;
use tgm_train::config::{self, ConfigError, EvalConfig, ProtocolName, Readout, Recipe};
use tgm_train::model_io;
use tgm_train::probe::Row;
use tgm_train::run_data::{load_manifest, subset};
use tgm_train::stop::Stop;
use tgm_train::task::{LABEL, Task, check_disjoint};

use crate::evaluation::data::{Choices, EvalData, layouts, print_check};
use crate::evaluation::frozen::{self, knn_protocol, linear_protocol};
use crate::evaluation::outcome::{Outcome, OverSeeds, Record, print_action};
use crate::evaluation::{page, supervised, text};

/// Score an encoder on labelled clips, beside chance, the majority class, a randomly initialised encoder and a
/// pixel-difference baseline.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  tgm eval manifest --data clips.csv --checkpoint runs/demo --protocol knn
  tgm eval manifest --data clips.csv --checkpoint videomae-base/ --protocol linear --json result.json --out result/
  tgm eval manifest --data clips.csv --checkpoint runs/few-clips --protocol knn --k 5 --readout motion
  tgm eval ssv2 --data /data/ssv2 --check
  tgm eval ssv2 --data /data/ssv2 --checkpoint runs/tgm-base --protocol linear --recipe adamw
  tgm eval ssv2 --data /data/ssv2 --checkpoint runs/tgm-base-ssv2 --config finetune-base-ssv2 --out ft/
  tgm eval manifest --data clips.csv --checkpoint runs/demo --protocol attentive --seeds 3 --label label --label colour
  tgm eval manifest --data clips.csv --checkpoint runs/demo --protocol finetune --set epochs=100 --set batch=16 --out ft/
  tgm eval ucf101 --data /data/ucf101 --checkpoint runs/tgm-base --protocol zero-shot --split 1

While a network is trained, Ctrl-C and SIGTERM finish the step, save (with --out) and leave with exit code 1; a second one
leaves at once.")]
pub(super) struct Args {
    /// What the data is.
    dataset: DatasetName,
    /// The manifest (columns `path`, `split`, `label`; or tar shards with these in their JSON), or the folder of the data set.
    #[arg(long, value_name = "PATH")]
    data: PathBuf,
    /// Accept absolute paths in the manifest, and paths that leave its folder.
    #[arg(long)]
    allow_outside: bool,
    /// A run, one of its checkpoints, a Hugging Face VideoMAE folder, or an original .pth file.
    #[arg(long, value_name = "PATH", required_unless_present = "check")]
    checkpoint: Option<PathBuf>,
    /// A published setting (`tgm config list`) or a TOML file: the protocol with its settings and test views.
    #[arg(long, value_name = "NAME|FILE")]
    config: Option<String>,
    /// What is put on the encoder.
    #[arg(long, required_unless_present_any = ["check", "config"])]
    protocol: Option<ProtocolName>,
    /// Only compare the folder with what the data set must have, and say what is missing.
    #[arg(long)]
    check: bool,
    /// The official split; by default all that results are averaged over.
    #[arg(long, value_name = "N")]
    split: Option<usize>,
    /// The linear probe; by default bn-sgd.
    #[arg(long)]
    recipe: Option<Recipe>,
    /// What of the tokens kNN and the linear probe see: by default their mean.
    #[arg(long)]
    readout: Option<Readout>,
    /// Neighbours of kNN; by default 200, or 20 for fewer than 5,000 clips.
    #[arg(long, value_name = "N")]
    k: Option<usize>,
    /// Clips in time per test video; by default as published, 1 for a manifest.
    #[arg(long, value_name = "N")]
    views: Option<usize>,
    /// Crops of each test clip, 1 or 3; by default as published, 1 for a manifest.
    #[arg(long, value_name = "N")]
    crops: Option<usize>,
    /// Frames of a manifest's video from one frame of a clip to the next; by default as in the model's training run, or 4 for a model from
    /// elsewhere.
    #[arg(long, value_name = "N", value_parser = crate::commands::at_least_one)]
    stride: Option<usize>,
    /// A sentence for zero-shot, with {} for the class; may be repeated. By default CLIP's 28.
    #[arg(long, value_name = "TEXT")]
    template: Vec<String>,
    /// The split of a manifest to fit on.
    #[arg(long, default_value = "train", value_name = "NAME")]
    train_split: String,
    /// The split of a manifest to score.
    #[arg(long, default_value = "test", value_name = "NAME")]
    test_split: String,
    /// The column of a manifest that holds the classes; several are evaluated on the same features.
    #[arg(long, default_value = LABEL, value_name = "COLUMN")]
    label: Vec<String>,
    /// Go on past test videos that cannot be read; they count as wrong.
    #[arg(long)]
    allow_bad: bool,
    /// Evaluate on a folder that holds only a part of the data set.
    #[arg(long)]
    allow_partial: bool,
    /// Seed of all draws and of the randomly initialised encoder.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Evaluate with so many seeds from --seed on, and give intervals over seeds and clips.
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=100))]
    seeds: u64,
    /// Threads that decode; 0 for one per core.
    #[arg(long, default_value_t = 0)]
    workers: usize,
    /// Change a setting of the protocol, as in `epochs=10` (`tgm config explain finetune`); may be repeated.
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Memory for decoded videos while training, in MiB: what fits is decoded once.
    #[arg(long, default_value_t = 0, value_name = "MIB")]
    cache_mb: usize,
    /// With --out, save fine-tuning after every so many steps, and every ten minutes; the same command goes on from there.
    #[arg(long, default_value_t = 200, value_name = "N")]
    save_every: u64,
    /// Do not train a randomly initialised encoder beside the checkpoint's.
    #[arg(long)]
    no_random: bool,
    /// A folder for the page with confusion matrix and mistakes, and the predictions as CSV.
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Write the whole report to a file.
    #[arg(long, value_name = "FILE", value_parser = crate::commands::result_file)]
    json: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, ValueEnum)]
enum DatasetName {
    /// Any labelled manifest.
    Manifest,
    /// Kinetics-400.
    K400,
    /// Something-Something v2.
    Ssv2,
    /// UCF101.
    Ucf101,
    /// HMDB51.
    Hmdb51,
    /// Diving48, second version of its labels.
    Diving48,
    /// EPIC-KITCHENS-100.
    Epic100,
}

impl DatasetName {
    fn official(self) -> Option<Dataset> {
        match self {
            Self::Manifest => None,
            Self::K400 => Some(Dataset::K400),
            Self::Ssv2 => Some(Dataset::Ssv2),
            Self::Ucf101 => Some(Dataset::Ucf101),
            Self::Hmdb51 => Some(Dataset::Hmdb51),
            Self::Diving48 => Some(Dataset::Diving48),
            Self::Epic100 => Some(Dataset::Epic100),
        }
    }
}

#[derive(Debug, Serialize)]
struct Output {
    protocol: String,
    checkpoint: PathBuf,
    seed: u64,
    /// The lines of the summary.
    rows: Vec<Row>,
    /// With several seeds, what holds over all of them, per split and task.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    over_seeds: Vec<OverSeeds>,
    /// Mean over the splits, for data sets that are reported so.
    #[serde(skip_serializing_if = "Option::is_none")]
    mean_top1: Option<f64>,
    /// EPIC-KITCHENS' actions.
    #[serde(skip_serializing_if = "Option::is_none")]
    action: Option<joint::Report>,
    /// The same of every seed, in order, where there are several.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    action_of_seeds: Vec<joint::Report>,
    /// Everything, per split and task.
    results: Vec<Record>,
    /// Retrieval: ours, and a random encoder's.
    #[serde(skip_serializing_if = "Option::is_none")]
    retrieval: Option<[retrieval::Report; 2]>,
}

pub(super) fn run(args: Args) -> Result<()> {
    if args.check {
        return check(&args);
    }
    let stop = Stop::on_signals()?;
    let config = configuration(&args)?;
    refuse_idle(&args, config.protocol)?;
    frozen::check(&config)?;
    if let Some(folder) = &args.out {
        std::fs::create_dir_all(folder)
            .with_context(|| format!("cannot make the folder {}", folder.display()))?;
    }
    let Some(path) = &args.checkpoint else { bail!("--checkpoint is needed") };
    let protocol = config.protocol;
    let checkpoint = model_io::open(path)?;
    let mut output = Output {
        protocol: config.title(),
        checkpoint: path.clone(),
        seed: args.seed,
        rows: Vec::new(),
        over_seeds: Vec::new(),
        mean_top1: None,
        action: None,
        action_of_seeds: Vec::new(),
        results: Vec::new(),
        retrieval: None,
    };
    let sets = sets(&args, &config, &checkpoint)?;
    for data in &sets {
        if protocol == ProtocolName::Retrieval {
            output.retrieval = Some(retrieve(&args, &checkpoint, data)?);
            continue;
        }
        let mut by_seed = Vec::new();
        for seed in args.seed..args.seed + args.seeds {
            by_seed.push(one_seed(&args, &config, &checkpoint, data, seed, &stop, &mut output)?);
        }
        if args.seeds > 1 {
            for task in 0..data.tasks.len() {
                let outcomes: Vec<&Outcome> = by_seed.iter().map(|outcomes| &outcomes[task]).collect();
                let result = OverSeeds::of(&outcomes, &data.title)?;
                result.print(&config.title());
                output.over_seeds.push(result);
            }
        }
    }
    if !output.action_of_seeds.is_empty() {
        let seeds = &output.action_of_seeds;
        let mean = seeds.iter().map(|report| report.top1.mean).sum::<f64>() / seeds.len() as f64;
        println!("{:<24} {mean:>7.3}", format!("action over {} seeds", seeds.len()));
    }
    if sets.len() > 1 && output.action.is_none() && !output.rows.is_empty() {
        let mean = output.rows.iter().map(|row| row.result).sum::<f64>() / output.rows.len() as f64;
        println!("{:<24} {mean:>7.3}", format!("mean of {} splits", sets.len()));
        output.mean_top1 = Some(mean);
    }
    super::write_json(args.json.as_deref(), &output)
}

/// Evaluates all tasks with a seed; prints and keeps what comes out.
fn one_seed(
    args: &Args,
    config: &EvalConfig,
    checkpoint: &Checkpoint,
    data: &EvalData,
    seed: u64,
    stop: &Stop,
    output: &mut Output,
) -> Result<Vec<Outcome>> {
    let title = config.title();
    let mut data = data.clone();
    if args.seeds > 1 {
        println!("seed {seed}");
        data.suffix += &format!("-seed{seed}");
    }
    let outcomes = outcomes(args, config, checkpoint, &data, seed, stop)?;
    for outcome in &outcomes {
        outcome.print(&title, &data.title);
        write_files(args, outcome, &data, &title)?;
        output.rows.push(outcome.row(&title));
        output.results.push(outcome.record(&data.title));
    }
    if let ([verb, noun], true) = (&outcomes[..], args.dataset == DatasetName::Epic100) {
        let action = joint::evaluate(&verb.ours, &noun.ours, &Streams::new(seed))?;
        print_action(&action);
        // The report of the seed that the command was given; those of all seeds beside it.
        output.action.get_or_insert(action);
        if args.seeds > 1 {
            output.action_of_seeds.push(action);
        }
    }
    Ok(outcomes)
}

/// Refuses what the protocol does not look at: whoever asks for it expects that something comes of it.
fn refuse_idle(args: &Args, protocol: ProtocolName) -> Result<(), ConfigError> {
    use ProtocolName::{Attentive, Finetune, Knn, Linear, Retrieval, ZeroShot};
    let trains = [Attentive, Finetune].contains(&protocol);
    let options = [
        ("--recipe", args.recipe.is_some(), protocol == Linear),
        ("--readout", args.readout.is_some(), [Knn, Linear].contains(&protocol)),
        ("--k", args.k.is_some(), protocol == Knn),
        ("--template", !args.template.is_empty(), protocol == ZeroShot),
        ("--cache-mb", args.cache_mb > 0, trains),
        ("--no-random", args.no_random, trains),
        ("--seeds", args.seeds > 1, protocol != Retrieval),
        ("--out", args.out.is_some(), protocol != Retrieval),
        ("--label", args.label != [LABEL], protocol != Retrieval),
    ];
    if let Some((name, ..)) = options.into_iter().find(|(_, given, used)| *given && !used) {
        return Err(ConfigError(format!("{name} does nothing for {}; leave it out", protocol.title())));
    }
    match args.template.iter().find(|template| !template.contains("{}")) {
        Some(template) => Err(ConfigError(format!("--template \"{template}\" has no {{}} for the class"))),
        None => Ok(()),
    }
}

/// What `--config` says, or the protocol's defaults, with the rest of the command line on top.
fn configuration(args: &Args) -> Result<EvalConfig> {
    let mut config = match (&args.config, args.protocol) {
        (Some(name), _) => config::load_evaluation(name)?,
        (None, Some(protocol)) => EvalConfig::of(protocol),
        (None, None) => bail!("--protocol or --config is needed"),
    };
    if let (Some(name), Some(protocol)) = (&args.config, args.protocol)
        && protocol != config.protocol
    {
        let (theirs, asked) = (config.protocol.title(), protocol.title());
        return Err(
            ConfigError(format!("--config {name} is for {theirs}, and --protocol asks for {asked}")).into()
        );
    }
    config.recipe = args.recipe.unwrap_or(config.recipe);
    config.readout = args.readout.unwrap_or(config.readout);
    config.views = args.views.or(config.views);
    config.crops = args.crops.or(config.crops);
    config.k = args.k.or(config.k);
    Ok(config.with(&args.set)?)
}

/// The data, once per split.
fn sets(args: &Args, config: &EvalConfig, checkpoint: &Checkpoint) -> Result<Vec<EvalData>> {
    if args.stride.is_some() && args.dataset.official().is_some() {
        let message = "--stride is for manifests; public data sets have their own";
        return Err(ConfigError(message.into()).into());
    }
    let clip = model_io::clip_config(checkpoint, args.stride)?;
    let choices = Choices {
        views: config.views,
        crops: config.crops,
        allow_bad: args.allow_bad,
        allow_partial: args.allow_partial,
        allow_outside: args.allow_outside,
        workers: args.workers,
    };
    let Some(dataset) = args.dataset.official() else {
        if args.split.is_some() {
            let message = "--split is for official splits; a manifest has --train-split and --test-split";
            return Err(ConfigError(message.into()).into());
        }
        let mut splits = [args.train_split.as_str(), args.test_split.as_str()];
        if !config.protocol.fits() && !has_split(&args.data, args.allow_outside, splits[0])? {
            splits[0] = splits[1];
        }
        let data = EvalData::of_manifest(&args.data, splits, &args.label, clip, choices)?;
        if config.protocol.fits() {
            check_disjoint(&data.train, &data.test, splits)?;
        }
        return Ok(vec![data]);
    };
    let layouts = layouts(dataset, &args.data, args.split, args.allow_partial)?;
    layouts.iter().map(|layout| EvalData::of_layout(layout, clip.clone(), choices)).collect()
}

/// Whether a manifest has a split of this name, or none at all.
fn has_split(file: &Path, allow_outside: bool, name: &str) -> Result<bool> {
    let manifest = load_manifest(file, allow_outside)?;
    let names = manifest.split_names();
    Ok(names.is_empty() || names.iter().any(|known| known == name))
}

fn outcomes(
    args: &Args,
    config: &EvalConfig,
    checkpoint: &Checkpoint,
    data: &EvalData,
    seed: u64,
    stop: &Stop,
) -> Result<Vec<Outcome>> {
    let trained = checkpoint.encoder(&Device::Cpu)?;
    let (random, _) = model_io::random_encoder(&checkpoint.config, seed)?;
    let readout = config.readout.into();
    match config.protocol {
        ProtocolName::Knn => {
            let protocol = |train: &_| knn_protocol(train, config.k);
            frozen::evaluate(data, &trained, Some(&random), readout, &protocol, seed)
        }
        ProtocolName::Linear => {
            let protocol = |train: &_| linear_protocol(train, config);
            frozen::evaluate(data, &trained, Some(&random), readout, &protocol, seed)
        }
        ProtocolName::Attentive | ProtocolName::Finetune => {
            let conduct = supervised::Conduct {
                out: args.out.as_deref(),
                save_every: args.save_every,
                cache_mb: args.cache_mb,
                random: !args.no_random,
                stop,
            };
            let settings = config
                .supervised(checkpoint.config.encoder.heads)
                .context("this protocol trains no network")?;
            supervised::evaluate(data, checkpoint, &settings, conduct, seed)
        }
        ProtocolName::ZeroShot => {
            let side = text::TextSide::open(checkpoint, seed)?;
            let templates =
                if args.template.is_empty() { zero_shot::clip_templates() } else { args.template.clone() };
            text::zero_shot(data, [&trained, &random], &side, &templates, seed)
        }
        ProtocolName::Retrieval => bail!("retrieval has no classes"),
    }
}

fn retrieve(args: &Args, checkpoint: &Checkpoint, data: &EvalData) -> Result<[retrieval::Report; 2]> {
    let side = text::TextSide::open(checkpoint, args.seed)?;
    let trained = checkpoint.encoder(&Device::Cpu)?;
    let (random, _) = model_io::random_encoder(&checkpoint.config, args.seed)?;
    let reports = text::retrieve(data, [&trained, &random], &side)?;
    println!("retrieval on {}", data.title);
    text::print_retrieval(&reports);
    Ok(reports)
}

/// Page and predictions; the names say which split and task.
fn write_files(args: &Args, outcome: &Outcome, data: &EvalData, title: &str) -> Result<()> {
    let Some(folder) = &args.out else { return Ok(()) };
    let task = outcome.task.distinction().map_or(String::new(), |name| format!("-{name}"));
    let end = data.suffix.clone() + &task;
    let (table, html) =
        (folder.join(format!("predictions{end}.csv")), folder.join(format!("page{end}.html")));
    outcome.write_predictions(&table)?;
    page::write(&html, outcome, data, title)?;
    println!("{}\n{}", table.display(), html.display());
    Ok(())
}

fn check(args: &Args) -> Result<()> {
    let Some(dataset) = args.dataset.official() else {
        let manifest = load_manifest(&args.data, args.allow_outside)?;
        let mut parts = Vec::new();
        for split in [&args.train_split, &args.test_split] {
            let part = subset(&manifest, split)?;
            manifest.check_files(part.rows())?;
            println!("  ok      {split:<18} {:>8} clips", part.rows().len());
            parts.push(part);
        }
        if args.protocol.is_none_or(ProtocolName::fits) {
            check_disjoint(&parts[0], &parts[1], [&args.train_split, &args.test_split])?;
        }
        for label in &args.label {
            let task = Task::of_column(label, [&parts[0], &parts[1]])?;
            println!("  ok      {:<18} {:>8} classes", task.name, task.classes.len());
        }
        return Ok(());
    };
    let mut checks: Vec<Check> = Vec::new();
    for layout in layouts(dataset, &args.data, args.split, true)? {
        let check = layout.check();
        print_check(&check);
        checks.push(check);
    }
    super::write_json(args.json.as_deref(), &checks)?;
    let complete = checks.iter().all(Check::complete);
    ensure!(
        complete || args.allow_partial,
        "{}: not all of {} is there; the lines marked MISSING say what",
        args.data.display(),
        dataset.spec().title
    );
    Ok(())
}
