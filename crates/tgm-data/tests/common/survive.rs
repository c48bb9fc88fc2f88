//! What a fuzzer does with bytes that claim to be a video, a manifest or an archive. Panics when something is wrong.
#![allow(dead_code, reason = "each program uses a part of this")]

use std::io::{Cursor, Write};
use std::path::{Path, PathBuf};

use tgm_data::archive::list_content;
use tgm_data::manifest::{Manifest, ManifestOptions, Row, write_manifest};
use tgm_video::{CropBox, ReadOptions, VideoReader, View, probe};

/// Limits that let a fuzzer see many files in a second.
fn limits(lenient: bool) -> ReadOptions {
    ReadOptions {
        motion_vectors: true,
        max_frames: 500,
        max_pixels: 1 << 20,
        max_duration: f64::INFINITY,
        max_seconds: 10.0,
        allow_truncated: lenient,
        allow_damaged: lenient,
    }
}

/// A folder that costs no disk, where there is one.
fn folder() -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    let folder = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
    folder.expect("a folder for temporary files")
}

fn written(folder: &Path, name: &str, bytes: &[u8]) -> PathBuf {
    let file = folder.join(name);
    let write = std::fs::File::create(&file).and_then(|mut file| file.write_all(bytes));
    write.expect("room for a temporary file");
    file
}

/// Probes and opens a video, reads frames one by one and a clip of it.
pub fn clip(bytes: &[u8]) {
    let folder = folder();
    let file = written(folder.path(), "video", bytes);
    let probed = probe(&file, &ReadOptions::default()).is_ok();
    for lenient in [false, true] {
        let Ok(mut reader) = VideoReader::open(&file, &limits(lenient)) else { continue };
        assert!(probed, "what opens has headers");
        let last = reader.index().len() - 1;
        let times: Vec<f64> = (0..=last).filter_map(|frame| reader.index().seconds(frame)).collect();
        assert!(times.len() == last + 1 && times[0] == 0.0);
        // What frames there are is in the index, whatever becomes of them.
        let _ = reader.read(&[last / 2]);
        let _ = reader.read(&[0, last]);
        let view = View { crop: CropBox { x: 0, y: 0, width: 16, height: 16 }, size: 16, flipped: true };
        let numbers: Vec<usize> = (0..=last).step_by(4).take(16).collect();
        if let Ok(viewed) = reader.read_views(&numbers, &[view]) {
            assert_eq!(viewed.clips[0].times().len(), numbers.len());
        }
    }
}

/// Reads a manifest; what was read survives being written and read again.
pub fn manifest(bytes: &[u8]) {
    let folder = folder();
    let file = folder.path().join("manifest.csv");
    let Ok(manifest) = Manifest::read(bytes, &file, &ManifestOptions::default()) else { return };
    for row in manifest.rows() {
        assert!(row.video().path().starts_with(folder.path()), "{}", row.path());
        assert!(row.end().is_none_or(|end| end > row.start().unwrap_or(0.0)));
    }
    for name in ["again.csv", "again.jsonl"] {
        let again = folder.path().join(name);
        // A column may have the name of one that is written in any case.
        let Ok(()) = write_manifest(&again, manifest.rows().map(|row| row.record(&again))) else { continue };
        let again = Manifest::load(&again).expect("what was written can be read");
        assert_eq!(again.len(), manifest.len());
        for (a, b) in manifest.rows().zip(again.rows()) {
            assert_eq!(facts(&a), facts(&b), "{name}");
        }
    }
}

/// What a row says.
type Facts<'a> = (&'a str, Option<&'a str>, Option<&'a str>, Vec<&'a str>, [Option<f64>; 2]);

fn facts<'a>(row: &Row<'a>) -> Facts<'a> {
    (row.path(), row.split(), row.label_name(), row.captions().collect(), [row.start(), row.end()])
}

/// Lists an archive, takes it for a data set, and opens its first videos.
pub fn archive(bytes: &[u8]) {
    let size = bytes.len() as u64;
    let listed = list_content(Cursor::new(bytes), Path::new("a.tar"));
    for member in listed.iter().flatten() {
        assert!(member.start.checked_add(member.length).is_some_and(|end| end <= size), "{member:?}");
        assert!(
            !member.name.is_empty() && !member.name.split('/').any(|part| part.is_empty() || part == "..")
        );
    }
    let folder = folder();
    let file = written(folder.path(), "a.tar", bytes);
    let Ok(manifest) = Manifest::load(&file) else { return };
    assert!(listed.is_ok(), "a data set has a listing");
    for row in manifest.rows().take(2) {
        let video = row.video();
        assert!(video.path() == file && video.range().is_some_and(|range| range.end <= size));
        if let Ok(mut reader) = VideoReader::open(video, &limits(true)) {
            let _ = reader.read(&[0]);
        }
    }
}
