//! `tgm bench decode`: from video files to frames and to tubelets, in CPU time.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};
use tgm_random::Streams;
use tgm_train::progress::Progress;
use tgm_video::{
    Clip, Crop, CropBox, FrameIndex, Normalization, ReadOptions, Sampling, TubeletShape, VideoReader, View,
    patchify,
};

use super::options::Options;
use super::program::Program;
use super::python::DECODERS;
use super::record::{Record, Row, shown};
use super::scratch::Scratch;
use crate::cpu_time;

/// CPU milliseconds per clip from video files: to whole RGB frames, and all the way to normalised tubelets.
///
/// One thread, opening included; each file's best of several rounds counts. With --peers torchcodec, decord and PyAV read the
/// same frames of the same files, in turn with ours (torchvision crops and resizes for them). One that turns out to decode other
/// frames is named and left out.
///
/// Rows named `indexed` have each file's index stored, as the loader has. `decoding` is the part of it that opening, reading
/// packets and FFmpeg's decoder take.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  tgm bench decode clips/*.mp4
  tgm bench decode --peers --name egogestar --json decode.json egogestar/testvideo/*.mp4")]
pub(in crate::commands) struct Args {
    /// Video files.
    #[arg(required = true)]
    files: Vec<PathBuf>,
    /// Name of this set of files in the rows.
    #[arg(long, default_value = "files")]
    name: String,
    /// Source frames from one frame of a clip to the next.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..))]
    stride: u16,
    #[command(flatten)]
    options: Options,
}

/// Frames in a clip, and its width and height.
const FRAMES: usize = 16;
const SIZE: u32 = 224;
/// The peers, as `benches/peers/decode.py` knows them.
const PEERS: [&str; 4] = ["torchcodec", "torchcodec-approximate", "decord", "pyav"];
/// Mean pixels of the same frames differ by less than this between programs: each rounds colours in its own way.
const SAME_FRAMES: f64 = 1.5;

/// The work of all programs. The peers read it from a file.
#[derive(Serialize)]
struct Spec {
    clips: Vec<ClipSpec>,
    size: u32,
    tubelets: bool,
}

#[derive(Serialize)]
struct ClipSpec {
    path: PathBuf,
    frames: Vec<usize>,
    /// x, y, width, height.
    crop: [u32; 4],
    #[serde(skip)]
    index: FrameIndex,
}

/// Every clip once, as a peer tells of it.
#[derive(Deserialize)]
struct Round {
    clips: Vec<Made>,
}

/// A clip made once.
#[derive(Clone, Copy, Debug, Deserialize)]
struct Made {
    /// Seconds of CPU time.
    cpu: f64,
    /// Seconds that passed.
    wall: f64,
    /// Mean pixel.
    value: f64,
}

pub(super) fn run(args: &Args) -> Result<()> {
    Record::new(rows(args)?).write(args.options.json.as_deref())
}

/// Measures frames and tubelets and prints their rows.
pub(super) fn rows(args: &Args) -> Result<Vec<Row>> {
    let mut spec = Spec { clips: clips(args)?, size: SIZE, tubelets: false };
    let mut peers = if args.options.peers { PEERS.to_vec() } else { Vec::new() };
    println!("{:<34} {:>12} {:>12}  {:>7}", "CPU ms per clip", "ours", "best peer", "ratio");
    let mut rows = Vec::new();
    for (work, tubelets) in [("frames", false), ("tubelets", true)] {
        spec.tubelets = tubelets;
        rows.extend(measure(args, &spec, work, &mut peers)?);
    }
    Ok(rows)
}

/// The middle clip of each file, and a crop as training draws it.
fn clips(args: &Args) -> Result<Vec<ClipSpec>> {
    let streams = Streams::new(0);
    let clip = |(number, path): (usize, &PathBuf)| -> Result<ClipSpec> {
        let reader = VideoReader::open(path, &ReadOptions::default())?;
        let sampling = Sampling::Dense { frames: FRAMES, stride: args.stride.into() };
        let rng = &mut streams.stream("crop", 0, number as u64);
        let CropBox { x, y, width, height } =
            Crop::multi_scale().choose(reader.probe().width, reader.probe().height, SIZE, rng)?;
        Ok(ClipSpec {
            path: std::path::absolute(path)?,
            frames: sampling.test_view(reader.index().len(), 0, 1),
            crop: [x, y, width, height],
            index: reader.index().clone(),
        })
    };
    args.files.iter().enumerate().map(clip).collect()
}

/// Ours with a scan of each file and with stored indices, and the peers, in turn. Takes those from `names` that decode other frames.
fn measure(args: &Args, spec: &Spec, work: &str, names: &mut Vec<&'static str>) -> Result<Vec<Row>> {
    let folder = Scratch::new("decode")?;
    let mut peers = if names.is_empty() { Vec::new() } else { start_peers(folder.path(), spec, names)? };
    let rounds = u64::from(args.options.rounds);
    let progress = Progress::new(work, rounds);
    let count = spec.clips.len();
    let [mut scanned, mut indexed, mut decoding] = [(); 3].map(|()| Best::of(count));
    let mut theirs = vec![Best::of(count); peers.len()];
    for round in 0..rounds {
        scanned.add(&ours(spec, Way::Scanned)?);
        indexed.add(&ours(spec, Way::Indexed)?);
        if !spec.tubelets {
            decoding.add(&ours(spec, Way::Decoding)?);
        }
        for (peer, best) in peers.iter_mut().zip(&mut theirs) {
            best.add(&peer.turn::<Round>()?.clips);
        }
        progress.set(round + 1);
    }
    progress.finish();
    let mut theirs: BTreeMap<&str, Best> = peers.iter().map(Program::name).zip(theirs).collect();
    if !spec.tubelets {
        // Tubelets are not compared with the peers': the whole frames that they are made of are.
        let paths: Vec<&Path> = spec.clips.iter().map(|clip| clip.path.as_path()).collect();
        leave_out_other_frames(&paths, &scanned, &mut theirs)?;
        names.retain(|name| theirs.contains_key(name));
    }
    let row = |name: String, ours: f64, theirs: BTreeMap<String, f64>| {
        let best = theirs.values().copied().min_by(f64::total_cmp);
        let ratio = best.map(|best| best / ours);
        println!("{name:<34} {ours:>12.2} {:>12}  {:>7}", shown(best, 2), shown(ratio, 2));
        Row { name, unit: "CPU ms/clip".into(), ours, peers: theirs, ratio, ..Row::default() }
    };
    let cpu = |best: &Best| 1e3 * best.mean(|made| made.cpu);
    let wall = |best: &Best| 1e3 * best.mean(|made| made.wall);
    let of = |time: &dyn Fn(&Best) -> f64| -> BTreeMap<String, f64> {
        theirs.iter().map(|(name, best)| ((*name).to_owned(), time(best))).collect()
    };
    let set = &args.name;
    let wall_row =
        Row { unit: "ms/clip".into(), ..row(format!("decode/{set}/{work}/wall"), wall(&scanned), of(&wall)) };
    let mut rows = vec![
        row(format!("decode/{set}/{work}"), cpu(&scanned), of(&cpu)),
        row(format!("decode/{set}/{work}/indexed"), cpu(&indexed), of(&cpu)),
        wall_row,
    ];
    if !spec.tubelets {
        rows.push(row(format!("decode/{set}/{work}/decoding"), cpu(&decoding), of(&cpu)));
    }
    Ok(rows)
}

/// The least of all rounds, of each clip: what else the machine did in a round is in few of its clips.
#[derive(Clone)]
struct Best(Vec<Made>);

impl Best {
    fn of(clips: usize) -> Self {
        Self(vec![Made { cpu: f64::INFINITY, wall: f64::INFINITY, value: f64::NAN }; clips])
    }

    fn add(&mut self, round: &[Made]) {
        for (best, made) in self.0.iter_mut().zip(round) {
            *best = Made { cpu: best.cpu.min(made.cpu), wall: best.wall.min(made.wall), value: made.value };
        }
    }

    fn mean(&self, of: impl Fn(&Made) -> f64) -> f64 {
        self.0.iter().map(of).sum::<f64>() / self.0.len() as f64
    }
}

/// Takes away, with a warning, the peers whose frames are not ours: times of different work cannot be compared.
///
/// # Errors
/// When that is all of them: then it may be ours that are wrong.
fn leave_out_other_frames(paths: &[&Path], ours: &Best, theirs: &mut BTreeMap<&str, Best>) -> Result<()> {
    let some = !theirs.is_empty();
    theirs.retain(|name, best| {
        let mut clips = paths.iter().zip(&ours.0).zip(&best.0);
        let other = clips.find(|((_, ours), theirs)| (theirs.value - ours.value).abs() >= SAME_FRAMES);
        if let Some(((path, ours), theirs)) = other {
            let (path, theirs, ours) = (path.display(), theirs.value, ours.value);
            tracing::warn!("{name} is left out, it decodes other frames of {path}: their mean is {theirs:.2} and ours {ours:.2}");
        }
        other.is_none()
    });
    ensure!(
        theirs.is_empty() != some,
        "every peer decodes other frames than ours: leave out the files that the warnings above name, or measure without --peers"
    );
    Ok(())
}

/// How much of our work is done.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    /// With a scan of the file.
    Scanned,
    /// With a stored index.
    Indexed,
    /// With a stored index, and decoded frames thrown away.
    Decoding,
}

/// Our side: every clip once.
fn ours(spec: &Spec, way: Way) -> Result<Vec<Made>> {
    spec.clips.iter().map(|clip| make(spec, clip, way)).collect()
}

fn make(spec: &Spec, clip: &ClipSpec, way: Way) -> Result<Made> {
    let options = ReadOptions::default();
    let index = (way != Way::Scanned).then(|| clip.index.clone());
    let begun = (Instant::now(), cpu_time::thread());
    let mut reader = match index {
        Some(index) => VideoReader::open_with_index(&clip.path, index, &options)?,
        None => VideoReader::open(&clip.path, &options)?,
    };
    let (frames, tubelets) = if spec.tubelets {
        let [x, y, width, height] = clip.crop;
        let view = View { crop: CropBox { x, y, width, height }, size: spec.size, flipped: false };
        let made: Vec<Clip> = reader.read_views(&clip.frames, &[view])?.clips;
        (Vec::new(), Some(patchify(&made[0], TubeletShape::default(), &Normalization::IMAGENET)?))
    } else if way == Way::Decoding {
        reader.verify(&clip.frames)?;
        (Vec::new(), None)
    } else {
        (reader.read(&clip.frames)?, None)
    };
    let wall = begun.0.elapsed().as_secs_f64();
    let cpu = cpu_time::thread().saturating_sub(begun.1).as_secs_f64();
    drop(tubelets);
    let bytes = frames.iter().map(|frame| frame.rgb.len()).sum::<usize>().max(1);
    let total = frames.iter().flat_map(|frame| &frame.rgb).map(|&byte| u64::from(byte)).sum::<u64>();
    Ok(Made { cpu, wall, value: total as f64 / bytes as f64 })
}

/// The peers, each with its first round, of which imports and first calls are a part, behind it.
fn start_peers(folder: &Path, spec: &Spec, names: &[&str]) -> Result<Vec<Program>> {
    let file = folder.join("spec.json");
    std::fs::write(&file, serde_json::to_vec(spec)?)
        .with_context(|| format!("cannot write {}", file.display()))?;
    let python = DECODERS.interpreter()?;
    let start = |name: &str| -> Result<Program> {
        let mut command = DECODERS.command(&python, &file, &[name])?;
        command.env("OMP_NUM_THREADS", "1");
        let mut peer = Program::start(name, command)?;
        peer.turn::<Round>()?;
        Ok(peer)
    };
    names.iter().copied().map(start).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn peers_that_decode_other_frames_of_one_clip_are_left_out() {
        let paths = ["a.mp4", "b.mp4"].map(Path::new);
        let best = |values: [f64; 2]| Best(values.map(|value| Made { cpu: 1.0, wall: 1.0, value }).to_vec());
        let ours = best([100.0, 50.0]);
        // The mean over both clips of the second is ours.
        let mut theirs = BTreeMap::from([("decord", best([100.9, 49.2])), ("pyav", best([80.0, 70.0]))]);
        leave_out_other_frames(&paths, &ours, &mut theirs).unwrap();
        assert!(theirs.keys().eq(&["decord"]));
        let mut theirs = BTreeMap::from([("pyav", best([80.0, 70.0]))]);
        let error = leave_out_other_frames(&paths, &ours, &mut theirs).unwrap_err();
        assert!(error.to_string().contains("every peer decodes other frames"), "{error}");
        leave_out_other_frames(&paths, &ours, &mut BTreeMap::new()).unwrap();
    }

    #[test]
    fn the_least_of_each_clip_counts() {
        let mut best = Best::of(2);
        for cpu in [[1.0, 4.0], [3.0, 2.0]] {
            best.add(&cpu.map(|cpu| Made { cpu, wall: 2.0 * cpu, value: 7.0 }));
        }
        assert_eq!(best.mean(|made| made.cpu), 1.5);
        assert_eq!(best.mean(|made| made.wall), 3.0);
    }
}
