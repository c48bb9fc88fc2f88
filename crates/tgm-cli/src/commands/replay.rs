//! `tgm replay`.

use std::path::PathBuf;

use anyhow::{Result, bail};
use serde::Serialize;
use tgm_train::fault::{self, Measured, Replay};

/// Compute the step again that broke a run off, from the folder that the run left.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  tgm replay runs/demo/faults/step-00000123
  tgm replay runs/demo/faults/step-00000123 --json replay.json   every number, then and now")]
pub(super) struct Args {
    /// The folder.
    folder: PathBuf,
    /// Write all numbers to a file.
    #[arg(long, value_name = "FILE", value_parser = crate::commands::result_file)]
    json: Option<PathBuf>,
}

#[derive(Serialize)]
struct Output<'a> {
    reproduced: bool,
    step: u64,
    then: &'a Measured,
    now: &'a Measured,
    per_clip: &'a [Option<f64>],
}

pub(super) fn run(args: Args) -> Result<()> {
    let replay = fault::replay(&args.folder)?;
    print(&replay);
    let per_clip: Vec<Option<f64>> =
        replay.per_clip.iter().map(|loss| loss.is_finite().then_some(*loss)).collect();
    let output = Output {
        reproduced: replay.reproduced(),
        step: replay.fault.step,
        then: &replay.fault.measured,
        now: &replay.measured,
        per_clip: &per_clip,
    };
    super::write_json(args.json.as_deref(), &output)?;
    if !replay.reproduced() {
        bail!(
            "{}: the step came to other numbers than it did in the run (program version then {}, now {})",
            args.folder.display(),
            replay.fault.version,
            env!("CARGO_PKG_VERSION")
        );
    }
    Ok(())
}

fn print(replay: &Replay) {
    let (then, now) = (&replay.fault.measured, &replay.measured);
    println!("step {}                 then          now", replay.fault.step);
    let rows = [
        ("loss", then.loss, now.loss),
        ("reconstruction", then.mae, now.mae),
        ("contrastive", then.contrastive, now.contrastive),
        ("gradient norm", then.grad_norm, now.grad_norm),
    ];
    for (name, then, now) in rows {
        println!("{name:<18} {then:>12.5e} {now:>12.5e}");
    }
    println!("pixels that are not finite: {}", replay.bad_pixels);
    println!(
        "\nparameter                                     weight norm  not finite  gradient norm  not finite"
    );
    for (name, norms) in &now.parameters {
        println!(
            "{name:<44} {:>12.4e} {:>11} {:>14.4e} {:>11}",
            norms.weight, norms.weight_faults, norms.gradient, norms.gradient_faults
        );
    }
    println!("\nloss of each clip by itself");
    for (clip, loss) in replay.fault.clips.iter().zip(&replay.per_clip) {
        println!("{loss:>12.5e}  {} (epoch {}, number {})", clip.path, clip.epoch, clip.number);
    }
    println!("\n{}", if replay.reproduced() { "reproduced: the same numbers" } else { "not reproduced" });
}
