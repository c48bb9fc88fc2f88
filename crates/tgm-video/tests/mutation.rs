//! Thousands of damaged files: no panic, no hang, no leak; every error is typed and names its file.
//!
//! Some hundred by default, 5,200 with `cargo xtask test --slow` (or as many as `TGM_MUTATIONS` says).

mod common;

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use common::packed::pack_b_frames;
use common::{moving_square, run, text};
use rand::{Rng, RngExt};
use tgm_random::Streams;
use tgm_video::{CropBox, EncodeOptions, ReadOptions, VideoError, VideoReader, View};

/// Longest time that any damaged file may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// `few`, or `many` where slow tests are wanted.
fn few_or_many(few: u64, many: u64) -> u64 {
    if std::env::var_os("TGM_SLOW_TESTS").is_some() { many } else { few }
}

#[test]
fn mutated_files_are_survived() {
    let asked = std::env::var("TGM_MUTATIONS").ok().and_then(|count| count.parse().ok());
    survive(asked.unwrap_or_else(|| few_or_many(260, 5200)));
}

/// Healthy files of every container and codec at hand.
fn sources(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let mut sources = Vec::new();
    let mut add = |name: &str| {
        let path = folder.join(name);
        if let Ok(bytes) = std::fs::read(path) {
            sources.push((name.to_owned(), bytes));
        }
    };
    let options = EncodeOptions { gop: 8, ..EncodeOptions::default() };
    for name in ["h264.mp4", "h264.mkv", "h264.avi", "h264.ts", "h264.mov"] {
        moving_square(&folder.join(name), (64, 48), 24, (1, 0), &options);
        add(name);
    }
    let first = folder.join("h264.mp4");
    let others: [(&str, &[&str]); 8] = [
        ("vp9.webm", &["-c:v", "libvpx-vp9", "-g", "8", "-cpu-used", "8"]),
        ("hevc.mp4", &["-c:v", "libx265", "-x265-params", "keyint=8:log-level=none", "-preset", "ultrafast"]),
        ("mpeg4.avi", &["-c:v", "mpeg4", "-bf", "2"]),
        ("mpeg1.mpg", &["-c:v", "mpeg1video", "-bf", "2"]),
        ("moving.gif", &[]),
        ("flash.flv", &["-c:v", "flv1"]),
        ("motion.mov", &["-c:v", "mjpeg"]),
        ("fragments.mp4", &["-c", "copy", "-movflags", "frag_keyframe+empty_moov"]),
    ];
    for (name, codec) in others {
        let path = folder.join(name);
        if run("ffmpeg", &[&["-y", "-i", text(&first)], codec, &[text(&path)]].concat()).is_some() {
            add(name);
        }
    }
    if let Ok(plain) = std::fs::read(folder.join("mpeg4.avi")) {
        sources.push(("packed.avi".to_owned(), pack_b_frames(&plain)));
    }
    sources
}

/// Damages a file in one of five ways; which and where is drawn from `rng`.
fn mutate(bytes: &mut Vec<u8>, rng: &mut impl Rng) {
    let length = bytes.len();
    match rng.random_range(0..5) {
        0 => (0..rng.random_range(1..40))
            .for_each(|_| bytes[rng.random_range(0..length)] ^= 1 << rng.random_range(0..8)),
        1 => (0..rng.random_range(1..20)).for_each(|_| bytes[rng.random_range(0..length)] = rng.random()),
        2 => bytes.truncate(rng.random_range(0..length)),
        3 => {
            // A stretch of the file overwritten by another one.
            let size = rng.random_range(1..length.min(2000));
            let (from, to) = (rng.random_range(0..=length - size), rng.random_range(0..=length - size));
            bytes.copy_within(from..from + size, to);
        }
        _ => swap_boxes(bytes, rng),
    }
}

/// Exchanges two four-letter names (boxes, chunks) or, where there are none, two stretches of 16 bytes.
fn swap_boxes(bytes: &mut [u8], rng: &mut impl Rng) {
    let is_name = |name: &[u8]| name.iter().all(|byte| byte.is_ascii_alphanumeric());
    let names: Vec<usize> = (0..bytes.len() - 4).filter(|&at| is_name(&bytes[at..at + 4])).collect();
    if names.len() < 2 {
        let (a, b) = (rng.random_range(0..bytes.len() - 16), rng.random_range(0..bytes.len() - 16));
        (0..16).for_each(|i| bytes.swap(a + i, b + i));
        return;
    }
    // A box is its length and its name.
    let mut place = || names[rng.random_range(0..names.len())];
    let (a, b) = (place().max(4), place().max(4));
    (0..8).for_each(|i| bytes.swap(a - 4 + i, b - 4 + i));
}

