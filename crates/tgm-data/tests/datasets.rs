//! The public data sets: their formats to the letter, and every trap that people fell into, by name.

#[path = "common/miniature.rs"]
mod miniature;

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};

use miniature::put;
use tgm_data::dataset::{Dataset, DatasetError, Flip, Layout, mirror_caption};

fn write(dataset: Dataset, folder: &Path) {
    miniature::write(dataset.name(), folder, &|path, _| fs::write(path, "video").unwrap());
}

fn miniature(dataset: Dataset) -> (tempfile::TempDir, Layout) {
    let dir = tempfile::tempdir().unwrap();
    write(dataset, dir.path());
    let layout = dataset.read(dir.path(), 1).unwrap_or_else(|error| panic!("{}: {error}", dataset.name()));
    (dir, layout)
}

/// The facts about labels in the shared data folder.
fn labels() -> Option<PathBuf> {
    let beside = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data");
    let folder = std::env::var_os("TGM_SHARED_DATA").map_or_else(beside, PathBuf::from).join("labels");
    if !folder.is_dir() {
        eprintln!("skipped: no shared data");
        return None;
    }
    Some(folder)
}

fn names(file: &Path) -> Vec<String> {
    fs::read_to_string(file).unwrap().lines().map(|line| line.trim().to_owned()).collect()
}

#[test]
fn every_official_layout_becomes_a_manifest_with_all_videos_found() {
    for dataset in Dataset::ALL {
        let (_dir, layout) = miniature(dataset);
        let spec = dataset.spec();
        let manifest = layout.manifest().unwrap();
        let (train, test) = (manifest.split(spec.train).unwrap(), manifest.split(spec.test).unwrap());
        assert_eq!((train.len(), test.len()), (8, 4), "{}", dataset.name());
        assert_eq!(manifest.classes().len(), 2, "{}", dataset.name());
        manifest.check_files(&train).unwrap();
        manifest.check_files(&test).unwrap();
        assert!(manifest.rows().all(|row| row.label().is_some()));
    }
}

#[test]
fn the_check_says_what_is_missing_and_names_examples() {
    for dataset in Dataset::ALL {
        let (dir, layout) = miniature(dataset);
        let gone = layout.entries[3].path.clone();
        fs::remove_file(dir.path().join(&gone)).unwrap();
        let check = layout.check();
        let find = |what: &str| check.findings.iter().find(|finding| finding.what == what).unwrap();
        assert!(!check.complete());
        assert_eq!((find("classes").expected, find("classes").found), (dataset.spec().classes, 2));
        assert_eq!(find("train clips").found, 8, "{}", dataset.name());
        assert_eq!(find("videos on disk").examples, [gone], "{}", dataset.name());
    }
}

#[test]
fn every_split_of_ucf101_and_hmdb51_is_another_one_and_there_is_no_fourth() {
    for dataset in [Dataset::Ucf101, Dataset::Hmdb51] {
        let (dir, _) = miniature(dataset);
        let test = |split| -> HashSet<String> {
            let layout = dataset.read(dir.path(), split).unwrap();
            layout.part("test").map(|entry| entry.path.clone()).collect()
        };
        assert!(test(1).is_disjoint(&test(2)) && test(2).is_disjoint(&test(3)));
        assert!(matches!(dataset.read(dir.path(), 4), Err(DatasetError::NoSplit { splits: 3, .. })));
    }
}

/// MCG-NJU/mvd issue 4: people scored the official test list, which has no labels, or another folder.
#[test]
fn ssv2_scores_the_validation_list_because_the_test_list_has_no_labels() {
    let (_dir, layout) = miniature(Dataset::Ssv2);
    assert_eq!(Dataset::Ssv2.spec().test, "validation");
    assert!(layout.entries.iter().all(|entry| ["train", "validation"].contains(&entry.part)));
    assert!(layout.entries.iter().all(|entry| !entry.path.ends_with("/1.webm")), "no clip of test.json");
}

#[test]
fn one_list_used_twice_is_refused() {
    let (dir, _) = miniature(Dataset::Ssv2);
    fs::copy(dir.path().join("labels/train.json"), dir.path().join("labels/validation.json")).unwrap();
    let error = Dataset::Ssv2.read(dir.path(), 1).unwrap_err();
    assert!(matches!(&error, DatasetError::Overlap { path, .. } if path.ends_with("1001.webm")), "{error}");
}

/// Only equal texts passed for one clip.
#[test]
fn a_clip_in_both_lists_is_found_however_it_is_spelt() {
    for other in ["./a/1.mp4", "b/../a/1.mp4", "a//1.mp4"] {
        let dir = tempfile::tempdir().unwrap();
        put(dir.path(), "train.csv", "a/1.mp4 0\nb/1.mp4 1\n");
        put(dir.path(), "val.csv", &format!("c/1.mp4 0\n{other} 1\n"));
        let error = Dataset::K400.read(dir.path(), 1).unwrap_err();
        assert!(matches!(&error, DatasetError::Overlap { path, .. } if path == other), "{error}");
    }
}

