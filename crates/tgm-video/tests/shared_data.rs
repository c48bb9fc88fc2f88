//! Real files, when they are there.

mod common;

use std::path::Path;

use common::{assert_times_are_ffprobes, files_below, run, shared_data, text};
use tgm_video::{ReadOptions, Rotation, VideoError, VideoReader};

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

/// Frames of a file that are compared with what `ffmpeg` makes of them.
const HASHED: usize = 100;

#[test]
fn frames_have_the_hashes_that_ffmpeg_gives_them() {
    let Some(folder) = shared_data() else { return };
    let folders = ["test_videos", "grid10", "intel_asl20", "msvd_sample", "egogestar/testvideo"];
    let files = folders.iter().flat_map(|name| {
        let files = files_below(&folder.join(name));
        // Of the gestures, which are alike, every eighth.
        let step = if files.len() > 100 { 8 } else { 1 };
        files.into_iter().step_by(step)
    });
    let (mut same, mut left_out) = (0, 0);
    for path in files {
        let Ok(mut reader) = VideoReader::open(&path, &ReadOptions::default()) else { continue };
        let (count, probe) = (reader.index().len().min(HASHED), reader.probe().clone());
        // Of colours at half resolution it matters whether they are turned before or after they are converted.
        if probe.rotation != Rotation::None || probe.mirrored {
            left_out += 1;
            continue;
        }
        // Backwards, a few at a time: as unlike ffmpeg's way through the file as can be.
        let numbers: Vec<usize> = (0..count).rev().collect();
        let ours: Result<Vec<u32>, VideoError> =
            numbers.chunks(7).try_fold(Vec::new(), |mut all, numbers| {
                all.extend(reader.read_map(numbers, |frame| Ok(crc32fast::hash(&frame.rgb)))?);
                Ok(all)
            });
        let Ok(mut ours) = ours else { continue };
        ours.reverse();
        let Some(expected) = ffmpeg_hashes(&path, probe.stream, count) else {
            left_out += 1;
            continue;
        };
        let first = ours.iter().zip(&expected).position(|(ours, expected)| ours != expected);
        assert_eq!((first, ours.len()), (None, expected.len()), "{}: {probe:?}", path.display());
        let name = path.strip_prefix(&folder).unwrap_or(&path).display();
        eprintln!(
            "{name}: {} {} {}: {count} frames the same",
            probe.container, probe.codec, probe.pixel_format
        );
        same += 1;
    }
    eprintln!("{same} files have ffmpeg's hashes, {left_out} were left out");
    assert!(same > 60 && left_out < 15, "{same} {left_out}");
}

/// CRC-32 of the first frames as RGB, as `ffmpeg -f framehash` gives them; `None` when it refuses.
fn ffmpeg_hashes(path: &Path, stream: usize, count: usize) -> Option<Vec<u32>> {
    let map = format!("0:{stream}");
    let arguments = ["-select_streams", &stream.to_string(), "-show_entries", "stream=color_space,height"];
    let facts = run("ffprobe", &[&arguments[..], &["-of", "csv=p=0", text(path)]].concat())?;
    let facts = String::from_utf8_lossy(&facts).into_owned();
    // Without a tag ffmpeg takes BT.601 for all sizes, and we, as players do, BT.709 from 720 lines on.
    let tagged = !["unknown", "N/A", "reserved"].iter().any(|none| facts.contains(none));
    let large =
        facts.split([',', '\n']).any(|part| part.trim().parse().is_ok_and(|height: u32| height >= 720));
    let matrix = if !tagged && large { "bt709" } else { "auto" };
    let filter =
        format!("scale=in_color_matrix={matrix}:flags=bilinear+accurate_rnd+full_chroma_int+bitexact");
    let count = count.to_string();
    let arguments = ["-i", text(path), "-map", &map, "-fps_mode", "passthrough", "-vf", &filter];
    let output = ["-frames:v", &count, "-pix_fmt", "rgb24", "-f", "framehash", "-hash", "CRC32", "-"];
    let table = String::from_utf8(run("ffmpeg", &[&arguments[..], &output].concat())?).ok()?;
    let hash = |line: &str| u32::from_str_radix(line.rsplit(',').next()?.trim(), 16).ok();
    table.lines().filter(|line| !line.starts_with('#')).map(hash).collect()
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
