//! What the fuzz targets do, on their seeds and on mutations of these.
//!
//! With `TGM_FUZZ_SEEDS=FOLDER` the seeds are written there, for `cargo fuzz`.

#[path = "common/survive.rs"]
mod survive;
#[path = "common/tarballs.rs"]
mod tarballs;

use std::path::Path;

use rand::RngExt;
use tar::{Builder, EntryType};
use tarballs::{header, tarball};
use tgm_random::Streams;

fn video() -> Vec<u8> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/world/videos/train-00000.mp4");
    std::fs::read(file).unwrap()
}

fn manifests() -> Vec<Vec<u8>> {
    let texts = [
        "path\na.mp4\n",
        "path,split,label,caption,caption_2,start,end,fps\r\n\"a,1.mp4\",train,cat,\"said \"\"so\"\"\",b,0.5,2,25\r\nd/b.mp4,test,10,,,,,\n",
        "{\"path\": \"a.mp4\", \"label\": 3, \"end\": 1e3}\n\n{\"path\": \"s.tar/b.mp4\", \"caption_7\": \"\\u00e9\", \"x\": null}\n",
        "\u{feff}path,caption\n../a.mp4,\u{1f600}\n",
    ];
    texts.map(|text| text.as_bytes().to_vec()).into()
}

fn archives() -> Vec<Vec<u8>> {
    let video = video();
    let said = br#"{"caption": "a", "start": 0.1, "end": 1, "nested": {"a": []}}"#;
    let shard = tarball(&[("a.mp4", &video), ("a.json", said), ("a.txt", b"one\ntwo"), ("a.cls", b"3\n")]);
    let long = "folder/".repeat(30) + "b.mp4";
    let mut pax = Builder::new(Vec::new());
    pax.append_pax_extensions([("path", long.as_bytes()), ("mtime", b"1.5")]).unwrap();
    pax.append_data(&mut header(EntryType::Regular, 4), "b.mp4", &b"none"[..]).unwrap();
    vec![shard, tarball(&[(&long, b"none"), ("d/c.txt", b"")]), pax.into_inner().unwrap()]
}

/// Runs a target on its seeds and on mutations of them.
fn run(target: &str, seeds: Vec<Vec<u8>>, mutations: u64, body: fn(&[u8])) {
    if let Some(folder) = std::env::var_os("TGM_FUZZ_SEEDS") {
        let folder = Path::new(&folder).join(target);
        std::fs::create_dir_all(&folder).unwrap();
        for (number, seed) in seeds.iter().enumerate() {
            std::fs::write(folder.join(format!("seed-{number}")), seed).unwrap();
        }
    }
    seeds.iter().for_each(|seed| body(seed));
    body(b"");
    for case in 0..mutations {
        let rng = &mut Streams::new(6).stream("mutate", 0, case);
        let mut bytes = seeds[case as usize % seeds.len()].clone();
        for _ in 0..rng.random_range(1..5) {
            let at = rng.random_range(0..bytes.len());
            match rng.random_range(0..5) {
                0 => bytes[at] ^= 1 << rng.random_range(0..8),
                1 => bytes[at] = *b"\0\n\",{}./-9".get(rng.random_range(0..16)).unwrap_or(&0xff),
                2 => drop(bytes.remove(at)),
                3 => bytes.insert(at, bytes[rng.random_range(0..bytes.len())]),
                _ => bytes.truncate(at.max(bytes.len() / 2)),
            }
            if bytes.is_empty() {
                break;
            }
        }
        body(&bytes);
    }
}

#[test]
fn videos_are_read_or_refused() {
    run("clip", vec![video()], 200, survive::clip);
}

#[test]
fn manifests_are_read_or_refused() {
    run("manifest", manifests(), 3000, survive::manifest);
}

#[test]
fn archives_are_read_or_refused() {
    run("archive", archives(), 600, survive::archive);
}
