//! Videos to test with, and the `ffmpeg` program as an independent opinion.
#![allow(dead_code)] // Each test program uses a part.

pub mod packed;

use std::path::{Path, PathBuf};
use std::process::Command;

use tgm_video::{EncodeOptions, Frame, FrameIndex, ReadOptions, VideoReader, VideoWriter};

/// The folder of shared real videos, or `None` with a word on stderr.
pub fn shared_data() -> Option<PathBuf> {
    let beside = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data");
    let folder = std::env::var_os("TGM_SHARED_DATA").map_or_else(beside, PathBuf::from);
    if folder.is_dir() {
        return Some(folder);
    }
    eprintln!("skipped: shared data not found at {}", folder.display());
    None
}

/// Every file below a folder, in order.
pub fn files_below(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() { files.extend(files_below(&path)) } else { files.push(path) }
    }
    files.sort();
    files
}

/// Runs the `ffmpeg` or `ffprobe` program; `None`, with a word on stderr, when it is not installed or fails.
pub fn run(program: &str, arguments: &[&str]) -> Option<Vec<u8>> {
    match Command::new(program).args(["-v", "error"]).args(arguments).output() {
        Ok(output) if output.status.success() => Some(output.stdout),
        Ok(output) => {
            eprintln!("skipped: {program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
            None
        }
        Err(error) => {
            eprintln!("skipped: {program}: {error}");
            None
        }
    }
}

/// Text of a path of a test file.
pub fn text(path: &Path) -> &str {
    path.to_str().expect("test paths are UTF-8")
}

/// A textured background with a bright textured square whose left-top corner is at (x, y).
pub fn square(width: u32, height: u32, x: i32, y: i32, side: i32) -> Vec<u8> {
    let noise = |x: i32, y: i32| (x.wrapping_mul(73) ^ y.wrapping_mul(151)).wrapping_mul(40_503) >> 5 & 31;
    let mut rgb = Vec::with_capacity((width * height * 3) as usize);
    for py in 0..height as i32 {
        for px in 0..width as i32 {
            let inside = (x..x + side).contains(&px) && (y..y + side).contains(&py);
            let grey = if inside { 190 + noise(px - x, py - y) } else { 40 + noise(px, py) };
            rgb.extend([grey as u8, (grey + 10) as u8, (grey / 2) as u8]);
        }
    }
    rgb
}

/// Encodes `frames` frames of the square, which moves by `step` pixels a frame.
pub fn moving_square(path: &Path, size: (u32, u32), frames: i32, step: (i32, i32), options: &EncodeOptions) {
    let mut writer = VideoWriter::create(path, size.0, size.1, options).unwrap();
    for i in 0..frames {
        writer.write(&square(size.0, size.1, 16 + i * step.0, 24 + i * step.1, 40)).unwrap();
    }
    writer.finish().unwrap();
}

/// All frames in order, by a reader of their own.
pub fn read_all(path: &Path) -> Vec<Frame> {
    let mut reader = VideoReader::open(path, &ReadOptions::default()).unwrap();
    let all: Vec<usize> = (0..reader.index().len()).collect();
    reader.read(&all).unwrap()
}

/// Time stamps of the frames that the `ffprobe` program decodes, in its order; `None` where it knows none.
pub fn ffprobe_times(path: &Path) -> Option<Vec<Option<i64>>> {
    let entry = "frame=best_effort_timestamp";
    let stream = tgm_video::probe(path, &ReadOptions::default()).ok()?.stream.to_string();
    let arguments = ["-select_streams", &stream, "-show_entries", entry, "-of", "csv=p=0", text(path)];
    let output = String::from_utf8(run("ffprobe", &arguments)?).ok()?;
    Some(
        output
            .lines()
            .filter(|line| !line.is_empty())
            .map(|line| line.trim_end_matches(',').parse().ok())
            .collect(),
    )
}

/// Whether the index has as many frames as `ffprobe` found, with the same stamps wherever it knows them.
pub fn assert_times_are_ffprobes(path: &Path, index: &FrameIndex) -> bool {
    let Some(expected) = ffprobe_times(path) else { return false };
    assert_eq!(index.len(), expected.len(), "{}", path.display());
    for (frame, expected) in expected.into_iter().enumerate() {
        assert!(expected.is_none() || index.pts(frame) == expected, "{}: frame {frame}", path.display());
    }
    true
}
