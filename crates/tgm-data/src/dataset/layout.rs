//! What was found in a data set's folder, held against what must be there.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::{Dataset, DatasetError};
use crate::manifest::{Classes, Manifest, ManifestOptions, Record, plain_path};

/// One clip of the official lists.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Entry {
    /// Relative to the folder of the data set, or absolute where a list says so.
    pub path: String,
    /// `train`, or the part that is scored.
    pub part: &'static str,
    /// The class.
    pub label: String,
    /// A sentence by a person, where the data set has one.
    pub caption: Option<String>,
    /// Seconds, where the clip is a part of a longer video.
    pub start: Option<f64>,
    /// Seconds.
    pub end: Option<f64>,
    /// EPIC-KITCHENS' noun.
    pub noun: Option<String>,
}

/// The official lists of a data set, for one split.
#[derive(Clone, Debug, PartialEq)]
pub struct Layout {
    /// Which data set.
    pub dataset: Dataset,
    /// Its folder.
    pub folder: PathBuf,
    /// The split, from 1.
    pub split: usize,
    /// Class names in official order.
    pub classes: Vec<String>,
    /// Noun names in official order; empty but for EPIC-KITCHENS.
    pub nouns: Vec<String>,
    /// All clips.
    pub entries: Vec<Entry>,
}

/// One thing that was counted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What.
    pub what: String,
    /// How many there must be.
    pub expected: usize,
    /// How many there are.
    pub found: usize,
    /// Whether that is right.
    pub ok: bool,
    /// Examples of what is missing.
    pub examples: Vec<String>,
}

/// A data set's folder held against its spec.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Check {
    /// The data set.
    pub dataset: &'static str,
    /// The split, from 1.
    pub split: usize,
    /// All that was counted.
    pub findings: Vec<Finding>,
}

impl Check {
    /// Whether the folder holds the whole data set.
    pub fn complete(&self) -> bool {
        self.findings.iter().all(|finding| finding.ok)
    }
}

impl Layout {
    pub(super) fn new(dataset: Dataset, folder: &Path) -> Self {
        let folder = folder.to_owned();
        Self { dataset, folder, split: 1, classes: Vec::new(), nouns: Vec::new(), entries: Vec::new() }
    }

    /// Refuses lists that share a clip, however it is spelt: one of them is the wrong file.
    pub(super) fn validated(mut self, split: usize) -> Result<Self, DatasetError> {
        self.split = split;
        let spec = self.dataset.spec();
        let key = |entry: &Entry| (plain_path(&entry.path), entry.start.map(f64::to_bits));
        let of = |part| self.entries.iter().filter(move |entry: &&Entry| entry.part == part);
        let train: HashSet<_> = of(spec.train).map(key).collect();
        if let Some(entry) = of(spec.test).find(|entry| train.contains(&key(entry))) {
            let (folder, path) = (self.folder.clone(), entry.path.clone());
            return Err(DatasetError::Overlap { folder, path, train: spec.train, test: spec.test });
        }
        Ok(self)
    }

    /// The clips of a part.
    pub fn part(&self, part: &str) -> impl Iterator<Item = &Entry> {
        self.entries.iter().filter(move |entry| entry.part == part)
    }

    /// The lists as a manifest, whose classes are in official order. EPIC-KITCHENS' nouns are its column `noun`.
    ///
    /// # Errors
    /// [`DatasetError::Manifest`] for a list without clips, or a cut that ends before it starts.
    pub fn manifest(&self) -> Result<Manifest, DatasetError> {
        let options =
            ManifestOptions { allow_outside: true, classes: Some(Classes::from_names(self.classes.clone())) };
        let records = self.entries.iter().map(|entry| Record {
            path: entry.path.as_str().into(),
            split: entry.part.into(),
            label: entry.label.as_str().into(),
            captions: entry.caption.iter().map(|caption| caption.as_str().into()).collect(),
            start: entry.start,
            end: entry.end,
            others: entry.noun.iter().map(|noun| ("noun".into(), noun.as_str().into())).collect(),
        });
        Ok(Manifest::from_records(&self.folder.join(self.dataset.name()), records, &options)?)
    }

    /// Counts classes, clips and videos.
    pub fn check(&self) -> Check {
        let spec = self.dataset.spec();
        let mut findings = vec![count("classes", spec.classes, self.classes.len(), false)];
        findings.extend(spec.nouns.map(|nouns| count("nouns", nouns, self.nouns.len(), false)));
        for expected in spec.counts.iter().filter(|count| count.split == self.split) {
            let what = format!("{} clips", expected.part);
            findings.push(count(&what, expected.clips, self.part(expected.part).count(), spec.at_least));
        }
        let videos: Vec<&str> = {
            let mut seen = HashSet::new();
            self.entries.iter().map(|entry| entry.path.as_str()).filter(|path| seen.insert(*path)).collect()
        };
        let missing: Vec<&str> =
            videos.iter().copied().filter(|path| !self.folder.join(path).is_file()).collect();
        findings.push(Finding {
            what: "videos on disk".into(),
            expected: videos.len(),
            found: videos.len() - missing.len(),
            ok: missing.is_empty(),
            examples: missing.iter().take(3).map(|path| (*path).to_owned()).collect(),
        });
        Check { dataset: self.dataset.name(), split: self.split, findings }
    }
}

fn count(what: &str, expected: usize, found: usize, at_least: bool) -> Finding {
    let ok = found == expected || (at_least && found > expected);
    Finding { what: what.to_owned(), expected, found, ok, examples: Vec::new() }
}
