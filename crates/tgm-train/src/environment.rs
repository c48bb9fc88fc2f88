//! What a run was started with and on: one line of `environment.jsonl` per start.

use serde::Serialize;

/// Program, machine and command of one start of a run.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Environment {
    /// The step that it started from.
    pub step: u64,
    /// Seconds since 1970.
    pub time: f64,
    /// The program's version.
    pub version: &'static str,
    /// Whether it was built with optimisation.
    pub build: &'static str,
    /// The command line.
    pub command: String,
    /// Operating system and architecture.
    pub system: String,
    /// The processor's name, where the system says it.
    pub processor: String,
    /// Threads that may run at once.
    pub cores: usize,
    /// Memory of the machine in GiB, where the system says it.
    pub memory_gib: Option<f64>,
    /// What its multiply-add units can do in the run's precision, in billions of floating-point operations per second.
    pub peak_gflops: f64,
}

impl Environment {
    /// This process on this machine.
    pub fn here(step: u64, peak_flops: f64) -> Self {
        let command: Vec<String> = std::env::args().collect();
        Self {
            step,
            time: crate::metrics::now(),
            version: env!("CARGO_PKG_VERSION"),
            build: if cfg!(debug_assertions) { "debug" } else { "release" },
            command: command.join(" "),
            system: format!("{} {}", std::env::consts::OS, std::env::consts::ARCH),
            processor: processor(),
            cores: cores(),
            memory_gib: memory_mib().map(|mib| mib / 1024.0),
            peak_gflops: peak_flops / 1e9,
        }
    }
}

/// The machine's memory in MiB, where the system says it.
pub fn memory_mib() -> Option<f64> {
    kilobytes("/proc/meminfo", "MemTotal").map(|kb| kb / 1024.0)
}

/// The processor's name; `unknown` where the system does not say it.
pub fn processor() -> String {
    line_of("/proc/cpuinfo", "model name").unwrap_or_else(|| "unknown".into())
}

/// Threads that may run at once.
pub fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

/// The most memory that this process has held so far, in MiB, where the system says it.
pub fn peak_memory_mib() -> Option<f64> {
    kilobytes("/proc/self/status", "VmHWM").map(|kb| kb / 1024.0)
}

fn kilobytes(file: &str, key: &str) -> Option<f64> {
    line_of(file, key)?.trim_end_matches("kB").trim().parse().ok()
}

/// The value behind `key:` in one of Linux's tables; none on other systems.
fn line_of(file: &str, key: &str) -> Option<String> {
    let text = std::fs::read_to_string(file).ok()?;
    let line = text.lines().find(|line| line.starts_with(key))?;
    Some(line.split_once(':')?.1.trim().to_string())
}
