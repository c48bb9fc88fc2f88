//! One self-contained page about one run or several: curves, pictures, probes, differences.
//!
//! The page is three files of this folder (`page.html`, `page.css`, `page.js`) and one object of data, put together here.
//! It asks nothing of the network and runs from a file.

mod collect;

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use serde::Serialize;
use tgm_train::config::{Config, flat};

pub use collect::{RunReport, collect};

/// What the page shows.
#[derive(Debug, Serialize)]
struct Page {
    version: &'static str,
    generated: f64,
    runs: Vec<RunReport>,
    differences: Vec<Difference>,
}

/// A key of the configuration that is not the same everywhere.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct Difference {
    key: String,
    /// What the program has without being told.
    default: Option<String>,
    /// One per run.
    values: Vec<Option<String>>,
}

/// The page about these runs, as HTML.
///
/// # Errors
/// When there is no folder, or a run cannot be read.
pub fn page(folders: &[PathBuf]) -> Result<String> {
    if folders.is_empty() {
        bail!("a report needs at least one run");
    }
    let runs = folders.iter().map(|folder| collect(folder)).collect::<Result<Vec<_>>>()?;
    let page = Page {
        version: env!("CARGO_PKG_VERSION"),
        generated: tgm_train::metrics::now(),
        differences: differences(&runs),
        runs: distinct_names(runs, folders),
    };
    // The data sits inside a script element, which only `</` could end.
    let data = serde_json::to_string(&page)?.replace("</", "<\\/");
    Ok(include_str!("page.html")
        .replace("/*CSS*/", include_str!("page.css"))
        .replace("/*JS*/", include_str!("page.js"))
        .replace("/*DATA*/", &data))
}

/// Of several runs, the keys in which they differ; of a single one, those in which it differs from the defaults.
fn differences(runs: &[RunReport]) -> Vec<Difference> {
    let default = flat(&Config::default());
    let keys: std::collections::BTreeSet<&String> = runs.iter().flat_map(|run| run.config.keys()).collect();
    let difference = |key: &String| Difference {
        key: key.clone(),
        default: default.get(key).cloned(),
        values: runs.iter().map(|run| run.config.get(key).cloned()).collect(),
    };
    let differs = |d: &Difference| match d.values.as_slice() {
        [one] => *one != d.default,
        many => many.windows(2).any(|pair| pair[0] != pair[1]),
    };
    keys.into_iter().map(difference).filter(differs).collect()
}

/// Runs of the same name in different folders are told apart by the folder above.
fn distinct_names(mut runs: Vec<RunReport>, folders: &[PathBuf]) -> Vec<RunReport> {
    let names: Vec<String> = runs.iter().map(|run| run.name.clone()).collect();
    for (i, run) in runs.iter_mut().enumerate() {
        if names.iter().filter(|name| **name == names[i]).count() > 1 {
            let above = folders[i].parent().and_then(Path::file_name).unwrap_or_default();
            run.name = format!("{}/{}", above.to_string_lossy(), run.name);
        }
    }
    runs
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    fn run(settings: &[(&str, &str)]) -> RunReport {
        let mut config = flat(&Config::default());
        config.extend(settings.iter().map(|(k, v)| ((*k).to_string(), (*v).to_string())));
        RunReport { name: "run".into(), config, ..RunReport::default() }
    }

    fn keys(differences: Vec<Difference>) -> BTreeMap<String, Vec<Option<String>>> {
        differences.into_iter().map(|d| (d.key, d.values)).collect()
    }

    #[test]
    fn one_run_is_compared_with_the_defaults_and_several_with_each_other() {
        let (a, b) =
            (run(&[("seed", "1"), ("train.batch", "8")]), run(&[("seed", "2"), ("train.batch", "8")]));
        assert_eq!(keys(differences(std::slice::from_ref(&a))).len(), 2);
        let both = keys(differences(&[a, b]));
        assert_eq!(both, [("seed".to_string(), vec![Some("1".into()), Some("2".into())])].into());
    }
}
