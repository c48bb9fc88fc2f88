//! Diving48 with the labels of its second version; the first ones are refused.

use std::path::Path;

use super::files::{Files, json};
use super::{Dataset, DatasetError, Entry, Layout};

/// An item of the lists. Its frame numbers count within the trimmed video, which is used whole.
#[derive(serde::Deserialize)]
struct Item {
    vid_name: String,
    label: usize,
}

pub(super) fn read(folder: &Path) -> Result<Layout, DatasetError> {
    let mut files = Files::new(folder);
    let first_version = files.annotation_if_any(&["Diving48_train.json", "Diving48_test.json"]);
    let find = |what: &str, name: &str| {
        let found = files.annotation(what, &[name]);
        // Both versions side by side are fine: only the second is read.
        match (found, &first_version) {
            (Err(DatasetError::Missing { .. }), Some(file)) => {
                Err(DatasetError::Diving48V1 { file: file.clone() })
            }
            (found, _) => found,
        }
    };
    let lists = [
        ("train", find("list of training clips", "Diving48_V2_train.json")?),
        ("test", find("list of test clips", "Diving48_V2_test.json")?),
    ];
    let vocabulary = files.annotation("table of classes", &["Diving48_vocab.json"])?;
    let mut layout = Layout::new(Dataset::Diving48, folder);
    // A class is a combination of take-off, somersaults, twists and position.
    let classes: Vec<Vec<String>> = json(&vocabulary)?;
    layout.classes = classes.iter().map(|parts| parts.join("+")).collect();
    for (part, list) in &lists {
        for (index, item) in json::<Vec<Item>>(list)?.into_iter().enumerate() {
            let Some(label) = layout.classes.get(item.label) else {
                let problem =
                    format!("{}: label {} of {} classes", item.vid_name, item.label, layout.classes.len());
                return Err(DatasetError::format(list, index + 1, problem));
            };
            let candidates =
                ["rgb", "videos", "."].map(|place| format!("{place}/{}.mp4", item.vid_name)).to_vec();
            let label = label.clone();
            layout.entries.push(Entry { path: files.video(&candidates), part, label, ..Entry::default() });
        }
    }
    Ok(layout)
}
