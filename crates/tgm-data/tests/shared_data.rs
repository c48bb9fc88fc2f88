//! Real clips, where they are at hand: set `TGM_SHARED_DATA`, or put them beside the repository.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use tgm_data::loader::{ClipConfig, EvalLoader, LoaderConfig, MotionSource, Subset, TestViews, TrainLoader};
use tgm_data::manifest::{Manifest, ManifestOptions};
use tgm_random::Streams;
use tgm_video::Sampling;

fn shared(path: &str) -> Option<PathBuf> {
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data");
    let path = std::env::var_os("TGM_SHARED_DATA").map_or(beside, PathBuf::from).join(path);
    if !path.exists() {
        eprintln!("skipped: shared data not found ({})", path.display());
        return None;
    }
    Some(path)
}

fn egogestar() -> Option<Arc<Manifest>> {
    shared("egogestar/manifest.csv").map(|file| Arc::new(Manifest::load(file).unwrap()))
}

fn clips() -> ClipConfig {
    ClipConfig {
        sampling: Sampling::Dense { frames: 16, stride: 2 },
        size: 112,
        motion: MotionSource::Auto,
        ..ClipConfig::default()
    }
}

#[test]
fn the_manifest_has_its_splits_and_classes() {
    let Some(manifest) = egogestar() else { return };
    assert_eq!(manifest.classes().len(), 10);
    for (split, rows) in [("train", 268), ("test", 50), ("unlabelled", 20), ("excluded", 11)] {
        let rows_there = manifest.split(split).unwrap();
        assert_eq!(rows_there.len(), rows, "{split}");
        manifest.check_files(&rows_there).unwrap();
    }
    assert!(manifest.row(manifest.split("unlabelled").unwrap()[0] as usize).label().is_none());
}

#[test]
fn training_batches_of_real_clips_come_without_loss_and_resume() {
    let Some(manifest) = egogestar() else { return };
    let data = Subset::split(&manifest, "train").unwrap();
    let from = |start| {
        TrainLoader::new(&data, &clips(), &LoaderConfig::default(), 8, Streams::new(1), start).unwrap()
    };
    let batches: Vec<_> = from(0).take(4).map(Result::unwrap).collect();
    assert!(batches.iter().all(|batch| batch.skipped.is_empty()));
    assert_eq!(batches[2..], from(2).take(2).map(Result::unwrap).collect::<Vec<_>>());
    let moving = batches.iter().flat_map(|batch| &batch.samples).filter(|clip| {
        clip.motion.as_ref().is_some_and(|field| field.vectors().iter().any(|v| v[0].hypot(v[1]) > 0.2))
    });
    assert!(moving.count() > 24, "hands move in nearly all of the 32 clips");
}

#[test]
fn clips_of_variable_frame_rate_keep_their_times() {
    let Some(manifest) = egogestar() else { return };
    let names = ["carret_4.mp4", "carret_5.mp4", "circlecc_4.mp4", "down_4.mp4"];
    let rows: Vec<u32> = manifest
        .rows()
        .filter(|row| names.iter().any(|name| row.path().ends_with(&format!("testvideo_{name}"))))
        .map(|row| row.index() as u32)
        .collect();
    assert!(!rows.is_empty());
    let data = Subset::new(manifest.clone(), rows).unwrap();
    let mut uneven = 0;
    for clips in
        EvalLoader::new(&data, &clips(), &LoaderConfig::default(), TestViews { views: 3, crops: 1 }).unwrap()
    {
        for clip in clips.unwrap() {
            let steps: Vec<f64> = clip.clip.times().windows(2).map(|pair| pair[1] - pair[0]).collect();
            assert!(steps.iter().all(|step| *step > 0.0), "{}: {steps:?}", clip.path);
            uneven += usize::from(steps.iter().any(|step| (step - steps[0]).abs() > 0.005));
        }
    }
    assert!(uneven >= 4, "{uneven}");
}

fn files_below(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<PathBuf> =
        entries.flat_map(|path| if path.is_dir() { files_below(&path) } else { vec![path] }).collect();
    files.sort();
    files
}

#[test]
fn odd_files_give_clips_or_reasons() {
    let Some(folder) = shared("test_videos") else { return };
    let files = files_below(&folder.canonicalize().unwrap());
    let lines: String =
        files.iter().map(|file| format!("{}\n", serde_json::json!({ "path": file }))).collect();
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("manifest.jsonl");
    std::fs::write(&file, lines).unwrap();
    let options = ManifestOptions { allow_outside: true, ..ManifestOptions::default() };
    let manifest = Arc::new(Manifest::load_with(&file, &options).unwrap());
    let data = Subset::split(&manifest, "train").unwrap();
    let config = LoaderConfig { max_bad_share: 1.0, max_replacements: 100, ..LoaderConfig::default() };
    let loader = TrainLoader::new(&data, &clips(), &config, 1, Streams::new(2), 0).unwrap();
    let batches: Vec<_> = loader.take(files.len()).map(Result::unwrap).collect();
    let bad: std::collections::BTreeMap<_, _> =
        batches.iter().flat_map(|batch| &batch.skipped).map(|skip| (&skip.path, &skip.reason)).collect();
    for (path, reason) in &bad {
        eprintln!("{path}: {reason}");
        assert!(reason.len() > 10);
    }
    eprintln!("{} files, {} of them bad", files.len(), bad.len());
    assert!(bad.len() < files.len() / 2);
}
