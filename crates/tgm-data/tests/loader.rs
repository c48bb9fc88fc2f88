//! What the loader promises: the same clips however they are made, nothing lost in silence.

use std::collections::HashSet;
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tgm_data::index_store::IndexWriter;
use tgm_data::loader::{
    Batch, Batches, ClipConfig, EvalLoader, LoaderConfig, LoaderError, MotionSource, RowError, Subset,
    TestViews, TrainLoader,
};
use tgm_data::manifest::Manifest;
use tgm_random::Streams;
use tgm_video::{Crop, ReadOptions, Sampling, TubeletShape, VideoFile, VideoReader};

fn world() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/world")
}

fn split(manifest: &Path, split: &str) -> Subset {
    Subset::split(&Arc::new(Manifest::load(manifest).unwrap()), split).unwrap()
}

fn train_split() -> Subset {
    split(&world().join("manifest.csv"), "train")
}

fn clips() -> ClipConfig {
    ClipConfig {
        sampling: Sampling::Dense { frames: 8, stride: 2 },
        crop: Crop::random_resized(),
        flip: 0.5,
        size: 32,
        tubelet: TubeletShape { frames: 2, patch: 8 },
        motion: MotionSource::Auto,
        ..ClipConfig::default()
    }
}

fn workers(workers: usize) -> LoaderConfig {
    LoaderConfig { workers, ..LoaderConfig::default() }
}

fn loader(data: &Subset, config: &LoaderConfig, start: u64) -> TrainLoader {
    TrainLoader::new(data, &clips(), config, 5, Streams::new(11), start).unwrap()
}

fn batches(data: &Subset, config: &LoaderConfig, start: u64, count: usize) -> Vec<Batch> {
    loader(data, config, start).take(count).map(Result::unwrap).collect()
}

/// A manifest over copies of the world's videos, with extra rows.
fn manifest_with(rows: &[&str], videos: usize) -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let mut text = "path,split,label,start,end\n".to_owned();
    for i in 0..videos {
        std::fs::copy(world().join(format!("videos/train-{i:05}.mp4")), dir.path().join(format!("{i}.mp4")))
            .unwrap();
        writeln!(text, "{i}.mp4,train,,,").unwrap();
    }
    std::fs::write(dir.path().join("broken.mp4"), b"this is no video").unwrap();
    for row in rows {
        writeln!(text, "{row}").unwrap();
    }
    let file = dir.path().join("manifest.csv");
    std::fs::write(&file, text).unwrap();
    (dir, file)
}

#[test]
fn batches_are_the_same_for_one_and_for_many_workers() {
    let data = train_split();
    let one = batches(&data, &workers(1), 0, 6);
    assert_eq!(one, batches(&data, &workers(4), 0, 6));
    assert_eq!(one, batches(&data, &LoaderConfig { prefetch: 0, ..workers(3) }, 0, 6));
}

#[test]
fn repeated_augmentation_takes_each_video_several_times_in_a_row_and_augments_it_anew() {
    let data = train_split();
    let repeated = |start| {
        let config = workers(2);
        let batches = Batches { repeats: 3, ..Batches::of(6).starting_at(start) };
        TrainLoader::with_batches(&data, &clips(), &config, batches, Streams::new(11)).unwrap()
    };
    let all: Vec<Batch> = repeated(0).take(6).map(Result::unwrap).collect();
    for batch in &all {
        for same in batch.samples.chunks(3) {
            assert!(same.iter().all(|sample| sample.path == same[0].path));
            assert!(same[1..].iter().any(|sample| sample.clip != same[0].clip));
        }
    }
    let epoch: HashSet<&str> =
        all.iter().flat_map(|b| &b.samples).map(|sample| sample.path.as_str()).collect();
    assert_eq!(epoch.len(), 12, "six batches of two videos are one epoch of twelve");
    assert_eq!(all[4..], repeated(4).take(2).map(Result::unwrap).collect::<Vec<_>>()[..]);
}

