//! HMDB51 with its three official splits: a file per class and split, whose lines end in 1 (train), 2 (test) or 0 (unused).

use std::fs;
use std::path::Path;

use super::files::{Files, lines, text};
use super::{Dataset, DatasetError, Entry, Layout};

const FOLDERS: [&str; 4] =
    ["testTrainMulti_7030_splits", "test_train_splits/testTrainMulti_7030_splits", "splits", "."];

pub(super) fn read(folder: &Path, split: usize) -> Result<Layout, DatasetError> {
    let mut files = Files::new(folder);
    let ending = format!("_test_split{split}.txt");
    let (place, classes) = FOLDERS
        .iter()
        .map(|place| (place, classes(&folder.join(place), &ending)))
        .find(|(_, classes)| !classes.is_empty())
        .ok_or_else(|| DatasetError::Missing {
            folder: folder.to_owned(),
            what: format!("list of split {split}"),
            tried: FOLDERS.iter().map(|place| format!("{place}/CLASS{ending}")).collect(),
        })?;
    let mut layout = Layout::new(Dataset::Hmdb51, folder);
    for class in &classes {
        let list = folder.join(place).join(format!("{class}{ending}"));
        for (number, line) in lines(&text(&list)?) {
            let bad = || DatasetError::format(&list, number, format!("`{line}`: expected `file 0|1|2`"));
            // File names have spaces and brackets in some copies: the number is the last word.
            let (name, part) = line.rsplit_once(' ').ok_or_else(bad)?;
            let part = match part {
                "0" => continue,
                "1" => "train",
                "2" => "test",
                _ => return Err(bad()),
            };
            let candidates = ["", "videos/", "hmdb51/", "hmdb51_org/"]
                .map(|place| format!("{place}{class}/{}", name.trim()));
            layout.entries.push(Entry {
                path: files.video(&candidates),
                part,
                label: class.clone(),
                ..Entry::default()
            });
        }
    }
    layout.classes = classes;
    Ok(layout)
}

/// The classes that have a file of this split, in alphabetical order.
fn classes(folder: &Path, ending: &str) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    let mut classes: Vec<String> =
        names.filter_map(|name| Some(name.strip_suffix(ending)?.to_owned())).collect();
    classes.sort();
    classes
}
