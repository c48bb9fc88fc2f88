//! From a run's folder to what the page shows of it.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use serde::Serialize;
use serde_json::{Map, Value};
use tgm_train::checkpoint;
use tgm_train::config::{self, flat};
use tgm_train::run_dir::RunDir;

use crate::html::png_address;

/// Points of a curve: more than a screen has columns.
const POINTS: usize = 1500;
/// Moments at which pictures are shown, evenly chosen from those that there are.
const MOMENTS: usize = 12;

/// One run.
#[derive(Clone, Debug, Default, Serialize)]
pub struct RunReport {
    /// The folder's name.
    pub name: String,
    /// The folder.
    pub path: String,
    /// Every key of the configuration.
    pub config: BTreeMap<String, String>,
    /// Program and machine, one per start.
    pub environments: Vec<Value>,
    /// Per name of a number, its values; all of the same length as `step`.
    pub metrics: BTreeMap<String, Vec<Option<f64>>>,
    /// The periodic probes.
    pub probes: Vec<Value>,
    /// Pictures by step.
    pub pictures: Vec<Moment>,
    /// Names of the checkpoints that are there.
    pub checkpoints: Vec<String>,
}

/// The pictures of one step.
#[derive(Clone, Debug, Serialize)]
pub struct Moment {
    /// The step.
    pub step: u64,
    /// PNG files as `data:` addresses, one per clip.
    pub images: Vec<String>,
}

/// Reads a run's folder. What is missing or half written is left out: a run may be in progress.
///
/// # Errors
/// When there is no run, or its configuration cannot be read.
pub fn collect(folder: &Path) -> Result<RunReport> {
    let run = RunDir::at(folder);
    let file = run.config_file();
    ensure!(file.is_file(), "{}: no run is here (there is no config.toml)", folder.display());
    let text = fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
    let config = config::from_text(&file.display().to_string(), &text, &[])?;
    let absolute = std::path::absolute(folder)?;
    let checkpoints = checkpoint::list(&run.checkpoints()).unwrap_or_default();
    Ok(RunReport {
        name: absolute.file_name().unwrap_or_default().to_string_lossy().into_owned(),
        path: folder.display().to_string(),
        config: flat(&config),
        environments: lines(&run.environment_file()),
        metrics: columns(&lines(&run.metrics_file())),
        probes: lines(&run.probes_file()),
        pictures: moments(&run.pictures())?,
        checkpoints: checkpoints
            .iter()
            .filter_map(|path| Some(path.file_name()?.to_string_lossy().into_owned()))
            .collect(),
    })
}

fn lines(path: &Path) -> Vec<Value> {
    let text = fs::read_to_string(path).unwrap_or_default();
    text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

/// Rows of numbers as columns of at most [`POINTS`], each the mean of as many rows as fall on it.
fn columns(rows: &[Value]) -> BTreeMap<String, Vec<Option<f64>>> {
    let rows: Vec<&Map<String, Value>> = rows.iter().filter_map(Value::as_object).collect();
    let names: std::collections::BTreeSet<&String> = rows.iter().flat_map(|row| row.keys()).collect();
    let per_point = rows.len().div_ceil(POINTS).max(1);
    let column = |name: &String| {
        let point = |rows: &[&Map<String, Value>]| {
            let values: Vec<f64> =
                rows.iter().filter_map(|row| row.get(name).and_then(Value::as_f64)).collect();
            // A place in the run is where the point ends; anything else is a mean.
            match name.as_str() {
                "step" | "epoch" | "time" => values.last().copied(),
                _ => (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64),
            }
        };
        rows.chunks(per_point).map(point).collect()
    };
    names.into_iter().map(|name| (name.clone(), column(name))).collect()
}

/// The files `step-N-clip-I.png` of a folder, by step and clip.
fn moments(folder: &Path) -> Result<Vec<Moment>> {
    let mut by_step: BTreeMap<u64, BTreeMap<u64, PathBuf>> = BTreeMap::new();
    for path in fs::read_dir(folder).into_iter().flatten().filter_map(|e| Some(e.ok()?.path())) {
        if let Some((step, clip)) = path.file_name().and_then(|name| place(&name.to_string_lossy())) {
            by_step.entry(step).or_default().insert(clip, path);
        }
    }
    let steps: Vec<u64> = by_step.keys().copied().collect();
    let chosen = evenly(&steps, MOMENTS);
    let moment = |step: u64| -> Result<Moment> {
        let image = |path: &PathBuf| -> Result<String> {
            let png = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
            Ok(png_address(&png))
        };
        Ok(Moment { step, images: by_step[&step].values().map(image).collect::<Result<_>>()? })
    };
    chosen.into_iter().map(moment).collect()
}

fn place(name: &str) -> Option<(u64, u64)> {
    let (step, clip) = name.strip_prefix("step-")?.strip_suffix(".png")?.split_once("-clip-")?;
    Some((step.parse().ok()?, clip.parse().ok()?))
}

/// At most `count` of the values, the first and the last among them.
fn evenly(values: &[u64], count: usize) -> Vec<u64> {
    if values.len() <= count {
        return values.to_vec();
    }
    (0..count).map(|i| values[i * (values.len() - 1) / (count - 1)]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn long_curves_are_means_and_gaps_stay_gaps() {
        let rows: Vec<Value> = (0..3000)
            .map(|i| json!({"step": i + 1, "loss": if i < 2 { Value::Null } else { (i % 2).into() }}))
            .collect();
        let columns = columns(&rows);
        assert_eq!(columns["step"].len(), POINTS);
        assert_eq!((columns["step"][0], columns["loss"][0]), (Some(2.0), None));
        assert_eq!((columns["step"][1499], columns["loss"][1499]), (Some(3000.0), Some(0.5)));
    }

    #[test]
    fn the_first_and_the_last_moment_are_always_shown() {
        let steps: Vec<u64> = (0..100).collect();
        let chosen = evenly(&steps, 5);
        assert_eq!((chosen.len(), chosen[0], chosen[4]), (5, 0, 99));
        assert_eq!(evenly(&steps[..3], 5), [0, 1, 2]);
        assert_eq!(place("step-00000120-clip-3.png"), Some((120, 3)));
        assert_eq!(place("notes.png"), None);
    }
}