#[test]
fn loaders_that_share_a_run_make_its_batches_between_them() {
    let data = train_split();
    let whole = batches(&data, &workers(2), 0, 12);
    let part = |part, start| {
        let batches = Batches { part, parts: 3, ..Batches::of(5).starting_at(start) };
        TrainLoader::with_batches(&data, &clips(), &workers(2), batches, Streams::new(11)).unwrap()
    };
    let of_part = |number, start| part(number, start).take(2).map(Result::unwrap).collect::<Vec<Batch>>();
    for number in 0..3 {
        let first = number as usize;
        assert_eq!(of_part(number, 0), [whole[first].clone(), whole[first + 3].clone()]);
        assert_eq!(of_part(number, 2), [whole[first + 6].clone(), whole[first + 9].clone()]);
    }
    let none = Batches { part: 3, parts: 3, ..Batches::of(5) };
    let error =
        TrainLoader::with_batches(&data, &clips(), &workers(2), none, Streams::new(11)).err().unwrap();
    assert!(error.to_string().contains("part"), "{error}");
}

#[test]
fn a_run_resumed_at_a_step_goes_on_with_the_same_batches() {
    let data = train_split();
    let all = batches(&data, &workers(2), 0, 7);
    assert_eq!(all[4..], batches(&data, &workers(2), 4, 3));
    assert_eq!(all[4].step, 4);
}

#[test]
fn videos_in_memory_give_the_same_clips_as_videos_on_disk() {
    let (_dir, manifest) = manifest_with(&["0.mp4,train,,0.5,1.4"], 6);
    let data = split(&manifest, "train");
    let plain = batches(&data, &workers(2), 0, 6);
    assert_eq!(plain, batches(&data, &LoaderConfig { cache_mb: 64, ..workers(2) }, 0, 6));
    // One MiB holds four of the seven.
    assert_eq!(plain, batches(&data, &LoaderConfig { cache_mb: 1, ..workers(2) }, 0, 6));
}

#[test]
fn known_indices_change_nothing() {
    let (dir, manifest) = manifest_with(&["0.mp4,train,,0.5,1.4"], 6);
    let data = split(&manifest, "train");
    let plain = batches(&data, &LoaderConfig { index_mb: 0, ..workers(2) }, 0, 6);
    assert_eq!(plain, batches(&data, &workers(2), 0, 6));
    let writer = IndexWriter::open(&manifest, false).unwrap();
    for name in (0..6).map(|i| format!("{i}.mp4")) {
        let file = VideoFile::whole(dir.path().join(&name));
        let reader = VideoReader::open(&file, &ReadOptions::default()).unwrap();
        writer.append(&name, &file, reader.index()).unwrap();
    }
    assert_eq!(plain, batches(&data, &workers(2), 0, 6));
}

#[test]
fn videos_in_memory_are_not_read_again() {
    let (dir, manifest) = manifest_with(&[], 4);
    let data = split(&manifest, "train");
    let mut loader = loader(&data, &LoaderConfig { cache_mb: 64, prefetch: 1, ..workers(1) }, 0);
    let seen = |batch: &Batch| batch.samples.iter().map(|sample| sample.row).collect::<HashSet<_>>().len();
    assert_eq!(seen(&loader.next_batch().unwrap()), 4, "five clips of four videos: all of them");
    std::thread::sleep(Duration::from_millis(50));
    for i in 0..4 {
        std::fs::remove_file(dir.path().join(format!("{i}.mp4"))).unwrap();
    }
    for _ in 0..4 {
        assert!(loader.next_batch().unwrap().skipped.is_empty());
    }
}

#[test]
fn every_epoch_has_every_row_once_in_an_order_of_its_own() {
    let data = train_split();
    let clips: Vec<_> = batches(&data, &workers(2), 0, 12).into_iter().flat_map(|b| b.samples).collect();
    let epochs: Vec<Vec<u32>> =
        clips.chunks(12).map(|epoch| epoch.iter().map(|clip| clip.row).collect()).collect();
    for (number, rows) in epochs.iter().enumerate() {
        assert_eq!(rows.iter().collect::<HashSet<_>>().len(), 12);
        assert!(clips[number * 12..][..12].iter().all(|clip| clip.epoch == number as u64));
    }
    assert_eq!(epochs.iter().collect::<HashSet<_>>().len(), 5);
}

#[test]
fn augmentation_and_captions_are_drawn_anew_for_each_clip() {
    let data = train_split();
    let clips: Vec<_> = batches(&data, &workers(2), 0, 36).into_iter().flat_map(|b| b.samples).collect();
    let of_row: Vec<_> = clips.iter().filter(|clip| clip.row == 3).collect();
    assert_eq!(of_row.len(), 15);
    let captions: HashSet<_> = of_row.iter().map(|clip| clip.caption.as_deref().unwrap()).collect();
    let known: HashSet<_> = data.manifest().row(3).captions().collect();
    assert_eq!(captions, known);
    assert!(of_row.iter().all(|clip| clip.label == data.manifest().row(3).label()));
    let flipped = clips.iter().filter(|clip| clip.flipped).count();
    assert!((60..120).contains(&flipped), "{flipped} of 180 with probability 0.5");
    assert!(of_row.iter().map(|clip| clip.crop).collect::<HashSet<_>>().len() > 10);
    let starts: HashSet<_> = clips.iter().map(|clip| clip.frames[0]).collect();
    assert_eq!(starts, HashSet::from([0, 1, 2, 3, 4]));
}

