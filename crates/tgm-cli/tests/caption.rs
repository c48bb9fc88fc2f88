//! `tgm caption` with a tiny random BLIP: what it says is nonsense, where it goes is not.

mod common;

use std::fs;
use std::path::Path;
use std::process::Output;

use common::{command, error_of, fixtures, said, text, tgm};
use tgm_data::manifest::Manifest;

fn caption(data: &Path, out: &Path, more: &[&str]) -> Output {
    with_tokens("12", data, out, more)
}

fn with_tokens(tokens: &str, data: &Path, out: &Path, more: &[&str]) -> Output {
    let model = fixtures().join("blip-tiny");
    let [data, out, model] = [data, out, &model].map(text);
    let start = ["caption", "--data", data, "--out", out, "--model", model, "--max-tokens", tokens];
    tgm(&[&start[..], more].concat())
}

/// A folder of eleven videos, one of them cut off, and a manifest with a column of its own.
fn folder() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let mut manifest = "path,caption,source\n".to_owned();
    for i in 0..10 {
        let name = format!("train-{i:05}.mp4");
        fs::copy(fixtures().join("world/videos").join(&name), dir.path().join(&name)).unwrap();
        let caption = if i == 3 { "what a person wrote" } else { "" };
        manifest += &format!("{name},{caption},camera {i}\n");
    }
    let bytes = fs::read(dir.path().join("train-00000.mp4")).unwrap();
    fs::write(dir.path().join("cut.mp4"), &bytes[..bytes.len() / 3]).unwrap();
    fs::write(dir.path().join("clips.csv"), manifest + "cut.mp4,,camera x\n").unwrap();
    dir
}

#[test]
fn every_video_without_caption_gets_three_and_everything_else_stays() {
    let dir = folder();
    let (data, out, json) =
        (dir.path().join("clips.csv"), dir.path().join("new.csv"), dir.path().join("result.json"));
    let output = caption(&data, &out, &["--json", json.to_str().unwrap()]);
    let stdout = said(&output);
    for part in ["captions for 9 videos", "1 rows have captions", "1 videos could not be read", "new.csv"] {
        assert!(stdout.contains(part), "{stdout}");
    }
    assert!(String::from_utf8_lossy(&output.stderr).contains("cut.mp4"));
    let json: serde_json::Value = serde_json::from_slice(&fs::read(json).unwrap()).unwrap();
    assert_eq!((&json["videos"], &json["kept"]), (&9.into(), &1.into()));

    let (old, new) = (Manifest::load(&data).unwrap(), Manifest::load(&out).unwrap());
    assert_eq!(new.len(), 11);
    for (old, new) in old.rows().zip(new.rows()) {
        assert_eq!((old.path(), old.other("source")), (new.path(), new.other("source")));
        let captions: Vec<&str> = new.captions().collect();
        match old.path() {
            "train-00003.mp4" => assert_eq!(captions, ["what a person wrote"]),
            "cut.mp4" => assert!(captions.is_empty()),
            // Three unless the random model has nothing to say about a frame.
            path => assert!((2..=3).contains(&captions.len()), "{path}: {captions:?}"),
        }
    }
    // The same again, and over what is there.
    let again = dir.path().join("again.csv");
    said(&caption(&data, &again, &[]));
    assert_eq!(fs::read(&out).unwrap(), fs::read(&again).unwrap());
    let nothing = said(&caption(&again, &again, &[]));
    assert!(
        nothing.contains("0 captions for 0 videos") && nothing.contains("10 rows have captions"),
        "{nothing}"
    );
    let all = said(&caption(&again, &again, &["--replace"]));
    assert!(all.contains("captions for 10 videos"), "{all}");
}

