//! Broken, odd and hostile files give typed errors that name the file.

mod common;

use std::path::Path;

use common::{moving_square, run, text};
use tgm_video::{EncodeOptions, ReadOptions, VideoError, VideoReader, VideoWriter, probe};

fn open(path: &Path) -> Result<VideoReader, VideoError> {
    VideoReader::open(path, &ReadOptions::default())
}

fn error(path: &Path) -> VideoError {
    match open(path) {
        Err(error) => {
            assert!(error.to_string().contains(text(path)), "{error}");
            error
        }
        Ok(_) => panic!("{} opens", path.display()),
    }
}

fn video(path: &Path, options: &EncodeOptions) -> Vec<u8> {
    moving_square(path, (128, 96), 50, (1, 0), options);
    std::fs::read(path).unwrap()
}

#[test]
fn absent_empty_and_other_files() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a:b %s?.mp4");
    assert!(matches!(error(&path), VideoError::Io { .. }));
    std::fs::write(&path, b"").unwrap();
    assert!(matches!(error(&path), VideoError::Open { .. }));
    std::fs::write(&path, vec![7; 5000]).unwrap();
    assert!(matches!(error(&path), VideoError::Open { .. }));
    assert!(open(folder.path()).is_err());
    assert!(probe(&path, &ReadOptions::default()).is_err());
    // A name that looks like a URL and a format string is still a file.
    video(&path, &EncodeOptions::default());
    assert_eq!(open(&path).unwrap().index().len(), 50);
}

/// Headers were held against the default limits, whatever those in force.
#[test]
fn headers_are_read_within_the_limits_that_reading_has() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.mp4");
    video(&path, &EncodeOptions::default());
    let small = ReadOptions { max_pixels: 128 * 96, ..ReadOptions::default() };
    assert!(probe(&path, &small).is_ok());
    let smaller = ReadOptions { max_pixels: 128 * 96 - 1, ..small };
    assert!(matches!(probe(&path, &smaller), Err(VideoError::TooLarge { .. })));
    let hurried = ReadOptions { max_seconds: 0.0, ..ReadOptions::default() };
    assert!(matches!(probe(&path, &hurried), Err(VideoError::TooSlow { .. })));
}

#[test]
fn limits_that_are_no_times_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.mp4");
    video(&path, &EncodeOptions::default());
    let default = ReadOptions::default;
    for time in [-1.0, f64::NAN, f64::NEG_INFINITY] {
        for (options, key) in [
            (ReadOptions { max_seconds: time, ..default() }, "max_seconds"),
            (ReadOptions { max_duration: time, ..default() }, "max_duration"),
        ] {
            let error = VideoReader::open(&path, &options).unwrap_err().to_string();
            assert!(error.contains(&format!("{key} is {time}")), "{error}");
        }
    }
    let endless = ReadOptions { max_seconds: f64::INFINITY, max_duration: f64::INFINITY, ..default() };
    assert!(VideoReader::open(&path, &endless).is_ok());
}

#[cfg(unix)]
#[test]
fn paths_that_are_not_unicode_work() {
    use std::os::unix::ffi::OsStrExt;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(std::ffi::OsStr::from_bytes(b"caf\xe9.mp4"));
    video(&path, &EncodeOptions::default());
    assert_eq!(open(&path).unwrap().index().len(), 50);
}

#[test]
fn audio_with_and_without_cover_picture_has_no_video() {
    let folder = tempfile::tempdir().unwrap();
    let audio = folder.path().join("tone.m4a");
    if run("ffmpeg", &["-y", "-f", "lavfi", "-i", "sine=duration=1", "-c:a", "aac", text(&audio)]).is_none() {
        return;
    }
    assert!(matches!(error(&audio), VideoError::NoVideoStream { .. }));
    let cover = folder.path().join("cover.png");
    tgm_video::write_png(&cover, &[99; 8 * 8 * 3], 8, 8).unwrap();
    let covered = folder.path().join("covered.m4a");
    let arguments = ["-y", "-i", text(&audio), "-i", text(&cover), "-c", "copy", "-map", "0", "-map", "1"];
    let arguments = [&arguments[..], &["-disposition:v", "attached_pic", text(&covered)]].concat();
    if run("ffmpeg", &arguments).is_some() {
        assert!(matches!(error(&covered), VideoError::NoVideoStream { .. }));
    }
}

