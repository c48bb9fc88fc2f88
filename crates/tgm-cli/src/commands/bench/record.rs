//! What every bench writes: the machine, the commit, and rows whose names stay the same from version to version.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use anyhow::Result;
use serde::Serialize;
use tgm_train::environment;

/// The file of a bench.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Record {
    /// Where it was measured.
    pub machine: Machine,
    /// The commit of the program.
    pub commit: String,
    /// What was measured.
    pub rows: Vec<Row>,
}

/// The machine.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Machine {
    /// The processor's name.
    pub cpu: String,
    /// Threads that run at once.
    pub threads: usize,
    /// Operating system and instruction set.
    pub platform: String,
}

/// One measurement. Fields that do not apply are absent from the file.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub(super) struct Row {
    /// Such as `step/vit-b/bf16/tube-0.9/b4`.
    pub name: String,
    /// Such as `clips/s`.
    pub unit: String,
    /// Our result.
    pub ours: f64,
    /// The others' results at the same work.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub peers: BTreeMap<String, f64>,
    /// Ours against the best peer, above 1 when we are better whatever the unit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ratio: Option<f64>,
    /// What the processor's multiply-add units allow at best, in this precision.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<f64>,
    /// Our peak resident memory in MB.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ours_peak_mb: Option<f64>,
    /// That of the best peer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub peer_peak_mb: Option<f64>,
    /// What we want `ours` to reach.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bar: Option<f64>,
}

impl Row {
    /// Our rate beside the peers' at the same work.
    pub fn compared(name: String, unit: &str, ours: f64, peers: BTreeMap<String, f64>) -> Self {
        let ratio = peers.values().copied().max_by(f64::total_cmp).map(|best| ours / best);
        Self { name, unit: unit.into(), ours, peers, ratio, ..Self::default() }
    }
}

/// A number of a table, or a dash where there is none.
pub(super) fn shown(value: Option<f64>, digits: usize) -> String {
    value.map_or("–".into(), |value| format!("{value:.digits$}"))
}

impl Record {
    /// Rows measured here and now.
    pub fn new(rows: Vec<Row>) -> Self {
        Self { machine: Machine::this(), commit: commit(), rows }
    }

    /// Writes the file where `--json` says.
    pub fn write(&self, path: Option<&Path>) -> Result<()> {
        crate::commands::write_json(path, self)
    }
}

impl Machine {
    fn this() -> Self {
        Self {
            cpu: environment::processor(),
            threads: environment::cores(),
            platform: format!("{}-{}", std::env::consts::OS, std::env::consts::ARCH),
        }
    }
}

/// The commit of the sources, with a `+` when they were changed since; `unknown` outside of a repository.
fn commit() -> String {
    let git = |arguments: &[&str]| {
        let output = Command::new("git").args(["-C", env!("CARGO_MANIFEST_DIR")]).args(arguments).output();
        let output = output.ok().filter(|output| output.status.success())?;
        Some(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let Some(commit) = git(&["rev-parse", "--short=12", "HEAD"]) else { return "unknown".into() };
    let changed = git(&["status", "--porcelain", "--untracked-files=no"]).is_some_and(|s| !s.is_empty());
    if changed { commit + "+" } else { commit }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_that_do_not_apply_are_absent() {
        let row = Row { name: "a/b".into(), unit: "clips/s".into(), ours: 2.0, ..Row::default() };
        assert_eq!(serde_json::to_string(&row).unwrap(), r#"{"name":"a/b","unit":"clips/s","ours":2.0}"#);
    }
}