/// Makes of a finished call what one leaves that was killed while it wrote the fifth video. Returns the journal's heading.
fn interrupt(data: &Path, out: &Path, journal: &Path) -> String {
    let manifest = Manifest::load(out).unwrap();
    let blip = tgm_clip::captioner::Captioner::load(
        &fixtures().join("blip-tiny").to_str().unwrap().parse().unwrap(),
        &candle_core::Device::Cpu,
    );
    let heading =
        serde_json::json!({"model": blip.unwrap().identity(), "max_new_tokens": 12, "replace": false,
        "manifest": data})
        .to_string();
    let done = [0, 1, 2, 4].map(|row| {
        let row = manifest.row(row);
        let captions: Vec<&str> = row.captions().collect();
        serde_json::json!({"part": row.path(), "captions": captions, "cut": 0}).to_string()
    });
    fs::write(journal, format!("{heading}\n{}\n{{\"part\":\"tra", done.join("\n"))).unwrap();
    fs::remove_file(out).unwrap();
    heading
}

#[test]
fn a_continued_call_finds_its_videos_in_another_order_and_leaves_what_was_written_by_hand_meanwhile() {
    let dir = folder();
    let (data, out) = (dir.path().join("clips.csv"), dir.path().join("new.csv"));
    said(&caption(&data, &out, &[]));
    let captions = |out: &Path| {
        let manifest = Manifest::load(out).unwrap();
        let of = |row: tgm_data::manifest::Row<'_>| {
            (row.path().to_owned(), row.captions().map(str::to_owned).collect::<Vec<_>>())
        };
        manifest.rows().map(of).collect::<std::collections::BTreeMap<_, _>>()
    };
    let mut want = captions(&out);
    interrupt(&data, &out, &dir.path().join("new.csv.captions.jsonl"));

    let text = fs::read_to_string(&data).unwrap().replace("train-00001.mp4,,", "train-00001.mp4,by hand,");
    let (heading, rows) = text.split_once('\n').unwrap();
    let reversed: Vec<&str> = rows.lines().rev().collect();
    fs::write(&data, format!("{heading}\n{}\n", reversed.join("\n"))).unwrap();
    let rest = said(&caption(&data, &out, &[]));
    assert!(rest.contains("3 videos had theirs") && rest.contains("2 rows have captions"), "{rest}");
    want.insert("train-00001.mp4".into(), vec!["by hand".into()]);
    assert_eq!(captions(&out), want);
}

#[test]
fn an_interrupted_call_is_continued_and_another_model_is_not_mixed_in() {
    let dir = folder();
    let (data, out) = (dir.path().join("clips.csv"), dir.path().join("new.csv"));
    said(&caption(&data, &out, &[]));
    let whole = fs::read_to_string(&out).unwrap();

    let journal = dir.path().join("new.csv.captions.jsonl");
    assert!(!journal.exists());
    let heading = interrupt(&data, &out, &journal);
    let rest = said(&caption(&data, &out, &[]));
    assert!(rest.contains("15 captions for 5 videos") && rest.contains("4 videos had theirs"), "{rest}");
    assert_eq!(fs::read_to_string(&out).unwrap(), whole);
    assert!(!journal.exists());

    fs::write(&journal, heading.replace("12", "9") + "\n").unwrap();
    let other = error_of(&caption(&data, &out, &[]), 1);
    assert!(other.contains("tokens: 9 then, 12 now"), "{other}");
}

#[test]
fn what_cannot_be_done_is_one_clear_line() {
    let dir = folder();
    let (data, out) = (dir.path().join("clips.csv"), dir.path().join("new.csv"));
    let tokens = error_of(&with_tokens("99", &data, &out, &[]), 1);
    assert!(tokens.contains("max_new_tokens: got 99, expected 1 to 16"), "{tokens}");
    fs::write(&data, "path\ncut.mp4\n").unwrap();
    let none = error_of(&caption(&data, &dir.path().join("other.csv"), &[]), 1);
    assert!(none.contains("none of the 1 videos") && none.contains("cut.mp4"), "{none}");
    let absent = command(&["caption", "--data", text(&data), "--out", text(&out)])
        .env("HF_HOME", dir.path())
        .env("HF_HUB_OFFLINE", "1")
        .output()
        .unwrap();
    let offline = error_of(&absent, 1);
    assert!(
        offline.contains("blip-image-captioning-base") && offline.contains("HF_HUB_OFFLINE"),
        "{offline}"
    );
}