#[test]
fn a_clip_has_the_shapes_that_its_configuration_says() {
    let config = clips();
    let grid = config.grid().unwrap();
    for clip in batches(&train_split(), &workers(2), 0, 1).remove(0).samples {
        assert_eq!((clip.grid, grid.slots(), grid.rows(), grid.cols()), (grid, 4, 4, 4));
        assert_eq!(clip.tubelets().unwrap().len(), grid.len() * config.tubelet.len());
        assert_eq!((clip.clip.frames(), clip.clip.height(), clip.clip.width()), (8, 32, 32));
        assert_eq!(clip.motion.unwrap().vectors().len(), grid.len());
    }
}

#[test]
fn the_tubelets_of_a_batch_are_those_of_its_clips_one_behind_the_other() {
    let mut batch = batches(&train_split(), &workers(2), 0, 1).remove(0);
    let (tubelets, shape) = batch.tubelets().unwrap();
    assert_eq!(shape, [5, 4 * 4 * 4, 2 * 8 * 8 * 3]);
    let each: Vec<f32> = batch.samples.iter().flat_map(|sample| sample.tubelets().unwrap()).collect();
    assert_eq!(tubelets, each);
    batch.samples[3].tubelet = TubeletShape { frames: 4, patch: 8 };
    assert!(batch.tubelets().unwrap_err().to_string().contains("the same"));
    batch.samples.clear();
    assert!(batch.tubelets().is_err());
}

#[test]
fn a_subset_of_all_rows_has_those_of_every_split() {
    let manifest = Arc::new(Manifest::load(world().join("manifest.csv")).unwrap());
    assert_eq!(Subset::all(&manifest).rows(), (0..24).collect::<Vec<u32>>());
    let error = Subset::split(&manifest, "holiday").unwrap_err();
    assert!(matches!(&error, LoaderError::Manifest(_)) && error.to_string().contains("holiday"), "{error}");
}

#[test]
fn a_bad_video_is_replaced_and_reported() {
    let (_dir, manifest) =
        manifest_with(&["broken.mp4,train,,,", "absent.mp4,train,,,", "1.mp4,train,,60,61"], 6);
    let data = split(&manifest, "train");
    let config = LoaderConfig { max_bad_share: 1.0, ..workers(1) };
    let one = batches(&data, &config, 0, 9);
    assert_eq!(one, batches(&data, &LoaderConfig { workers: 3, ..config.clone() }, 0, 9));
    assert!(one.iter().all(|batch| batch.samples.len() == 5));
    let skipped: Vec<_> = one.iter().flat_map(|batch| &batch.skipped).collect();
    // 45 clips are five epochs of nine rows: each bad row comes five times, and may be drawn as a replacement.
    for (row, path, reason) in [
        (6, "broken.mp4", "broken.mp4: not a readable video"),
        (7, "absent.mp4", "absent.mp4: No such file"),
        (8, "1.mp4", "1.mp4: the row starts at 60 s, but the video ends at 2.000 s"),
    ] {
        let of_row: Vec<_> = skipped.iter().filter(|skip| skip.row == row).collect();
        assert!(of_row.len() >= 5);
        assert!(of_row.iter().all(|skip| skip.path == path && skip.reason.contains(reason)), "{of_row:?}");
    }
    let mut loader = loader(&data, &config, 0);
    loader.by_ref().take(9).for_each(drop);
    let stats = loader.stats();
    assert_eq!((stats.bad, stats.tried), (3, 9), "a video counts once, however often it is drawn");
    assert!(stats.waited > Duration::ZERO);
}

