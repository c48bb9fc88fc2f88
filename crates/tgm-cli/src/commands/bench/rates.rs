//! Rows of rates: ours, and PyTorch's, eager and compiled.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};
use tgm_ops::Precision;

use super::python::MODELS;
use super::record::{Row, shown};
use super::turns::{Measured, Spec, ensure_agreement, in_turn, write_spec};

/// What a row is measured with.
pub(super) struct Bench<'a> {
    /// Where programs find their work.
    pub folder: &'a Path,
    /// The peers' interpreter, if they are wanted.
    pub python: Option<&'a Path>,
    pub rounds: u32,
}

/// What one turn does.
pub(super) struct Work {
    /// Such as `clips/s`.
    pub unit: &'static str,
    /// Clips or frames.
    pub count: usize,
    /// Floating-point operations that each of them needs.
    pub flops: f64,
}

impl Bench<'_> {
    /// Measures the work of `spec`, prints its row and returns it.
    ///
    /// # Errors
    /// When a program fails, or computes something else than the others.
    pub(super) fn row(&self, name: String, work: &Work, spec: &Spec) -> Result<Row> {
        let measured = self.measure(&name, spec)?;
        ensure_agreement(&measured, tolerance(spec.precision)).with_context(|| name.clone())?;
        // With as many threads as the programs have.
        let threads = rayon::ThreadPoolBuilder::new().num_threads(spec.threads).build()?;
        let peak = threads.install(|| tgm_ops::peak_flops(spec.precision));
        let row = Row { limit: Some(peak / work.flops), ..row(name, work, &measured) };
        println!("{}", line(&row));
        Ok(row)
    }

    fn measure(&self, name: &str, spec: &Spec) -> Result<Vec<Measured>> {
        let file = write_spec(self.folder, "spec", spec)?;
        let mut ours = Command::new(std::env::current_exe().context("cannot find this program")?);
        ours.args(["bench", "worker"]).arg(&file);
        for pool in ["RAYON_NUM_THREADS", "CANDLE_NUM_THREADS"] {
            ours.env(pool, spec.threads.to_string());
        }
        let mut commands = vec![("ours".to_owned(), ours)];
        if let Some(python) = self.python {
            commands.push(("pytorch-eager".into(), MODELS.command(python, &file, &[])?));
            commands.push(("pytorch-compile".into(), MODELS.command(python, &file, &["--compile"])?));
        }
        in_turn(name, commands, self.rounds)
    }
}

/// How far two programs' results may be apart, relatively.
fn tolerance(precision: Precision) -> f64 {
    match precision {
        Precision::F32 => 1e-4,
        Precision::Bf16 => 2e-2,
    }
}

fn row(name: String, work: &Work, measured: &[Measured]) -> Row {
    let rate = |m: &Measured| work.count as f64 / m.seconds;
    let (ours, peers) = (&measured[0], &measured[1..]);
    let best = peers.iter().max_by(|a, b| rate(a).total_cmp(&rate(b)));
    let rates = peers.iter().map(|m| (m.name.clone(), rate(m))).collect();
    Row {
        ours_peak_mb: Some(ours.peak_mb),
        peer_peak_mb: best.map(|best| best.peak_mb),
        ..Row::compared(name, work.unit, rate(ours), rates)
    }
}

/// The heading of a table of rates.
pub(super) fn header(unit: &str) -> String {
    format!(
        "{:<40}{:>9}{:>9}{:>9}{:>8}{:>9}{:>10}{:>10}   ({unit})",
        "", "ours", "eager", "compile", "ratio", "of peak", "ours MB", "peer MB",
    )
}

fn line(row: &Row) -> String {
    format!(
        "{:<40}{:>9.2}{:>9}{:>9}{:>8}{:>9}{:>10}{:>10}",
        row.name,
        row.ours,
        shown(row.peers.get("pytorch-eager").copied(), 2),
        shown(row.peers.get("pytorch-compile").copied(), 2),
        shown(row.ratio, 2),
        row.limit.map_or("–".into(), |limit| format!("{:.0} %", 100.0 * row.ours / limit)),
        shown(row.ours_peak_mb, 0),
        shown(row.peer_peak_mb, 0),
    )
}
