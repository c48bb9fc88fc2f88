//! Captions for the rows of a manifest that have none, by BLIP: three key frames a video, as the paper does it offline
//! (arXiv 2408.00759, with BLIP-2).
//!
//! What is written goes at once into a journal beside the new manifest, so that an interrupted call is continued by calling
//! it again; the manifest itself appears when it is complete, and the journal goes.

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use tgm_clip::Frames;
use tgm_clip::captioner::{CaptionOptions, Captioner, key_frames};
use tgm_data::manifest::{Manifest, ManifestError, Record, Row, write_manifest};
use tgm_video::{Frame, ReadOptions, VideoReader};

use crate::progress::Progress;

/// What a call of [`caption`] did.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Captioned {
    /// Videos that got captions now.
    pub videos: usize,
    /// Their captions.
    pub captions: usize,
    /// Of them, those that were cut at the limit of tokens.
    pub cut: usize,
    /// Videos that got theirs in an interrupted call before.
    pub continued: usize,
    /// Rows that had captions already and keep them.
    pub kept: usize,
    /// Videos that could not be read, with the reason; their rows stay as they are.
    pub bad: Vec<String>,
}

/// Videos whose frames go through the model together on one thread.
const VIDEOS_PER_BATCH: usize = 4;

/// Writes the manifest `out`: that of `manifest` with captions for the rows that have none, or for all with `replace`.
/// Other columns stay.
///
/// # Errors
/// When the journal beside `out` is of another model or manifest, a file cannot be written, the model fails, or every
/// video is bad.
pub fn caption(
    manifest: &Manifest,
    captioner: &Captioner,
    options: &CaptionOptions,
    replace: bool,
    out: &Path,
) -> Result<Captioned> {
    let (mut journal, mut texts) = Journal::open(out, Heading::new(manifest, captioner, options, replace))?;
    let mut result = Captioned { continued: texts.len(), ..Captioned::default() };
    let mut todo = Vec::new();
    for row in manifest.rows() {
        if !replace && row.captions().next().is_some() {
            result.kept += 1;
        } else if !texts.contains_key(&row.index()) {
            todo.push(row);
        }
    }
    let progress = Progress::new("caption", todo.len() as u64);
    let at_once = rayon::current_num_threads().max(1) * VIDEOS_PER_BATCH;
    for (done, rows) in todo.chunks(at_once).enumerate() {
        let batches: Vec<_> =
            rows.par_chunks(VIDEOS_PER_BATCH).map(|rows| batch(rows, captioner, options)).collect();
        for outcome in batches.into_iter().collect::<Result<Vec<_>>>()?.into_iter().flatten() {
            match outcome {
                Ok(entry) => {
                    result.videos += 1;
                    result.captions += entry.captions.len();
                    result.cut += entry.cut;
                    journal.append(&entry)?;
                    texts.insert(entry.row, entry.captions);
                }
                Err(reason) => {
                    progress.line(&format!("skipped: {reason}"));
                    result.bad.push(reason);
                }
            }
        }
        progress.set(((done + 1) * at_once).min(todo.len()) as u64);
    }
    progress.finish();
    if texts.is_empty() && result.kept == 0 && !result.bad.is_empty() {
        bail!("none of the {} videos can be captioned; the first: {}", result.bad.len(), result.bad[0]);
    }
    write_manifest(out, manifest.rows().map(|row| captioned(&row, &texts, out)))?;
    journal.remove()?;
    Ok(result)
}

/// A row as it will be written.
fn captioned<'a>(
    row: &Row<'a>,
    texts: &HashMap<usize, Vec<String>>,
    out: &Path,
) -> Result<Record<'a>, ManifestError> {
    let record = row.record(out)?;
    Ok(match texts.get(&row.index()) {
        Some(captions) => {
            Record { captions: captions.iter().map(|text| text.clone().into()).collect(), ..record }
        }
        None => record,
    })
}

/// The captions of some videos, or for each why it has none.
fn batch(
    rows: &[Row<'_>],
    captioner: &Captioner,
    options: &CaptionOptions,
) -> Result<Vec<Result<Entry, String>>> {
    let read: Vec<Result<Vec<Frame>, String>> = rows.iter().map(read).collect();
    let pictures: Vec<&Frame> = read.iter().flatten().flatten().collect();
    let frames = pictures
        .iter()
        .map(|frame| Frames::new(&frame.rgb, frame.height as usize, frame.width as usize))
        .collect::<Result<Vec<_>, _>>()?;
    let mut captions = captioner.caption(&frames, options)?.into_iter();
    let entry = |(row, frames): (&Row<'_>, Result<Vec<Frame>, String>)| {
        let captions: Vec<_> = captions.by_ref().take(frames?.len()).collect();
        let cut = captions.iter().filter(|caption| !caption.complete).count();
        let captions = captions.into_iter().map(|c| c.text).filter(|text| !text.is_empty()).collect();
        Ok(Entry { row: row.index(), captions, cut })
    };
    Ok(rows.iter().zip(read).map(entry).collect())
}

/// The key frames of a row's part of its video.
fn read(row: &Row<'_>) -> Result<Vec<Frame>, String> {
    let mut reader =
        VideoReader::open(row.video(), &ReadOptions::default()).map_err(|error| error.to_string())?;
    let range = reader.index().range(row.start().unwrap_or(0.0), row.end().unwrap_or(f64::INFINITY));
    let numbers: Vec<usize> = key_frames(range.len()).into_iter().map(|frame| range.start + frame).collect();
    reader.read(&numbers).map_err(|error| error.to_string())
}

/// What the captions of a journal have in common.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Heading {
    model: String,
    max_new_tokens: usize,
    replace: bool,
    manifest: PathBuf,
    rows: usize,
}

