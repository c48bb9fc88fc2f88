//! From the answers of single runs to numbers with intervals.

use std::collections::BTreeMap;

use anyhow::Result;
use serde::Serialize;
use tgm_eval::bootstrap::{self, Interval};
use tgm_random::Streams;

use super::arm::World;
use super::run::{Probe, RunResult};
use super::tables::Table;

/// A table with its numbers.
#[derive(Clone, Debug, Serialize)]
pub struct Summary {
    /// Its heading.
    pub title: &'static str,
    /// What the paper says.
    pub claim: &'static str,
    /// Its lines.
    pub rows: Vec<Row>,
}

/// A line of a table.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// The world.
    pub world: String,
    /// The arm.
    pub name: String,
    /// The seeds that are finished.
    pub seeds: Vec<u64>,
    /// Mean over the seeds of the loss on masked tubelets, over that of their mean.
    pub masked_loss: Option<f64>,
    /// The same of the contrastive loss over ln(batch).
    pub contrastive: Option<f64>,
    /// Top-1 of each protocol over seeds and test clips.
    pub top1: BTreeMap<String, Interval>,
    /// What that is above the arm it is compared with, over the seeds that both have.
    pub gain: BTreeMap<String, Interval>,
    /// The paper's number for this line, in percent; not comparable in size.
    pub paper: Option<&'static str>,
}

/// Summarises a table from the runs that are finished, found by arm and seed, and from each world's baselines.
///
/// # Errors
/// When runs of one arm were scored on different clips.
pub fn summarise(
    table: Table,
    finished: impl Fn(&super::Arm) -> Vec<RunResult>,
    baselines: impl Fn(World) -> Vec<Probe>,
) -> Result<Summary> {
    let lines = table.lines();
    let mut rows: Vec<Row> = Vec::new();
    for (at, line) in lines.iter().enumerate() {
        let world = line.arm.world;
        if at == 0 || lines[at - 1].arm.world != world {
            for probe in baselines(world) {
                rows.push(baseline(world, &probe)?);
            }
        }
        let runs = finished(&line.arm);
        let other = line.against.as_ref().and_then(|name| {
            lines
                .iter()
                .find(|other| other.arm.world == world && other.arm.name == *name)
                .map(|other| &other.arm)
        });
        let others = other.map(&finished).unwrap_or_default();
        rows.push(Row {
            world: world.name(),
            name: line.arm.name.clone(),
            seeds: runs.iter().map(|run| run.seed).collect(),
            masked_loss: mean(runs.iter().filter_map(|run| run.masked_loss)),
            contrastive: mean(runs.iter().filter_map(|run| run.contrastive)),
            top1: shares(&runs.iter().map(|run| run.probes.clone()).collect::<Vec<_>>())?,
            gain: intervals(&differences(&runs, &others))?,
            paper: line.paper,
        });
    }
    Ok(Summary { title: table.title(), claim: table.claim(), rows })
}

fn baseline(world: World, probe: &Probe) -> Result<Row> {
    let named = Probe { name: "knn".into(), ..probe.clone() };
    Ok(Row {
        world: world.name(),
        name: probe.name.clone(),
        seeds: Vec::new(),
        masked_loss: None,
        contrastive: None,
        top1: shares(&[vec![named]])?,
        gain: BTreeMap::new(),
        paper: None,
    })
}

/// For each seed that both have, the answers of the one minus those of the other.
fn differences(runs: &[RunResult], others: &[RunResult]) -> Vec<Vec<Probe>> {
    let pairs =
        runs.iter().filter_map(|run| Some((run, others.iter().find(|other| other.seed == run.seed)?)));
    let difference = |(run, other): (&RunResult, &RunResult)| {
        let probe = |probe: &Probe| {
            let same = other.probes.iter().find(|same| same.name == probe.name)?;
            let hits = probe.hits.iter().zip(&same.hits).map(|(a, b)| a - b).collect();
            Some(Probe { name: probe.name.clone(), hits })
        };
        run.probes.iter().filter_map(probe).collect()
    };
    pairs.map(difference).collect()
}