#[test]
fn truncated_files_are_refused_or_read_as_far_as_they_go() {
    let folder = tempfile::tempdir().unwrap();
    let source = folder.path().join("source.mp4");
    video(&source, &EncodeOptions::default());
    for name in ["front.mp4", "cut.mkv", "cut.avi", "tail.mp4"] {
        let path = folder.path().join(name);
        let faststart: &[&str] = if name == "front.mp4" { &["-movflags", "faststart"] } else { &[] };
        let arguments = [&["-y", "-i", text(&source), "-c", "copy"], faststart, &[text(&path)]].concat();
        if run("ffmpeg", &arguments).is_none() {
            return;
        }
        let whole = std::fs::read(&path).unwrap();
        std::fs::write(&path, &whole[..whole.len() * 3 / 5]).unwrap();
        if name == "tail.mp4" {
            // The header was at the end.
            assert!(matches!(error(&path), VideoError::Open { .. }), "{name}");
            continue;
        }
        let refused = error(&path);
        assert!(matches!(refused, VideoError::Truncated { found: 5..45, .. }), "{name}: {refused:?}");
        let options = ReadOptions { allow_truncated: true, ..ReadOptions::default() };
        let mut reader = VideoReader::open(&path, &options).unwrap();
        assert!((5..50).contains(&reader.index().len()), "{name}: {}", reader.index().len());
        assert!(reader.read(&[0, 3]).is_ok());
    }
}

#[test]
fn limits_hold() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.mp4");
    video(&path, &EncodeOptions::default());
    let small = ReadOptions { max_pixels: 128 * 96 - 1, ..ReadOptions::default() };
    assert!(matches!(
        VideoReader::open(&path, &small),
        Err(VideoError::TooLarge { width: 128, height: 96, .. })
    ));
    let short = ReadOptions { max_frames: 49, ..ReadOptions::default() };
    assert!(matches!(
        VideoReader::open(&path, &short),
        Err(VideoError::TooManyFrames { max_frames: 49, .. })
    ));
    let brief = ReadOptions { max_duration: 1.99, ..ReadOptions::default() };
    let known = VideoReader::open(&path, &ReadOptions::default()).unwrap().index().clone();
    let refused = [VideoReader::open(&path, &brief), VideoReader::open_with_index(&path, known, &brief)];
    for error in refused.map(|opened| opened.err().unwrap()) {
        assert!(matches!(error, VideoError::TooLong { max_duration: 1.99, .. }), "{error}");
        assert!(error.to_string().contains("a.mp4: lasts 2 s"), "{error}");
    }
    assert!(VideoReader::open(&path, &ReadOptions { max_duration: 2.01, ..brief }).is_ok());
    let exact = ReadOptions { max_frames: 50, max_pixels: 128 * 96, ..ReadOptions::default() };
    let mut reader = VideoReader::open(&path, &exact).unwrap();
    assert!(matches!(reader.read(&[3, 50]), Err(VideoError::FrameOutOfRange { frame: 50, frames: 50, .. })));
    assert!(reader.read(&[]).unwrap().is_empty());
}

