//! Something-Something v2. Its test list has no labels: what papers call test is the validation list.

use std::collections::BTreeMap;
use std::path::Path;

use super::files::{Files, json};
use super::{Dataset, DatasetError, Entry, Layout};

/// Classes that mirroring exchanges: pulling and pushing from left to right or right to left, turning the camera left or
/// right (mmaction2's configuration).
pub(super) const MIRRORED: [(u32, u32); 3] = [(86, 87), (93, 94), (166, 167)];

/// An item of `train.json` and `validation.json`.
#[derive(serde::Deserialize)]
struct Item {
    id: String,
    label: String,
    template: String,
}

pub(super) fn read(folder: &Path) -> Result<Layout, DatasetError> {
    let mut files = Files::new(folder);
    let named = |part: &str| {
        [format!("labels/{part}.json"), format!("something-something-v2-{part}.json"), format!("{part}.json")]
    };
    let find = |part: &str, what: &str| {
        let names = named(part);
        files.annotation(what, &names.each_ref().map(String::as_str))
    };
    let class_file = find("labels", "table of classes")?;
    let lists = [
        ("train", find("train", "list of training clips")?),
        ("validation", find("validation", "list of validation clips")?),
    ];
    let mut layout = Layout::new(Dataset::Ssv2, folder);
    layout.classes = classes(&class_file)?;
    let known: std::collections::HashSet<String> = layout.classes.iter().cloned().collect();
    for (part, list) in &lists {
        for (index, item) in json::<Vec<Item>>(list)?.into_iter().enumerate() {
            // `Putting [something] on [something]` is the class `Putting something on something`.
            let label = item.template.replace(['[', ']'], "");
            if !known.contains(&label) {
                let problem = format!("clip {}: no class `{label}` in {}", item.id, class_file.display());
                return Err(DatasetError::format(list, index + 1, problem));
            }
            let folders = ["20bn-something-something-v2", "videos", "."];
            let candidates: Vec<String> = folders
                .iter()
                .flat_map(|folder| ["webm", "mp4"].map(|ending| format!("{folder}/{}.{ending}", item.id)))
                .collect();
            let path = files.video(&candidates);
            layout.entries.push(Entry { path, part, label, caption: Some(item.label), ..Entry::default() });
        }
    }
    Ok(layout)
}

/// The names in the order of the numbers that the file gives them, as text.
fn classes(file: &Path) -> Result<Vec<String>, DatasetError> {
    let table: BTreeMap<String, String> = json(file)?;
    let mut classes: Vec<(usize, String)> = Vec::with_capacity(table.len());
    for (name, number) in table {
        let number = number.parse();
        let number = number.map_err(|_| DatasetError::format(file, 0, format!("`{name}` has no number")))?;
        classes.push((number, name));
    }
    classes.sort();
    if let Some((place, (number, name))) =
        classes.iter().enumerate().find(|(place, (number, _))| place != number)
    {
        let problem = format!("class numbers are not 0, 1, 2, …: `{name}` has {number} where {place} is due");
        return Err(DatasetError::format(file, 0, problem));
    }
    Ok(classes.into_iter().map(|(_, name)| name).collect())
}
