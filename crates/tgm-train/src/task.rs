//! What is to be recognised in labelled clips: the classes of a column, and a class for every clip.

use std::collections::{BTreeSet, HashMap};
use std::ops::Range;
use std::path::PathBuf;

use anyhow::{Result, bail};
use tgm_data::loader::Subset;
use tgm_data::manifest::{Row, plain_path};
use tgm_eval::Features;
use tgm_eval::pass::clip_id;

use crate::config::ConfigError;

/// The column of a manifest that has its own place there.
pub const LABEL: &str = "label";

/// Columns that hold no classes.
const OWN: [&str; 5] = ["path", "split", "caption", "start", "end"];

/// One thing to recognise: a class per clip.
#[derive(Clone, Debug)]
pub struct Task {
    /// The manifest's column, or EPIC-KITCHENS' `verb` and `noun`.
    pub name: String,
    /// Class names in the order of their indices.
    pub classes: Vec<String>,
    labels: HashMap<String, u32>,
}

impl Task {
    /// A class per clip of both parts, by a function of its row.
    ///
    /// # Errors
    /// When it knows none for a clip, with the file and line of that clip.
    pub fn new(
        name: &str,
        classes: Vec<String>,
        parts: [&Subset; 2],
        label: impl Fn(Row<'_>) -> Option<u32>,
    ) -> Result<Self> {
        let mut labels = HashMap::new();
        for part in parts {
            for &index in part.rows() {
                let row = part.manifest().row(index as usize);
                let Some(label) = label(row) else {
                    let (file, line) = (part.manifest().file().display(), row.line());
                    bail!(
                        "{file}:{line}: `{}` has no {name}; evaluation needs one for every clip",
                        row.path()
                    );
                };
                labels.insert(clip_id(row.path(), index), label);
            }
        }
        Ok(Self { name: name.to_owned(), classes, labels })
    }

    /// The classes in a column of a manifest: the values of the clips of these parts, sorted.
    ///
    /// # Errors
    /// When the manifest lacks the column, or a clip has no value in it.
    pub fn of_column(column: &str, parts: [&Subset; 2]) -> Result<Self> {
        let manifest = parts[0].manifest();
        if OWN.contains(&column) {
            return Err(ConfigError(format!("--label {column}: that column holds no classes")).into());
        }
        manifest.require(column)?;
        if column == LABEL {
            return Self::new(LABEL, manifest.classes().names().to_vec(), parts, |row| row.label());
        }
        fn value<'a>(row: Row<'a>, column: &str) -> Option<&'a str> {
            row.other(column).filter(|value| !value.is_empty())
        }
        let rows =
            parts.iter().flat_map(|part| part.rows().iter().map(|&row| part.manifest().row(row as usize)));
        let classes: BTreeSet<&str> = rows.filter_map(|row| value(row, column)).collect();
        let indices: HashMap<&str, u32> = classes.iter().copied().zip(0..).collect();
        let names = classes.iter().map(|&name| name.to_owned()).collect();
        Self::new(column, names, parts, |row| indices.get(value(row, column)?).copied())
    }

    /// The class of a clip, by its identity.
    pub fn label(&self, id: &str) -> Option<u32> {
        self.labels.get(id).copied()
    }

    /// What is added to names of results to tell tasks apart: for the column `label` nothing.
    pub fn distinction(&self) -> Option<&str> {
        (self.name != LABEL).then_some(self.name.as_str())
    }

    /// The same features with the labels of this task.
    ///
    /// # Errors
    /// When a clip has none.
    pub fn relabel(&self, features: &Features) -> Result<Features> {
        Ok(features.relabelled(self.classes.len(), |id| self.label(id))?)
    }
}

/// Refuses parts of a manifest that share a clip: what is learnt by heart of it would be found again. Official lists are compared
/// when they are read.
///
/// # Errors
/// Naming both lines of the first clip that is in both, or that the manifest has no splits.
pub fn check_disjoint(train: &Subset, test: &Subset, splits: [&str; 2]) -> Result<()> {
    let manifest = train.manifest();
    let file = manifest.file().display();
    if manifest.split_names().is_empty() {
        return Err(ConfigError(format!(
            "{file}: has no column `split`, so that nothing tells clips to fit on from clips to score: add one, with `{}` and `{}`",
            splits[0], splits[1]
        ))
        .into());
    }
    let rows = |part: &Subset| part.rows().iter().map(|&row| manifest.row(row as usize)).collect::<Vec<_>>();
    let mut cuts: HashMap<PathBuf, Vec<(Range<f64>, u64)>> = HashMap::new();
    for row in rows(train) {
        cuts.entry(plain_path(row.path())).or_default().push((cut(row), row.line()));
    }
    for row in rows(test) {
        let own = cut(row);
        let of_video = cuts.get(&plain_path(row.path())).map_or(&[][..], Vec::as_slice);
        let shared = of_video.iter().find(|(other, _)| own.start < other.end && other.start < own.end);
        if let Some((_, line)) = shared {
            bail!(
                "{file}:{}: `{}` is in `{}` and, on line {line}, in `{}`, whole or in part: a result on clips that were trained on tells \
                 nothing; leave it out of one of them",
                row.line(),
                row.path(),
                splits[1],
                splits[0]
            );
        }
    }
    Ok(())
}