/// The same for shares of right answers.
fn shares(runs: &[Vec<Probe>]) -> Result<BTreeMap<String, Interval>> {
    let level = bootstrap::Settings::default().level;
    let clips = |name: &str| {
        let mut probes = runs.iter().flatten();
        probes.find(|probe| probe.name == name).map_or(0, |probe| probe.hits.len())
    };
    let shares = intervals(runs)?.into_iter();
    Ok(shares.map(|(name, interval)| (name.clone(), interval.of_share(clips(&name), level))).collect())
}

/// For each protocol the interval over runs and clips.
fn intervals(runs: &[Vec<Probe>]) -> Result<BTreeMap<String, Interval>> {
    let mut hits: BTreeMap<String, Vec<Vec<f64>>> = BTreeMap::new();
    for probe in runs.iter().flatten() {
        hits.entry(probe.name.clone()).or_default().push(probe.hits.clone());
    }
    let settings = bootstrap::Settings { resamples: 4000, ..bootstrap::Settings::default() };
    let interval = |(name, runs): (String, Vec<Vec<f64>>)| {
        let mut rng = Streams::new(0).stream("bootstrap", 0, 0);
        Ok((name, bootstrap::over_runs(&runs, settings, &mut rng)?))
    };
    hits.into_iter().map(interval).collect()
}

fn mean(values: impl Iterator<Item = f64>) -> Option<f64> {
    let values: Vec<f64> = values.collect();
    (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reproduce::Arm;
    use crate::reproduce::run::Spent;

    /// The joint arms answer three clips of four, the others one; the untrained none.
    fn finished(arm: &Arm) -> Vec<RunResult> {
        let right = if arm.is_untrained() {
            0
        } else if arm.name.ends_with("joint") {
            3
        } else {
            1
        };
        let hits = (0..4).map(|clip| if clip < right { 1.0 } else { 0.0 }).collect();
        let probes = vec![Probe { name: "linear".into(), hits }];
        (0..3)
            .map(|seed| RunResult {
                arm: arm.clone(),
                seed,
                steps: 1,
                spent: Spent::default(),
                masked_loss: Some(0.5),
                contrastive: None,
                probes: probes.clone(),
            })
            .collect()
    }

    #[test]
    fn the_gain_of_the_joint_loss_is_that_over_the_same_masking_and_seed() {
        let summary = summarise(Table::A, finished, |_| Vec::new()).unwrap();
        let row = |name: &str| summary.rows.iter().find(|row| row.name == name).unwrap();
        assert_eq!(row("text-joint").top1["linear"].mean, 0.75);
        assert_eq!(row("text-joint").gain["linear"].mean, 0.5);
        assert_eq!(row("text-joint").seeds, [0, 1, 2]);
        assert!(row("text-mae").gain.is_empty());
        assert_eq!(row("text-joint").masked_loss, Some(0.5));
        assert_eq!(row("text-joint").contrastive, None);
    }

    #[test]
    fn runs_that_are_missing_leave_empty_lines() {
        let summary = summarise(Table::C, |_| Vec::new(), |_| Vec::new()).unwrap();
        assert_eq!(summary.rows.len(), Table::C.lines().len());
        assert!(summary.rows.iter().all(|row| row.seeds.is_empty() && row.top1.is_empty()));
    }

    #[test]
    fn each_world_begins_with_its_baselines() {
        let still = |_| vec![Probe { name: "first frame, kNN".into(), hits: vec![0.0, 1.0] }];
        let summary = summarise(Table::A, finished, still).unwrap();
        let first: Vec<&str> =
            summary.rows.iter().filter(|row| row.name == "first frame, kNN").map(|row| &*row.world).collect();
        assert_eq!(first, ["static-frame", "moving-frame", "distractor-frame"]);
        assert_eq!(summary.rows[0].top1["knn"].mean, 0.5);
    }
}
