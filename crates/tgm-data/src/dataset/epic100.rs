//! EPIC-KITCHENS-100, action recognition: cuts of hour-long videos, each with a verb and a noun.
//!
//! Cuts are by *time*. The frame numbers in the same files count at 50 or 59.94 frames per second, whatever the copy of the
//! video has; used on a re-encoded copy they cut something else, without any error.

use std::path::Path;

use super::files::{Files, csv};
use super::{Dataset, DatasetError, Entry, Layout};

/// A row of the lists.
#[derive(serde::Deserialize)]
struct Row {
    participant_id: String,
    video_id: String,
    start_timestamp: String,
    stop_timestamp: String,
    narration: String,
    verb_class: usize,
    noun_class: usize,
}

/// A row of the class tables.
#[derive(serde::Deserialize)]
struct Class {
    id: usize,
    key: String,
}

pub(super) fn read(folder: &Path) -> Result<Layout, DatasetError> {
    let mut files = Files::new(folder);
    let find = |what: &str, names: &[&str]| files.annotation(what, names);
    let lists = [
        ("train", find("list of training clips", &["EPIC_100_train.csv"])?),
        ("validation", find("list of validation clips", &["EPIC_100_validation.csv"])?),
    ];
    let verbs = find("table of verbs", &["EPIC_100_verb_classes.csv"])?;
    let nouns = find("table of nouns", &["EPIC_100_noun_classes.csv", "EPIC_100_noun_classes_v2.csv"])?;
    let mut layout = Layout::new(Dataset::Epic100, folder);
    layout.classes = classes(&verbs)?;
    layout.nouns = classes(&nouns)?;
    for (part, list) in &lists {
        for (index, row) in csv::<Row>(list)?.into_iter().enumerate() {
            let line = index + 2;
            let name = |table: &[String], class: usize, what: &str| {
                table.get(class).cloned().ok_or_else(|| {
                    DatasetError::format(list, line, format!("{what} class {class} of {}", table.len()))
                })
            };
            let seconds = |text: &str| {
                seconds(text)
                    .ok_or_else(|| DatasetError::format(list, line, format!("`{text}` is not hh:mm:ss.ss")))
            };
            let (person, video) = (&row.participant_id, &row.video_id);
            let folders = [
                format!("{person}/videos/"),
                format!("EPIC-KITCHENS/{person}/videos/"),
                "videos/".into(),
                format!("{person}/"),
                String::new(),
            ];
            let candidates: Vec<String> = folders
                .iter()
                .flat_map(|folder| ["MP4", "mp4"].map(|ending| format!("{folder}{video}.{ending}")))
                .collect();
            layout.entries.push(Entry {
                path: files.video(&candidates),
                part,
                label: name(&layout.classes, row.verb_class, "verb")?,
                noun: Some(name(&layout.nouns, row.noun_class, "noun")?),
                caption: Some(row.narration),
                start: Some(seconds(&row.start_timestamp)?),
                end: Some(seconds(&row.stop_timestamp)?),
            });
        }
    }
    Ok(layout)
}

/// `00:01:02.50` in seconds.
fn seconds(text: &str) -> Option<f64> {
    let mut parts = text.trim().split(':').map(|part| part.parse::<f64>().ok().filter(|part| *part >= 0.0));
    let (hours, minutes, seconds) = (parts.next()??, parts.next()??, parts.next()??);
    parts.next().is_none().then_some(3600.0 * hours + 60.0 * minutes + seconds)
}

/// Names in the order of their numbers, which begin at 0 and leave none out.
fn classes(file: &Path) -> Result<Vec<String>, DatasetError> {
    let mut classes: Vec<Class> = csv(file)?;
    classes.sort_by_key(|class| class.id);
    if let Some((place, class)) = classes.iter().enumerate().find(|(place, class)| *place != class.id) {
        let problem = format!(
            "class numbers are not 0, 1, 2, …: `{}` has {} where {place} is due",
            class.key, class.id
        );
        return Err(DatasetError::format(file, 0, problem));
    }
    Ok(classes.into_iter().map(|class| class.key).collect())
}

#[cfg(test)]
mod tests {
    use super::seconds;

    #[test]
    fn time_stamps_are_hours_minutes_and_seconds() {
        assert_eq!(seconds("01:02:03.50"), Some(3723.5));
        assert_eq!(seconds("00:00:00.00"), Some(0.0));
        for bad in ["", "12", "1:2", "1:2:3:4", "a:b:c", "-1:0:0"] {
            assert_eq!(seconds(bad), None, "{bad}");
        }
    }
}
