//! Captions for the rows of a manifest that have none, by BLIP: three key frames a video, as the paper does it offline
//! (arXiv 2408.00759, with BLIP-2).
//!
//! What is written goes at once into a journal beside the new manifest, so that an interrupted call is continued by calling
//! it again; the manifest itself appears when it is complete, and the journal goes.

mod journal;

use std::path::Path;

use anyhow::{Result, bail};
use rayon::prelude::*;
use serde::Serialize;
use tgm_clip::Frames;
use tgm_clip::captioner::{CaptionOptions, Captioner, key_frames};
use tgm_data::manifest::{Manifest, ManifestError, Record, Row, write_manifest};
use tgm_video::{Frame, ReadOptions};

use journal::{Entry, Heading, Journal, Texts};
use tgm_train::progress::Progress;
use tgm_train::row_video::RowVideo;

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
    /// Videos of which the model says nothing; their rows stay as they are.
    pub silent: usize,
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
    read: &ReadOptions,
    replace: bool,
    out: &Path,
) -> Result<Captioned> {
    let (mut journal, mut texts) = Journal::open(out, Heading::new(manifest, captioner, options, replace))?;
    let mut result = Captioned::default();
    let mut todo = Vec::new();
    for row in manifest.rows() {
        if keeps_its_own(&row, replace) {
            result.kept += 1;
        } else if texts.of(&row).is_some() {
            result.continued += 1;
        } else {
            todo.push(row);
        }
    }
    let progress = Progress::new("caption", todo.len() as u64);
    let at_once = rayon::current_num_threads().max(1) * VIDEOS_PER_BATCH;
    for (done, rows) in todo.chunks(at_once).enumerate() {
        let batches: Vec<_> =
            rows.par_chunks(VIDEOS_PER_BATCH).map(|rows| batch(rows, captioner, options, read)).collect();
        for outcome in batches.into_iter().collect::<Result<Vec<_>>>()?.into_iter().flatten() {
            match outcome {
                Ok(entry) => {
                    result.videos += 1;
                    result.captions += entry.captions.len();
                    result.cut += entry.cut;
                    result.silent += usize::from(entry.captions.is_empty());
                    journal.append(&entry)?;
                    texts.insert(entry);
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
    write_manifest(out, manifest.rows().map(|row| captioned(&row, &texts, replace, out)))?;
    journal.remove()?;
    Ok(result)
}

fn keeps_its_own(row: &Row<'_>, replace: bool) -> bool {
    !replace && row.captions().next().is_some()
}

/// A row as it will be written.
fn captioned<'a>(
    row: &Row<'a>,
    texts: &Texts,
    replace: bool,
    out: &Path,
) -> Result<Record<'a>, ManifestError> {
    let record = row.record(out)?;
    Ok(match texts.of(row) {
        Some(captions) if !keeps_its_own(row, replace) => {
            Record { captions: captions.iter().map(|text| text.clone().into()).collect(), ..record }
        }
        _ => record,
    })
}

/// The captions of some videos, or for each why it has none.
fn batch(
    rows: &[Row<'_>],
    captioner: &Captioner,
    options: &CaptionOptions,
    read: &ReadOptions,
) -> Result<Vec<Result<Entry, String>>> {
    let read: Vec<Result<Vec<Frame>, String>> = rows.iter().map(|row| key_frames_of(row, read)).collect();
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
        Ok(Entry::new(row, captions, cut))
    };
    Ok(rows.iter().zip(read).map(entry).collect())
}

/// The key frames of a row's part of its video.
fn key_frames_of(row: &Row<'_>, options: &ReadOptions) -> Result<Vec<Frame>, String> {
    let frames = RowVideo::read(row, options, |video| {
        let range = video.frames.clone();
        let numbers: Vec<usize> =
            key_frames(range.len()).into_iter().map(|frame| range.start + frame).collect();
        Ok(video.reader.read(&numbers)?)
    });
    frames.map_err(|error| error.to_string())
}
