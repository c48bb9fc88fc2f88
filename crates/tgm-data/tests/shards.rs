//! Tar archives as a data set: the same clips as from files, the same rows however they are named.

#[path = "common/tarballs.rs"]
mod tarballs;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use tarballs::tarball;
use tgm_data::archive::ArchiveError;
use tgm_data::index_store::IndexWriter;
use tgm_data::loader::{
    Batch, ClipConfig, EvalLoader, LoaderConfig, LoaderError, MotionSource, Sample, Subset, TestViews,
    TrainLoader,
};
use tgm_data::manifest::{Manifest, ManifestError, Row, write_manifest};
use tgm_data::survey::{Depth, examine};
use tgm_random::Streams;
use tgm_video::{ReadOptions, Sampling, TubeletShape, VideoReader};

const VIDEOS: usize = 9;

/// A video of the fixtures' world.
fn world_video(number: usize) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../../fixtures/world/videos/train-{number:05}.mp4"))
}

/// The world's videos as files with a manifest, and the same in three archives.
fn both() -> (tempfile::TempDir, PathBuf, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let mut rows = String::from("path,label,caption,caption_2\n");
    let files = dir.path().join("files");
    let shards = dir.path().join("shards");
    [&files, &shards].into_iter().for_each(|folder| std::fs::create_dir(folder).unwrap());
    for shard in 0..3 {
        let mut members: Vec<(String, Vec<u8>)> = Vec::new();
        for video in 3 * shard..3 * shard + 3 {
            let bytes = std::fs::read(world_video(video)).unwrap();
            std::fs::write(files.join(format!("{video}.mp4")), &bytes).unwrap();
            let label = ["left", "right"][video % 2];
            rows += &format!("{video}.mp4,{label},what happens in {video},in other words\n");
            let key = format!("clips/{video}");
            members.push((format!("{key}.cls"), format!("{label}\n").into_bytes()));
            members.push((format!("{key}.mp4"), bytes));
            members.push((format!("{key}.txt"), format!("what happens in {video}\n\n").into_bytes()));
            let json = r#"{"caption": "in other words", "label": "not this", "fps": 10, "more": {"a": [1]}, "none": null}"#;
            members.push((format!("{key}.json"), json.into()));
        }
        let members: Vec<(&str, &[u8])> =
            members.iter().map(|(name, bytes)| (&name[..], &bytes[..])).collect();
        std::fs::write(shards.join(format!("s-{shard:02}.tar")), tarball(&members)).unwrap();
    }
    std::fs::write(files.join("manifest.csv"), rows).unwrap();
    (dir, files.join("manifest.csv"), shards)
}

fn subset(manifest: &Path) -> Subset {
    let manifest = Arc::new(Manifest::load(manifest).unwrap());
    let rows = (0..manifest.len() as u32).collect();
    Subset::new(manifest, rows).unwrap()
}

fn clips() -> ClipConfig {
    ClipConfig {
        sampling: Sampling::Dense { frames: 8, stride: 2 },
        flip: 0.5,
        size: 32,
        tubelet: TubeletShape { frames: 2, patch: 8 },
        motion: MotionSource::Auto,
        ..ClipConfig::default()
    }
}

fn batches(data: &Subset, workers: usize, start: u64, count: usize) -> Vec<Batch> {
    let config = LoaderConfig { workers, ..LoaderConfig::default() };
    let loader = TrainLoader::new(data, &clips(), &config, 4, Streams::new(3), start).unwrap();
    loader.take(count).map(Result::unwrap).collect()
}

/// All of a sample but what its video is called.
fn nameless(samples: Vec<Sample>) -> Vec<Sample> {
    samples.into_iter().map(|sample| Sample { path: String::new(), ..sample }).collect()
}

fn facts<'a>(row: &Row<'a>) -> (&'a str, Option<&'a str>, Vec<&'a str>, Option<&'a str>) {
    (row.path(), row.label_name(), row.captions().collect(), row.other("fps"))
}

#[test]
fn shards_give_the_same_batches_as_files_whatever_the_workers_and_the_start() {
    let (_dir, files, shards) = both();
    let [files, shards] = [files, shards].map(|manifest| subset(&manifest));
    let of_files = batches(&files, 1, 0, 6);
    let of_shards = batches(&shards, 1, 0, 6);
    assert_eq!(of_shards[0].samples[0].path.split('/').nth(1), Some("clips"));
    for (a, b) in of_files.into_iter().zip(of_shards.clone()) {
        assert!(nameless(a.samples) == nameless(b.samples));
    }
    assert!(batches(&shards, 3, 0, 6) == of_shards);
    assert!(batches(&shards, 2, 4, 2)[..] == of_shards[4..]);
}

