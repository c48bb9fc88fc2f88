//! What is really in the files of a manifest.

use std::time::UNIX_EPOCH;

use serde::{Deserialize, Serialize};
use tgm_video::{FrameIndex, ReadOptions, VideoError, VideoFile, VideoReader, probe};

use crate::manifest::Manifest;

/// How closely a file is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Depth {
    /// Its headers are read. Headers may lie.
    Headers,
    /// All packets are read; the first, the middle and the last frame are decoded.
    Ends,
    /// Every frame is decoded.
    Frames,
}

/// What was found in one file.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct FileReport {
    /// The path, as the manifest has it.
    pub path: String,
    /// Bytes.
    pub bytes: u64,
    /// Seconds since 1970 of the last change; with [`Self::bytes`] it tells whether the file is still the same.
    pub modified: u64,
    /// Displayed width in pixels.
    pub width: u32,
    /// Displayed height in pixels.
    pub height: u32,
    /// FFmpeg's name of the codec.
    pub codec: String,
    /// Average frames per second; 0 if unknown.
    pub fps: f64,
    /// Frames; of headers only a hint.
    pub frames: Option<u64>,
    /// Length in seconds.
    pub seconds: Option<f64>,
    /// What is wrong with the file, if anything.
    pub problem: Option<String>,
}

/// Looks at a file of a manifest. Never fails: what is wrong is in the report. The index of a good file comes with it, unless
/// only headers were read.
pub fn examine(
    path: &str,
    file: &VideoFile,
    options: &ReadOptions,
    depth: Depth,
) -> (FileReport, Option<FrameIndex>) {
    let (bytes, modified) = identity(file);
    let mut report = FileReport { path: path.to_owned(), bytes, modified, ..FileReport::default() };
    match look(file, options, depth, &mut report) {
        Ok(index) => (report, index),
        Err(error) => (FileReport { problem: Some(error.to_string()), ..report }, None),
    }
}

/// Bytes of a video and time of the last change of its file; zeros for one that is not there.
pub fn identity(file: &VideoFile) -> (u64, u64) {
    let Ok(metadata) = file.path().metadata() else { return (0, 0) };
    let modified = metadata.modified().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok());
    (file.length().unwrap_or(0), modified.map_or(0, |time| time.as_secs()))
}

fn look(
    file: &VideoFile,
    options: &ReadOptions,
    depth: Depth,
    report: &mut FileReport,
) -> Result<Option<FrameIndex>, VideoError> {
    let headers = probe(file, options)?;
    (report.width, report.height) = (headers.width, headers.height);
    (report.codec, report.fps) = (headers.codec, headers.average_fps);
    (report.frames, report.seconds) = (headers.frames_hint, headers.duration);
    if depth == Depth::Headers {
        return Ok(None);
    }
    let mut reader = VideoReader::open(file, options)?;
    let frames = reader.index().len();
    report.frames = Some(frames as u64);
    report.seconds = reader.index().duration().or(report.seconds);
    match depth {
        Depth::Frames => verify_all(&mut reader)?,
        Depth::Headers | Depth::Ends => {
            [0, frames / 2, frames - 1].iter().try_for_each(|&frame| reader.verify(&[frame]))?;
        }
    }
    Ok(Some(reader.index().clone()))
}

/// Frames that are decoded within one [`ReadOptions::max_seconds`]: more than a clip has, less than a long video.
const AT_ONCE: usize = 256;

/// Decodes every frame. A good video may take as long as it is; only one that gets nowhere takes too long.
fn verify_all(reader: &mut VideoReader) -> Result<(), VideoError> {
    let frames: Vec<usize> = (0..reader.index().len()).collect();
    frames.chunks(AT_ONCE).try_for_each(|chunk| reader.verify(chunk))
}

