//! The paper's ablations in small: many runs on synthetic worlds of which the truth is known.
//!
//! Every run is an ordinary pretraining run of the configuration `reproduce` in a folder of its own, with a file of what came
//! out of it; a run that was interrupted goes on, one that is finished is not repeated. Seeds are the outer loop: when time runs
//! out, every line of a table has the same seeds or one less. Several processes may work on one folder: each takes runs that no
//! other has.
//!
//! | file below `--out` | content |
//! |---|---|
//! | `plan.json` | what all runs have in common |
//! | `worlds/` | videos, captions, score maps |
//! | `runs/WORLD/ARM-sSEED/` | a run, and its `result.json` |
//! | `tables.json`, `tables.md`, `tables.html` | the numbers |
//! | `runs.json` | what they are made of, for another machine or a reader: a [`Record`] |

mod arm;
mod baseline;
mod plan;
mod record;
mod run;
mod summary;
mod tables;
mod write;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use tgm_train::progress::say;
use tgm_train::run_dir::write_atomically;
use tgm_train::stop::Stop;

pub use arm::{Arm, Clips, Scene, World};
pub use plan::{Plan, duration};
pub use record::Record;
pub use run::{Bench, Probe, RunResult, Spent};
pub use summary::{Row, Summary, summarise};
pub use tables::{Line, Table};

/// What to reproduce, and for how long.
#[derive(Clone, Debug)]
pub struct Order {
    /// The folder.
    pub out: PathBuf,
    /// The tables.
    pub tables: Vec<Table>,
    /// Seeds per arm.
    pub seeds: u64,
    /// When to stop beginning runs.
    pub budget: Option<Duration>,
    /// Also fine-tune every encoder for so many epochs.
    pub finetune: Option<f64>,
    /// Files of runs that were made elsewhere and are not made again.
    pub known: Vec<PathBuf>,
    /// What all runs have in common, with the steps that are wanted; a budget may shorten them.
    pub plan: Plan,
}

/// What was done.
#[derive(Clone, Debug)]
pub struct Reproduction {
    /// The tables in the order in which they were asked for.
    pub summaries: Vec<Summary>,
    /// A sentence about how far it went.
    pub how: String,
    /// The tables as Markdown.
    pub markdown: String,
    /// The page.
    pub page: PathBuf,
}

/// Trains what is missing, as far as the budget goes, and writes the tables.
///
/// # Errors
/// When a signal asks to stop, the folder has another plan, or a run fails.
pub fn reproduce(order: Order, stop: Stop) -> Result<Reproduction> {
    let begun = Instant::now();
    let arms = arms(&order.tables);
    let known = known(&order.known, &order.plan)?;
    let door = door(&order.out)?;
    let plan = settle(&order, &arms, &stop)?;
    drop(door);
    let bench = Bench { known, ..bench(&order, &plan, stop) };
    let unfinished = work(&order, &bench, &arms, begun)?;

    let seeds = 0..order.seeds;
    let finished = |arm: &Arm| seeds.clone().filter_map(|seed| bench.finished(arm, seed)).collect::<Vec<_>>();
    let baselines = baselines(&bench, &arms)?;
    let of_world = |world: World| baselines.get(&world.name()).cloned().unwrap_or_default();
    let summaries =
        order.tables.iter().map(|&table| summarise(table, finished, of_world)).collect::<Result<Vec<_>>>()?;
    let how = describe(&order, &plan, arms.len(), unfinished);
    let runs = arms.iter().flat_map(finished).collect();
    let record = Record { plan, finetune: order.finetune, baselines, runs };
    publish(&order.out, summaries, how, record)
}

/// Writes the tables and what they are made of. Runs that an earlier call wrote down for other tables stay.
fn publish(out: &Path, summaries: Vec<Summary>, how: String, mut record: Record) -> Result<Reproduction> {
    let markdown = write::markdown(&summaries, &how);
    let page = out.join("tables.html");
    let _door = door(out)?;
    write_atomically(&out.join("tables.md"), markdown.as_bytes())?;
    write_atomically(&out.join("tables.json"), serde_json::to_string_pretty(&summaries)?.as_bytes())?;
    write_atomically(&page, write::page(&summaries, &how).as_bytes())?;
    let file = out.join(record::FILE);
    if file.exists() {
        match Record::read(&file) {
            Ok(earlier) if earlier.is_like(&record) => record.add(earlier),
            _ => set_aside(&file)?,
        }
    }
    write_atomically(&file, (serde_json::to_string(&record)? + "\n").as_bytes())?;
    Ok(Reproduction { summaries, how, markdown, page })
}

