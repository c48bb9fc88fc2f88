//! Motion where the codec tells none: HEVC, VP9 and AV1 are matched block by block, behind the same interface.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;

use tgm_data::loader::{
    ClipConfig, EvalLoader, LoaderConfig, LoaderError, MotionSource, RowError, Sample, Subset, TestViews,
};
use tgm_data::manifest::Manifest;
use tgm_masking::{Cues, Masking, MotionBoxConfig};
use tgm_random::Streams;
use tgm_video::{Crop, Sampling};

const SIDE: usize = 224;
const SQUARE: usize = 64;
const FRAMES: usize = 24;

/// Left and upper edge of the square in a frame: from the lower left to the upper right.
fn corner(frame: usize) -> (usize, usize) {
    (16 + 5 * frame, 140 - 4 * frame)
}

/// A texture that no two places share, so that every block is found again.
fn texture(x: usize, y: usize) -> u8 {
    let mixed = (x as u32).wrapping_mul(0x9e37_79b9) ^ (y as u32).wrapping_mul(0x85eb_ca6b);
    (mixed ^ (mixed >> 15)).wrapping_mul(0xc2b2_ae35).to_be_bytes()[0] / 2
}

/// A brighter square with its own texture before one that rests; soft, as codecs like it: each texel is 4×4 pixels.
fn frame(number: usize) -> Vec<u8> {
    let (left, top) = corner(number);
    let pixel = |i: usize| {
        let (x, y) = (i % SIDE, i / SIDE);
        match (x.checked_sub(left), y.checked_sub(top)) {
            (Some(x), Some(y)) if x < SQUARE && y < SQUARE => 127 + texture(x / 4 + 1000, y / 4 + 1000),
            _ => texture(x / 4, y / 4),
        }
    };
    (0..SIDE * SIDE).map(pixel).collect()
}

/// Encodes the moving square; false when this machine's ffmpeg cannot.
fn encode(encoder: &str, speed: &[&str], file: &Path) -> bool {
    let size = format!("{SIDE}x{SIDE}");
    let child = Command::new("ffmpeg")
        .args(["-loglevel", "error", "-y", "-f", "rawvideo", "-pix_fmt", "gray", "-r", "25", "-s", &size])
        .args(["-i", "-", "-pix_fmt", "yuv420p", "-c:v", encoder])
        .args(speed)
        .arg(file)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    let Ok(mut child) = child else { return false };
    let mut pipe = child.stdin.take().unwrap();
    let written = (0..FRAMES).all(|number| pipe.write_all(&frame(number)).is_ok());
    drop(pipe);
    child.wait().unwrap().success() && written
}

/// A clip of the video with its motion.
fn clip(manifest: &Path, motion: MotionSource) -> Result<Sample, LoaderError> {
    let data = Subset::new(Arc::new(Manifest::load(manifest).unwrap()), vec![0]).unwrap();
    let sampling = Sampling::Dense { frames: 8, stride: 2 };
    let config = ClipConfig { sampling, crop: Crop::Center, motion, ..ClipConfig::default() };
    let mut loader = EvalLoader::new(&data, &config, &LoaderConfig::default(), TestViews::default()).unwrap();
    loader.next().unwrap().map(|mut views| views.remove(0))
}

/// The tubelets whose middle the square covers in both of their frames.
fn covered(sample: &Sample) -> Vec<u32> {
    let grid = sample.grid;
    let inside = |frame: usize, cell: usize| {
        let (left, top) = corner(frame);
        let middle = |index: usize| index * 16 + 8;
        (left..left + SQUARE).contains(&middle(cell % grid.cols()))
            && (top..top + SQUARE).contains(&middle(cell / grid.cols()))
    };
    let of_slot = |slot: usize| {
        let frames = &sample.frames[2 * slot..2 * slot + 2];
        let cells = (0..grid.cells()).filter(|&cell| frames.iter().all(|&frame| inside(frame, cell)));
        cells.map(|cell| (slot * grid.cells() + cell) as u32).collect::<Vec<_>>()
    };
    (0..grid.slots()).flat_map(of_slot).collect()
}

#[test]
fn rectangles_cover_a_moving_square_in_hevc_vp9_and_av1() {
    let dir = tempfile::tempdir().unwrap();
    let encoders: [(&str, &str, &[&str]); 4] = [
        ("HEVC", "libx265", &["-preset", "ultrafast", "-x265-params", "log-level=none"]),
        ("VP9", "libvpx-vp9", &["-deadline", "realtime", "-cpu-used", "8"]),
        ("AV1", "libsvtav1", &["-preset", "12"]),
        ("AV1", "libaom-av1", &["-cpu-used", "8", "-usage", "realtime"]),
    ];
    let mut done: Vec<&str> = Vec::new();
    for (codec, encoder, speed) in encoders {
        let file = dir.path().join(format!("{encoder}.mkv"));
        if done.contains(&codec) || !encode(encoder, speed, &file) {
            continue;
        }
        done.push(codec);
        let manifest = dir.path().join(format!("{encoder}.csv"));
        std::fs::write(&manifest, format!("path\n{encoder}.mkv\n")).unwrap();
        let refused = clip(&manifest, MotionSource::Codec);
        assert!(
            matches!(refused, Err(LoaderError::BadVideo { source: RowError::NoCodecMotion { .. }, .. })),
            "{codec} has no vectors of its own: {refused:?}"
        );
        let sample = clip(&manifest, MotionSource::Auto).unwrap();
        assert_eq!(sample, clip(&manifest, MotionSource::Blocks).unwrap(), "{codec}");
        let square = covered(&sample);
        assert!(square.len() >= 9 * sample.grid.slots(), "{} tubelets", square.len());
        let masking = Masking::MotionBox(MotionBoxConfig { ratio: 0.25, ..MotionBoxConfig::default() });
        let cues = Cues { motion: sample.motion.as_ref(), ..Cues::default() };
        let mask = masking.mask(&sample.grid, &cues, &mut Streams::new(0).stream("mask", 0, 0)).unwrap();
        let hidden = square.iter().filter(|index| mask.masked().binary_search(index).is_ok()).count();
        assert_eq!(hidden, square.len(), "{codec}: of the square's tubelets");
    }
    for codec in ["HEVC", "VP9", "AV1"] {
        if !done.contains(&codec) {
            eprintln!("skipped: {codec}, no ffmpeg here encodes it");
        }
    }
}
