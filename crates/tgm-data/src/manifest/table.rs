//! The columns of a manifest while they are filled.

use std::path::{Path, PathBuf};

use super::column::{CategoryColumn, TextColumn};
use super::places::Places;
use super::{Classes, Manifest, ManifestError, ManifestOptions, Record, stays_inside};

/// Far more columns than anybody has: rows that each bring their own would fill the memory.
const MOST_COLUMNS: usize = 1000;

/// The manifest while it is read.
pub(super) struct Table<'a> {
    pub file: &'a Path,
    options: &'a ManifestOptions,
    pub rows: usize,
    lines: Vec<u32>,
    pub columns: Vec<Column>,
    /// Of the rows that are members of archives, as far as it is known already.
    pub places: Places,
}

pub(super) struct Column {
    pub name: String,
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

impl<'a> Table<'a> {
    pub(super) fn new(file: &'a Path, options: &'a ManifestOptions) -> Self {
        Self { file, options, rows: 0, lines: Vec::new(), columns: Vec::new(), places: Places::default() }
    }

    pub(super) fn push_record(&mut self, record: &Record<'_>, line: u64) -> Result<(), ManifestError> {
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
            let column = self.column(name)?;
            self.push(column, value, line)?;
        }
        for (number, caption) in (1..).zip(&record.captions) {
            let column = self.column(&caption_column(number))?;
            self.push(column, caption, line)?;
        }
        for (name, value) in &record.others {
            let column = self.column(name)?;
            self.push(column, value, line)?;
        }
        self.end_row(line);
        Ok(())
    }

    /// The column of a key; a new key makes a new column, empty in the rows so far.
    ///
    /// # Errors
    /// [`ManifestError::TooManyColumns`].
    pub(super) fn column(&mut self, name: &str) -> Result<usize, ManifestError> {
        if let Some(column) = self.columns.iter().position(|column| column.name == name) {
            return Ok(column);
        }
        if self.columns.len() == MOST_COLUMNS {
            let (file, column) = (self.file.to_owned(), name.to_owned());
            return Err(ManifestError::TooManyColumns { file, column, most: MOST_COLUMNS });
        }
        self.add_column(name);
        let added = self.columns.len() - 1;
        let Column { values, .. } = &mut self.columns[added];
        for _ in 0..self.rows {
            push_none(values);
        }
        Ok(added)
    }

    /// Adds a column without values.
    pub(super) fn add_column(&mut self, name: &str) {
        self.columns.push(Column { name: name.to_owned(), values: Values::new(name) });
    }

    /// Adds a row of a video and its captions.
    pub(super) fn push_video(&mut self, path: &str, captions: &[String]) -> Result<(), ManifestError> {
        let line = self.rows as u64 + 1;
        let column = self.column("path")?;
        self.push(column, path, line)?;
        for (number, caption) in (1..).zip(captions) {
            let column = self.column(&caption_column(number))?;
            self.push(column, caption, line)?;
        }
        self.end_row(line);
        Ok(())
    }

    pub(super) fn require_path(&self) -> Result<(), ManifestError> {
        if self.columns.iter().any(|column| matches!(column.values, Values::Path(_))) {
            return Ok(());
        }
        let found = self.columns.iter().map(|column| column.name.clone()).collect();
        Err(ManifestError::MissingColumn { file: self.file.to_owned(), column: "path".to_owned(), found })
    }

    pub(super) fn push(&mut self, column: usize, value: &str, line: u64) -> Result<(), ManifestError> {
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
    pub(super) fn end_row(&mut self, line: u64) {
        self.rows += 1;
        self.lines.push(u32::try_from(line).unwrap_or(u32::MAX));
        for Column { values, .. } in &mut self.columns {
            if values.len() < self.rows {
                push_none(values);
            }
        }
    }

    pub(super) fn finish(mut self, root: PathBuf) -> Result<Manifest, ManifestError> {
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
            places: Places::default(),
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
        if self.places.is_empty() {
            self.places = Places::find(&manifest.root, &manifest.paths)?;
        }
        self.places.shrink();
        manifest.places = self.places;
        number_classes(&mut manifest, self.options.classes.as_ref())?;
        check_ranges(&mut manifest)?;
        Ok(manifest)
    }
}

/// The column of the caption with this number, from 1.
pub(super) fn caption_column(number: u32) -> String {
    if number == 1 { "caption".to_owned() } else { format!("caption_{number}") }
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