/// Renames a file of runs that cannot stand beside those of this call: other fine-tuning, or not readable. They may be nowhere else.
fn set_aside(file: &Path) -> Result<()> {
    let free =
        (1..).map(|number| file.with_extension(format!("before-{number}.json"))).find(|path| !path.exists());
    let Some(other) = free else { return Ok(()) };
    std::fs::rename(file, &other).with_context(|| format!("cannot rename {}", file.display()))?;
    say(&format!(
        "{} holds runs with other fine-tuning, or none that can be read: kept as {}",
        file.display(),
        other.display()
    ));
    Ok(())
}

/// Waits until no other process writes what the processes of a folder share; the next one waits until this is dropped.
fn door(folder: &Path) -> Result<File> {
    std::fs::create_dir_all(folder)
        .with_context(|| format!("cannot make the folder {}", folder.display()))?;
    let path = folder.join("lock");
    let file = File::create(&path).with_context(|| format!("cannot write {}", path.display()))?;
    match file.lock() {
        // Without locks, whoever starts several processes sees to it.
        Err(error) if error.kind() == std::io::ErrorKind::Unsupported => {}
        locked => locked.with_context(|| format!("cannot lock {}", path.display()))?,
    }
    Ok(file)
}

/// The arms of some tables, each once.
pub fn arms(tables: &[Table]) -> Vec<Arm> {
    let mut seen = BTreeSet::new();
    let all = tables.iter().flat_map(|table| table.lines()).map(|line| line.arm);
    all.filter(|arm| seen.insert(arm.folder(0))).collect()
}

fn bench(order: &Order, plan: &Plan, stop: Stop) -> Bench {
    let Plan { clips, steps, settings } = plan.clone();
    Bench {
        out: order.out.clone(),
        clips,
        steps,
        finetune: order.finetune,
        settings,
        known: Vec::new(),
        stop,
    }
}

/// Runs that were made elsewhere, of the same plan.
fn known(files: &[PathBuf], plan: &Plan) -> Result<Vec<Record>> {
    let read = |file: &PathBuf| {
        let record = Record::read(file)?;
        record.ensure_of(plan, file)?;
        Ok(record)
    };
    files.iter().map(read).collect()
}

/// The plan of the folder; a new one has as many steps as fit one seed of every arm into the budget, but those of known runs
/// if there are any.
fn settle(order: &Order, arms: &[Arm], stop: &Stop) -> Result<Plan> {
    if !order.known.is_empty() {
        return order.plan.clone().claim(&order.out);
    }
    let begun = Instant::now();
    let found = Plan::of(&order.out)?;
    let (Some(budget), None) = (order.budget, &found) else {
        let steps = found.map_or(order.plan.steps, |found| found.steps.min(order.plan.steps));
        return Plan { steps, ..order.plan.clone() }.claim(&order.out);
    };
    let trial = Plan { steps: 20, ..order.plan.clone() };
    // The dearest kind of arm: it needs score maps, and has both losses.
    let arm = Arm::new(World::plain(Scene::Static), "trial", "{ kind = 'text', ratio = 0.6 }", true);
    let bench = bench(order, &trial, stop.clone());
    if bench.finished(&arm, 0).is_none() {
        bench.clear(&arm, 0)?;
    }
    let result = bench.run(&arm, 0)?;
    let result =
        result.context("another process is measuring how long a step takes; start this one again later")?;
    // What the result does not tell: fine-tuning.
    let finetune =
        order.finetune.map_or(0.0, |_| (begun.elapsed().as_secs_f64() - result.spent.total()).max(0.0));
    let worlds: BTreeSet<String> = arms.iter().map(|arm| arm.world.folder()).collect();
    let left = budget.saturating_sub(begun.elapsed());
    let runs = plan::Runs { worlds: worlds.len(), arms: arms.len(), finetune };
    let steps = plan::steps_within(left, runs, &result, order.plan.steps);
    if steps < order.plan.steps {
        let (wanted, arms) = (order.plan.steps, arms.len());
        say(&format!("budget    {steps} steps a run instead of {wanted}: {arms} runs per seed must fit"));
    }
    Plan { steps, ..order.plan.clone() }.claim(&order.out)
}

