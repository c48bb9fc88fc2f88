//! A world on disk: videos, manifest, ground truth, configuration.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use tgm_random::Streams;
use tgm_video::{EncodeOptions, VideoWriter};

use super::background::{Pattern, Tone};
use super::caption::{self, Caption};
use super::config::{Setting, Split, WorldConfig};
use super::error::WorldError;
use super::motion::Motion;
use super::scene::{Look, PixelBox, Rendered, Scene};

/// Goes up when the same configuration gives other pictures, captions or columns.
const RENDERER: i64 = 2;

/// What is known about one clip: a line of `truth.jsonl`, in the order of the manifest's rows.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Truth {
    /// The path in the manifest.
    pub path: String,
    /// The named object's motion: the label.
    pub motion: Motion,
    /// The setting.
    pub setting: Setting,
    /// The named object.
    pub object: Look,
    /// The second object.
    pub distractor: Option<Look>,
    /// The background's pattern.
    pub pattern: Pattern,
    /// The background's tone.
    pub tone: Tone,
    /// Which of the captions are true.
    pub captions_correct: [bool; caption::PER_CLIP],
    /// The named object in each frame.
    pub object_boxes: Vec<PixelBox>,
    /// The second object in each frame; empty when there is none.
    pub distractor_boxes: Vec<PixelBox>,
}

/// What [`write_world`] did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written {
    /// The manifest.
    pub manifest: PathBuf,
    /// Clips that were made now.
    pub made: usize,
    /// Clips that were there already.
    pub kept: usize,
}

/// Makes a world in a folder: `manifest.csv`, `videos/*.mp4`, `truth.jsonl`, `world.toml`.
///
/// Can be interrupted and called again: clips that are there are kept, as each is complete once it has its
/// name; an empty file counts as none. `progress` is told after each clip how many of how many are done, from several
/// threads. One process at a time may write to a folder.
///
/// # Errors
/// [`WorldError`]; in particular when the folder holds a world of another configuration, or files that are not
/// a world's.
pub fn write_world(
    config: &WorldConfig,
    dir: &Path,
    progress: &(dyn Fn(usize, usize) + Sync),
) -> Result<Written, WorldError> {
    config.validate()?;
    let videos = dir.join("videos");
    fs::create_dir_all(dir).map_err(io_error(dir))?;
    claim(config, dir)?;
    fs::create_dir_all(&videos).map_err(io_error(&videos))?;

    let clips: Vec<Clip<'_>> = Split::ALL
        .into_iter()
        .flat_map(|split| (0..config.count(split)).map(move |number| Clip { config, split, number }))
        .collect();
    let (manifest, truth) = (dir.join("manifest.csv"), dir.join("truth.jsonl"));
    let missing = clips.iter().filter(|clip| !is_made(&dir.join(clip.path()))).count();
    let written = Written { manifest: manifest.clone(), made: missing, kept: clips.len() - missing };
    if missing == 0 && is_made(&manifest) && is_made(&truth) {
        return Ok(written);
    }
    let done = AtomicUsize::new(0);
    let rows = clips.par_iter().map(|clip| {
        let row = clip.write(dir)?;
        progress(done.fetch_add(1, Ordering::Relaxed) + 1, clips.len());
        Ok(row)
    });
    let rows = rows.collect::<Result<Vec<_>, WorldError>>()?;
    write_truth(&truth, rows.iter().map(|(truth, _)| truth))?;
    write_manifest(&manifest, &clips, &rows)?;
    Ok(written)
}

/// The ground truth of a world, in the order of its manifest's rows.
///
/// # Errors
/// [`WorldError`] when `truth.jsonl` is absent or is not a world's.
pub fn read_truth(dir: &Path) -> Result<Vec<Truth>, WorldError> {
    let file = dir.join("truth.jsonl");
    let text = fs::read_to_string(&file).map_err(io_error(&file))?;
    let parse = |(line, text)| {
        serde_json::from_str(text).map_err(|error| WorldError::Syntax {
            file: file.clone(),
            message: format!("line {}: {error}", line + 1),
        })
    };
    text.lines().enumerate().map(parse).collect()
}

/// The configuration of the world in a folder.
///
/// # Errors
/// [`WorldError`] when `world.toml` is absent or is not a world's.
pub fn read_config(dir: &Path) -> Result<WorldConfig, WorldError> {
    let file = dir.join("world.toml");
    let mut table = read_toml(&file)?;
    table.remove("renderer");
    table.try_into().map_err(|error| WorldError::Syntax { file, message: error.to_string() })
}

