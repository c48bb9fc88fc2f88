//! What finished runs found, in one file: another machine goes on from it, and a reader makes the tables again without training.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};

use super::arm::Arm;
use super::plan::Plan;
use super::run::{FINE_TUNE, Probe, RunResult};

/// The file below the folder of a reproduction.
pub const FILE: &str = "runs.json";

/// Finished runs of one plan.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// What all runs have in common.
    pub plan: Plan,
    /// Epochs of the runs' fine-tuning.
    pub finetune: Option<f64>,
    /// The baselines of each world, by its name.
    pub baselines: BTreeMap<String, Vec<Probe>>,
    /// What came out of each run.
    pub runs: Vec<RunResult>,
}

impl Record {
    /// Reads a file.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn read(file: &Path) -> Result<Self> {
        let text =
            std::fs::read(file).with_context(|| format!("cannot read the runs in {}", file.display()))?;
        serde_json::from_slice(&text).with_context(|| {
            format!("{} has no runs: `reproduce` writes such files as {FILE}", file.display())
        })
    }

    /// Checks that its runs may stand in one table with those of a plan.
    ///
    /// # Errors
    /// When they may not.
    pub fn ensure_of(&self, plan: &Plan, file: &Path) -> Result<()> {
        ensure!(
            self.plan == *plan,
            "{}: runs of another plan ({}; asked for is {}); give the options that they were made with",
            file.display(),
            serde_json::to_string(&self.plan)?,
            serde_json::to_string(plan)?
        );
        Ok(())
    }

    /// Whether another record has the same plan and fine-tuning.
    pub fn is_like(&self, other: &Self) -> bool {
        (&other.plan, other.finetune) == (&self.plan, self.finetune)
    }

    /// Adds what another record that [`is_like`](Self::is_like) this one has beyond it.
    pub fn add(&mut self, other: Self) {
        for run in other.runs {
            if self.runs.iter().all(|known| (known.seed, &known.arm) != (run.seed, &run.arm)) {
                self.runs.push(run);
            }
        }
        for (world, probes) in other.baselines {
            self.baselines.entry(world).or_insert(probes);
        }
    }

    /// The result of a run, with fine-tuning if that is wanted; `None` if it is not here as wanted.
    pub fn find(&self, arm: &Arm, seed: u64, finetune: Option<f64>) -> Option<RunResult> {
        let mut run = self.runs.iter().find(|run| run.seed == seed && run.arm == *arm)?.clone();
        if finetune.is_none() {
            run.probes.retain(|probe| probe.name != FINE_TUNE);
        } else if finetune != self.finetune || run.probes.iter().all(|probe| probe.name != FINE_TUNE) {
            return None;
        }
        Some(run)
    }
}

/// Right and wrong answers as a text of ones and zeros.
pub(super) mod digits {
    use serde::de::Error as _;
    use serde::{Deserialize, Deserializer, Serializer};

    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Hits {
        Digits(String),
        /// As earlier versions wrote them.
        Numbers(Vec<f64>),
    }

    #[allow(clippy::float_cmp, reason = "a hit is exactly 1")]
    pub fn serialize<S: Serializer>(hits: &[f64], to: S) -> Result<S::Ok, S::Error> {
        let digits: String = hits.iter().map(|&hit| if hit == 1.0 { '1' } else { '0' }).collect();
        to.serialize_str(&digits)
    }

    pub fn deserialize<'a, D: Deserializer<'a>>(from: D) -> Result<Vec<f64>, D::Error> {
        match Hits::deserialize(from)? {
            Hits::Numbers(hits) => Ok(hits),
            Hits::Digits(digits) => {
                let hit = |digit: char| digit.to_digit(2).map(f64::from);
                let hits = digits.chars().map(hit).collect::<Option<_>>();
                hits.ok_or_else(|| D::Error::custom("hits are ones and zeros"))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reproduce::{Clips, Scene, Spent, World};

    fn probe(name: &str) -> Probe {
        Probe { name: name.into(), hits: vec![1.0, 0.0, 0.0, 1.0] }
    }

    fn record() -> Record {
        let world = World::plain(Scene::Static);
        let run = |seed: u64, probes: &[&str]| RunResult {
            arm: Arm::untrained(world),
            seed,
            steps: 9,
            spent: Spent::default(),
            masked_loss: Some(0.5),
            contrastive: None,
            probes: probes.iter().map(|name| probe(name)).collect(),
        };
        Record {
            plan: Plan { clips: Clips { train: 4, test: 4 }, steps: 9, settings: Vec::new() },
            finetune: Some(20.0),
            baselines: BTreeMap::from([(world.name(), vec![probe("first frame, kNN")])]),
            runs: vec![run(0, &["linear", FINE_TUNE]), run(1, &["linear"])],
        }
    }

    #[test]
    fn a_record_is_read_as_it_was_written_with_a_digit_per_clip() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join(FILE);
        let text = serde_json::to_string(&record()).unwrap();
        assert!(text.contains(r#""hits":"1001""#), "{text}");
        std::fs::write(&file, &text).unwrap();
        assert_eq!(Record::read(&file).unwrap(), record());
        std::fs::write(&file, text.replace(r#""1001""#, "[1.0,0.0,0.0,1.0]")).unwrap();
        assert_eq!(Record::read(&file).unwrap(), record(), "as before");
        for damaged in [text.replace("1001", "1201"), text[..text.len() / 2].to_owned(), "{}".into()] {
            std::fs::write(&file, damaged).unwrap();
            let error = format!("{:#}", Record::read(&file).unwrap_err());
            assert!(error.contains("runs.json has no runs"), "{error}");
        }
    }

    #[test]
    fn a_run_is_found_when_it_has_what_is_wanted() {
        let (record, arm) = (record(), Arm::untrained(World::plain(Scene::Static)));
        let names = |seed, finetune| {
            let run = record.find(&arm, seed, finetune)?;
            Some(run.probes.into_iter().map(|probe| probe.name).collect::<Vec<_>>())
        };
        assert_eq!(names(0, Some(20.0)).unwrap(), ["linear", FINE_TUNE]);
        assert_eq!(names(0, None).unwrap(), ["linear"]);
        assert_eq!(names(1, None).unwrap(), ["linear"]);
        assert_eq!([names(0, Some(5.0)), names(1, Some(20.0)), names(2, None)], [None, None, None]);
        let other = Arm::untrained(World::plain(Scene::Moving));
        assert_eq!(record.find(&other, 0, None), None);
    }

    #[test]
    fn a_record_takes_in_what_it_lacks_and_one_of_another_plan_is_not_like_it() {
        let mut all = record();
        let mut more = record();
        more.runs[0].masked_loss = None;
        more.runs[1].seed = 7;
        all.add(more.clone());
        assert_eq!(all.runs.iter().map(|run| run.seed).collect::<Vec<_>>(), [0, 1, 7]);
        assert_eq!(all.runs[0], record().runs[0]);
        assert!(all.is_like(&more));
        assert!(!all.is_like(&Record { finetune: None, ..more.clone() }));
        more.plan.steps += 1;
        assert!(!all.is_like(&more));
    }

    #[test]
    fn runs_of_another_plan_are_refused() {
        let (record, file) = (record(), Path::new("runs.json"));
        record.ensure_of(&record.plan, file).unwrap();
        let other = Plan { steps: 10, ..record.plan.clone() };
        let error = record.ensure_of(&other, file).unwrap_err().to_string();
        assert!(error.contains("\"steps\":9") && error.contains("\"steps\":10"), "{error}");
    }
}