#[test]
fn shards_give_the_same_test_clips_as_files() {
    let (_dir, files, shards) = both();
    let all = |manifest: &Path| -> Vec<Sample> {
        let views = TestViews { views: 2, crops: 3 };
        let loader = EvalLoader::new(&subset(manifest), &clips(), &LoaderConfig::default(), views).unwrap();
        nameless(loader.flat_map(Result::unwrap).collect())
    };
    assert!(all(&files) == all(&shards));
}

#[test]
fn a_folder_a_pattern_and_a_manifest_of_members_name_the_same_rows() {
    let (_dir, _, shards) = both();
    let folder = Manifest::load(&shards).unwrap();
    let pattern = Manifest::load(shards.join("s-{00..02}.tar")).unwrap();
    assert_eq!(folder.len(), VIDEOS);
    assert_eq!(folder.row(4).path(), "s-01.tar/clips/4.mp4");
    let captions = vec!["what happens in 4", "in other words"];
    assert_eq!(facts(&folder.row(4)), ("s-01.tar/clips/4.mp4", Some("left"), captions, Some("10")));
    assert_eq!(folder.other_columns().collect::<Vec<_>>(), ["fps"]);

    let written = shards.join("rows.csv");
    write_manifest(&written, folder.rows().map(|row| row.record(&written))).unwrap();
    let csv = Manifest::load(&written).unwrap();
    let above = shards.parent().unwrap().join("rows.jsonl");
    write_manifest(&above, folder.rows().map(|row| row.record(&above))).unwrap();
    let json = Manifest::load(&above).unwrap();
    assert_eq!(json.row(4).path(), "shards/s-01.tar/clips/4.mp4");
    for manifest in [&pattern, &csv, &json] {
        for (a, b) in folder.rows().zip(manifest.rows()) {
            assert_eq!((a.video().path(), a.video().range()), (b.video().path(), b.video().range()));
            assert_eq!(facts(&a).1, facts(&b).1);
            assert_eq!(facts(&a).2, facts(&b).2);
        }
        assert!(manifest.check_files(&[0, 8]).is_ok());
    }
    let one = Manifest::load(shards.join("s-02.tar")).unwrap();
    assert_eq!(one.rows().map(|row| row.path()).collect::<Vec<_>>()[0], "s-02.tar/clips/6.mp4");
    assert_eq!(one.len(), 3);
}

#[test]
fn archives_and_files_may_lie_in_one_folder() {
    let (_dir, _, shards) = both();
    std::fs::copy(world_video(0), shards.join("a.mp4")).unwrap();
    std::fs::copy(world_video(0), shards.join("s-00.tar.mp4")).unwrap();
    let manifest = Manifest::load(&shards).unwrap();
    let paths: Vec<_> = manifest.rows().map(|row| row.path()).collect();
    assert_eq!(paths.len(), VIDEOS + 2);
    assert_eq!((paths[0], paths[1], paths[4]), ("a.mp4", "s-00.tar/clips/0.mp4", "s-00.tar.mp4"));
    for row in manifest.rows() {
        assert_eq!(VideoReader::open(row.video(), &ReadOptions::default()).unwrap().index().len(), 20);
    }
}

#[test]
fn known_indices_and_a_cache_in_memory_change_nothing() {
    let (_dir, _, shards) = both();
    let data = subset(&shards);
    let plain = batches(&data, 2, 0, 5);
    let writer = IndexWriter::open(&shards, false).unwrap();
    for row in data.manifest().rows() {
        let (report, index) = examine(row.path(), &row.video(), &ReadOptions::default(), Depth::Frames);
        assert_eq!((report.problem, report.bytes), (None, row.video().length().unwrap()));
        writer.append(row.path(), &row.video(), &index.unwrap()).unwrap();
    }
    assert!(batches(&data, 2, 0, 5) == plain);
    let config = LoaderConfig { cache_mb: 64, ..LoaderConfig::default() };
    let loader = TrainLoader::new(&data, &clips(), &config, 4, Streams::new(3), 0).unwrap();
    assert!(loader.take(5).map(Result::unwrap).collect::<Vec<_>>() == plain);
}