fn read_toml(file: &Path) -> Result<toml::Table, WorldError> {
    let text = fs::read_to_string(file).map_err(io_error(file))?;
    text.parse().map_err(|error: toml::de::Error| WorldError::Syntax {
        file: file.to_owned(),
        message: error.to_string(),
    })
}

/// Writes `world.toml`, first of all files; fails when the folder is taken by something else.
fn claim(config: &WorldConfig, dir: &Path) -> Result<(), WorldError> {
    let file = dir.join("world.toml");
    let syntax = |message| WorldError::Syntax { file: file.clone(), message };
    let mut wanted = toml::Table::try_from(config).map_err(|error| syntax(error.to_string()))?;
    wanted.insert("renderer".to_owned(), RENDERER.into());
    if !file.is_file() {
        if let Some(name) =
            ["manifest.csv", "truth.jsonl", "videos"].into_iter().find(|name| dir.join(name).exists())
        {
            return Err(WorldError::NotAWorld { dir: dir.to_owned(), name });
        }
        return write_file(&file, &wanted.to_string());
    }
    let found = read_toml(&file)?;
    let mut keys: Vec<&String> = wanted.keys().chain(found.keys()).collect();
    keys.sort();
    let Some(key) = keys.into_iter().find(|&key| wanted.get(key) != found.get(key)) else { return Ok(()) };
    let show = |table: &toml::Table| match table.get(key) {
        Some(value) => format!("`{key} = {value}`"),
        None => format!("no `{key}`"),
    };
    Err(WorldError::OtherWorld { dir: dir.to_owned(), found: show(&found), wanted: show(&wanted) })
}

/// Whether a file is there with something in it.
fn is_made(file: &Path) -> bool {
    fs::metadata(file).is_ok_and(|found| found.is_file() && found.len() > 0)
}

/// One clip of a world: its draws depend on seed, split and number only.
struct Clip<'a> {
    config: &'a WorldConfig,
    split: Split,
    number: u32,
}

impl Clip<'_> {
    fn path(&self) -> String {
        format!("videos/{}-{:05}.mp4", self.split.name(), self.number)
    }

    /// The scene and the captions, from streams of their own: other captions leave the pictures as they are.
    fn plan(&self) -> (Scene, [Caption; caption::PER_CLIP]) {
        let stream = |purpose: &str| {
            let purpose = format!("world {purpose} {}", self.split.name());
            Streams::new(self.config.seed).stream(&purpose, 0, u64::from(self.number))
        };
        let (motion, setting) = self.config.cell(self.number);
        let scene = Scene::draw(motion, setting, &mut stream("scene"));
        let captions =
            caption::draw(&scene, self.config.captions, self.config.caption_noise, &mut stream("caption"));
        (scene, captions)
    }

    /// Renders the clip, encodes it unless it is there, and tells what is in it.
    fn write(&self, dir: &Path) -> Result<(Truth, [Caption; caption::PER_CLIP]), WorldError> {
        let (scene, captions) = self.plan();
        let rendered = scene.render(self.config.frames, self.config.size);
        let path = self.path();
        if !is_made(&dir.join(&path)) {
            self.encode(&rendered, &dir.join(&path))?;
        }
        let (pattern, tone) = scene.background();
        let truth = Truth {
            path,
            motion: scene.motion(),
            setting: scene.setting(),
            object: scene.object(),
            distractor: scene.distractor(),
            pattern,
            tone,
            captions_correct: captions.each_ref().map(|caption| caption.correct),
            object_boxes: rendered.object,
            distractor_boxes: rendered.distractor,
        };
        Ok((truth, captions))
    }

    fn encode(&self, rendered: &Rendered, file: &Path) -> Result<(), WorldError> {
        // The container is chosen by the ending, so that of the unfinished file is `.mp4`, too.
        let part = file.with_extension("part.mp4");
        // x264's macroblock tree reads memory that it has not written when pictures are this small: equal clips
        // then come out different now and then.
        let x264 = "mbtree=0".to_owned();
        let options = EncodeOptions { fps: (self.config.fps, 1), x264, ..EncodeOptions::default() };
        let mut writer = VideoWriter::create(&part, self.config.size, self.config.size, &options)?;
        for frame in &rendered.frames {
            writer.write(frame)?;
        }
        writer.finish()?;
        // Without this, a system that stops may leave the name and none of the bytes.
        let synced = fs::File::open(&part).and_then(|part| part.sync_all());
        synced.and_then(|()| fs::rename(&part, file)).map_err(io_error(file))
    }
}

