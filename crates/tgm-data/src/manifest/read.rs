//! From a CSV or JSON Lines file to the columns of a [`Manifest`].

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use super::column::{CategoryColumn, TextColumn};
use super::{Classes, Manifest, ManifestError, ManifestOptions, Record, absolute_folder, stays_inside};

pub(super) fn manifest(file: &Path, options: &ManifestOptions) -> Result<Manifest, ManifestError> {
    let unreadable = |source| ManifestError::Read { file: file.to_owned(), source };
    let root = absolute_folder(file).map_err(unreadable)?;
    if file.is_dir() {
        return videos(file, options);
    }
    let mut input = BufReader::with_capacity(1 << 18, File::open(file).map_err(unreadable)?);
    let head = input.fill_buf().map_err(unreadable)?;
    let head = head.strip_prefix(b"\xef\xbb\xbf").unwrap_or(head);
    let json = head.iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b'{');

    let mut table = Table { file, options, rows: 0, lines: Vec::new(), columns: Vec::new() };
    if json {
        table.read_json_lines(input)?
    } else {
        table.read_csv(input)?
    }
    table.finish(root)
}

/// The videos below a folder as a manifest.
fn videos(folder: &Path, options: &ManifestOptions) -> Result<Manifest, ManifestError> {
    let mut table = Table { file: folder, options, rows: 0, lines: Vec::new(), columns: Vec::new() };
    for (line, video) in (1..).zip(super::folder::find(folder)?) {
        let path = table.column("path");
        table.push(path, &video.path, line)?;
        for (number, caption) in (1..).zip(&video.captions) {
            let name = if number == 1 { "caption".to_owned() } else { format!("caption_{number}") };
            let column = table.column(&name);
            table.push(column, caption, line)?;
        }
        table.end_row(line);
    }
    let root = std::path::absolute(folder);
    table.finish(root.map_err(|source| ManifestError::Read { file: folder.to_owned(), source })?)
}

pub(super) fn from_records<'a>(
    file: &Path,
    records: impl IntoIterator<Item = Record<'a>>,
    options: &ManifestOptions,
) -> Result<Manifest, ManifestError> {
    let unreadable = |source| ManifestError::Read { file: file.to_owned(), source };
    let root = absolute_folder(file).map_err(unreadable)?;
    let mut table = Table { file, options, rows: 0, lines: Vec::new(), columns: Vec::new() };
    for (line, record) in (1..).zip(records) {
        table.push_record(&record, line)?;
    }
    table.finish(root)
}

/// The manifest while it is read.
struct Table<'a> {
    file: &'a Path,
    options: &'a ManifestOptions,
    rows: usize,
    lines: Vec<u32>,
    columns: Vec<Column>,
}

struct Column {
    name: String,
    values: Values,
}

enum Values {
    Path(TextColumn),
    Split(CategoryColumn),
    Label(CategoryColumn),
    /// The number that orders the captions.
    Caption(u32, TextColumn),
    Start(Vec<f64>),
    End(Vec<f64>),
    Other(TextColumn),
}

impl Values {
    fn new(name: &str) -> Self {
        let caption = name.strip_prefix("caption_").and_then(|number| number.parse().ok());
        match name {
            "path" => Self::Path(TextColumn::default()),
            "split" => Self::Split(CategoryColumn::default()),
            "label" => Self::Label(CategoryColumn::default()),
            "caption" => Self::Caption(1, TextColumn::default()),
            "start" => Self::Start(Vec::new()),
            "end" => Self::End(Vec::new()),
            _ => caption.map_or_else(
                || Self::Other(TextColumn::default()),
                |number| Self::Caption(number, TextColumn::default()),
            ),
        }
    }

    fn len(&self) -> usize {
        match self {
            Self::Path(column) | Self::Caption(_, column) | Self::Other(column) => column.len(),
            Self::Split(column) | Self::Label(column) => column.len(),
            Self::Start(column) | Self::End(column) => column.len(),
        }
    }
}