/// Resident memory in MB; `None` where the system does not tell.
fn resident() -> Option<f64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    Some(line.trim().trim_end_matches(" kB").trim().parse::<f64>().ok()? / 1024.0)
}

fn survive(count: u64) {
    let folder = tempfile::tempdir().unwrap();
    let sources = sources(folder.path());
    let mut tally: BTreeMap<&str, (usize, usize, usize)> = BTreeMap::new();
    let (mut slowest, mut warm) = (Duration::ZERO, None);
    for case in 0..count {
        let (name, source) = &sources[case as usize % sources.len()];
        let mut bytes = source.clone();
        mutate(&mut bytes, &mut Streams::new(11).stream("mutate", 0, case));
        let path = folder.path().join(format!("mutated-{name}"));
        std::fs::write(&path, bytes).unwrap();
        let begun = Instant::now();
        let (opened, read) = use_it(&path, case % 2 == 0);
        slowest = slowest.max(begun.elapsed());
        let entry = tally.entry(name).or_default();
        *entry = (entry.0 + 1, entry.1 + usize::from(opened), entry.2 + usize::from(read));
        if case == count / 2 {
            warm = resident();
        }
    }
    for (name, (files, opened, read)) in &tally {
        eprintln!("{name}: of {files} mutated files {opened} open and {read} read");
        assert!(*opened > 0, "{name}: no mutated file opens, so nothing behind opening is tested");
    }
    let [warm, now] = [warm, resident()].map(|resident| resident.unwrap_or(0.0));
    let grown = now - warm;
    let (opened, read) = tally.values().fold((0, 0), |all, (_, opened, read)| (all.0 + opened, all.1 + read));
    eprintln!(
        "{count} mutated files: {opened} open, {read} read, 0 panics, slowest {slowest:?}; resident {warm:.1} MB half way, \
         {now:.1} MB at the end"
    );
    assert!(slowest < PATIENCE, "{slowest:?}");
    assert!(grown < 64.0, "{grown} MB");
}

/// Opens a file, reads frames one by one and a clip; whether it opened, and whether all of it could be read.
fn use_it(path: &Path, lenient: bool) -> (bool, bool) {
    let options = ReadOptions {
        motion_vectors: true,
        max_frames: 1000,
        max_pixels: 1 << 20,
        max_duration: f64::INFINITY,
        max_seconds: 10.0,
        allow_truncated: lenient,
        allow_damaged: lenient,
    };
    let named = |error: VideoError| {
        let message = error.to_string();
        let about_frames = matches!(error, VideoError::SizeChanged { .. } | VideoError::Invalid { .. });
        assert!(about_frames || message.contains(text(path)), "{message}");
    };
    let mut reader = match VideoReader::open(path, &options) {
        Ok(reader) => reader,
        Err(error) => {
            named(error);
            return (false, false);
        }
    };
    let last = reader.index().len() - 1;
    let single = reader.read(&[last / 2]).and_then(|_| reader.read(&[0, last]));
    let numbers: Vec<usize> = (0..=last).step_by(3).collect();
    let view = View { crop: CropBox { x: 0, y: 0, width: 16, height: 16 }, size: 16, flipped: false };
    let clip = reader.read_views(&numbers, &[view]);
    let read = single.is_ok() && clip.is_ok();
    single.err().into_iter().chain(clip.err()).for_each(named);
    (true, read)
}

#[test]
fn memory_stays_flat_however_many_files_are_opened() {
    let opens = few_or_many(600, 10_000) as usize;
    let folder = tempfile::tempdir().unwrap();
    let files: Vec<_> = ["a.mp4", "b.mkv", "c.avi", "d.ts"].map(|name| folder.path().join(name)).into();
    for (i, path) in files.iter().enumerate() {
        moving_square(path, (64 + 32 * i as u32, 48), 40, (1, 0), &EncodeOptions::default());
    }
    let view = View { crop: CropBox { x: 2, y: 2, width: 40, height: 40 }, size: 32, flipped: false };
    let mut warm = None;
    for i in 0..opens {
        let mut reader = VideoReader::open(&files[i % 4], &ReadOptions::default()).unwrap();
        let start = Streams::new(3).stream("start", 0, i as u64).random_range(0..10);
        let numbers: Vec<usize> = (start..40).step_by(2).collect();
        reader.read_views(&numbers, &[view]).unwrap();
        if i == opens / 3 {
            warm = resident();
        }
    }
    let (Some(warm), Some(now)) = (warm, resident()) else { return };
    eprintln!("{opens} opens and clips: {warm:.1} MB after a third, {now:.1} MB at the end");
    assert!(now - warm < 24.0, "memory grew from {warm} to {now} MB");
}