fn write_truth<'a>(file: &Path, rows: impl Iterator<Item = &'a Truth>) -> Result<(), WorldError> {
    let mut text = String::new();
    for row in rows {
        let line = serde_json::to_string(row)
            .map_err(|error| WorldError::Syntax { file: file.to_owned(), message: error.to_string() })?;
        text.push_str(&line);
        text.push('\n');
    }
    write_file(file, &text)
}

fn write_manifest(
    file: &Path,
    clips: &[Clip<'_>],
    rows: &[(Truth, [Caption; caption::PER_CLIP])],
) -> Result<(), WorldError> {
    let mut writer = csv::Writer::from_writer(Vec::new());
    let failed = |error: csv::Error| WorldError::Syntax { file: file.to_owned(), message: error.to_string() };
    writer
        .write_record([
            "path",
            "split",
            "label",
            "colour",
            "shape",
            "caption",
            "caption_2",
            "caption_3",
            "setting",
        ])
        .map_err(failed)?;
    for (clip, (truth, captions)) in clips.iter().zip(rows) {
        let [first, second, third] = captions.each_ref().map(|caption| caption.text.as_str());
        let (label, setting) = (truth.motion.name(), truth.setting.name());
        let (colour, shape) = (truth.object.colour.name(), truth.object.shape.name());
        writer
            .write_record([
                &truth.path,
                clip.split.name(),
                label,
                colour,
                shape,
                first,
                second,
                third,
                setting,
            ])
            .map_err(failed)?;
    }
    let bytes = writer.into_inner().map_err(|error| io_error(file)(error.into_error()))?;
    write_bytes(file, &bytes)
}

fn write_file(file: &Path, text: &str) -> Result<(), WorldError> {
    write_bytes(file, text.as_bytes())
}

/// All of the file or nothing.
fn write_bytes(file: &Path, bytes: &[u8]) -> Result<(), WorldError> {
    let part = file.with_extension("part");
    let written =
        fs::File::create(&part).and_then(|mut out| out.write_all(bytes).and_then(|()| out.sync_all()));
    written.and_then(|()| fs::rename(&part, file)).map_err(io_error(file))
}

fn io_error(file: &Path) -> impl FnOnce(io::Error) -> WorldError {
    let file = file.to_owned();
    move |source| WorldError::Io { file, source }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tgm_video::{ReadOptions, VideoReader};

    fn small() -> WorldConfig {
        WorldConfig { seed: 4, train: 4, val: 1, test: 2, frames: 5, ..WorldConfig::default() }
    }

    fn write(config: &WorldConfig, dir: &Path) -> Result<Written, WorldError> {
        write_world(config, dir, &|_, _| {})
    }

    fn bytes(dir: &Path, name: &str) -> Vec<u8> {
        fs::read(dir.join(name)).unwrap()
    }

    #[test]
    fn the_files_hold_what_was_drawn() {
        let dir = tempfile::tempdir().unwrap();
        let config = small();
        write(&config, dir.path()).unwrap();
        let truth = read_truth(dir.path()).unwrap();
        for (number, truth) in (0..4).zip(truth) {
            let (scene, _) = Clip { config: &config, split: Split::Train, number }.plan();
            let rendered = scene.render(config.frames, config.size);
            assert_eq!(truth.object_boxes, rendered.object);
            let mut reader =
                VideoReader::open(dir.path().join(&truth.path), &ReadOptions::default()).unwrap();
            assert_eq!(reader.index().len(), 5);
            assert_eq!(reader.index().seconds(4), Some(0.4));
            for (frame, drawn) in reader.read(&[0, 1, 2, 3, 4]).unwrap().iter().zip(&rendered.frames) {
                assert_eq!((frame.width, frame.height), (64, 64));
                let error: f64 =
                    frame.rgb.iter().zip(drawn).map(|(a, b)| f64::from(a.abs_diff(*b)).powi(2)).sum();
                let psnr = 10.0 * (255.0_f64.powi(2) * drawn.len() as f64 / error).log10();
                // Colour at half resolution costs most of it, at the objects' edges.
                assert!(psnr > 24.0, "{}: {psnr} dB", truth.path);
            }
        }
    }

    #[test]
    fn equal_configurations_give_equal_files_and_larger_worlds_begin_alike() {
        let dirs = [(); 3].map(|()| tempfile::tempdir().unwrap());
        write(&small(), dirs[0].path()).unwrap();
        write(&small(), dirs[1].path()).unwrap();
        write(&WorldConfig { train: 6, ..small() }, dirs[2].path()).unwrap();
        for name in ["manifest.csv", "truth.jsonl", "videos/train-00003.mp4", "videos/test-00001.mp4"] {
            assert_eq!(bytes(dirs[0].path(), name), bytes(dirs[1].path(), name), "{name}");
        }
        for name in ["videos/train-00003.mp4", "videos/test-00001.mp4"] {
            assert_eq!(bytes(dirs[0].path(), name), bytes(dirs[2].path(), name), "{name}");
        }
    }

    #[test]
    fn caption_settings_leave_the_pictures_alone() {
        let dirs = [(); 2].map(|()| tempfile::tempdir().unwrap());
        write(&small(), dirs[0].path()).unwrap();
        let noisy =
            WorldConfig { captions: super::super::CaptionKind::Motion, caption_noise: 1.0, ..small() };
        write(&noisy, dirs[1].path()).unwrap();
        let video = "videos/train-00002.mp4";
        assert_eq!(bytes(dirs[0].path(), video), bytes(dirs[1].path(), video));
        assert_ne!(bytes(dirs[0].path(), "manifest.csv"), bytes(dirs[1].path(), "manifest.csv"));
        assert!(read_truth(dirs[1].path()).unwrap().iter().all(|truth| truth.captions_correct == [false; 3]));
    }

    #[test]
    fn an_interrupted_world_is_finished_and_a_finished_one_kept() {
        let dir = tempfile::tempdir().unwrap();
        let all = Written { manifest: dir.path().join("manifest.csv"), made: 7, kept: 0 };
        assert_eq!(write(&small(), dir.path()).unwrap(), all);
        let names = ["manifest.csv", "truth.jsonl", "videos/val-00000.mp4"];
        let before = names.map(|name| bytes(dir.path(), name));
        for name in &names {
            fs::remove_file(dir.path().join(name)).unwrap();
        }
        assert_eq!(write(&small(), dir.path()).unwrap(), Written { made: 1, kept: 6, ..all.clone() });
        assert_eq!(names.map(|name| bytes(dir.path(), name)), before);
        assert_eq!(write(&small(), dir.path()).unwrap(), Written { made: 0, kept: 7, ..all });
        assert_eq!(read_config(dir.path()).unwrap(), small());
    }

    /// Machines that lost power left such files, and the world passed for finished.
    #[test]
    fn an_empty_file_of_a_finished_world_is_made_again() {
        let dir = tempfile::tempdir().unwrap();
        let all = write(&small(), dir.path()).unwrap();
        let names = ["videos/train-00001.mp4", "truth.jsonl"];
        let before = names.map(|name| bytes(dir.path(), name));
        for name in names {
            fs::write(dir.path().join(name), b"").unwrap();
        }
        assert_eq!(write(&small(), dir.path()).unwrap(), Written { made: 1, kept: 6, ..all });
        assert_eq!(names.map(|name| bytes(dir.path(), name)), before);
    }

    #[test]
    fn a_folder_with_something_else_in_it_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        write(&small(), dir.path()).unwrap();
        let error = write(&WorldConfig { seed: 5, ..small() }, dir.path()).unwrap_err().to_string();
        assert!(error.contains("it has `seed = 4`, wanted is `seed = 5`"), "{error}");

        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("manifest.csv"), "path\nmine.mp4\n").unwrap();
        let error = write(&small(), dir.path()).unwrap_err();
        assert!(matches!(error, WorldError::NotAWorld { name: "manifest.csv", .. }));
        assert_eq!(bytes(dir.path(), "manifest.csv"), b"path\nmine.mp4\n");
    }

    #[test]
    fn impossible_configurations_are_refused_with_key_and_value() {
        let dir = tempfile::tempdir().unwrap();
        for (config, says) in [
            (WorldConfig { size: 63, ..small() }, "`size = 63`"),
            (WorldConfig { frames: 1, ..small() }, "`frames = 1`"),
            (WorldConfig { fps: 0, ..small() }, "`fps = 0`"),
            (WorldConfig { settings: Vec::new(), ..small() }, "`settings = []`"),
            (WorldConfig { caption_noise: 1.5, ..small() }, "`caption_noise = 1.5`"),
            (WorldConfig { train: 0, val: 0, test: 0, ..small() }, "`train = 0`"),
        ] {
            let error = write(&config, dir.path()).unwrap_err().to_string();
            assert!(error.contains(says), "{error}");
        }
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn classes_and_settings_are_dealt_out_evenly() {
        let config = WorldConfig::default();
        let mut cells = std::collections::HashMap::new();
        for clip in 0..72 {
            let (motion, setting) = config.cell(clip);
            *cells.entry((motion, setting)).or_insert(0) += 1;
        }
        assert_eq!(cells.len(), 12 * 3);
        assert!(cells.values().all(|&count| count == 2));
    }
}