#[test]
fn ssv2_classes_are_templates_without_brackets_and_captions_are_the_filled_in_labels() {
    let (_dir, layout) = miniature(Dataset::Ssv2);
    assert_eq!(layout.classes[1], "Putting something similar to other things that are already there");
    assert_eq!(layout.entries[0].caption.as_deref(), Some("pulling a cup from left to right"));
}

/// open-mmlab/mmaction2 pull request 835: the first labels of Diving48 are wrong in many places.
#[test]
fn diving48_v1_labels_are_refused() {
    let (dir, _) = miniature(Dataset::Diving48);
    for part in ["train", "test"] {
        let (second, first) = (format!("Diving48_V2_{part}.json"), format!("Diving48_{part}.json"));
        fs::rename(dir.path().join(second), dir.path().join(first)).unwrap();
    }
    let error = Dataset::Diving48.read(dir.path(), 1).unwrap_err();
    assert!(matches!(error, DatasetError::Diving48V1 { .. }), "{error}");
    assert!(error.to_string().contains("Diving48_V2_train.json"), "{error}");
}

/// epic-kitchens-100-annotations issue 34: frame numbers count at another rate than the copy of the video.
#[test]
fn epic_is_cut_by_time_whatever_its_frame_numbers_say() {
    let (dir, layout) = miniature(Dataset::Epic100);
    assert_eq!((layout.entries[0].start, layout.entries[0].end), (Some(0.1), Some(0.6)));
    let list = dir.path().join("EPIC_100_train.csv");
    let text = fs::read_to_string(&list).unwrap();
    fs::write(&list, text.replace(",6,36,", ",99999,99999999,")).unwrap();
    assert_eq!(Dataset::Epic100.read(dir.path(), 1).unwrap(), layout);
}

#[test]
fn epic_classes_are_the_tables_keys_not_the_words_of_the_narrator() {
    let (_dir, layout) = miniature(Dataset::Epic100);
    assert_eq!((layout.entries[0].label.as_str(), layout.entries[0].noun.as_deref()), ("take", Some("tap")));
    let manifest = layout.manifest().unwrap();
    assert_eq!(manifest.row(1).other("noun"), Some("spoon"));
    assert_eq!(manifest.row(0).captions().next(), Some("take, then put"));
}

/// VideoMAE splits its lists at every space, so that `air drumming/x.mp4 2` becomes the label `drumming/x.mp4`.
#[test]
fn space_in_a_path_does_not_become_the_label() {
    let dir = tempfile::tempdir().unwrap();
    put(dir.path(), "train.csv", "train/air drumming/a b.mp4 0\ntrain/zumba/c.mp4 1\n");
    put(dir.path(), "val.csv", "val/air drumming/d.mp4 0\nval/zumba/e.mp4 1\n");
    let layout = Dataset::K400.read(dir.path(), 1).unwrap();
    assert_eq!(layout.entries[0].path, "train/air drumming/a b.mp4");
    assert_eq!((layout.entries[0].label.as_str(), layout.classes.len()), ("0", 2));
    let (_dir, official) = miniature(Dataset::K400);
    assert!(official.entries[0].path.contains("/air drumming/"), "{:?}", official.entries[0]);
    let (_dir, hmdb) = miniature(Dataset::Hmdb51);
    assert!(hmdb.entries[0].path.starts_with("brush_hair/take (#0)_"), "{:?}", hmdb.entries[0]);
}

#[test]
fn same_stem_in_two_folders_stays_two_clips_with_two_labels() {
    let dir = tempfile::tempdir().unwrap();
    put(dir.path(), "train.csv", "a/1.mp4 0\nb/1.mp4 1\n");
    put(dir.path(), "val.csv", "c/1.mp4 0\nd/1.mp4 1\n");
    let manifest = Dataset::K400.read(dir.path(), 1).unwrap().manifest().unwrap();
    let rows: Vec<_> = manifest.rows().map(|row| (row.path().to_owned(), row.label())).collect();
    assert_eq!(rows.len(), 4);
    assert_eq!(rows.iter().map(|(path, _)| path).collect::<HashSet<_>>().len(), 4);
    assert_eq!(rows[1], ("b/1.mp4".to_owned(), Some(1)));
}

#[test]
fn a_class_number_that_contradicts_the_folder_is_another_label_file() {
    let (dir, _) = miniature(Dataset::Ucf101);
    put(dir.path(), "ucfTrainTestlist/trainlist01.txt", "YoYo/v_YoYo_g01_c01.avi 1\n");
    let error = Dataset::Ucf101.read(dir.path(), 1).unwrap_err().to_string();
    assert!(error.contains("trainlist01.txt:1") && error.contains("class 2, not 1"), "{error}");
}

