//! The baseline on real clips: motion thumbnails know the gesture, single frames do not.
//!
//! Needs the EgoGestAR clips of the shared data folder and the `ffmpeg` program, and says so when either is absent.

use rayon::prelude::*;
use std::path::{Path, PathBuf};
use std::process::Command;
use tgm_eval::{Features, Protocol, baseline, bootstrap, evaluate, knn};
use tgm_random::Streams;

/// Decoded clips are scaled to twice the thumbnail, so that all of them fit into memory at once.
const HEIGHT: usize = 2 * baseline::THUMBNAIL_HEIGHT;
const WIDTH: usize = 2 * baseline::THUMBNAIL_WIDTH;

struct Row {
    path: PathBuf,
    split: String,
    label: u32,
}

fn shared_data() -> PathBuf {
    let beside = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data");
    std::env::var_os("TGM_SHARED_DATA").map_or_else(beside, PathBuf::from)
}

/// The labelled rows, and the number of classes.
fn manifest(folder: &Path) -> (Vec<Row>, usize) {
    let mut reader = csv::Reader::from_path(folder.join("manifest.csv")).unwrap();
    let records: Vec<[String; 3]> = reader
        .records()
        .map(|record| {
            let record = record.unwrap();
            [record[0].to_owned(), record[1].to_owned(), record[2].to_owned()]
        })
        .filter(|[_, split, _]| split == "train" || split == "test")
        .collect();
    let mut classes: Vec<&String> = records.iter().map(|[_, _, label]| label).collect();
    classes.sort();
    classes.dedup();
    let row = |[path, split, label]: &[String; 3]| {
        let label = classes.binary_search(&label).unwrap() as u32;
        Row { path: folder.join(path), split: split.clone(), label }
    };
    (records.iter().map(row).collect(), classes.len())
}

/// RGB `[T, HEIGHT, WIDTH, 3]`.
fn decode(path: &Path) -> Vec<u8> {
    let output = Command::new("ffmpeg")
        .args(["-v", "error", "-threads", "1", "-i"])
        .arg(path)
        .args(["-vsync", "passthrough", "-vf", &format!("scale={WIDTH}:{HEIGHT}:flags=area")])
        .args(["-f", "rawvideo", "-pix_fmt", "rgb24", "-"])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}: {}", path.display(), String::from_utf8_lossy(&output.stderr));
    output.stdout
}

fn features(clips: &[(&Row, Vec<u8>)], classes: usize, of: impl Fn(&[u8]) -> Vec<f32>) -> Features {
    let data: Vec<Vec<f32>> = clips.iter().map(|(_, clip)| of(clip)).collect();
    let labels = clips.iter().map(|(row, _)| row.label).collect();
    let ids = clips.iter().map(|(row, _)| row.path.display().to_string()).collect();
    Features::new(data[0].len(), classes, data.concat(), labels, ids).unwrap()
}

fn frames(clip: &[u8]) -> usize {
    clip.len() / (HEIGHT * WIDTH * 3)
}

#[test]
fn the_label_of_a_gesture_is_in_its_motion_and_not_in_its_first_frame() {
    let folder = shared_data().join("egogestar");
    if !folder.is_dir() {
        eprintln!("skipped: shared data not found at {}", folder.display());
        return;
    }
    if Command::new("ffmpeg").arg("-version").output().is_err() {
        eprintln!("skipped: the ffmpeg program was not found");
        return;
    }
    let (rows, classes) = manifest(&folder);
    let clips = |split: &str| -> Vec<(&Row, Vec<u8>)> {
        rows.par_iter().filter(|row| row.split == split).map(|row| (row, decode(&row.path))).collect()
    };
    let (train, test) = (clips("train"), clips("test"));
    assert_eq!((train.len(), test.len(), classes), (268, 50, 10));

    let motion = |clip: &[u8]| baseline::thumbnail_motion(clip, [frames(clip), HEIGHT, WIDTH]).unwrap();
    let first = |clip: &[u8]| clip[..HEIGHT * WIDTH * 3].iter().map(|&value| f32::from(value)).collect();
    let top1 = |of: &dyn Fn(&[u8]) -> Vec<f32>| {
        let (train, test) = (features(&train, classes, of), features(&test, classes, of));
        let nearest = Protocol::Knn(knn::Settings { k: 5, vote: knn::Vote::Uniform });
        evaluate(&nearest, &train, &test, bootstrap::Settings::default(), &Streams::new(0))
            .unwrap()
            .report
            .top1
    };
    let (motion, first) = (top1(&motion), top1(&first));
    assert!((0.7..0.85).contains(&motion.mean), "motion: {motion:?}");
    assert!(first.mean < 0.3 && first.high < motion.low, "first frame: {first:?}, motion: {motion:?}");
}
