//! What the score cache promises: nothing lost, nothing half, nothing of another making.

use std::fs;
use std::path::{Path, PathBuf};

use tempfile::TempDir;
use tgm_clip::cache::{CacheError, CacheKey, CacheSpec, Maps, Region, ScoreCache};
use tgm_clip::{PatchFeatures, ScoreOptions};

const GRID: (usize, usize) = (3, 4);
const CELLS: usize = GRID.0 * GRID.1;

fn spec() -> CacheSpec {
    let spec = CacheSpec::new("model@1 f32", ScoreOptions::default(), GRID, "every 2nd frame");
    CacheSpec { maps_per_shard: 4, ..spec }
}

fn key(i: usize) -> CacheKey {
    CacheKey { video: format!("videos/{i} \"ä\".mp4, {i} bytes"), caption: format!("caption\n\\{}", i % 3) }
}

/// Maps of `1 + i % 3` frames that differ in every value.
fn maps(i: usize) -> Maps {
    let frames = 1 + i % 3;
    let scores: Vec<f32> = (0..frames * CELLS).map(|j| (i * 100 + j) as f32 / 4096.0 - 0.5).collect();
    Maps::new((0..frames).map(|t| t as f64 / 30.0 + i as f64).collect(), GRID, &scores).unwrap()
}

fn open_or_create(dir: &Path) -> ScoreCache {
    ScoreCache::open_or_create(dir, &spec()).unwrap()
}

/// Scores what is not there yet, as the command does, and tells what that was.
fn run(dir: &Path, keys: std::ops::Range<usize>) -> Vec<usize> {
    let mut cache = open_or_create(dir);
    let missing: Vec<usize> = keys.filter(|&i| !cache.contains(&key(i))).collect();
    for &i in &missing {
        cache.insert(key(i), maps(i)).unwrap();
    }
    cache.finish().unwrap();
    missing
}

fn assert_holds(dir: &Path, keys: std::ops::Range<usize>) {
    let cache = ScoreCache::open(dir, &spec()).unwrap();
    assert_eq!(cache.len(), keys.len());
    for i in keys {
        assert_eq!(cache.get(&key(i)).unwrap().unwrap(), maps(i), "{i}");
    }
    assert!(cache.damaged().is_empty());
}

fn shard(dir: &Path, number: usize) -> PathBuf {
    dir.join(format!("shard-{number:05}.safetensors"))
}

