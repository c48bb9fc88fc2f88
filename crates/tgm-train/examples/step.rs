//! Times pretraining steps on noise: `cargo run --release -p tgm-train --example step -- base bf16 0.9 4 [recompute|features]`.
//!
//! Prints one line of JSON with the names that `benches/peers/step.py` uses.

use std::time::Instant;

use anyhow::{Context, Result, bail};
use tgm_mae::MaeConfig;
use tgm_ops::{Compute, Keep, Precision};
use tgm_train::environment::peak_memory_mib;
use tgm_train::synthetic::SyntheticStep;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const STEPS: usize = 5;

#[allow(clippy::print_stdout)]
fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [size, precision, ratio, clips, mode @ ..] = args.as_slice() else {
        bail!("usage: step SIZE f32|bf16 RATIO CLIPS [recompute|features]");
    };
    let config = MaeConfig::preset(size).with_context(|| format!("unknown size {size}"))?;
    let precision = match precision.as_str() {
        "f32" => Precision::F32,
        "bf16" => Precision::Bf16,
        other => bail!("unknown precision {other}"),
    };
    let mode = mode.first().map_or("", String::as_str);
    let keep = if mode == "recompute" { Keep::Inputs } else { Keep::Activations };
    let clips: usize = clips.parse()?;
    let mut run = SyntheticStep::new(&config, Compute { precision, keep }, ratio.parse()?, clips)?;
    let mut losses = Vec::new();
    let mut once = || -> Result<f64> {
        let start = Instant::now();
        match mode {
            "features" => drop(run.features()?),
            _ => losses.push(run.step()?.mae),
        }
        Ok(start.elapsed().as_secs_f64())
    };
    once()?;
    let mut seconds = (0..STEPS).map(|_| once()).collect::<Result<Vec<_>>>()?;
    seconds.sort_by(f64::total_cmp);
    let speed = clips as f64 / seconds[STEPS / 2];
    println!(
        "{{\"clips_per_second\": {speed:.3}, \"seconds\": {seconds:.3?}, \"peak_mb\": {:.0}, \"losses\": {losses:.5?}}}",
        peak_memory_mib().unwrap_or(f64::NAN)
    );
    Ok(())
}
