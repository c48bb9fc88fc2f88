//! `tgm eval`.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Result;
use clap::ValueEnum;
use serde::Serialize;
use tgm_data::loader::LoaderConfig;
use tgm_data::manifest::Manifest;
use tgm_eval::Report;

use crate::model_io;
use crate::probe::{LabelledClips, Row, knn_protocol, linear_protocol, print_table};
use crate::trainer::subset;

/// Score an encoder on labelled clips, beside chance and a randomly initialised encoder.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  tgm eval manifest --data clips.csv --checkpoint runs/demo --protocol knn
  tgm eval manifest --data clips.csv --checkpoint videomae-base/ --protocol linear --json result.json")]
pub(super) struct Args {
    /// What the data is.
    dataset: Dataset,
    /// The manifest, with the columns `path`, `split` and `label`.
    #[arg(long, value_name = "MANIFEST")]
    data: PathBuf,
    /// A run, one of its checkpoints, a Hugging Face VideoMAE folder, or an original .pth file.
    #[arg(long, value_name = "PATH")]
    checkpoint: PathBuf,
    /// What is put on the frozen features.
    #[arg(long)]
    protocol: ProtocolName,
    /// The split to fit on.
    #[arg(long, default_value = "train")]
    train_split: String,
    /// The split to score.
    #[arg(long, default_value = "test")]
    test_split: String,
    /// Seed of the probe's draws and of the randomly initialised encoder.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Write the whole report to a file.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Dataset {
    /// Any labelled manifest.
    Manifest,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum ProtocolName {
    /// Nearest neighbours in the training split.
    Knn,
    /// Logistic regression.
    Linear,
}

#[derive(Debug, Serialize)]
struct Output {
    rows: Vec<Row>,
    report: Report,
    random_encoder: Report,
}

pub(super) fn run(args: Args) -> Result<()> {
    let Dataset::Manifest = args.dataset;
    let checkpoint = model_io::open(&args.checkpoint)?;
    let manifest = Arc::new(Manifest::load(&args.data)?);
    manifest.require("label")?;
    let clips = LabelledClips {
        train: subset(&manifest, &args.train_split)?,
        test: subset(&manifest, &args.test_split)?,
        clip: model_io::clip_config(&checkpoint)?,
        loader: LoaderConfig::default(),
    };
    let trained = clips.features("features", &model_io::encoder(&checkpoint)?)?;
    let (random, _) = model_io::random_encoder(&checkpoint.config, args.seed)?;
    let random = clips.features("features (random encoder)", &random)?;
    let (name, protocol) = match args.protocol {
        ProtocolName::Knn => ("kNN top-1", knn_protocol(trained.train_clips())),
        ProtocolName::Linear => ("linear probe top-1", linear_protocol(&trained)),
    };
    let report = trained.evaluate(&protocol, args.seed)?;
    let random_encoder = random.evaluate(&protocol, args.seed)?;
    let rows = vec![Row {
        name: name.into(),
        result: report.top1.mean,
        interval: Some([report.top1.low, report.top1.high]),
        random_encoder: Some(random_encoder.top1.mean),
        baseline: report.chance,
    }];
    print_table(&rows);
    println!(
        "{} train and {} test clips of {} classes; majority class {:.3}",
        report.train_clips, report.test_clips, report.classes, report.majority
    );
    super::write_json(args.json.as_deref(), &Output { rows, report, random_encoder })
}