impl Heading {
    fn new(manifest: &Manifest, captioner: &Captioner, options: &CaptionOptions, replace: bool) -> Self {
        Self {
            model: captioner.identity().to_owned(),
            max_new_tokens: options.max_new_tokens,
            replace,
            manifest: manifest.file().to_owned(),
            rows: manifest.len(),
        }
    }

    /// What differs, as `model: journal a, now b`.
    fn differences(&self, now: &Self) -> Vec<String> {
        let facts = |heading: &Self| {
            let Self { model, max_new_tokens, replace, manifest, rows } = heading;
            [
                ("model", model.clone()),
                ("tokens", max_new_tokens.to_string()),
                ("replace", replace.to_string()),
                ("manifest", manifest.display().to_string()),
                ("rows", rows.to_string()),
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
struct Entry {
    row: usize,
    captions: Vec<String>,
    cut: usize,
}

/// The file beside the manifest that holds what is done so far: a heading, then a line for each video.
struct Journal {
    path: PathBuf,
    file: File,
}

impl Journal {
    /// Opens the journal of a manifest, and reads what an interrupted call left in it.
    fn open(out: &Path, heading: Heading) -> Result<(Self, HashMap<usize, Vec<String>>)> {
        let mut path = out.as_os_str().to_owned();
        path.push(".captions.jsonl");
        let path = PathBuf::from(path);
        let cannot = |what: &str| format!("cannot {what} {}", path.display());
        let text = match fs::read_to_string(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => String::new(),
            other => other.with_context(|| cannot("read"))?,
        };
        // A line that an interruption cut off has no end.
        let whole = text.rfind('\n').map_or(0, |end| end + 1);
        let mut lines = text[..whole].lines();
        let mut texts = HashMap::new();
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
                let entry: Entry = serde_json::from_str(line).with_context(|| cannot("read"))?;
                texts.insert(entry.row, entry.captions);
            }
        }
        let file = OpenOptions::new().create(true).truncate(false).write(true).open(&path);
        let mut file = file.with_context(|| cannot("write"))?;
        file.set_len(whole as u64).with_context(|| cannot("write"))?;
        std::io::Seek::seek(&mut file, std::io::SeekFrom::End(0)).with_context(|| cannot("write"))?;
        let mut journal = Self { path, file };
        if whole == 0 {
            journal.line(&heading)?;
        }
        Ok((journal, texts))
    }

    fn append(&mut self, entry: &Entry) -> Result<()> {
        self.line(entry)
    }

    fn line(&mut self, value: &impl Serialize) -> Result<()> {
        let line = serde_json::to_string(value)? + "\n";
        self.file.write_all(line.as_bytes()).with_context(|| format!("cannot write {}", self.path.display()))
    }

    fn remove(self) -> Result<()> {
        fs::remove_file(&self.path).with_context(|| format!("cannot delete {}", self.path.display()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn heading(model: &str) -> Heading {
        Heading {
            model: model.into(),
            max_new_tokens: 20,
            replace: false,
            manifest: "clips.csv".into(),
            rows: 3,
        }
    }

    #[test]
    fn a_journal_is_continued_after_its_last_whole_line() {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("new.csv");
        let entry = |row| Entry { row, captions: vec![format!("caption {row}")], cut: 0 };
        let (mut journal, texts) = Journal::open(&out, heading("a")).unwrap();
        assert!(texts.is_empty());
        journal.append(&entry(0)).unwrap();
        journal.append(&entry(2)).unwrap();
        let path = journal.path.clone();
        drop(journal);
        let bytes = fs::read(&path).unwrap();
        fs::write(&path, &bytes[..bytes.len() - 5]).unwrap();
        let (mut journal, texts) = Journal::open(&out, heading("a")).unwrap();
        assert_eq!(texts, HashMap::from([(0, vec!["caption 0".to_owned()])]));
        journal.append(&entry(1)).unwrap();
        assert_eq!(Journal::open(&out, heading("a")).unwrap().1.len(), 2);
    }

    #[test]
    fn a_journal_of_another_model_is_refused_with_the_difference() {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("new.csv");
        drop(Journal::open(&out, heading("a")).unwrap());
        let error = Journal::open(&out, heading("b")).map(|_| ()).unwrap_err().to_string();
        assert!(error.contains("model: a then, b now"), "{error}");
    }
}
