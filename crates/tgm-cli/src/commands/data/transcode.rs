//! `tgm data transcode`.

use std::collections::{BTreeMap, HashSet};
use std::path::{Component, Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use rayon::prelude::*;
use serde::Serialize;
use tgm_data::manifest::{Manifest, write_manifest};
use tgm_train::config::ConfigError;
use tgm_train::progress::Progress;
use tgm_video::{Crop, ReadOptions, Sampling, VideoFile, VideoReader, View};

use super::copy_settings::CopySettings;
use super::{ManifestArgs, matrix};
use crate::commands::median;

/// Copy the videos of a manifest in a form that decodes fast: H.264 of small frames, short groups of pictures, no sound.
///
/// Time stamps and the number of frames stay, and are compared. Videos that are there already are not made again; how they were
/// made is kept in transcode.toml beside them. Needs the programs `ffmpeg` and `ffprobe`. Keep the originals for final evaluations:
/// this is one more lossy encoding.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  tgm data transcode clips.csv fast/                 writes fast/… and fast/manifest.csv
  tgm data transcode clips.csv fast/ --short-side 320 --gop 12 --crf 18")]
pub(in crate::commands) struct Args {
    #[command(flatten)]
    data: ManifestArgs,
    /// Folder to write to.
    out: PathBuf,
    /// Shorter side of the pictures, an even number; smaller ones stay as they are.
    #[arg(long, default_value_t = 256)]
    short_side: u32,
    /// Most frames from one key frame to the next.
    #[arg(long, default_value_t = 30)]
    gop: u32,
    /// Quality: 18 looks lossless, 23 is x264's default.
    #[arg(long, default_value_t = 20)]
    crf: u8,
    /// Longest time in seconds that one file may take to open or to read.
    #[arg(long, default_value_t = ReadOptions::default().max_seconds)]
    max_seconds: f64,
    /// Write the numbers to a file.
    #[arg(long, value_name = "FILE", value_parser = crate::commands::result_file)]
    json: Option<PathBuf>,
}

#[derive(Serialize)]
struct Gain {
    files: usize,
    bad: usize,
    bytes_before: u64,
    bytes_after: u64,
    clip_ms_before: Option<f64>,
    clip_ms_after: Option<f64>,
}

/// Files on which the gain is measured.
const MEASURED: usize = 12;

pub(super) fn run(args: Args) -> Result<()> {
    let settings = CopySettings { short_side: args.short_side, gop: args.gop, crf: args.crf };
    settings.validate()?;
    let options = ReadOptions { max_seconds: args.max_seconds, ..ReadOptions::default() };
    options.validate().map_err(|error| ConfigError(error.to_string()))?;
    let manifest = args.data.load()?;
    let files: BTreeMap<&str, VideoFile> = manifest.rows().map(|row| (row.path(), row.video())).collect();
    let files: Vec<(&str, VideoFile, PathBuf)> = files
        .into_iter()
        .map(|(path, file)| {
            let target = target(&args.out, path);
            (path, file, target)
        })
        .collect();
    let mut names: Vec<&PathBuf> = files.iter().map(|(_, _, target)| target).collect();
    names.sort_unstable();
    if let Some(pair) = names.windows(2).find(|pair| pair[0] == pair[1]) {
        bail!("two videos would both become {}; rename one of them", pair[0].display());
    }
    refuse_originals(&manifest, &files, &args.out)?;
    let claimed = settings.claim(&args.out)?;
    let (progress, done) = (Progress::new("transcode", files.len() as u64), AtomicU64::new(0));
    let outcomes: Vec<(&str, Option<String>)> = files
        .par_iter()
        .map(|(path, file, target)| {
            let outcome = if target.exists() { Ok(()) } else { transcode(&settings, &options, file, target) };
            progress.set(done.fetch_add(1, Ordering::Relaxed) + 1);
            (*path, outcome.err().map(|error| format!("{error:#}")))
        })
        .collect();
    progress.finish();
    let bad: BTreeMap<&str, &String> =
        outcomes.iter().filter_map(|(path, problem)| Some((*path, problem.as_ref()?))).collect();
    for (path, problem) in &bad {
        println!("{path}: {problem}");
    }
    if bad.len() == files.len() {
        // Without copies there is nothing that other settings would not fit.
        let _ = claimed.map(std::fs::remove_file);
        bail!("not one video could be transcoded");
    }
    write_rows(&manifest, &args.out, &|path| bad.contains_key(path))?;
    let good: Vec<_> = files.iter().filter(|(path, ..)| !bad.contains_key(path)).collect();
    let bytes = |file: VideoFile| file.length().unwrap_or(0);
    let (before, after) = gain(&good, &options);
    let gain = Gain {
        files: files.len(),
        bad: bad.len(),
        bytes_before: good.iter().map(|(_, file, _)| bytes(file.clone())).sum(),
        bytes_after: good.iter().map(|(_, _, target)| bytes(target.into())).sum(),
        clip_ms_before: before,
        clip_ms_after: after,
    };
    println!(
        "{} videos, {} could not be transcoded; {:.1} MB became {:.1} MB",
        gain.files,
        gain.bad,
        gain.bytes_before as f64 / 1e6,
        gain.bytes_after as f64 / 1e6
    );
    if let (Some(before), Some(after)) = (before, after) {
        println!("a clip took {before:.1} ms and takes {after:.1} ms: {:.1} times as many", before / after);
    }
    super::super::write_json(args.json.as_deref(), &gain)
}

/// Refuses a folder in which copies would take the place of originals, or their manifest that of another.
fn refuse_originals(manifest: &Manifest, files: &[(&str, VideoFile, PathBuf)], out: &Path) -> Result<()> {
    let taken = out.join("manifest.csv");
    let same =
        |a: &Path, b: &Path| a.canonicalize().ok().zip(b.canonicalize().ok()).is_some_and(|(a, b)| a == b);
    let own = files.iter().find(|(_, file, target)| same(file.path(), target));
    if own.is_some() || same(manifest.file(), &taken) {
        return Err(
            ConfigError(format!("{}: the originals are there; name another folder", out.display())).into()
        );
    }
    // Of other videos; one that cannot be read is a torn one of ours.
    let Ok(there) = Manifest::load(&taken) else { return Ok(()) };
    let copies: HashSet<&Path> = files.iter().map(|(.., target)| target.as_path()).collect();
    match there.rows().find(|row| !copies.contains(&*out.join(row.path()))) {
        Some(other) => Err(ConfigError(format!(
            "{} is a manifest of other videos ({}) and would be overwritten; name another folder",
            taken.display(),
            other.path()
        ))
        .into()),
        None => Ok(()),
    }
}

/// Where a path's copy goes: below `out`, whatever the path, and always MP4.
fn target(out: &Path, path: &str) -> PathBuf {
    let inside = Path::new(path).components().filter(|part| matches!(part, Component::Normal(_)));
    let mut target = out.join(inside.collect::<PathBuf>());
    let name = target.file_stem().unwrap_or_default().to_owned();
    target.set_file_name(name);
    let mut name = target.into_os_string();
    name.push(".mp4");
    name.into()
}

/// Transcodes beside the place and renames, once the copy has been found to have the same frames at the same times.
fn transcode(settings: &CopySettings, options: &ReadOptions, file: &VideoFile, target: &Path) -> Result<()> {
    let source = VideoReader::open(file, options)?;
    let folder = target.parent().unwrap_or(Path::new("."));
    std::fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let beside = target.with_extension("part.mp4");
    let (side, stream) = (settings.short_side, source.probe().stream);
    let mut filter = format!(
        "scale='if(gt(iw,ih),-2,min({side},trunc(iw/2)*2))':'if(gt(iw,ih),min({side},trunc(ih/2)*2),-2)'"
    );
    if let Some(matrix) = matrix::unstated(file, source.probe())? {
        // Said of both sides it converts nothing but RGB, which has no matrix yet.
        filter +=
            &format!(":in_color_matrix={matrix}:out_color_matrix={matrix},setparams=colorspace={matrix}");
    }
    let output = Command::new("ffmpeg")
        .args(["-v", "error", "-nostdin", "-y", "-i"])
        .arg(file.ffmpeg_url())
        .args(["-map", &format!("0:{stream}"), "-vf", &filter, "-c:v", "libx264", "-threads", "1"])
        .args(["-preset", "medium", "-tune", "fastdecode", "-crf", &settings.crf.to_string()])
        .args(["-g", &settings.gop.to_string(), "-pix_fmt", "yuv420p", "-fps_mode", "passthrough"])
        .args(["-enc_time_base", "-1", "-movflags", "+faststart"])
        .arg(&beside)
        .output()
        .context("cannot start the program `ffmpeg`; install it (Debian, Ubuntu: apt install ffmpeg)")?;
    let said = String::from_utf8_lossy(&output.stderr);
    let made = if output.status.success() {
        ensure_same_times(&source, &beside, options)
            .and_then(|()| std::fs::rename(&beside, target).with_context(|| target.display().to_string()))
    } else {
        Err(anyhow::anyhow!("ffmpeg: {}", said.lines().next().unwrap_or("failed without a word")))
    };
    if made.is_err() {
        // Nothing depends on whether it is there.
        let _ = std::fs::remove_file(&beside);
    }
    made
}

/// Half a frame of the fastest camera.
const SAME_TIME: f64 = 0.002;

fn ensure_same_times(source: &VideoReader, copy: &Path, options: &ReadOptions) -> Result<()> {
    let copy = VideoReader::open(copy, options)?;
    let (source, copy) = (source.index(), copy.index());
    ensure!(copy.len() == source.len(), "the copy has {} frames and not {}", copy.len(), source.len());
    let differs = (0..source.len()).find(|&frame| {
        source.seconds(frame).zip(copy.seconds(frame)).is_none_or(|(a, b)| (a - b).abs() > SAME_TIME)
    });
    match differs {
        Some(frame) => bail!("the copy shows frame {frame} at another time"),
        None => Ok(()),
    }
}

fn write_rows(manifest: &Manifest, out: &Path, is_bad: &dyn Fn(&str) -> bool) -> Result<()> {
    let file = out.join("manifest.csv");
    let rows = manifest.rows().filter(|row| !is_bad(row.path())).map(|row| {
        let mut record = row.record(&file)?;
        let copy = target(Path::new(""), row.path());
        record.path = copy.to_string_lossy().into_owned().into();
        Ok(record)
    });
    Ok(write_manifest(&file, rows)?)
}

/// Median milliseconds of a clip of 16 frames of 224², from the originals and from the copies, one thread.
fn gain(files: &[&(&str, VideoFile, PathBuf)], options: &ReadOptions) -> (Option<f64>, Option<f64>) {
    let step = files.len().div_ceil(MEASURED).max(1);
    let measured: Vec<_> = files.iter().step_by(step).collect();
    let times = |choose: &dyn Fn(&(&str, VideoFile, PathBuf)) -> VideoFile| {
        median(measured.iter().filter_map(|file| clip_ms(&choose(file), options).ok()).collect())
    };
    (times(&|(_, file, _)| file.clone()), times(&|(_, _, target)| target.into()))
}

/// The best of three readings of a video's middle clip.
fn clip_ms(file: &VideoFile, options: &ReadOptions) -> Result<f64> {
    let mut best = f64::INFINITY;
    for _ in 0..3 {
        let begun = Instant::now();
        let mut reader = VideoReader::open(file, options)?;
        let frames = Sampling::Dense { frames: 16, stride: 4 }.test_view(reader.index().len(), 0, 1);
        let (width, height) = (reader.probe().width, reader.probe().height);
        let crop =
            Crop::Center.choose(width, height, 224, &mut tgm_random::Streams::new(0).stream("crop", 0, 0))?;
        reader.read_views(&frames, &[View { crop, size: 224, flipped: false }])?;
        best = best.min(1e3 * begun.elapsed().as_secs_f64());
    }
    Ok(best)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_stay_below_the_folder_and_are_mp4() {
        let out = Path::new("fast");
        for (path, expected) in [
            ("a.avi", "fast/a.mp4"),
            ("b/c.d.webm", "fast/b/c.d.mp4"),
            ("../up.mp4", "fast/up.mp4"),
            ("/abs/olute.mkv", "fast/abs/olute.mp4"),
            ("plain", "fast/plain.mp4"),
        ] {
            assert_eq!(target(out, path), Path::new(expected));
        }
    }
}
