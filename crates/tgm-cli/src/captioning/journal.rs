//! What an interrupted call has captioned so far: a file beside the new manifest, a heading and then a line for each video.

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{ErrorKind, Read as _, Write as _};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
use tgm_clip::captioner::{CaptionOptions, Captioner};
use tgm_data::manifest::{Manifest, Row};
use tgm_train::row_video::part_name;

/// What the captions of a journal have in common.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Heading {
    model: String,
    max_new_tokens: usize,
    replace: bool,
    manifest: PathBuf,
}

impl Heading {
    pub(super) fn new(
        manifest: &Manifest,
        captioner: &Captioner,
        options: &CaptionOptions,
        replace: bool,
    ) -> Self {
        Self {
            model: captioner.identity().to_owned(),
            max_new_tokens: options.max_new_tokens,
            replace,
            manifest: manifest.file().to_owned(),
        }
    }

    /// What differs, as `model: journal a, now b`.
    fn differences(&self, now: &Self) -> Vec<String> {
        let facts = |heading: &Self| {
            let Self { model, max_new_tokens, replace, manifest } = heading;
            [
                ("model", model.clone()),
                ("tokens", max_new_tokens.to_string()),
                ("replace", replace.to_string()),
                ("manifest", manifest.display().to_string()),
            ]
        };
        let pairs = facts(self).into_iter().zip(facts(now));
        pairs
            .filter(|(old, new)| old != new)
            .map(|((name, old), (_, new))| format!("{name}: {old} then, {new} now"))
            .collect()
    }
}

/// The captions of one row.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Entry {
    /// [`part_name`] of the row: rows may come in another order when a call is continued.
    part: String,
    /// The captions.
    pub(super) captions: Vec<String>,
    /// How many of them end at the limit of tokens.
    pub(super) cut: usize,
}

impl Entry {
    pub(super) fn new(row: &Row<'_>, captions: Vec<String>, cut: usize) -> Self {
        Self { part: part_name(row), captions, cut }
    }
}

/// The captions that there are.
#[derive(Debug, Default)]
pub(super) struct Texts(HashMap<String, Vec<String>>);

impl Texts {
    /// Those of a row.
    pub(super) fn of(&self, row: &Row<'_>) -> Option<&[String]> {
        self.0.get(&part_name(row)).map(Vec::as_slice)
    }

    pub(super) fn insert(&mut self, entry: Entry) {
        self.0.insert(entry.part, entry.captions);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// The file, held by one process at a time.
#[derive(Debug)]
pub(super) struct Journal {
    path: PathBuf,
    file: File,
}

impl Journal {
    /// Opens the journal of a manifest, and reads what an interrupted call left in it.
    pub(super) fn open(out: &Path, heading: Heading) -> Result<(Self, Texts)> {
        let mut path = out.as_os_str().to_owned();
        path.push(".captions.jsonl");
        let path = PathBuf::from(path);
        let cannot = |what: &str| format!("cannot {what} {}", path.display());
        let file = OpenOptions::new().create(true).read(true).append(true).open(&path);
        let mut file = file.with_context(|| cannot("write"))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                bail!(
                    "{}: another process is writing it; wait for that one, or give another --out",
                    out.display()
                )
            }
            // Without locks, whoever starts several processes sees to it.
            Err(TryLockError::Error(error)) if error.kind() == ErrorKind::Unsupported => {}
            Err(TryLockError::Error(error)) => return Err(error).with_context(|| cannot("lock")),
        }
        let mut text = String::new();
        file.read_to_string(&mut text).with_context(|| cannot("read"))?;
        // A line that an interruption cut off has no end.
        let whole = text.rfind('\n').map_or(0, |end| end + 1);
        let mut lines = text[..whole].lines();
        let mut texts = Texts::default();
        if let Some(first) = lines.next() {
            let found: Heading = serde_json::from_str(first).with_context(|| cannot("read"))?;
            let differences = found.differences(&heading);
            if !differences.is_empty() {
                bail!(
                    "{}: an interrupted call wrote other captions ({}); continue that one, or delete this file",
                    path.display(),
                    differences.join("; ")
                );
            }
            for line in lines {
                texts.insert(serde_json::from_str(line).with_context(|| cannot("read"))?);
            }
        }
        file.set_len(whole as u64).with_context(|| cannot("write"))?;
        let mut journal = Self { path, file };
        if whole == 0 {
            journal.line(&heading)?;
        }
        Ok((journal, texts))
    }

    pub(super) fn append(&mut self, entry: &Entry) -> Result<()> {
        self.line(entry)
    }

    fn line(&mut self, value: &impl Serialize) -> Result<()> {
        let line = serde_json::to_string(value)? + "\n";
        self.file.write_all(line.as_bytes()).with_context(|| format!("cannot write {}", self.path.display()))
    }

    pub(super) fn remove(self) -> Result<()> {
        fs::remove_file(&self.path).with_context(|| format!("cannot delete {}", self.path.display()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn heading(model: &str) -> Heading {
        Heading { model: model.into(), max_new_tokens: 20, replace: false, manifest: "clips.csv".into() }
    }

    fn entry(path: &str) -> Entry {
        Entry { part: path.into(), captions: vec![format!("caption of {path}")], cut: 0 }
    }

    #[test]
    fn a_journal_is_continued_after_its_last_whole_line() {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("new.csv");
        let (mut journal, texts) = Journal::open(&out, heading("a")).unwrap();
        assert!(texts.is_empty());
        journal.append(&entry("a.mp4")).unwrap();
        journal.append(&entry("c.mp4")).unwrap();
        let path = journal.path.clone();
        drop(journal);
        let bytes = fs::read(&path).unwrap();
        fs::write(&path, &bytes[..bytes.len() - 5]).unwrap();
        let (mut journal, texts) = Journal::open(&out, heading("a")).unwrap();
        assert_eq!(texts.0, HashMap::from([(entry("a.mp4").part, entry("a.mp4").captions)]));
        journal.append(&entry("b.mp4")).unwrap();
        drop(journal);
        assert_eq!(Journal::open(&out, heading("a")).unwrap().1.0.len(), 2);
    }

    #[test]
    fn a_journal_of_another_model_is_refused_with_the_difference() {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("new.csv");
        drop(Journal::open(&out, heading("a")).unwrap());
        let error = Journal::open(&out, heading("b")).unwrap_err().to_string();
        assert!(error.contains("model: a then, b now"), "{error}");
    }

    #[test]
    fn a_journal_belongs_to_one_process_at_a_time() {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("new.csv");
        let (mut journal, _) = Journal::open(&out, heading("a")).unwrap();
        let error = Journal::open(&out, heading("a")).unwrap_err().to_string();
        assert!(error.contains("another process is writing it") && error.contains("--out"), "{error}");
        journal.append(&entry("a.mp4")).unwrap();
        journal.remove().unwrap();
        assert!(Journal::open(&out, heading("a")).unwrap().1.is_empty());
    }
}