impl Table<'_> {
    fn read_csv(&mut self, input: impl Read) -> Result<(), ManifestError> {
        let mut reader = csv::ReaderBuilder::new().from_reader(input);
        let header = reader.headers().map_err(|error| self.csv_error(error))?.clone();
        for name in header.iter().map(str::trim) {
            if self.columns.iter().any(|column| column.name == name) {
                let column = name.to_owned();
                return Err(ManifestError::DuplicateColumn { file: self.file.to_owned(), column });
            }
            self.columns.push(Column { name: name.to_owned(), values: Values::new(name) });
        }
        if header.iter().all(str::is_empty) {
            return Err(ManifestError::Empty { file: self.file.to_owned() });
        }
        self.require_path()?;
        let mut record = csv::StringRecord::new();
        while reader.read_record(&mut record).map_err(|error| self.csv_error(error))? {
            let line = record.position().map_or(0, csv::Position::line);
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
                let column = self.column(name);
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

    fn push_record(&mut self, record: &Record<'_>, line: u64) -> Result<(), ManifestError> {
        let time = |seconds: Option<f64>| seconds.map_or_else(String::new, |seconds| seconds.to_string());
        let (start, end) = (time(record.start), time(record.end));
        let known = [
            ("path", record.path.as_ref()),
            ("split", record.split.as_ref()),
            ("label", record.label.as_ref()),
            ("start", start.as_str()),
            ("end", end.as_str()),
        ];
        for (name, value) in known {
            let column = self.column(name);
            self.push(column, value, line)?;
        }
        for (number, caption) in (1..).zip(&record.captions) {
            let name = if number == 1 { "caption".to_owned() } else { format!("caption_{number}") };
            let column = self.column(&name);
            self.push(column, caption, line)?;
        }
        for (name, value) in &record.others {
            let column = self.column(name);
            self.push(column, value, line)?;
        }
        self.end_row(line);
        Ok(())
    }

    fn syntax(&self, line: u64, message: String) -> ManifestError {
        ManifestError::Syntax { file: self.file.to_owned(), line, message }
    }

    /// The column of a key; a new key makes a new column, empty in the rows so far.
    fn column(&mut self, name: &str) -> usize {
        self.columns.iter().position(|column| column.name == name).unwrap_or_else(|| {
            let mut values = Values::new(name);
            for _ in 0..self.rows {
                push_none(&mut values);
            }
            self.columns.push(Column { name: name.to_owned(), values });
            self.columns.len() - 1
        })
    }

    fn require_path(&self) -> Result<(), ManifestError> {
        if self.columns.iter().any(|column| matches!(column.values, Values::Path(_))) {
            return Ok(());
        }
        let found = self.columns.iter().map(|column| column.name.clone()).collect();
        Err(ManifestError::MissingColumn { file: self.file.to_owned(), column: "path".to_owned(), found })
    }

    fn push(&mut self, column: usize, value: &str, line: u64) -> Result<(), ManifestError> {
        let (file, allow_outside) = (self.file, self.options.allow_outside);
        let Column { name, values } = &mut self.columns[column];
        let bad = |problem| {
            let (file, column, value) = (file.to_owned(), name.clone(), value.to_owned());
            ManifestError::BadValue { file, line, column, value, problem }
        };
        match values {
            Values::Path(_) if value.is_empty() => return Err(bad("is no path")),
            Values::Path(_) if !allow_outside && !stays_inside(value) => {
                return Err(ManifestError::PathOutside {
                    file: file.to_owned(),
                    line,
                    value: value.to_owned(),
                });
            }
            Values::Path(column) | Values::Caption(_, column) | Values::Other(column) => column.push(value),
            Values::Split(column) | Values::Label(column) => column.push(value),
            Values::Start(column) | Values::End(column) if value.trim().is_empty() => column.push(f64::NAN),
            Values::Start(column) | Values::End(column) => {
                let seconds: f64 = value.trim().parse().map_err(|_| bad("is not a number of seconds"))?;
                if !(seconds.is_finite() && seconds >= 0.0) {
                    return Err(bad("is not a time: it must be finite and at least 0"));
                }
                column.push(seconds);
            }
        }
        Ok(())
    }

    /// Completes a row: columns that it did not mention get "none".
    fn end_row(&mut self, line: u64) {
        self.rows += 1;
        self.lines.push(u32::try_from(line).unwrap_or(u32::MAX));
        for Column { values, .. } in &mut self.columns {
            if values.len() < self.rows {
                push_none(values);
            }
        }
    }

    fn finish(self, root: PathBuf) -> Result<Manifest, ManifestError> {
        if self.rows == 0 {
            return Err(ManifestError::Empty { file: self.file.to_owned() });
        }
        let mut manifest = Manifest {
            file: self.file.to_owned(),
            root,
            lines: self.lines,
            paths: TextColumn::default(),
            splits: None,
            labels: None,
            classes: Classes::default(),
            captions: Vec::new(),
            starts: Vec::new(),
            ends: Vec::new(),
            others: Vec::new(),
        };
        let mut captions = Vec::new();
        for Column { name, values } in self.columns {
            match values {
                Values::Path(column) => manifest.paths = column,
                Values::Split(column) => manifest.splits = Some(column),
                Values::Label(column) => manifest.labels = Some(column),
                Values::Caption(number, column) => captions.push((number, column)),
                Values::Start(column) => manifest.starts = column,
                Values::End(column) => manifest.ends = column,
                Values::Other(column) => manifest.others.push((name, column)),
            }
        }
        captions.sort_by_key(|(number, _)| *number);
        manifest.captions = captions.into_iter().map(|(_, column)| column).collect();
        let texts = manifest.captions.iter_mut().chain(manifest.others.iter_mut().map(|(_, column)| column));
        texts.chain([&mut manifest.paths]).for_each(TextColumn::shrink);
        number_classes(&mut manifest, self.options.classes.as_ref())?;
        check_ranges(&mut manifest)?;
        Ok(manifest)
    }
}

fn push_none(values: &mut Values) {
    match values {
        Values::Path(column) | Values::Caption(_, column) | Values::Other(column) => column.push(""),
        Values::Split(column) | Values::Label(column) => column.push(""),
        Values::Start(column) | Values::End(column) => column.push(f64::NAN),
    }
}

/// Replaces the order in which the labels appeared by the order of the classes.
fn number_classes(manifest: &mut Manifest, prescribed: Option<&Classes>) -> Result<(), ManifestError> {
    let Some(labels) = &mut manifest.labels else {
        manifest.classes = prescribed.cloned().unwrap_or_default();
        return Ok(());
    };
    let classes = prescribed.cloned().unwrap_or_else(|| Classes::sorted(labels.names()));
    let unknown = |label: &String| ManifestError::UnknownClass {
        file: manifest.file.clone(),
        label: label.clone(),
        classes: classes.len(),
    };
    let index: std::collections::HashMap<&str, u32> =
        classes.names().iter().enumerate().map(|(index, name)| (name.as_str(), index as u32)).collect();
    let order =
        labels.names().iter().map(|name| index.get(name.as_str()).copied().ok_or_else(|| unknown(name)));
    let order = order.collect::<Result<Vec<u32>, _>>()?;
    labels.renumber(&order, classes.names().to_vec());
    manifest.classes = classes;
    Ok(())
}

/// An end must come after its start. Columns without any value are dropped.
fn check_ranges(manifest: &mut Manifest) -> Result<(), ManifestError> {
    for column in [&mut manifest.starts, &mut manifest.ends] {
        if column.iter().all(|seconds| seconds.is_nan()) {
            *column = Vec::new();
        }
    }
    for row in manifest.rows() {
        let Some(end) = row.end() else { continue };
        if end <= row.start().unwrap_or(0.0) {
            return Err(ManifestError::BadValue {
                file: manifest.file.clone(),
                line: row.line(),
                column: "end".to_owned(),
                value: end.to_string(),
                problem: "is not after the start",
            });
        }
    }
    Ok(())
}
