//! UCF101 with its three official splits.

use std::path::Path;

use super::files::{Files, lines, text};
use super::{Dataset, DatasetError, Entry, Layout};

pub(super) fn read(folder: &Path, split: usize) -> Result<Layout, DatasetError> {
    let mut files = Files::new(folder);
    let find = |what: &str, name: String| {
        let places = [format!("ucfTrainTestlist/{name}"), name];
        files.annotation(what, &places.each_ref().map(String::as_str))
    };
    let class_file = find("table of classes", "classInd.txt".into())?;
    let lists = [
        ("train", find("list of training clips", format!("trainlist{split:02}.txt"))?),
        ("test", find("list of test clips", format!("testlist{split:02}.txt"))?),
    ];
    let mut layout = Layout::new(Dataset::Ucf101, folder);
    layout.classes = classes(&class_file)?;
    for (part, list) in &lists {
        for (number, line) in lines(&text(list)?) {
            let bad = |problem: String| DatasetError::format(list, number, problem);
            // Only the training list has the class number, from 1; the folder names the class in both.
            let (path, index) =
                line.split_once(' ').map_or((line, None), |(path, index)| (path, Some(index.trim())));
            let label = path.split('/').next().unwrap_or_default();
            let position = layout.classes.iter().position(|class| class == label);
            let position =
                position.ok_or_else(|| bad(format!("no class `{label}` in {}", class_file.display())))?;
            if let Some(index) = index
                && index.parse() != Ok(position + 1)
            {
                return Err(bad(format!(
                    "`{label}` is class {}, not {index}: another classInd.txt?",
                    position + 1
                )));
            }
            let candidates = ["UCF-101/", "UCF101/", "videos/", ""].map(|place| format!("{place}{path}"));
            layout.entries.push(Entry {
                path: files.video(&candidates),
                part,
                label: label.to_owned(),
                ..Entry::default()
            });
        }
    }
    Ok(layout)
}

/// Lines `1 ApplyEyeMakeup`.
fn classes(file: &Path) -> Result<Vec<String>, DatasetError> {
    let mut classes = Vec::new();
    for (number, line) in lines(&text(file)?) {
        let (index, name) = line.split_once(' ').ok_or_else(|| {
            DatasetError::format(file, number, format!("`{line}`: expected `number class`"))
        })?;
        if index.parse() != Ok(classes.len() + 1) {
            return Err(DatasetError::format(file, number, format!("class {index} out of order")));
        }
        classes.push(name.trim().to_owned());
    }
    Ok(classes)
}
