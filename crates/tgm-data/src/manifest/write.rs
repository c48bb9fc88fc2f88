//! From rows back to a CSV or JSON Lines file.

use std::borrow::Cow;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;

use serde_json::{Map, Value};

use super::{ManifestError, Row, absolute_folder};

/// A row to be written: one of an existing manifest ([`Row::record`]), changed as needed, or a new one.
///
/// Empty texts and `None` are written as nothing, as they are read.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Record<'a> {
    /// Path of the video, relative to the folder of the manifest that is written.
    pub path: Cow<'a, str>,
    /// The split.
    pub split: Cow<'a, str>,
    /// The class name.
    pub label: Cow<'a, str>,
    /// Captions, in order; they become `caption`, `caption_2`, `caption_3`, …
    pub captions: Vec<Cow<'a, str>>,
    /// Seconds from the first frame.
    pub start: Option<f64>,
    /// Seconds from the first frame.
    pub end: Option<f64>,
    /// Further columns, by name.
    pub others: Vec<(Cow<'a, str>, Cow<'a, str>)>,
}

impl<'a> Row<'a> {
    /// This row with everything it has, to be written to a manifest in the folder of `file`.
    ///
    /// The path stays as it is when that folder is the one of this row's manifest. Else it is made relative to the new
    /// folder where the video lies below it, and absolute where not: such a manifest is read with
    /// [`allow_outside`](super::ManifestOptions::allow_outside).
    ///
    /// # Errors
    /// [`ManifestError::Write`] when `file` is a relative path and there is no working directory.
    pub fn record(&self, file: &Path) -> Result<Record<'a>, ManifestError> {
        let folder =
            absolute_folder(file).map_err(|source| ManifestError::Write { file: file.to_owned(), source })?;
        // `clips/../clips` is `clips`.
        let real = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_owned());
        let (folder, root) = (real(&folder), real(&self.manifest.root));
        let path = if folder == root {
            Cow::Borrowed(self.path())
        } else {
            let below = root.join(self.path()).strip_prefix(&folder).map(Path::to_owned);
            let path = below.unwrap_or_else(|_| self.manifest.root.join(self.path()));
            Cow::Owned(path.to_string_lossy().into_owned())
        };
        let others = self.manifest.other_columns();
        Ok(Record {
            path,
            split: self.split().unwrap_or_default().into(),
            label: self.label_name().unwrap_or_default().into(),
            captions: self.captions().map(Cow::Borrowed).collect(),
            start: self.start(),
            end: self.end(),
            others: others.map(|name| (name.into(), self.other(name).unwrap_or_default().into())).collect(),
        })
    }
}

/// Writes a manifest: JSON Lines when the file is named `.jsonl`, `.ndjson` or `.json`, else CSV.
///
/// The records are gone through twice, first for the columns, so that a million of them need not lie in memory. The file is
/// written beside its place and renamed: whoever reads it sees the old content or the new.
///
/// ```
/// use tgm_data::manifest::{Manifest, Record, write_manifest};
///
/// # let dir = tempfile::tempdir()?;
/// # let (old, new) = (dir.path().join("old.csv"), dir.path().join("new.csv"));
/// # std::fs::write(&old, "path,source\na.mp4,here\nb.mp4,there\n")?;
/// let manifest = Manifest::load(&old)?;
/// let captioned = manifest.rows().map(|row| {
///     Ok(Record { captions: vec![format!("video number {}", row.index()).into()], ..row.record(&new)? })
/// });
/// write_manifest(&new, captioned)?;
/// assert_eq!(std::fs::read_to_string(&new)?, "\
/// path,caption,source
/// a.mp4,video number 0,here
/// b.mp4,video number 1,there
/// ");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// The first error among the records; [`ManifestError::Write`] when the file cannot be written;
/// [`ManifestError::DuplicateColumn`] when a further column has the name of a known one; [`ManifestError::Empty`]
/// when there are no records: nothing is written then.
pub fn write_manifest<'a, I>(file: &Path, records: I) -> Result<(), ManifestError>
where
    I: IntoIterator<Item = Result<Record<'a>, ManifestError>, IntoIter: Clone>,
{
    let records = records.into_iter();
    let columns = Columns::of(file, records.clone())?;
    let failed = |source| ManifestError::Write { file: file.to_owned(), source };
    let mut beside = file.as_os_str().to_owned();
    beside.push(".tmp");
    let mut output = BufWriter::new(File::create(&beside).map_err(failed)?);
    let extension = file.extension().unwrap_or_default();
    if ["jsonl", "ndjson", "json"].iter().any(|known| extension == *known) {
        for record in records {
            columns.write_json(&record?, &mut output).map_err(failed)?;
        }
    } else {
        let mut csv = csv::Writer::from_writer(&mut output);
        csv.write_record(columns.names()).map_err(|error| failed(error.into()))?;
        for record in records {
            csv.write_record(columns.values(&record?)).map_err(|error| failed(error.into()))?;
        }
        csv.flush().map_err(failed)?;
    }
    let written =
        output.into_inner().map_err(io::IntoInnerError::into_error).and_then(|file| file.sync_all());
    written.and_then(|()| std::fs::rename(&beside, file)).map_err(failed)
}

