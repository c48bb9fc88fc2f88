//! Kinetics-400: the official lists with a header, or VideoMAE's `path label` lists.

use std::path::Path;

use super::files::{Files, lines, text};
use super::{Dataset, DatasetError, Entry, Layout};

pub(super) fn read(folder: &Path) -> Result<Layout, DatasetError> {
    let mut files = Files::new(folder);
    let lists = [
        ("train", files.annotation("list of training clips", &["train.csv", "kinetics400_train.csv"])?),
        (
            "val",
            files.annotation("list of validation clips", &["val.csv", "validate.csv", "validation.csv"])?,
        ),
    ];
    let mut layout = Layout::new(Dataset::K400, folder);
    for (part, list) in &lists {
        let content = text(list)?;
        let header = content.lines().next().unwrap_or_default();
        let entries = if header.split(',').any(|column| column.trim().trim_matches('"') == "youtube_id") {
            official(list, part, &mut files)?
        } else {
            paths_and_labels(list, &content, part)?
        };
        layout.entries.extend(entries);
    }
    layout.classes = classes(&layout.entries);
    Ok(layout)
}

/// A row of the official lists.
#[derive(serde::Deserialize)]
struct Row {
    label: String,
    youtube_id: String,
    time_start: f64,
    time_end: f64,
}

fn official(list: &Path, part: &'static str, files: &mut Files) -> Result<Vec<Entry>, DatasetError> {
    let entry = |row: Row| {
        let name = format!("{}_{:06}_{:06}", row.youtube_id, row.time_start as u64, row.time_end as u64);
        let label = row.label.trim();
        let folders = [
            part.to_owned(),
            format!("{part}/{label}"),
            format!("{part}/{}", label.replace(' ', "_")),
            format!("videos/{part}"),
            format!("videos_{part}/{}", label.replace(' ', "_")),
            "replacement/replacement_for_corrupted_k400".to_owned(),
        ];
        let candidates: Vec<String> = folders
            .iter()
            .flat_map(|folder| ["mp4", "mkv", "webm"].map(|ending| format!("{folder}/{name}.{ending}")))
            .collect();
        Entry { path: files.video(&candidates), part, label: label.to_owned(), ..Entry::default() }
    };
    Ok(super::files::csv::<Row>(list)?.into_iter().map(entry).collect())
}

/// `path label` without a header. The label is what follows the *last* separator: class folders have spaces in their names,
/// and a reader that splits at the first one takes the second word for the label.
fn paths_and_labels(list: &Path, content: &str, part: &'static str) -> Result<Vec<Entry>, DatasetError> {
    let entry = |(number, line): (usize, &str)| {
        let bad = |problem: &str| DatasetError::format(list, number, format!("`{line}`: {problem}"));
        let (path, label) = line.rsplit_once([' ', '\t', ',']).ok_or_else(|| bad("expected `path label`"))?;
        if label.parse::<u32>().is_err() {
            return Err(bad("the label must be a class number"));
        }
        Ok(Entry { path: path.trim().to_owned(), part, label: label.to_owned(), ..Entry::default() })
    };
    lines(content).map(entry).collect()
}

/// The official order is alphabetical; numbers keep their values.
fn classes(entries: &[Entry]) -> Vec<String> {
    let mut names: Vec<String> = entries.iter().map(|entry| entry.label.clone()).collect();
    names.sort_by_key(|name| (name.parse::<u32>().ok(), name.clone()));
    names.dedup();
    names
}