#[test]
fn damaged_frames_are_named_and_the_others_read() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.mp4");
    let options = EncodeOptions {
        gop: 10,
        b_frames: 0,
        x264: "min-keyint=10:scenecut=0".to_owned(),
        ..EncodeOptions::default()
    };
    let mut bytes = video(&path, &options);
    let data = bytes.windows(4).position(|w| w == b"mdat").unwrap();
    // Somewhere in the fourth group of pictures.
    let at = data + (bytes.len() - data) * 66 / 100;
    bytes[at..at + 40].fill(0x5a);
    std::fs::write(&path, bytes).unwrap();
    let mut reader = open(&path).unwrap();
    let mut bad = Vec::new();
    for number in 0..50 {
        match reader.read(&[number]) {
            Ok(frames) => assert!(!frames[0].damaged),
            Err(VideoError::Damaged { frame, .. } | VideoError::Undecodable { frame, .. }) => {
                assert_eq!(frame, number);
                bad.push(number);
            }
            Err(other) => panic!("{other}"),
        }
    }
    assert!(!bad.is_empty() && bad.len() < 15, "{bad:?}");
    let lenient = ReadOptions { allow_damaged: true, ..ReadOptions::default() };
    let mut reader = VideoReader::open(&path, &lenient).unwrap();
    let marked =
        (0..50).filter(|&number| reader.read(&[number]).is_ok_and(|frames| frames[0].damaged)).count();
    assert!(marked <= bad.len());
}

#[test]
fn a_file_that_takes_too_long_is_given_up() {
    let folder = tempfile::tempdir().unwrap();
    for extension in ["mp4", "avi"] {
        let path = folder.path().join("slow").with_extension(extension);
        video(&path, &EncodeOptions::default());
        let hurried = ReadOptions { max_seconds: 0.0, ..ReadOptions::default() };
        let error = VideoReader::open(&path, &hurried).err().unwrap();
        assert!(matches!(error, VideoError::TooSlow { .. }), "{error}");
        // A file that opens in time may still be too slow to read.
        let index = open(&path).unwrap().index().clone();
        let brief = ReadOptions { max_seconds: 1e-3, ..ReadOptions::default() };
        let Ok(mut reader) = VideoReader::open_with_index(&path, index, &brief) else { continue };
        for frames in [vec![49], (0..50).step_by(3).collect(), (0..50).collect()] {
            if let Err(error) = reader.verify(&frames) {
                assert!(matches!(error, VideoError::TooSlow { .. }), "{error}");
                assert!(error.to_string().contains("max_seconds"));
            }
        }
    }
}

#[test]
fn impossible_encodings_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.mp4");
    let create = |path: &Path, width, height, options: &EncodeOptions| {
        VideoWriter::create(path, width, height, options).err()
    };
    let options = EncodeOptions::default();
    assert!(matches!(create(&path, 63, 64, &options), Some(VideoError::Invalid { .. })));
    assert!(matches!(create(&path, 0, 64, &options), Some(VideoError::Invalid { .. })));
    assert!(matches!(create(&folder.path().join("no/a.mp4"), 64, 64, &options), Some(VideoError::Io { .. })));
    assert!(matches!(
        create(&folder.path().join("a.nonsense"), 64, 64, &options),
        Some(VideoError::Encode { .. })
    ));
    let preset = EncodeOptions { preset: "warp".to_owned(), ..options.clone() };
    assert!(matches!(create(&path, 64, 64, &preset), Some(VideoError::Encode { .. })));
    let fps = EncodeOptions { fps: (0, 1), ..options.clone() };
    assert!(matches!(create(&path, 64, 64, &fps), Some(VideoError::Invalid { .. })));
    let mut writer = VideoWriter::create(&path, 64, 64, &options).unwrap();
    assert!(matches!(writer.write(&[0; 5]), Err(VideoError::Invalid { .. })));
    assert!(matches!(writer.finish(), Err(VideoError::Invalid { .. })));
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_is_an_error() {
    let full = Path::new("/dev/full");
    if !full.exists() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("full.mkv");
    std::os::unix::fs::symlink(full, &path).unwrap();
    let mut writer = match VideoWriter::create(&path, 64, 64, &EncodeOptions::default()) {
        Ok(writer) => writer,
        Err(error) => return assert!(matches!(error, VideoError::Encode { .. } | VideoError::Io { .. })),
    };
    let written = (0..200).try_for_each(|i| writer.write(&common::square(64, 64, i, 4, 20)));
    assert!(written.and_then(|()| writer.finish()).is_err());
}
