//! `--dry-run`: what a run will take, from a few steps that are made and thrown away.

use std::time::Duration;

use anyhow::Result;
use indicatif::HumanDuration;
use serde::Serialize;
use tgm_train::config::{Config, ConfigError};
use tgm_train::environment::peak_memory_mib;
use tgm_train::progress::say;
use tgm_train::run_dir::RunDir;
use tgm_train::trainer::{Start, Trainer};

/// Steps that are measured, if there is time.
const STEPS: usize = 10;
/// No longer than this.
const LIMIT: Duration = Duration::from_secs(120);

/// What a rehearsal found.
#[derive(Clone, Debug, Serialize)]
pub struct Rehearsal {
    /// Numbers to learn.
    pub parameters: usize,
    /// Clips to train on.
    pub clips: usize,
    /// Optimiser steps of the run.
    pub steps: u64,
    /// Micro-batches per step.
    pub micro_batches: usize,
    /// Clips per micro-batch.
    pub micro_batch: usize,
    /// Micro-batches that were measured.
    pub measured_micro_batches: usize,
    /// Seconds per optimiser step.
    pub seconds_per_step: f64,
    /// Hours of the whole run, without probes.
    pub hours: f64,
    /// Share of the time that was spent waiting for data.
    pub data_wait: f64,
    /// Weights, gradients and moments in MiB.
    pub parameter_mib: f64,
    /// The most memory that the rehearsal held, in MiB, where the system says it.
    pub peak_mib: Option<f64>,
    /// What a run holds besides, in MiB: the clips of its batch that the rehearsal left out.
    pub other_clips_mib: f64,
    /// Videos that could not be read.
    pub bad_videos: u64,
}

/// Rehearses a run and prints what it will take on standard output. Nothing is written.
///
/// # Errors
/// What would end the run itself.
pub fn print(config: Config, run: RunDir) -> Result<Rehearsal> {
    let mut trainer = Trainer::new(config, run, Start::Fresh)?;
    println!("{}", trainer.describe());
    if let Some(shortage) = trainer.memory_shortage() {
        // Measuring it would end in the system's ending of the program.
        return Err(ConfigError(shortage).into());
    }
    say("measuring some steps …");
    let parameters = trainer.params().count();
    let mib = |bytes: usize| bytes as f64 / f64::from(1 << 20);
    let measured = trainer.rehearse(STEPS, LIMIT)?;
    let (plan, steps) = (trainer.plan(), trainer.plan().length.stop);
    let others = plan.micro_batches * plan.micro_batch - measured.clips_at_once;
    let rehearsal = Rehearsal {
        parameters,
        clips: trainer.clips(),
        steps,
        micro_batches: plan.micro_batches,
        micro_batch: plan.micro_batch,
        measured_micro_batches: measured.micro_batches,
        seconds_per_step: measured.seconds_per_step,
        hours: measured.seconds_per_step * steps as f64 / 3600.0,
        data_wait: measured.data_wait,
        parameter_mib: mib(trainer.memory().parameters),
        peak_mib: peak_memory_mib(),
        other_clips_mib: mib(plan.clip_bytes(others)),
        bad_videos: measured.bad_videos,
    };
    if let Some(peak) = rehearsal.peak_mib {
        println!("          {peak:.0} MiB in all at the peak of the rehearsal, videos in memory included");
    }
    if others > 0 {
        let more = rehearsal.other_clips_mib;
        println!("          {more:.0} MiB more in a run: the other {others} clips of a batch");
    }
    println!(
        "time      {:.2} s per step ({} micro-batches measured, {:.0} % of the time waiting for data)",
        rehearsal.seconds_per_step,
        rehearsal.measured_micro_batches,
        100.0 * rehearsal.data_wait
    );
    let whole = Duration::from_secs_f64((rehearsal.hours * 3600.0).min(1e12));
    println!(
        "          {} for {steps} steps ({:.2} hours), besides probes",
        HumanDuration(whole),
        rehearsal.hours
    );
    match rehearsal.bad_videos {
        0 => println!("data      every video that was tried could be read"),
        bad => println!("data      {bad} videos could not be read"),
    }
    Ok(rehearsal)
}