/// Runs what is not finished and what no other process is at; gives the number of runs that are still missing.
fn work(order: &Order, bench: &Bench, arms: &[Arm], begun: Instant) -> Result<usize> {
    let all = (0..order.seeds).flat_map(|seed| arms.iter().map(move |arm| (arm, seed)));
    let todo: Vec<(&Arm, u64)> = all.filter(|(arm, seed)| bench.finished(arm, *seed).is_none()).collect();
    let mut longest = Duration::ZERO;
    for (at, &(arm, seed)) in todo.iter().enumerate() {
        let left = order.budget.map(|budget| budget.saturating_sub(begun.elapsed()));
        if left.is_some_and(|left| left <= longest) {
            break;
        }
        say(&format!("run {} of {}: {}", at + 1, todo.len(), arm.folder(seed)));
        let started = Instant::now();
        if bench.run(arm, seed)?.is_none() {
            say("          another process is at it");
        }
        longest = longest.max(started.elapsed());
    }
    Ok(todo.iter().filter(|(arm, seed)| bench.finished(arm, *seed).is_none()).count())
}

/// The baselines of every world that has been rendered here, or is known, by its name.
fn baselines(bench: &Bench, arms: &[Arm]) -> Result<BTreeMap<String, Vec<Probe>>> {
    let config = tgm_train::config::load("reproduce", &bench.settings)?;
    let mut all = BTreeMap::new();
    for world in arms.iter().map(|arm| arm.world) {
        let name = world.name();
        if all.contains_key(&name) {
            continue;
        }
        let manifest = bench.out.join("worlds").join(world.folder()).join("manifest.csv");
        if let Some(known) = bench.known.iter().find_map(|record| record.baselines.get(&name)) {
            all.insert(name, known.clone());
        } else if manifest.is_file() {
            all.insert(name, baseline::measure(&manifest, &config.clip, &config.loader)?);
        }
    }
    Ok(all)
}

fn describe(order: &Order, plan: &Plan, arms: usize, unfinished: usize) -> String {
    let Plan { clips: Clips { train, test }, steps, .. } = plan;
    let missing = match unfinished {
        0 => String::new(),
        n => format!(
            " Missing are {n} of {} runs, for which the budget was too short or which another process is making: some lines have fewer \
             seeds; the same command goes on.",
            order.seeds * arms as u64
        ),
    };
    let finetune = order.finetune.map_or(String::new(), |epochs| {
        format!(" Fine-tuning: {epochs} epochs for the motion, none of its layers frozen.")
    });
    format!(
        "{arms} arms, {steps} steps of a micro model each, {train} train and {test} test clips a world.{finetune} Top-1 in percent with its \
         95 % interval over seeds and test clips; the paper's numbers are of a ViT-B on real videos and compare in order \
         only.{missing}"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    /// They were overwritten, and were nowhere else when they had come by `--known`.
    #[test]
    fn runs_with_other_fine_tuning_are_kept_beside() {
        let dir = tempfile::tempdir().unwrap();
        let plan = Plan { clips: Clips { train: 1, test: 1 }, steps: 1, settings: Vec::new() };
        let record =
            |finetune| Record { plan: plan.clone(), finetune, baselines: BTreeMap::new(), runs: Vec::new() };
        let file = dir.path().join(record::FILE);
        for finetune in [None, Some(20.0), None] {
            publish(dir.path(), Vec::new(), String::new(), record(finetune)).unwrap();
            assert_eq!(Record::read(&file).unwrap(), record(finetune));
        }
        let kept = |number| Record::read(&dir.path().join(format!("runs.before-{number}.json"))).unwrap();
        assert_eq!((kept(1), kept(2)), (record(None), record(Some(20.0))));
    }
}