#[test]
fn a_broken_video_in_a_shard_is_named_with_its_shard() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("s.tar");
    let good = std::fs::read(world_video(0)).unwrap();
    let cut = &good[..good.len() / 2];
    std::fs::write(
        &file,
        tarball(&[("good.mp4", &good), ("cut.mp4", cut), ("text.mp4", b"no video"), ("empty.mp4", b"")]),
    )
    .unwrap();
    let data = subset(&file);
    let problems: Vec<String> = [1, 2, 3]
        .map(|row| data.manifest().row(row))
        .map(|row| VideoReader::open(row.video(), &ReadOptions::default()).err().unwrap().to_string())
        .into();
    for (problem, name) in problems.iter().zip(["s.tar/cut.mp4: ", "s.tar/text.mp4: ", "s.tar/empty.mp4: "]) {
        assert!(problem.contains(name), "{problem}");
    }
    let config = LoaderConfig { max_bad_share: 1.0, ..LoaderConfig::default() };
    let mut loader = TrainLoader::new(&data, &clips(), &config, 4, Streams::new(3), 0).unwrap();
    let batch = loader.next_batch().unwrap();
    assert!(batch.samples.iter().all(|sample| sample.path == "s.tar/good.mp4") && batch.skipped.len() >= 3);
    let mut eval = EvalLoader::new(&data, &clips(), &config, TestViews::default()).unwrap();
    assert!(eval.next().unwrap().is_ok());
    assert!(matches!(eval.next().unwrap(), Err(LoaderError::BadVideo { .. })));
}

#[test]
fn members_and_archives_that_are_not_there_are_missing_files() {
    let (_dir, _, shards) = both();
    let file = shards.join("rows.csv");
    std::fs::write(&file, "path\ns-00.tar/clips/0.mp4\ns-00.tar/clips/99.mp4\nno.tar/a.mp4\n").unwrap();
    let manifest = Manifest::load(&file).unwrap();
    assert_eq!(manifest.missing_files(&[0, 1, 2]), [1, 2]);
    for row in [1, 2] {
        assert!(VideoReader::open(manifest.row(row).video(), &ReadOptions::default()).is_err());
    }
    let error = Manifest::load(shards.join("s-{00..07}.tar")).unwrap_err();
    assert!(matches!(error, ManifestError::Archive(ArchiveError::Read { .. })));
    assert!(error.to_string().contains("s-03.tar"), "{error}");
    let error = Manifest::load(shards.join("s-{00..tar")).unwrap_err();
    assert!(matches!(
        error,
        ManifestError::Read { .. } | ManifestError::Archive(ArchiveError::Pattern { .. })
    ));
}

#[test]
fn what_is_said_beside_a_video_must_make_sense() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("s.tar");
    let load = |name: &str, text: &[u8]| {
        std::fs::write(&file, tarball(&[("d/a.mp4", b"x"), (name, text)])).unwrap();
        Manifest::load(&file)
    };
    let long = vec![b'x'; 2 << 20];
    let bad: [(&str, &[u8]); 6] = [
        ("d/a.json", b"{"),
        ("d/a.json", b"[1]"),
        ("d/a.json", b"{\"start\": \"soon\"}"),
        ("d/a.json", b"{\"end\": -1}"),
        ("d/a.txt", b"caf\xe9"),
        ("d/a.cls", &long),
    ];
    for (name, text) in bad {
        let error = load(name, text).unwrap_err();
        assert!(matches!(error, ManifestError::Archive(ArchiveError::Text { .. })), "{error}");
        assert!(error.to_string().contains("s.tar: the member `d/a."), "{error}");
    }
    let manifest =
        load("d/a.json", br#"{"path": "/elsewhere", "start": 0.5, "split": "test", "caption_2": "b"}"#)
            .unwrap();
    let row = manifest.row(0);
    assert_eq!((row.path(), row.start(), row.split()), ("s.tar/d/a.mp4", Some(0.5), Some("test")));
    assert_eq!(row.captions().collect::<Vec<_>>(), ["b"]);

    let many: String = (0..2000).map(|i| format!("\"key{i}\": {i},")).collect();
    let error = load("d/a.json", format!("{{{}}}", many.trim_end_matches(',')).as_bytes()).unwrap_err();
    assert!(matches!(error, ManifestError::TooManyColumns { .. }), "{error}");
    std::fs::write(&file, tarball(&[("notes.txt", b"no video")])).unwrap();
    assert!(matches!(Manifest::load(&file), Err(ManifestError::NoVideos { .. })));
}