#[test]
fn too_many_bad_videos_stop_training_with_the_reasons() {
    let (_dir, manifest) = manifest_with(&["broken.mp4,train,,,", "absent.mp4,train,,,"], 2);
    let data = split(&manifest, "train");
    let config = LoaderConfig { max_bad_share: 0.3, ..workers(2) };
    let results: Vec<_> = loader(&data, &config, 0).take(100).collect();
    let error = results.last().unwrap().as_ref().unwrap_err();
    assert!(matches!(error, LoaderError::TooManyBad { bad: 2, tried: 4, .. }), "{error}");
    let text = error.to_string();
    for part in ["× not a readable video", "as broken.mp4", "as absent.mp4", "max_bad_share", "(now 0.3)"] {
        assert!(text.contains(part), "{text}");
    }
    assert!(results.len() < 30 && results[..results.len() - 1].iter().all(Result::is_ok));
}

/// A caller that asked on got the clips of the next step under the number of the one that failed.
#[test]
fn a_loader_that_has_failed_gives_no_batch_any_more() {
    let (_dir, manifest) = manifest_with(&["broken.mp4,train,,,", "absent.mp4,train,,,"], 2);
    let config = LoaderConfig { max_bad_share: 0.3, ..workers(2) };
    let mut loader = loader(&split(&manifest, "train"), &config, 0);
    let (failed, error) =
        (0..).find_map(|step| Some((step, loader.next_batch().err()?))).expect("half of the videos are bad");
    assert!(matches!(error, LoaderError::TooManyBad { .. }), "{error}");
    for _ in 0..2 {
        let error = loader.next_batch().unwrap_err();
        assert!(matches!(error, LoaderError::Stopped { step } if step == failed), "{error}");
    }
    assert!(loader.next().is_none());
}

#[test]
fn a_dataset_without_any_good_video_is_an_error_at_once() {
    let (_dir, manifest) = manifest_with(&["broken.mp4,train,,,", "absent.mp4,train,,,"], 0);
    let mut loader = loader(&split(&manifest, "train"), &workers(2), 0);
    let error = loader.next().unwrap().unwrap_err();
    assert!(matches!(error, LoaderError::NoReplacement { tried: 17, .. }), "{error}");
    assert!(loader.next().is_none());
}

#[test]
fn only_frames_between_start_and_end_are_taken() {
    // The videos have ten frames a second: 0.5 s to 1.2 s are the frames 5 to 11.
    let (_dir, manifest) = manifest_with(&["0.mp4,part,,0.5,1.2", "0.mp4,part,,1.85,"], 1);
    for batch in batches(&split(&manifest, "part"), &workers(1), 0, 10) {
        for clip in batch.samples {
            let expected = if clip.row == 1 {
                vec![5, 7, 9, 11, 11, 11, 11, 11]
            } else {
                vec![18, 18, 18, 18, 18, 18, 18, 18]
            };
            assert_eq!(clip.frames, expected);
        }
    }
}

#[test]
fn motion_follows_the_object_whatever_its_source() {
    let manifest = Arc::new(Manifest::load(world().join("manifest.csv")).unwrap());
    for motion in [MotionSource::Codec, MotionSource::Blocks, MotionSource::Auto] {
        let config = ClipConfig {
            sampling: Sampling::Dense { frames: 8, stride: 1 },
            crop: Crop::Center,
            size: 64,
            motion,
            flip: 0.0,
            ..clips()
        };
        // Rows 0 and 12 move to the left, 3 and 15 down, all before a background at rest.
        let rows = vec![0, 3, 12, 15];
        let data = Subset::new(manifest.clone(), rows).unwrap();
        for clips in EvalLoader::new(&data, &config, &workers(2), TestViews::default()).unwrap() {
            let clip = clips.unwrap().remove(0);
            let field = clip.motion.unwrap();
            let moved: Vec<[f32; 2]> =
                field.vectors().iter().copied().filter(|v| v[0].hypot(v[1]) > 0.1).collect();
            let mean = |axis: usize| moved.iter().map(|v| v[axis]).sum::<f32>() / moved.len() as f32;
            let (along, expected) = if clip.row % 12 == 0 { (mean(0), -1.0) } else { (mean(1), 1.0) };
            assert!(along * expected > 0.1, "{motion:?}, row {}: {along}", clip.row);
        }
    }
}

