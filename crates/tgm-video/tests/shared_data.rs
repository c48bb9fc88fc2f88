//! Real files, when they are there.

mod common;

use std::path::Path;

use common::{assert_times_are_ffprobes, files_below, shared_data, text};
use tgm_video::{ReadOptions, VideoError, VideoReader};

#[test]
fn every_real_file_reads_or_fails_with_its_name_and_random_access_is_sequential_access() {
    let Some(folder) = shared_data() else { return };
    let folders = ["test_videos", "grid10", "intel_asl20", "msvd_sample"];
    let (mut read, mut refused) = (0, 0);
    for path in folders.iter().flat_map(|name| files_below(&folder.join(name))) {
        if path
            .extension()
            .is_none_or(|extension| extension == "txt" || extension == "csv" || extension == "tsv")
        {
            continue;
        }
        match check(&path) {
            Ok(line) => {
                read += 1;
                eprintln!("{}: {line}", path.display());
            }
            Err(error) => {
                refused += 1;
                assert!(error.to_string().contains(text(&path)), "{error}");
                eprintln!("{error}");
            }
        }
    }
    eprintln!("{read} files read, {refused} refused");
    assert!(read > refused);
}

/// Reads up to 150 frames in order, then some of them in another order, and compares.
fn check(path: &Path) -> Result<String, VideoError> {
    let options = ReadOptions { motion_vectors: true, ..ReadOptions::default() };
    let mut reader = VideoReader::open(path, &options)?;
    let count = reader.index().len().min(150);
    let sequential = reader.read(&(0..count).collect::<Vec<_>>())?;
    let backwards: Vec<usize> = (0..count).rev().step_by(count.div_ceil(12)).collect();
    let mut fresh = VideoReader::open(path, &options)?;
    for frame in
        fresh.read(&backwards)?.into_iter().chain(reader.read(&[count / 2, 0, count - 1, count / 3])?)
    {
        assert_eq!(frame, sequential[frame.number], "{}: frame {}", path.display(), frame.number);
    }
    for &number in backwards.iter().step_by(4) {
        let frame = fresh.read(&[number])?.remove(0);
        assert_eq!(frame, sequential[number], "{}: frame {number} alone", path.display());
    }
    let vectors: usize = sequential.iter().flat_map(|frame| &frame.motion).map(Vec::len).sum();
    Ok(format!("{:?} {} frames, {vectors} vectors", reader.probe(), reader.index().len()))
}

#[test]
fn time_stamps_are_those_that_ffprobe_reports() {
    let Some(folder) = shared_data() else { return };
    let variable = ["carret_4", "carret_5", "carret_6", "circlecc_4", "down_4", "down_5"];
    let gestures = files_below(&folder.join("egogestar"))
        .into_iter()
        .filter(|path| variable.iter().any(|stem| path.file_stem().is_some_and(|name| name == *stem)));
    let mut compared = 0;
    for path in
        gestures.chain(files_below(&folder.join("test_videos"))).chain(files_below(&folder.join("grid10")))
    {
        let Ok(reader) = VideoReader::open(&path, &ReadOptions::default()) else { continue };
        if !assert_times_are_ffprobes(&path, reader.index()) {
            return;
        }
        compared += 1;
    }
    assert!(compared > 40, "{compared}");
}

#[test]
fn every_gesture_clip_opens_and_its_middle_frame_decodes() {
    let Some(folder) = shared_data() else { return };
    let clips = files_below(&folder.join("egogestar/testvideo"));
    for path in &clips {
        let mut reader = VideoReader::open(path, &ReadOptions::default()).unwrap();
        let middle = reader.index().len() / 2;
        let frame = reader.read(&[middle]).unwrap().remove(0);
        assert_eq!(frame.rgb.len(), (frame.width * frame.height * 3) as usize);
    }
    assert!(clips.len() > 100, "{}", clips.len());
}