/// The columns in which some record has a value, `path` always.
#[derive(Default)]
struct Columns {
    split: bool,
    label: bool,
    captions: usize,
    start: bool,
    end: bool,
    others: Vec<String>,
}

impl Columns {
    fn of<'a>(
        file: &Path,
        records: impl Iterator<Item = Result<Record<'a>, ManifestError>>,
    ) -> Result<Self, ManifestError> {
        let mut columns = Self::default();
        let mut empty = true;
        for record in records {
            let record = record?;
            empty = false;
            columns.split |= !record.split.is_empty();
            columns.label |= !record.label.is_empty();
            columns.captions = columns.captions.max(record.captions.len());
            columns.start |= record.start.is_some();
            columns.end |= record.end.is_some();
            for (name, value) in &record.others {
                if !value.is_empty() && !columns.others.iter().any(|known| known == name) {
                    columns.others.push(name.clone().into_owned());
                }
            }
        }
        let known = Self { split: true, label: true, start: true, end: true, others: Vec::new(), ..columns };
        let names = known.names();
        if let Some(column) = columns.others.iter().find(|other| names.contains(other)) {
            return Err(ManifestError::DuplicateColumn { file: file.to_owned(), column: column.clone() });
        }
        if empty { Err(ManifestError::Empty { file: file.to_owned() }) } else { Ok(columns) }
    }

    fn names(&self) -> Vec<String> {
        let mut names = vec!["path".to_owned()];
        let mut add = |there: bool, name: &str| names.extend(there.then(|| name.to_owned()));
        add(self.split, "split");
        add(self.label, "label");
        add(self.captions > 0, "caption");
        (2..=self.captions).for_each(|number| add(true, &format!("caption_{number}")));
        add(self.start, "start");
        add(self.end, "end");
        self.others.iter().for_each(|name| add(true, name));
        names
    }

    /// The values of a record, in the order of [`Self::names`].
    fn values(&self, record: &Record<'_>) -> Vec<String> {
        let seconds = |time: Option<f64>| time.map_or_else(String::new, |seconds| seconds.to_string());
        let mut values = vec![record.path.to_string()];
        let mut add = |there: bool, value: String| values.extend(there.then_some(value));
        add(self.split, record.split.to_string());
        add(self.label, record.label.to_string());
        for number in 0..self.captions {
            add(true, record.captions.get(number).map_or_else(String::new, ToString::to_string));
        }
        add(self.start, seconds(record.start));
        add(self.end, seconds(record.end));
        for name in &self.others {
            let value = record.others.iter().find(|(other, _)| other == name);
            add(true, value.map_or_else(String::new, |(_, value)| value.to_string()));
        }
        values
    }

    fn write_json(&self, record: &Record<'_>, output: &mut impl Write) -> io::Result<()> {
        let values = self.names().into_iter().zip(self.values(record));
        let mut object: Map<String, Value> =
            values.filter(|(_, value)| !value.is_empty()).map(|(name, value)| (name, value.into())).collect();
        // Times are numbers in JSON.
        for (name, time) in [("start", record.start), ("end", record.end)] {
            if let Some(seconds) = time {
                object.insert(name.to_owned(), seconds.into());
            }
        }
        serde_json::to_writer(&mut *output, &object)?;
        output.write_all(b"\n")
    }
}
