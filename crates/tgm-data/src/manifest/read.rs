//! From a CSV or JSON Lines file to the columns of a [`Manifest`].

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use super::folder::{self, Found};
use super::table::Table;
use super::{Manifest, ManifestError, ManifestOptions, Record, absolute_folder};
use crate::archive::Shards;

/// The manifest of a folder, where there is one: what `tgm data synth` and `tgm data transcode` write.
const WITHIN: &str = "manifest.csv";

pub(super) fn manifest(file: &Path, options: &ManifestOptions) -> Result<Manifest, ManifestError> {
    if file.is_dir() {
        let within = file.join(WITHIN);
        return if within.is_file() { manifest(&within, options) } else { videos(file, options) };
    }
    if let Some(shards) = Shards::of(file)? {
        return members(file, &shards, options);
    }
    let unreadable = |source| ManifestError::Read { file: file.to_owned(), source };
    content(file, File::open(file).map_err(unreadable)?, options)
}

/// The rows of a CSV or JSON Lines text.
pub(super) fn content(
    file: &Path,
    content: impl Read,
    options: &ManifestOptions,
) -> Result<Manifest, ManifestError> {
    let unreadable = |source| ManifestError::Read { file: file.to_owned(), source };
    let root = absolute_folder(file).map_err(unreadable)?;
    let mut input = BufReader::with_capacity(1 << 18, content);
    let head = input.fill_buf().map_err(unreadable)?;
    let head = head.strip_prefix(b"\xef\xbb\xbf").unwrap_or(head);
    let crlf = head.iter().position(|&byte| byte == b'\n').is_some_and(|end| head[..end].ends_with(b"\r"));
    let json = head.iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b'{');

    let mut table = Table::new(file, options);
    if json {
        table.read_json_lines(input)?
    } else {
        table.read_csv(input, crlf)?
    }
    table.finish(root)
}

/// The videos below a folder, and in archives there, as a manifest.
fn videos(folder: &Path, options: &ManifestOptions) -> Result<Manifest, ManifestError> {
    let root = std::path::absolute(folder)
        .map_err(|source| ManifestError::Read { file: folder.to_owned(), source })?;
    // `clips`, `clips/` and `.` within it are the same data set, with the same files beside it.
    let folder: &Path = &root.components().collect::<PathBuf>();
    let mut table = Table::new(folder, options);
    let found = folder::find(folder)?;
    // Archives that follow one another are listed in parallel.
    for run in found.chunk_by(|a, b| matches!((a, b), (Found::Archive(_), Found::Archive(_)))) {
        match run {
            [Found::Video { path, captions }, ..] => table.push_video(path, captions)?,
            archives => {
                let paths = archives.iter().map(|found| found.path().to_owned()).collect();
                table.read_shards(&Shards { folder: root.clone(), paths })?;
            }
        }
    }
    if table.rows == 0 {
        return Err(ManifestError::NoVideos { folder: folder.to_owned() });
    }
    table.finish(root)
}

/// The videos in archives as a manifest.
fn members(pattern: &Path, shards: &Shards, options: &ManifestOptions) -> Result<Manifest, ManifestError> {
    let mut table = Table::new(pattern, options);
    table.read_shards(shards)?;
    if table.rows == 0 {
        return Err(ManifestError::NoVideos { folder: pattern.to_owned() });
    }
    table.finish(shards.folder.clone())
}

pub(super) fn from_records<'a>(
    file: &Path,
    records: impl IntoIterator<Item = Record<'a>>,
    options: &ManifestOptions,
) -> Result<Manifest, ManifestError> {
    let unreadable = |source| ManifestError::Read { file: file.to_owned(), source };
    let root = absolute_folder(file).map_err(unreadable)?;
    let mut table = Table::new(file, options);
    for (line, record) in (1..).zip(records) {
        table.push_record(&record, line)?;
    }
    table.finish(root)
}

impl Table<'_> {
    /// `crlf`: lines end as on Windows.
    fn read_csv(&mut self, input: impl Read, crlf: bool) -> Result<(), ManifestError> {
        // The reader then says where a row begins before it has taken the last byte of the line before.
        let behind = u64::from(crlf);
        let mut reader = csv::ReaderBuilder::new().from_reader(input);
        let header = reader.headers().map_err(|error| self.csv_error(error))?.clone();
        for name in header.iter().map(str::trim) {
            if self.columns.iter().any(|column| column.name == name) {
                let column = name.to_owned();
                return Err(ManifestError::DuplicateColumn { file: self.file.to_owned(), column });
            }
            self.add_column(name);
        }
        if header.iter().all(str::is_empty) {
            return Err(ManifestError::Empty { file: self.file.to_owned() });
        }
        self.require_path()?;
        let mut record = csv::StringRecord::new();
        while reader.read_record(&mut record).map_err(|error| self.csv_error(error))? {
            let line = record.position().map_or(0, csv::Position::line) + behind;
            for (column, value) in record.iter().enumerate() {
                self.push(column, value, line)?;
            }
            self.end_row(line);
        }
        Ok(())
    }

    fn csv_error(&self, error: csv::Error) -> ManifestError {
        let file = self.file.to_owned();
        let line = error.position().map_or(1, csv::Position::line);
        match error.into_kind() {
            csv::ErrorKind::Io(source) => ManifestError::Read { file, source },
            csv::ErrorKind::UnequalLengths { expected_len, len, .. } => {
                ManifestError::RaggedRow { file, line, expected: expected_len as usize, found: len as usize }
            }
            csv::ErrorKind::Utf8 { err, .. } => {
                ManifestError::Syntax { file, line, message: format!("not UTF-8: {err}") }
            }
            other => ManifestError::Syntax { file, line, message: format!("not CSV: {other:?}") },
        }
    }

    fn read_json_lines(&mut self, mut input: impl BufRead) -> Result<(), ManifestError> {
        let mut text = String::new();
        for line in 1.. {
            text.clear();
            let read = input.read_line(&mut text);
            if read.map_err(|source| ManifestError::Read { file: self.file.to_owned(), source })? == 0 {
                break;
            }
            let object = text.trim_start_matches('\u{feff}').trim();
            if object.is_empty() {
                continue;
            }
            let object: Map<String, Value> =
                serde_json::from_str(object).map_err(|error| self.syntax(line, error.to_string()))?;
            for (name, value) in &object {
                let column = self.column(name)?;
                match value {
                    Value::Null => {}
                    Value::String(value) => self.push(column, value, line)?,
                    Value::Number(_) | Value::Bool(_) => self.push(column, &value.to_string(), line)?,
                    Value::Array(_) | Value::Object(_) => {
                        let message = format!("the value of `{name}` must be a string or a number");
                        return Err(self.syntax(line, message));
                    }
                }
            }
            if object.get("path").is_none_or(Value::is_null) {
                return Err(self.syntax(line, "this row has no `path`".to_owned()));
            }
            self.end_row(line);
        }
        Ok(())
    }

    fn syntax(&self, line: u64, message: String) -> ManifestError {
        ManifestError::Syntax { file: self.file.to_owned(), line, message }
    }
}