/// What is wrong with one row of a manifest whose file has this report.
pub fn row_problem(manifest: &Manifest, row: usize, report: &FileReport) -> Option<String> {
    let row = manifest.row(row);
    let late = row.start().zip(report.seconds).filter(|(start, seconds)| start > seconds);
    let late = late.map(|(start, seconds)| {
        format!("{}: the row starts at {start} s, but the video ends at {seconds:.3} s", row.path())
    });
    report.problem.clone().or(late)
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::time::Instant;

    use tgm_video::{EncodeOptions, VideoWriter};

    use super::*;

    /// Good videos of an hour, as EPIC-KITCHENS has them, were called too slow.
    #[test]
    fn a_long_good_video_may_take_longer_than_max_seconds_in_all() {
        const FRAMES: usize = 12 * AT_ONCE + 1;
        let dir = tempfile::tempdir().unwrap();
        let file = VideoFile::whole(dir.path().join("long.mp4"));
        let options = EncodeOptions { preset: "ultrafast".to_owned(), ..EncodeOptions::default() };
        let mut writer = VideoWriter::create(file.path(), 128, 128, &options).unwrap();
        for frame in 0..FRAMES {
            let noise = |i: usize| (i.wrapping_mul(40_503) >> 5) as u8;
            let picture: Vec<u8> = (0..128 * 128 * 3).map(|i| noise(i + 384 * frame)).collect();
            writer.write(&picture).unwrap();
        }
        writer.finish().unwrap();
        let all: Vec<usize> = (0..FRAMES).collect();
        let mut reader = VideoReader::open(&file, &ReadOptions::default()).unwrap();
        // On a busy machine some tries are held up.
        let passes = (0..10).any(|_| {
            let begun = Instant::now();
            reader.verify(&all).unwrap();
            let limit = begun.elapsed().as_secs_f64() / 3.0;
            let hurried = ReadOptions { max_seconds: limit, ..ReadOptions::default() };
            let in_one = VideoReader::open(&file, &hurried).and_then(|mut reader| reader.verify(&all));
            let (report, index) = examine("long.mp4", &file, &hurried, Depth::Frames);
            matches!(in_one, Err(VideoError::TooSlow { .. }))
                && report.problem.is_none()
                && index.is_some_and(|index| index.len() == FRAMES)
        });
        assert!(passes);
    }

    /// Headers were held against the default limits: a file that the loader reads was reported as too large.
    #[test]
    fn a_file_is_looked_at_within_the_limits_that_are_asked_for() {
        let world = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/world/videos");
        let file = VideoFile::whole(world.join("train-00000.mp4"));
        for (max_pixels, good) in [(64 * 64, true), (64 * 64 - 1, false)] {
            let options = ReadOptions { max_pixels, ..ReadOptions::default() };
            for depth in [Depth::Headers, Depth::Ends] {
                let (report, _) = examine("a.mp4", &file, &options, depth);
                assert_eq!(report.problem.is_none(), good, "{depth:?}: {:?}", report.problem);
            }
        }
    }

    #[test]
    fn reports_tell_what_is_there_and_what_is_wrong() {
        let world = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/world/videos");
        for depth in [Depth::Headers, Depth::Ends, Depth::Frames] {
            let file = VideoFile::whole(world.join("train-00000.mp4"));
            let (report, index) = examine("a.mp4", &file, &ReadOptions::default(), depth);
            assert_eq!(index.map(|index| index.len()), (depth != Depth::Headers).then_some(20));
            assert_eq!((report.width, report.height, report.frames), (64, 64, Some(20)), "{depth:?}");
            assert_eq!((report.codec.as_str(), &report.problem), ("h264", &None));
            assert!((report.seconds.unwrap() - 2.0).abs() < 0.01, "{:?}", report.seconds);
            let file = VideoFile::whole(world.join("absent.mp4"));
            let (absent, _) = examine("b.mp4", &file, &ReadOptions::default(), depth);
            assert!(absent.problem.unwrap().contains("absent.mp4"));
        }
    }
}
