//! Tar shards in place of a manifest, for every command that takes one.

mod common;

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use common::{fails, fixtures, learnt, newest, ok, text, tgm, tiny, world};
use serde_json::{Value, json};
use tgm_data::manifest::Manifest;

/// The fixtures' world in two archives.
fn shards() -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let shards = dir.path().join("shards");
    fs::create_dir(&shards).unwrap();
    let manifest = Manifest::load(world()).unwrap();
    let rows: Vec<_> = manifest.rows().collect();
    for (shard, rows) in rows.chunks(rows.len().div_ceil(2)).enumerate() {
        let mut tar = tar::Builder::new(File::create(shards.join(format!("world-{shard:03}.tar"))).unwrap());
        for row in rows {
            let key = format!("{:05}", row.index());
            let mut said = json!({ "split": row.split(), "label": row.label_name() });
            for (number, caption) in (1..).zip(row.captions()) {
                let column = if number == 1 { "caption".to_owned() } else { format!("caption_{number}") };
                said[column] = caption.into();
            }
            add(&mut tar, &format!("{key}.mp4"), &fs::read(row.video().path()).unwrap());
            add(&mut tar, &format!("{key}.json"), said.to_string().as_bytes());
        }
        tar.into_inner().unwrap();
    }
    (dir, shards)
}

fn add(tar: &mut tar::Builder<File>, name: &str, content: &[u8]) {
    let mut header = tar::Header::new_gnu();
    header.set_size(content.len() as u64);
    header.set_mode(0o644);
    tar.append_data(&mut header, name, content).unwrap();
}

#[test]
fn training_on_shards_is_training_on_their_files() {
    let (dir, shards) = shards();
    let pattern = shards.join("world-{000..001}.tar");
    let (files, members) = (dir.path().join("files"), dir.path().join("members"));
    ok(&tiny(&world(), &files, &["--steps", "4"]));
    ok(&tiny(text(&pattern), &members, &["--steps", "2"]));
    ok(&["pretrain", "--out", text(&members), "--resume", "--steps", "4"]);
    assert!(learnt(&files) == learnt(&members));

    let checkpoint = newest(&files);
    let probe = |data: &str| -> Value {
        let result = dir.path().join("knn.json");
        let arguments = ["eval", "manifest", "--data", data, "--checkpoint", text(&checkpoint)];
        ok(&[&arguments[..], &["--protocol", "knn", "--json", text(&result)]].concat());
        serde_json::from_slice(&fs::read(result).unwrap()).unwrap()
    };
    let (of_files, of_members) = (probe(&world()), probe(text(&shards)));
    let metrics = |result: &Value| find(result, "metrics").or_else(|| find(result, "top1")).cloned();
    assert!(metrics(&of_files).is_some(), "{of_files}");
    assert_eq!(metrics(&of_files), metrics(&of_members));
}

/// The first value of this key, however deep.
fn find<'a>(value: &'a Value, key: &str) -> Option<&'a Value> {
    match value {
        Value::Object(object) => {
            object.get(key).or_else(|| object.values().find_map(|value| find(value, key)))
        }
        Value::Array(values) => values.iter().find_map(|value| find(value, key)),
        _ => None,
    }
}

#[test]
fn shards_are_checked_looked_at_and_transcoded() {
    let (dir, shards) = shards();
    let whole = fs::read(fixtures().join("world/videos/train-00000.mp4")).unwrap();
    let mut tar = tar::Builder::new(File::create(shards.join("world-002.tar")).unwrap());
    add(&mut tar, "cut.mp4", &whole[..whole.len() / 2]);
    add(&mut tar, "text.mp4", b"no video");
    tar.into_inner().unwrap();
    for data in [shards.clone(), shards.join("world-{000..002}.tar")] {
        let output = tgm(&["data", "check", text(&data)]);
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "{err}");
        assert_eq!(out.lines().count(), 2, "{out}");
        for part in ["world-002.tar/text.mp4: not a readable video", "world-002.tar/cut.mp4: "] {
            assert!(out.contains(part), "{out}");
        }
        assert!(err.contains("2 of them bad"), "{err}");
    }
    let clean = dir.path().join("shards.clean.csv");
    assert!(fs::read_to_string(&clean).unwrap().contains("\nshards/world-001.tar/"));
    assert!(fs::read_to_string(shards.join("world-{000..002}.tar.clean.csv")).is_ok());

    let page = dir.path().join("page");
    let looked = ok(&["data", "inspect", text(&shards), "--page", text(&page)]);
    assert!(looked.contains("unreadable videos: ") && page.join("0000001.png").exists(), "{looked}");
    let speed = ok(&["data", "bench", text(&clean), "--clips", "20", "--size", "64", "--stride", "1"]);
    assert!(speed.contains("clips/s a core"), "{speed}");
    if Command::new("ffmpeg").arg("-version").output().is_err() {
        eprintln!("skipped: no ffmpeg program");
        return;
    }
    let fast = dir.path().join("fast");
    let copied = ok(&["data", "transcode", text(&clean), text(&fast), "--short-side", "48"]);
    assert!(copied.contains(" 0 could not be transcoded"), "{copied}");
    assert!(fast.join("shards/world-000.tar/00000.mp4").exists());
    ok(&["data", "check", text(&fast.join("manifest.csv"))]);
}

#[test]
fn shards_that_cannot_be_used_are_named_before_anything_starts() {
    let (dir, shards) = shards();
    let out = dir.path().join("run");
    let refused = |name: &str| {
        let data = shards.join(name);
        let error = fails(1, &tiny(text(&data), &out, &["--steps", "1"]));
        assert!(!Path::new(&out).exists(), "{error}");
        error
    };
    assert!(refused("world-{000..005}.tar").contains("world-002.tar: No such file"));
    let first = shards.join("world-000.tar");
    let whole = fs::read(&first).unwrap();
    fs::write(&first, &whole[..whole.len() * 2 / 3]).unwrap();
    assert!(refused("world-{000..001}.tar").contains("world-000.tar: truncated"));
    assert!(refused("world-{000.tar").contains("the pattern"));
}