fn files(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn what_was_inserted_is_read_back_to_the_bit() {
    let dir = TempDir::new().unwrap();
    assert_eq!(run(dir.path(), 0..10).len(), 10);
    assert_holds(dir.path(), 0..10);
    let shards = ["shard-00000.safetensors", "shard-00001.safetensors", "shard-00002.safetensors"];
    assert_eq!(files(dir.path()), [&["cache.json", "lock"], &shards[..]].concat());
    let cache = ScoreCache::open(dir.path(), &spec()).unwrap();
    assert!(cache.get(&key(10)).unwrap().is_none() && !cache.contains(&key(10)));
}

#[test]
fn a_shard_is_a_safetensors_file_that_any_program_can_read() {
    let dir = TempDir::new().unwrap();
    run(dir.path(), 0..4);
    let tensors = candle_core::safetensors::load(shard(dir.path(), 0), &candle_core::Device::Cpu).unwrap();
    assert_eq!(tensors["000002.maps"].dims(), [3, 3, 4]);
    let scores = tensors["000002.maps"].to_dtype(candle_core::DType::F32).unwrap();
    assert_eq!(scores.flatten_all().unwrap().to_vec1::<f32>().unwrap(), maps(2).to_f32());
    assert_eq!(tensors["000002.times"].to_vec1::<f64>().unwrap(), maps(2).times());
}

#[test]
fn a_second_run_has_nothing_to_do_and_a_longer_one_only_the_rest() {
    let dir = TempDir::new().unwrap();
    run(dir.path(), 0..6);
    assert!(run(dir.path(), 0..6).is_empty());
    assert_eq!(run(dir.path(), 0..9), [6, 7, 8]);
    assert_holds(dir.path(), 0..9);
}

#[test]
fn maps_are_found_before_they_are_on_disk_and_the_first_ones_stay() {
    let dir = TempDir::new().unwrap();
    let mut cache = open_or_create(dir.path());
    for i in [0, 1, 0, 1] {
        cache.insert(key(i), maps(i)).unwrap();
    }
    cache.insert(key(1), maps(4)).unwrap();
    assert_eq!(cache.len(), 2);
    assert_eq!(cache.get(&key(1)).unwrap().unwrap(), maps(1));
    cache.finish().unwrap();
    assert_holds(dir.path(), 0..2);
}

#[test]
fn an_interrupted_run_loses_only_what_was_in_no_shard() {
    let dir = TempDir::new().unwrap();
    let mut cache = open_or_create(dir.path());
    for i in 0..10 {
        cache.insert(key(i), maps(i)).unwrap();
    }
    drop(cache); // as if killed: `finish` is not called
    fs::write(dir.path().join("shard-00002.safetensors.tmp"), b"half a sha").unwrap();
    fs::write(dir.path().join("cache.json.tmp"), b"{").unwrap();
    assert_holds(dir.path(), 0..8);
    assert_eq!(run(dir.path(), 0..10), [8, 9]);
    assert_holds(dir.path(), 0..10);
    assert!(!files(dir.path()).iter().any(|name| name.ends_with(".tmp")));
}

#[test]
fn what_was_flushed_survives_an_interruption() {
    let dir = TempDir::new().unwrap();
    let mut cache = open_or_create(dir.path());
    for i in 0..3 {
        cache.insert(key(i), maps(i)).unwrap();
    }
    cache.flush().unwrap();
    cache.flush().unwrap();
    assert_eq!(cache.get(&key(2)).unwrap().unwrap(), maps(2));
    drop(cache);
    assert_holds(dir.path(), 0..3);
    assert_eq!(CacheSpec::of_folder(dir.path()).unwrap().rows, GRID.0);
    assert!(CacheSpec::of_folder(&dir.path().join("none")).is_err());
}

#[test]
fn a_shard_cut_off_anywhere_is_detected_and_it_alone_is_redone() {
    let whole = TempDir::new().unwrap();
    run(whole.path(), 0..12);
    let bytes = fs::read(shard(whole.path(), 1)).unwrap();
    for length in (0..8).chain((8..bytes.len()).step_by(97)).chain([bytes.len() - 1]) {
        let dir = TempDir::new().unwrap();
        for name in files(whole.path()) {
            fs::copy(whole.path().join(&name), dir.path().join(&name)).unwrap();
        }
        fs::write(shard(dir.path(), 1), &bytes[..length]).unwrap();
        let reader = ScoreCache::open(dir.path(), &spec()).unwrap();
        assert_eq!(reader.damaged().len(), 1, "{length} bytes");
        assert_eq!((reader.len(), reader.contains(&key(3)), reader.contains(&key(4))), (8, true, false));
        assert_eq!(run(dir.path(), 0..12), [4, 5, 6, 7], "{length} bytes");
        assert_holds(dir.path(), 0..12);
        assert_eq!(fs::read(shard(dir.path(), 0)).unwrap(), fs::read(shard(whole.path(), 0)).unwrap());
    }
}

#[test]
fn a_single_altered_byte_is_never_taken_for_scores() {
    let whole = TempDir::new().unwrap();
    run(whole.path(), 0..4);
    let bytes = fs::read(shard(whole.path(), 0)).unwrap();
    for position in (0..bytes.len()).step_by(61) {
        let dir = TempDir::new().unwrap();
        fs::copy(whole.path().join("cache.json"), dir.path().join("cache.json")).unwrap();
        let mut altered = bytes.clone();
        altered[position] ^= 0x10;
        fs::write(shard(dir.path(), 0), altered).unwrap();
        // Left out, refused, or still right where the byte means nothing (padding of the header).
        if let Ok(reader) = ScoreCache::open(dir.path(), &spec()) {
            for i in 0..4 {
                match reader.get(&key(i)) {
                    Ok(found) => assert!(found.is_none_or(|found| found == maps(i)), "byte {position}"),
                    Err(error) => assert!(matches!(error, CacheError::Damaged { .. }), "{error}"),
                }
            }
        }
    }
    let data = bytes.len() - 5;
    let mut altered = bytes;
    altered[data] ^= 1;
    fs::write(shard(whole.path(), 0), altered).unwrap();
    assert_eq!(run(whole.path(), 0..4), [0, 1, 2, 3], "the writer reads every map");
}

#[test]
fn an_absent_or_cut_description_is_written_again_because_shards_describe_themselves() {
    for damage in [None, Some(""), Some("{\"format\": \"tgm-sc")] {
        let dir = TempDir::new().unwrap();
        run(dir.path(), 0..4);
        let path = dir.path().join("cache.json");
        match damage {
            None => fs::remove_file(&path).unwrap(),
            Some(text) => fs::write(&path, text).unwrap(),
        }
        let error = ScoreCache::open(dir.path(), &spec()).unwrap_err();
        assert!(matches!(error, CacheError::Absent { .. } | CacheError::Damaged { .. }), "{error}");
        let other = CacheSpec { model: "model@2".into(), ..spec() };
        let error = ScoreCache::open_or_create(dir.path(), &other).unwrap_err().to_string();
        assert!(error.contains("shard-00000") && error.contains("wanted model@2"), "{error}");
        assert!(run(dir.path(), 0..4).is_empty());
        assert_holds(dir.path(), 0..4);
    }
}

#[test]
fn a_cache_written_with_other_options_is_refused_with_every_difference() {
    let dir = TempDir::new().unwrap();
    run(dir.path(), 0..5);
    let before = files(dir.path());
    let surgery = ScoreOptions { features: PatchFeatures::Surgery, ..ScoreOptions::default() };
    let cases = [
        (
            CacheSpec { model: "model@2 f32".into(), ..spec() },
            "model: cached model@1 f32, wanted model@2 f32",
        ),
        (CacheSpec { options: surgery, ..spec() }, "features: cached Plain, wanted Surgery"),
        (CacheSpec { rows: 14, ..spec() }, "grid: cached 3×4, wanted 14×4"),
        (CacheSpec { frames: "all".into(), ..spec() }, "frames: cached every 2nd frame, wanted all"),
    ];
    for (other, difference) in &cases {
        for opened in [ScoreCache::open(dir.path(), other), ScoreCache::open_or_create(dir.path(), other)] {
            let message = opened.unwrap_err().to_string();
            assert!(message.contains(difference) && message.contains("cache.json"), "{message}");
        }
    }
    let all = CacheSpec { rows: 14, frames: "all".into(), ..spec() };
    let message = ScoreCache::open(dir.path(), &all).unwrap_err().to_string();
    assert!(message.contains("grid: ") && message.contains("frames: "), "{message}");
    // The size of shards is no difference.
    let longer = CacheSpec { maps_per_shard: 100, ..spec() };
    assert_eq!(ScoreCache::open_or_create(dir.path(), &longer).unwrap().len(), 5);
    assert_eq!(files(dir.path()), before);
}

#[test]
fn files_that_are_not_of_the_cache_are_left_alone() {
    let dir = TempDir::new().unwrap();
    run(dir.path(), 0..4);
    let foreign = ["notes.tmp", "shard-1.safetensors", "shard-4294967295.safetensors", "shard-x.safetensors"];
    for name in foreign {
        fs::write(dir.path().join(name), "mine").unwrap();
    }
    assert_eq!(run(dir.path(), 0..6), [4, 5]);
    assert_holds(dir.path(), 0..6);
    for name in foreign {
        assert_eq!(fs::read_to_string(dir.path().join(name)).unwrap(), "mine");
    }
}

#[test]
fn a_cache_of_another_format_is_refused() {
    let dir = TempDir::new().unwrap();
    fs::write(dir.path().join("cache.json"), r#"{"format": "tgm-score-cache 9", "spec": {"new": 1}}"#)
        .unwrap();
    for opened in [ScoreCache::open(dir.path(), &spec()), ScoreCache::open_or_create(dir.path(), &spec())] {
        let message = opened.unwrap_err().to_string();
        assert!(message.contains("`tgm-score-cache 9`, expected `tgm-score-cache 1`"), "{message}");
    }
}

#[test]
fn only_one_writes_and_others_may_read_meanwhile() {
    let dir = TempDir::new().unwrap();
    run(dir.path(), 0..4);
    let mut writer = open_or_create(dir.path());
    let error = ScoreCache::open_or_create(dir.path(), &spec()).unwrap_err();
    assert!(matches!(error, CacheError::Locked { .. }), "{error}");
    let mut reader = ScoreCache::open(dir.path(), &spec()).unwrap();
    let error = reader.insert(key(9), maps(9)).unwrap_err();
    assert!(matches!(error, CacheError::ReadOnly { .. }), "{error}");
    for i in 4..8 {
        writer.insert(key(i), maps(i)).unwrap();
    }
    assert_eq!(reader.get(&key(3)).unwrap().unwrap(), maps(3));
    assert_eq!(reader.len(), 4);
    drop(writer);
    assert_eq!(open_or_create(dir.path()).len(), 8);
}

#[test]
fn arguments_that_cannot_be_are_refused_with_their_values() {
    let dir = TempDir::new().unwrap();
    let error = ScoreCache::open(&dir.path().join("none"), &spec()).unwrap_err();
    assert!(matches!(error, CacheError::Absent { .. }), "{error}");
    for other in [CacheSpec { maps_per_shard: 0, ..spec() }, CacheSpec { rows: 0, ..spec() }] {
        let error = ScoreCache::open_or_create(dir.path(), &other).unwrap_err();
        assert!(matches!(error, CacheError::Invalid { .. }), "{error}");
    }
    let mut cache = open_or_create(dir.path());
    let small = Maps::new(vec![0.0], (1, 1), &[0.0]).unwrap();
    assert!(cache.insert(key(0), small).unwrap_err().to_string().contains("got 1×1, expected 3×4"));

    for (times, scores) in [
        (vec![], vec![]),
        (vec![0.0], vec![0.0; CELLS - 1]),
        (vec![1.0, 1.0], vec![0.0; 2 * CELLS]),
        (vec![f64::NAN], vec![0.0; CELLS]),
        (vec![0.0], vec![f32::NAN; CELLS]),
        (vec![0.0], vec![1e9; CELLS]),
    ] {
        let error = Maps::new(times, GRID, &scores).unwrap_err();
        assert!(matches!(error, CacheError::Invalid { .. }), "{error}");
    }
    let maps = maps(0);
    for (left, width) in [(-0.1, 0.5), (0.6, 0.5), (0.0, 0.0), (f64::NAN, 1.0)] {
        let region = Region { left, width, ..Region::WHOLE };
        assert!(maps.crop(&region, false, GRID, &[0.0]).is_err(), "{region:?}");
    }
    assert!(maps.crop(&Region::WHOLE, false, (0, 4), &[0.0]).is_err());
    assert!(maps.crop(&Region::WHOLE, false, GRID, &[f64::INFINITY]).is_err());
}

#[test]
fn a_changed_file_has_another_key() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("video.mp4");
    fs::write(&path, b"one").unwrap();
    let first = CacheKey::for_file("video.mp4", &path, "caption").unwrap();
    assert_eq!(first, CacheKey::for_file("video.mp4", &path, "caption").unwrap());
    fs::write(&path, b"three").unwrap();
    assert_ne!(first, CacheKey::for_file("video.mp4", &path, "caption").unwrap());
    assert!(CacheKey::for_file("video.mp4", &dir.path().join("none"), "").is_err());
}