#[test]
fn a_codec_without_vectors_is_bad_with_codec_motion_and_fine_with_auto() {
    let (dir, manifest) = manifest_with(&["moving.avi,odd,,,"], 1);
    let converted = std::process::Command::new("ffmpeg")
        .args(["-v", "error", "-i"])
        .arg(dir.path().join("0.mp4"))
        .args(["-c:v", "ffv1"])
        .arg(dir.path().join("moving.avi"))
        .status();
    if !converted.is_ok_and(|status| status.success()) {
        eprintln!("skipped: no ffmpeg program");
        return;
    }
    let data = split(&manifest, "odd");
    let with = |motion| {
        let config = ClipConfig { motion, crop: Crop::Center, size: 64, ..clips() };
        EvalLoader::new(&data, &config, &workers(1), TestViews::default()).unwrap().next().unwrap()
    };
    let error = with(MotionSource::Codec).unwrap_err();
    assert!(matches!(error, LoaderError::BadVideo { source: RowError::NoCodecMotion { .. }, .. }), "{error}");
    let clip = with(MotionSource::Auto).unwrap().remove(0);
    assert!(clip.motion.unwrap().vectors().iter().any(|v| v[0] != 0.0));
}

#[test]
fn evaluation_takes_every_row_in_order_with_all_its_views() {
    let data = split(&world().join("manifest.csv"), "test");
    let views = TestViews { views: 2, crops: 3 };
    let all = |workers| {
        let loader = EvalLoader::new(&data, &clips(), &workers, views).unwrap();
        loader.map(Result::unwrap).collect::<Vec<_>>()
    };
    let rows = all(workers(1));
    assert_eq!(rows, all(workers(3)));
    assert_eq!(rows, all(LoaderConfig { cache_mb: 64, ..workers(2) }));
    assert_eq!(rows.iter().map(|clips| clips[0].row).collect::<Vec<_>>(), data.rows());
    for (number, clip) in rows.iter().flatten().enumerate() {
        assert_eq!((clip.number, clip.view), (number as u64, (number / 3 % 2, number % 3)));
        assert!(!clip.flipped);
        assert_eq!(clip.caption.as_deref(), data.manifest().row(clip.row as usize).captions().next());
    }
    assert_ne!(rows[0][0].frames, rows[0][3].frames);
}

#[test]
fn a_bad_video_stops_evaluation_and_its_row_is_named() {
    let (_dir, manifest) = manifest_with(&["broken.mp4,train,,,", "0.mp4,train,,,"], 2);
    let data = split(&manifest, "train");
    let mut loader = EvalLoader::new(&data, &clips(), &workers(2), TestViews::default()).unwrap();
    assert!(loader.next().unwrap().is_ok() && loader.next().unwrap().is_ok());
    let error = loader.next().unwrap().unwrap_err().to_string();
    assert!(error.contains("manifest.csv:4: ") && error.contains("broken.mp4"), "{error}");
    assert!(loader.next().is_none());
}

#[test]
fn the_limits_of_the_configuration_hold() {
    let data = train_split();
    let reason = |config: ClipConfig| {
        let mut loader = EvalLoader::new(&data, &config, &workers(1), TestViews::default()).unwrap();
        loader.next().unwrap().unwrap_err().to_string()
    };
    assert!(
        reason(ClipConfig { max_pixels: 4000, ..clips() }).contains("64x64 exceed the limit of 4000 pixels")
    );
    assert!(reason(ClipConfig { max_frames: 19, ..clips() }).contains("more than 19 frames"));
}

#[test]
fn a_dropped_loader_stops_at_once() {
    let data = train_split();
    let mut loader = loader(&data, &LoaderConfig { prefetch: 10_000, ..workers(2) }, 0);
    loader.next_batch().unwrap();
    let begun = Instant::now();
    drop(loader);
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
}

#[test]
fn impossible_configurations_are_refused_with_key_and_value() {
    let data = train_split();
    let refuse = |clips: ClipConfig, config: LoaderConfig, batch| {
        TrainLoader::new(&data, &clips, &config, batch, Streams::new(0), 0).err().unwrap().to_string()
    };
    let default = LoaderConfig::default;
    assert!(refuse(clips(), default(), 0).contains("`batch = 0`"));
    assert!(refuse(ClipConfig { flip: 1.5, ..clips() }, default(), 1).contains("`flip = 1.5`"));
    assert!(refuse(ClipConfig { size: 30, ..clips() }, default(), 1).contains("`tubelet.patch = 8`"));
    let odd = ClipConfig { sampling: Sampling::Uniform { frames: 7 }, ..clips() };
    assert!(refuse(odd, default(), 1).contains("`tubelet.frames = 2`"));
    let share = LoaderConfig { max_bad_share: -0.1, ..default() };
    assert!(refuse(clips(), share, 1).contains("`max_bad_share = -0.1`"));
    assert!(Subset::new(data.manifest().clone(), vec![24]).is_err());
    assert!(Subset::new(data.manifest().clone(), Vec::new()).is_err());
}
