//! The colour matrix that a copy has to state because its source states none.

use std::process::Command;

use anyhow::{Context, Result, bail};
use tgm_video::{ColorMatrix, Probe, Rotation, VideoFile};

/// The matrices that tgm reads as they are stated, by FFmpeg's names. It takes all others for unstated.
const STATED: [&str; 7] = ["bt709", "fcc", "bt470bg", "smpte170m", "smpte240m", "bt2020nc", "bt2020c"];

/// FFmpeg's name of the matrix that tgm takes a video's frames for, if they do not state it themselves.
///
/// A smaller copy that stated none either could be taken for the other one, and have other colours.
pub(super) fn unstated(file: &VideoFile, probe: &Probe) -> Result<Option<&'static str>> {
    let output = Command::new("ffprobe")
        .args(["-v", "error", "-select_streams", &probe.stream.to_string(), "-read_intervals", "%+#1"])
        .args(["-show_entries", "frame=color_space:stream=color_space"])
        .args(["-of", "default=noprint_wrappers=1:nokey=1"])
        .arg(file.ffmpeg_url())
        .output()
        .context("cannot start the program `ffprobe`; it comes with `ffmpeg`")?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("ffprobe: {}", said.lines().next().unwrap_or("failed without a word"));
    }
    let printed = String::from_utf8_lossy(&output.stdout);
    // The frame's, which counts, comes before the stream's.
    let named = printed.lines().next().unwrap_or_default();
    Ok((!STATED.contains(&named)).then(|| assumed(probe)))
}

/// It is the lines of a frame as stored that count: frames are turned upright later.
fn assumed(probe: &Probe) -> &'static str {
    let lines = match probe.rotation {
        Rotation::None | Rotation::Clockwise180 => probe.height,
        Rotation::Clockwise90 | Rotation::Clockwise270 => probe.width,
    };
    match ColorMatrix::unstated(lines) {
        ColorMatrix::Bt709 => "bt709",
        ColorMatrix::Bt601 => "smpte170m",
    }
}
