//! Tar archives as a manifest, in WebDataset's layout.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;

use rayon::prelude::*;
use serde_json::{Map, Value};

use super::ManifestError;
use super::table::{Table, caption_column};
use crate::archive::{self, ArchiveError, Member, Sample, Shards};

/// A video of an archive, and its values by column.
struct Described {
    video: Member,
    values: Vec<(String, String)>,
}

/// Archives that are listed before their rows are kept: enough for all cores, and not all of them in memory.
const AT_ONCE: usize = 64;

/// Most bytes of what is said about one video.
const TEXT_LIMIT: u64 = 1 << 20;

impl Table<'_> {
    /// Adds a row for each video of these archives: archive by archive, in the order of each.
    pub(super) fn read_shards(&mut self, shards: &Shards) -> Result<(), ManifestError> {
        for some in shards.paths.chunks(AT_ONCE) {
            let read: Vec<_> = some.par_iter().map(|path| describe_all(&shards.folder.join(path))).collect();
            for (path, described) in some.iter().zip(read) {
                let file = shards.folder.join(path);
                let archive = self.places.archive(file.clone());
                for described in described? {
                    self.push_described(path, &file, archive, &described)?;
                }
            }
        }
        Ok(())
    }

    fn push_described(
        &mut self,
        path: &str,
        file: &Path,
        archive: u32,
        described: &Described,
    ) -> Result<(), ManifestError> {
        let Described { video, values } = described;
        self.places.set(self.rows, archive, video);
        let line = self.rows as u64 + 1;
        let column = self.column("path")?;
        self.push(column, &format!("{path}/{}", video.name), line)?;
        for (name, value) in values {
            let column = self.column(name)?;
            self.push(column, value, line).map_err(|error| match error {
                // There are no lines that could be named.
                ManifestError::BadValue { column, value, problem, .. } => {
                    text_error(file, video, format!("has a bad `{column}` beside it: `{value}` {problem}"))
                        .into()
                }
                other => other,
            })?;
        }
        self.end_row(line);
        Ok(())
    }
}

fn describe_all(archive: &Path) -> Result<Vec<Described>, ArchiveError> {
    let members = archive::list(archive)?;
    let unreadable = |source| ArchiveError::Read { archive: archive.to_owned(), source };
    let mut content = File::open(archive).map_err(unreadable)?;
    archive::samples(&members).into_iter().map(|sample| describe(&sample, &mut content, archive)).collect()
}

/// Reads what is said about a video. A class file counts before the label in the JSON; captions come from both texts.
fn describe(sample: &Sample<'_>, content: &mut File, archive: &Path) -> Result<Described, ArchiveError> {
    let mut read = |member: Option<&Member>| -> Result<Option<String>, ArchiveError> {
        member.map(|member| text(content, member, archive)).transpose()
    };
    let (class, lines, json) = (read(sample.class)?, read(sample.text)?, read(sample.json)?);
    let class = class.map(|class| class.trim().to_owned()).filter(|class| !class.is_empty());
    let lines = lines.unwrap_or_default();
    let lines = lines.lines().map(str::trim).filter(|line| !line.is_empty());
    let mut captions: Vec<String> = lines.map(str::to_owned).collect();
    let mut values: Vec<_> = class.into_iter().map(|class| ("label".to_owned(), class)).collect();
    let has_class = !values.is_empty();
    let json = json.map(|json| object(&json, sample.json, archive)).transpose()?;
    for (name, value) in json.into_iter().flatten() {
        // Further lists and objects are the business of other programs.
        let value = match value {
            Value::String(value) => value,
            Value::Number(_) | Value::Bool(_) => value.to_string(),
            Value::Null | Value::Array(_) | Value::Object(_) => continue,
        };
        match name.as_str() {
            "path" => {}
            "label" if has_class => {}
            name if is_caption(name) => {
                if !captions.contains(&value) {
                    captions.push(value);
                }
            }
            _ => values.push((name, value)),
        }
    }
    for (number, caption) in (1..).zip(captions) {
        values.push((caption_column(number), caption));
    }
    Ok(Described { video: sample.video.clone(), values })
}

fn is_caption(column: &str) -> bool {
    let number = column.strip_prefix("caption_").map(str::parse::<u32>);
    column == "caption" || number.is_some_and(|number| number.is_ok())
}

fn object(json: &str, member: Option<&Member>, archive: &Path) -> Result<Map<String, Value>, ArchiveError> {
    serde_json::from_str(json).map_err(|error| ArchiveError::Text {
        archive: archive.to_owned(),
        member: member.map_or_else(String::new, |member| member.name.clone()),
        problem: format!("is no JSON object: {error}"),
    })
}

/// The content of a member that is a text.
fn text(content: &mut (impl Read + Seek), member: &Member, archive: &Path) -> Result<String, ArchiveError> {
    if member.length > TEXT_LIMIT {
        let problem = format!("has {} bytes; at most {TEXT_LIMIT} are read about a video", member.length);
        return Err(text_error(archive, member, problem));
    }
    let mut bytes = Vec::with_capacity(member.length as usize);
    let mut read = || -> io::Result<usize> {
        content.seek(SeekFrom::Start(member.start))?;
        content.take(member.length).read_to_end(&mut bytes)
    };
    read().map_err(|source| ArchiveError::Read { archive: archive.to_owned(), source })?;
    String::from_utf8(bytes).map_err(|_| text_error(archive, member, "is not UTF-8".to_owned()))
}

fn text_error(archive: &Path, member: &Member, problem: String) -> ArchiveError {
    ArchiveError::Text { archive: archive.to_owned(), member: member.name.clone(), problem }
}
