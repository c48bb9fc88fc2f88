//! Finding annotation files and videos in a data set's folder.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::path::{Path, PathBuf};

use super::DatasetError;

/// A data set's folder, with the listings of its folders that were looked into.
pub(super) struct Files {
    folder: PathBuf,
    listings: HashMap<PathBuf, HashSet<String>>,
}

impl Files {
    pub fn new(folder: &Path) -> Self {
        Self { folder: folder.to_owned(), listings: HashMap::new() }
    }

    /// The first of these annotation files that is there, in the folder itself or in `annotations/`.
    pub fn annotation(&self, what: &str, names: &[&str]) -> Result<PathBuf, DatasetError> {
        self.annotation_if_any(names).ok_or_else(|| DatasetError::Missing {
            folder: self.folder.clone(),
            what: what.to_owned(),
            tried: names.iter().map(|name| (*name).to_owned()).collect(),
        })
    }

    pub fn annotation_if_any(&self, names: &[&str]) -> Option<PathBuf> {
        let places = names
            .iter()
            .flat_map(|name| [self.folder.join(name), self.folder.join("annotations").join(name)]);
        places.into_iter().find(|path| path.is_file())
    }

    /// The first of these paths, relative to the folder, at which there is a file; else the first of all, for the report
    /// of what is missing. Every folder is listed once: a data set has hundreds of thousands of videos.
    pub fn video(&mut self, candidates: &[String]) -> String {
        let found = candidates.iter().position(|candidate| self.exists(candidate));
        candidates[found.unwrap_or(0)].clone()
    }

    fn exists(&mut self, relative: &str) -> bool {
        let path = self.folder.join(relative);
        let (Some(parent), Some(name)) = (path.parent(), path.file_name().and_then(|name| name.to_str()))
        else {
            return false;
        };
        let listing = self.listings.entry(parent.to_owned()).or_insert_with(|| {
            let entries = fs::read_dir(parent).into_iter().flatten().flatten();
            entries.filter_map(|entry| entry.file_name().into_string().ok()).collect()
        });
        listing.contains(name)
    }
}

/// The text of a file, without a byte order mark.
pub(super) fn text(file: &Path) -> Result<String, DatasetError> {
    let text = fs::read_to_string(file);
    let text = text.map_err(|source| DatasetError::Read { file: file.to_owned(), source })?;
    Ok(text.strip_prefix('\u{feff}').map_or_else(|| text.clone(), str::to_owned))
}

/// A JSON file.
pub(super) fn json<T: serde::de::DeserializeOwned>(file: &Path) -> Result<T, DatasetError> {
    serde_json::from_str(&text(file)?)
        .map_err(|error| DatasetError::format(file, error.line(), error.to_string()))
}

/// The rows of a CSV file with a header, as one type per row.
pub(super) fn csv<T: serde::de::DeserializeOwned>(file: &Path) -> Result<Vec<T>, DatasetError> {
    let text = text(file)?;
    let mut reader = ::csv::ReaderBuilder::new().trim(::csv::Trim::Headers).from_reader(text.as_bytes());
    let bad = |error: ::csv::Error| {
        let line = error.position().map_or(0, |position| position.line() as usize);
        DatasetError::format(file, line, error.to_string())
    };
    reader.deserialize().collect::<Result<_, _>>().map_err(bad)
}

/// Lines that are not blank, with their numbers from 1.
pub(super) fn lines(text: &str) -> impl Iterator<Item = (usize, &str)> {
    (1..).zip(text.lines()).map(|(number, line)| (number, line.trim())).filter(|(_, line)| !line.is_empty())
}