/// The seconds of the video that a row is.
fn cut(row: Row<'_>) -> Range<f64> {
    row.start().unwrap_or(0.0)..row.end().unwrap_or(f64::INFINITY)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tgm_data::manifest::Manifest;

    use super::*;
    use crate::run_data::subset;

    fn manifest(text: &str) -> (tempfile::TempDir, Arc<Manifest>) {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("m.csv");
        std::fs::write(&file, text).unwrap();
        let manifest = Arc::new(Manifest::load(&file).unwrap());
        (dir, manifest)
    }

    fn both(manifest: &Arc<Manifest>) -> [Subset; 2] {
        ["train", "test"].map(|split| Subset::split(manifest, split).unwrap())
    }

    fn parts(rows: &str) -> (tempfile::TempDir, [Subset; 2]) {
        let (dir, manifest) = manifest(&format!("path,split,label,colour\n{rows}"));
        (dir, both(&manifest))
    }

    #[test]
    fn the_classes_of_a_column_are_its_values_sorted() {
        let (_dir, parts) = parts("a.mp4,train,up,red\nb.mp4,train,down,blue\nc.mp4,test,up,green\n");
        let task = Task::of_column("colour", [&parts[0], &parts[1]]).unwrap();
        assert_eq!(
            (task.name.as_str(), task.classes.as_slice()),
            ("colour", &["blue", "green", "red"].map(String::from)[..])
        );
        assert_eq!(task.label("a.mp4#0"), Some(2));
        assert_eq!(task.label("c.mp4#2"), Some(1));
        assert_eq!(Task::of_column(LABEL, [&parts[0], &parts[1]]).unwrap().label("a.mp4#0"), Some(1));
    }

    #[test]
    fn a_clip_in_both_parts_is_refused_with_both_lines() {
        let splits = ["train", "test"];
        let (_dir, parts) = parts("a.mp4,train,up,red\nb.mp4,train,down,red\na.mp4,test,up,red\n");
        let error = check_disjoint(&parts[0], &parts[1], splits).unwrap_err().to_string();
        assert!(error.contains("m.csv:4: `a.mp4` is in `test` and, on line 2, in `train`"), "{error}");
    }

    /// Other spellings of one clip, cuts of a whole video, and cuts that overlap passed for different clips.
    #[test]
    fn a_clip_in_both_parts_is_found_however_it_is_written() {
        let rows = [
            ["a.mp4,train,up,,", "./a.mp4,test,up,,"],
            ["a.mp4,train,up,,", "b/../a.mp4,test,up,,"],
            ["a.mp4,train,up,,", "a.mp4,test,up,0,"],
            ["a.mp4,train,up,,", "a.mp4,test,up,1,2"],
            ["a.mp4,train,up,0,2", "a.mp4,test,up,1.5,3"],
        ];
        for [train, test] in rows {
            let (_dir, manifest) = manifest(&format!("path,split,label,start,end\n{train}\n{test}\n"));
            let parts = both(&manifest);
            let error = check_disjoint(&parts[0], &parts[1], ["train", "test"]).unwrap_err().to_string();
            assert!(error.contains("m.csv:3") && error.contains("on line 2"), "{error}");
        }
    }

    #[test]
    fn other_cuts_of_one_file_may_be_in_both_parts() {
        let rows = "path,split,label,start,end\na.mp4,train,up,0,2\na.mp4,test,up,2,4\n";
        let (_dir, manifest) = manifest(rows);
        let parts = both(&manifest);
        check_disjoint(&parts[0], &parts[1], ["train", "test"]).unwrap();
    }

    #[test]
    fn a_manifest_without_splits_has_nothing_to_fit_on_apart_from_what_is_scored() {
        let (_dir, manifest) = manifest("path,label\na.mp4,up\nb.mp4,down\n");
        let all = subset(&manifest, "train").unwrap();
        let error = check_disjoint(&all, &all, ["train", "test"]).unwrap_err().to_string();
        assert!(error.contains("no column `split`"), "{error}");
    }

    #[test]
    fn a_clip_without_a_value_is_named_with_its_line() {
        let (_dir, parts) = parts("a.mp4,train,up,red\nb.mp4,test,up,\n");
        let error = Task::of_column("colour", [&parts[0], &parts[1]]).unwrap_err().to_string();
        assert!(error.contains("m.csv:3: `b.mp4` has no colour"), "{error}");
        let error = Task::of_column("size", [&parts[0], &parts[1]]).unwrap_err().to_string();
        assert!(error.contains("`size`"), "{error}");
    }
}