#[test]
fn missing_annotations_name_the_places_that_were_looked_at() {
    for dataset in Dataset::ALL {
        let dir = tempfile::tempdir().unwrap();
        let error = dataset.read(dir.path(), 1).unwrap_err();
        assert!(matches!(error, DatasetError::Missing { .. }), "{error}");
        assert!(error.to_string().contains("looked for"), "{error}");
    }
}

#[test]
fn a_class_that_the_label_file_does_not_have_is_refused() {
    let (dir, _) = miniature(Dataset::Ssv2);
    put(dir.path(), "labels/labels.json", "{\"Pulling something from left to right\":\"0\"}");
    let error = Dataset::Ssv2.read(dir.path(), 1).unwrap_err().to_string();
    assert!(error.contains("no class `Putting something similar"), "{error}");
}

#[test]
fn the_specs_agree_with_the_published_class_tables() {
    let Some(labels) = labels() else { return };
    let mmaction = labels.join("mmaction2");
    for (dataset, file) in [
        (Dataset::K400, "kinetics/label_map_k400.txt"),
        (Dataset::Ssv2, "sthv2/label_map.txt"),
        (Dataset::Ucf101, "ucf101/label_map.txt"),
        (Dataset::Hmdb51, "hmdb51/label_map.txt"),
        (Dataset::Diving48, "diving48/label_map.txt"),
    ] {
        assert_eq!(names(&mmaction.join(file)).len(), dataset.spec().classes, "{}", dataset.name());
    }
    let kinetics = names(&mmaction.join("kinetics/label_map_k400.txt"));
    assert!(kinetics.is_sorted(), "the official order is alphabetical");
}

#[test]
fn the_published_splits_of_ucf101_and_hmdb51_have_the_counts_of_the_specs() {
    let Some(labels) = labels() else { return };
    let dir = tempfile::tempdir().unwrap();
    for (from, to) in [("ucf101_splits", "ucfTrainTestlist"), ("hmdb51_splits", "testTrainMulti_7030_splits")]
    {
        fs::create_dir_all(dir.path().join(to)).unwrap();
        for entry in fs::read_dir(labels.join(from)).unwrap() {
            let entry = entry.unwrap();
            fs::copy(entry.path(), dir.path().join(to).join(entry.file_name())).unwrap();
        }
    }
    for dataset in [Dataset::Ucf101, Dataset::Hmdb51] {
        for split in 1..=3 {
            let check = dataset.read(dir.path(), split).unwrap().check();
            let wrong: Vec<_> = check.findings.iter().filter(|finding| !finding.ok).collect();
            assert_eq!(wrong.len(), 1, "{wrong:?}");
            assert_eq!((wrong[0].what.as_str(), wrong[0].found), ("videos on disk", 0));
        }
    }
}

#[test]
fn the_published_validation_list_of_epic_has_the_counts_of_the_spec() {
    let Some(labels) = labels() else { return };
    let dir = tempfile::tempdir().unwrap();
    for name in ["EPIC_100_validation.csv", "EPIC_100_verb_classes.csv", "EPIC_100_noun_classes.csv"] {
        fs::copy(labels.join("epic100").join(name), dir.path().join(name)).unwrap();
    }
    let list = fs::read_to_string(dir.path().join("EPIC_100_validation.csv")).unwrap();
    let header = list.lines().next().unwrap();
    put(
        dir.path(),
        "EPIC_100_train.csv",
        &format!(
            "{header}\nP99_01_0,P99,P99_01,00:00:00.56,00:00:00.14,00:00:03.37,8,202,open door,open,3,door,8,['door'],[8]\n"
        ),
    );
    let layout = Dataset::Epic100.read(dir.path(), 1).unwrap();
    let wrong: Vec<_> =
        layout.check().findings.into_iter().filter(|finding| !finding.ok).map(|f| f.what).collect();
    assert_eq!(wrong, ["train clips", "videos on disk"]);
    layout.manifest().unwrap();
}

/// MotionSqueeze issue 1: mirrored clips of "from left to right" teach the wrong class.
#[test]
fn mirroring_swaps_exactly_the_directional_classes_of_ssv2_and_their_captions() {
    let Some(labels) = labels() else { return };
    let names = names(&labels.join("mmaction2/sthv2/label_map.txt"));
    let Flip::Swap(pairs) = Dataset::Ssv2.spec().flip else { panic!("ssv2 swaps labels") };
    assert_eq!(pairs.len(), 3);
    let flip = Flip::Swap(pairs);
    for (class, name) in names.iter().enumerate() {
        let mirrored = flip.label(class as u32) as usize;
        assert_eq!(mirror_caption(name), names[mirrored], "class {class}");
    }
}
