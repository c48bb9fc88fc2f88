//! What a manifest may look like, and what is said when it does not.

use std::path::{Path, PathBuf};

use tgm_data::manifest::{Classes, Manifest, ManifestError, ManifestOptions, Record, write_manifest};
use tgm_video::VideoFile;

struct Fixture {
    _dir: tempfile::TempDir,
    file: PathBuf,
}

fn fixture(text: impl AsRef<[u8]>) -> Fixture {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("manifest.csv");
    std::fs::write(&file, text).unwrap();
    Fixture { _dir: dir, file }
}

fn load(text: impl AsRef<[u8]>) -> Manifest {
    Manifest::load(&fixture(text).file).unwrap()
}

/// The error, and that its message names the file.
fn refuse(text: impl AsRef<[u8]>) -> ManifestError {
    let fixture = fixture(text);
    let error = Manifest::load(&fixture.file).unwrap_err();
    assert!(error.to_string().contains("manifest.csv"), "{error}");
    error
}

const FULL: &str = "path,split,label,caption,caption_2,start,end,scene\n\
    a.mp4,train,wave,\"a hand, waving\",hello,0.5,2,indoors\n\
    b/c.mp4,test,draw,,a pen,,,\n\
    d.mp4,train,,,,,1.5,outdoors\n";

fn check_full(manifest: &Manifest) {
    assert_eq!(manifest.len(), 3);
    assert_eq!(manifest.classes().names(), ["draw", "wave"]);
    assert_eq!(manifest.split_names(), ["train", "test"]);
    assert_eq!(manifest.split("train").unwrap(), [0, 2]);
    assert_eq!(manifest.other_columns().collect::<Vec<_>>(), ["scene"]);
    let [first, second, third] = [0, 1, 2].map(|row| manifest.row(row));
    assert_eq!(first.captions().collect::<Vec<_>>(), ["a hand, waving", "hello"]);
    assert_eq!(second.captions().collect::<Vec<_>>(), ["a pen"]);
    assert_eq!(third.captions().count(), 0);
    assert_eq!((first.label(), first.label_name(), third.label()), (Some(1), Some("wave"), None));
    assert_eq!((first.start(), first.end()), (Some(0.5), Some(2.0)));
    assert_eq!((second.start(), second.end(), third.end()), (None, None, Some(1.5)));
    assert_eq!(
        (first.other("scene"), second.other("scene"), first.other("room")),
        (Some("indoors"), Some(""), None)
    );
    assert_eq!(second.path(), "b/c.mp4");
    assert!(second.video().path().is_absolute() && second.video().path().ends_with("b/c.mp4"));
}

#[test]
fn csv_gives_every_column_its_meaning() {
    let manifest = load(FULL);
    check_full(&manifest);
    assert_eq!(manifest.row(1).line(), 3);
}

#[test]
fn json_lines_give_the_same() {
    check_full(&load(
        r#"{"path": "a.mp4", "split": "train", "label": "wave", "caption": "a hand, waving", "caption_2": "hello", "start": 0.5, "end": 2, "scene": "indoors"}

{"path": "b/c.mp4", "split": "test", "label": "draw", "caption": null, "caption_2": "a pen"}
{"end": 1.5, "path": "d.mp4", "split": "train", "scene": "outdoors"}
"#,
    ));
}

#[test]
fn only_the_path_is_required() {
    let manifest = load("path\nx.mp4\ny.mp4\n");
    assert_eq!(manifest.split("train").unwrap(), [0, 1]);
    assert!(matches!(manifest.split("test"), Err(ManifestError::NoSuchSplit { .. })));
    assert!(manifest.classes().is_empty());
    let error = manifest.require("caption").unwrap_err();
    assert!(error.to_string().ends_with("has no column `caption` (it has path)"), "{error}");
}

#[test]
fn a_column_without_any_value_counts_as_missing() {
    let manifest = load("path,label,caption\nx.mp4,,\n");
    assert!(manifest.require("label").is_err() && manifest.require("caption").is_err());
    assert!(load("path,label\nx.mp4,a\n").require("label").is_ok());
}

#[test]
fn a_byte_order_mark_and_windows_line_ends_do_no_harm() {
    let manifest = load("\u{feff}path,label\r\nx.mp4,a\r\n");
    assert_eq!((manifest.row(0).path(), manifest.row(0).label_name()), ("x.mp4", Some("a")));
    assert_eq!(load("\u{feff}{\"path\": \"x.mp4\"}").row(0).path(), "x.mp4");
}

/// They were those of the line before.
#[test]
fn with_windows_line_ends_lines_are_counted_as_an_editor_does() {
    let manifest = load("path,label\r\nx.mp4,a\r\ny.mp4,b\r\n");
    assert_eq!((manifest.row(0).line(), manifest.row(1).line()), (2, 3));
}

/// `tgm data synth` and `tgm data transcode` make such folders: their videos without it have neither splits nor labels.
#[test]
fn a_folder_with_a_manifest_stands_for_that() {
    let fixture = fixture("path,split,label\nx.mp4,train,a\ny.mp4,test,b\n");
    let folder = fixture.file.parent().unwrap();
    std::fs::write(folder.join("z.mp4"), "not in the manifest").unwrap();
    let manifest = Manifest::load(folder).unwrap();
    assert_eq!((manifest.len(), manifest.row(1).split()), (2, Some("test")));
    assert_eq!(manifest.file(), fixture.file);
}

#[test]
fn numeric_labels_are_ordered_by_number() {
    let manifest = load("path,label\na,10\nb,2\nc,0\n");
    assert_eq!(manifest.classes().names(), ["0", "2", "10"]);
}

#[test]
fn prescribed_classes_set_the_indices() {
    let fixture = fixture("path,label\na,x\nb,y\n");
    let with = |names: &[&str]| {
        let classes = Some(Classes::from_names(names.iter().map(|name| (*name).to_owned()).collect()));
        Manifest::load_with(&fixture.file, &ManifestOptions { classes, ..ManifestOptions::default() })
    };
    let manifest = with(&["y", "z", "x"]).unwrap();
    assert_eq!([0, 1].map(|row| manifest.row(row).label()), [Some(2), Some(0)]);
    assert!(matches!(with(&["y"]), Err(ManifestError::UnknownClass { label, .. }) if label == "x"));
}

#[test]
fn an_absent_or_empty_manifest_is_refused() {
    let error = Manifest::load("no/such/manifest.csv").unwrap_err();
    assert!(
        matches!(error, ManifestError::Read { .. }) && error.to_string().contains("no/such/manifest.csv")
    );
    for text in ["", "\n", "path,label\n"] {
        assert!(matches!(refuse(text), ManifestError::Empty { .. }), "{text:?}");
    }
}

#[test]
fn a_missing_or_doubled_column_is_refused() {
    let error = refuse("file,label\na.mp4,x\n");
    assert!(matches!(&error, ManifestError::MissingColumn { column, .. } if column == "path"));
    assert!(error.to_string().contains("it has file, label"));
    assert!(
        matches!(refuse("path,a,a\nx,1,2\n"), ManifestError::DuplicateColumn { column, .. } if column == "a")
    );
    assert!(matches!(refuse("{\"label\": \"a\"}\n"), ManifestError::Syntax { line: 1, .. }));
    assert!(matches!(refuse("{\"path\": null}\n"), ManifestError::Syntax { line: 1, .. }));
}

#[test]
fn errors_name_line_column_and_value() {
    let error = refuse("path,start\na.mp4,0\nb.mp4,soon\n").to_string();
    assert!(error.ends_with("manifest.csv:3: column `start`: `soon` is not a number of seconds"), "{error}");
    for (text, line) in [
        ("path,end\na.mp4,-1\n", 2),
        ("path,start\na.mp4,nan\n", 2),
        ("path,start,end\na.mp4,2,2\n", 2),
        ("path,label\nx.mp4,a\n,b\n", 3),
    ] {
        assert!(matches!(refuse(text), ManifestError::BadValue { line: at, .. } if at == line), "{text:?}");
    }
    assert!(matches!(
        refuse("path,label\nx.mp4,a\ny.mp4\n"),
        ManifestError::RaggedRow { line: 3, expected: 2, found: 1, .. }
    ));
    assert!(matches!(refuse(b"path\nx.mp4\n\xff.mp4\n"), ManifestError::Syntax { line: 3, .. }));
    assert!(matches!(refuse("{\"path\": \"a\"}\n{\"path\": "), ManifestError::Syntax { line: 2, .. }));
    assert!(matches!(refuse("{\"path\": [\"a\"]}\n"), ManifestError::Syntax { line: 1, .. }));
}

#[test]
fn paths_leave_the_folder_only_when_allowed() {
    for path in ["../a.mp4", "/etc/passwd", "a/../../b.mp4"] {
        let fixture = fixture(format!("path\n{path}\n"));
        let error = Manifest::load(&fixture.file).unwrap_err();
        assert!(matches!(&error, ManifestError::PathOutside { line: 2, value, .. } if value == path));
        assert!(error.to_string().contains("--allow-outside"));
        let options = ManifestOptions { allow_outside: true, ..ManifestOptions::default() };
        assert_eq!(Manifest::load_with(&fixture.file, &options).unwrap().row(0).path(), path);
    }
}

#[test]
fn absent_files_are_listed_and_counted() {
    let fixture = fixture("path\nmanifest.csv\n1\n2\n3\n4\n");
    let manifest = Manifest::load(&fixture.file).unwrap();
    assert_eq!(manifest.missing_files(&[0, 2, 4]), [2, 4]);
    manifest.check_files(&[0]).unwrap();
    let error = manifest.check_files(&[0, 1, 2, 3, 4]).unwrap_err().to_string();
    assert!(error.starts_with("4 of 5 videos") && error.ends_with("do not exist: 1, 2, 3, …"), "{error}");
}

#[test]
fn a_quoted_line_break_does_not_shift_line_numbers() {
    let manifest = load("path,caption\na.mp4,\"two\nlines\"\nb.mp4,one\n");
    assert_eq!([0, 1].map(|row| manifest.row(row).line()), [2, 4]);
    assert_eq!(manifest.row(0).captions().next(), Some("two\nlines"));
}

/// Everything that a row has.
fn everything(manifest: &Manifest) -> Vec<Record<'_>> {
    manifest.rows().map(|row| row.record(manifest.file()).unwrap()).collect()
}

#[test]
fn a_manifest_survives_being_written_in_either_form() {
    let text = "path,split,label,caption,caption_2,start,end,source\n\
        a.mp4,train,pour,\"a hand, \"\"pouring\"\"\",second,0.5,1.25,here\n\
        sub/b.mp4,test,,,only one,,,\n\
        c.mp4,,cut,\"two\nlines\",,3,,there\n";
    let dir = tempfile::tempdir().unwrap();
    let first = dir.path().join("first.csv");
    std::fs::write(&first, text).unwrap();
    let manifest = Manifest::load(&first).unwrap();
    for name in ["again.csv", "again.jsonl"] {
        let again = dir.path().join(name);
        write_manifest(&again, manifest.rows().map(|row| row.record(&again))).unwrap();
        let read = Manifest::load(&again).unwrap();
        assert_eq!(everything(&read), everything(&manifest), "{name}");
        assert_eq!(read.classes(), manifest.classes());
    }
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 3, "nothing is left beside");
}

#[test]
fn paths_are_kept_rebased_or_made_absolute() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(dir.path().join("lists/videos")).unwrap();
    let first = dir.path().join("lists/first.csv");
    std::fs::write(&first, "path\nvideos/a.mp4\n").unwrap();
    let manifest = Manifest::load(&first).unwrap();
    let path = |file: &str| manifest.row(0).record(&dir.path().join(file)).unwrap().path.into_owned();
    assert_eq!(path("lists/second.csv"), "videos/a.mp4");
    assert_eq!(path("above.csv"), "lists/videos/a.mp4");
    assert_eq!(path("lists/videos/below.csv"), "a.mp4");
    assert_eq!(Path::new(&path("elsewhere/other.csv")), dir.path().join("lists/videos/a.mp4"));
}

#[test]
fn manifests_that_could_not_be_read_again_are_not_written() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("new.csv");
    let record = |others| Record { path: "a.mp4".into(), others, ..Record::default() };
    assert!(matches!(write_manifest(&file, std::iter::empty()), Err(ManifestError::Empty { .. })));
    let clash = [Ok(record(vec![("split".into(), "x".into())]))];
    let clash = clash.iter().map(|r: &Result<_, ()>| Ok(r.clone().unwrap()));
    assert!(matches!(write_manifest(&file, clash), Err(ManifestError::DuplicateColumn { .. })));
    let good = || [record(Vec::new())].into_iter().map(Ok);
    let absent = dir.path().join("no/such.csv");
    assert!(matches!(write_manifest(&absent, good()), Err(ManifestError::Write { .. })));
    assert!(!file.exists());
    write_manifest(&file, good()).unwrap();
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "path\na.mp4\n");
}

#[test]
fn a_folder_stands_in_for_a_manifest_with_captions_from_text_files() {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        let file = dir.path().join(name);
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(file, text).unwrap();
    };
    write("b.MP4", "");
    write("b.txt", "a cat\n\n  the same cat \n");
    write("a/z.webm", "");
    write("notes.md", "no video");
    write(".hidden/c.mp4", "");
    write("a/lone.txt", "no video of this name");
    let manifest = Manifest::load(dir.path()).unwrap();
    let rows: Vec<_> =
        manifest.rows().map(|row| (row.path().to_owned(), row.captions().count(), row.video())).collect();
    let expected = [("a/z.webm", 0), ("b.MP4", 2)];
    assert_eq!(
        rows,
        expected.map(|(path, captions)| (path.to_owned(), captions, VideoFile::whole(dir.path().join(path))))
    );
    assert_eq!(manifest.row(1).captions().nth(1), Some("the same cat"));
    assert!(manifest.check_files(&[0, 1]).is_ok());

    let empty = tempfile::tempdir().unwrap();
    let error = Manifest::load(empty.path()).unwrap_err();
    assert!(matches!(error, ManifestError::NoVideos { .. }) && error.to_string().contains("manifest"));
}

/// Its video was looked for under another name, and was one of many that are absent.
#[cfg(unix)]
#[test]
fn a_video_whose_name_is_not_unicode_is_named_and_refused() {
    use std::os::unix::ffi::OsStrExt;
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("a.mp4"), "").unwrap();
    std::fs::write(dir.path().join(std::ffi::OsStr::from_bytes(b"caf\xe9.txt")), "no video").unwrap();
    assert_eq!(Manifest::load(dir.path()).unwrap().len(), 1);
    std::fs::write(dir.path().join(std::ffi::OsStr::from_bytes(b"caf\xe9.mp4")), "").unwrap();
    let error = Manifest::load(dir.path()).unwrap_err();
    assert!(matches!(error, ManifestError::NotUtf8 { .. }), "{error}");
    assert!(error.to_string().contains("`caf\u{fffd}.mp4` is not UTF-8"), "{error}");
}

#[cfg(unix)]
#[test]
fn a_link_to_a_folder_that_it_lies_in_repeats_nothing() {
    use std::os::unix::fs::symlink;
    let (dir, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let videos = dir.path().join("videos");
    std::fs::create_dir_all(videos.join("a/b")).unwrap();
    std::fs::write(videos.join("a/b/1.mp4"), "").unwrap();
    std::fs::write(dir.path().join("0.mp4"), "").unwrap();
    std::fs::write(other.path().join("2.mp4"), "").unwrap();
    let paths = || {
        let manifest = Manifest::load(&videos).unwrap();
        manifest.rows().map(|row| row.path().to_owned()).collect::<Vec<_>>()
    };
    symlink(&videos, videos.join("a/b/all")).unwrap();
    symlink("..", videos.join("a/b/up")).unwrap();
    symlink(".", videos.join("here")).unwrap();
    assert_eq!(paths(), ["a/b/1.mp4"]);
    // Links to other places are followed, from two places as well, and those to above the folder without coming back.
    symlink(other.path(), videos.join("c")).unwrap();
    symlink(other.path(), videos.join("a/c")).unwrap();
    symlink(&videos, other.path().join("back")).unwrap();
    symlink("..", videos.join("d")).unwrap();
    assert_eq!(paths(), ["a/b/1.mp4", "a/c/2.mp4", "c/2.mp4", "d/0.mp4"]);
}

#[test]
fn a_million_rows_load_in_seconds_and_little_memory() {
    use std::fmt::Write;
    let resident = || {
        let status = std::fs::read_to_string("/proc/self/status").ok()?;
        let kb = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
        kb.trim().trim_end_matches(" kB").trim().parse::<f64>().ok().map(|kb| kb / 1024.0)
    };
    let mut text = String::from("path,split,label,caption\n");
    for i in 0..1_000_000 {
        let (folder, class) = (i % 997, i % 400);
        writeln!(text, "train/{folder:03}/{i:08}.mp4,train,class {class},a person does thing number {i}")
            .unwrap();
    }
    let fixture = fixture(&text);
    drop(text);
    let before = resident();
    let begun = std::time::Instant::now();
    let manifest = Manifest::load(&fixture.file).unwrap();
    let seconds = begun.elapsed().as_secs_f64();
    assert_eq!((manifest.len(), manifest.classes().len()), (1_000_000, 400));
    assert_eq!(manifest.row(999_999).path(), "train/008/00999999.mp4");
    // An unoptimised build on a busy machine takes longer than the two seconds of a release build.
    let patience = if cfg!(debug_assertions) { 20.0 } else { 2.0 };
    assert!(seconds < patience, "{seconds} s");
    if let Some((before, after)) = before.zip(resident()) {
        eprintln!("a million rows: {seconds:.2} s, {:.0} MB", after - before);
        assert!(after - before < 300.0, "{} MB", after - before);
    }
}

/// Videos below the new manifest were written as absolute paths, which no other command reads, where its folder had `..` in it.
#[test]
fn a_row_keeps_its_relative_path_however_the_folder_is_spelt() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("clips")).unwrap();
    let file = dir.path().join("clips/m.csv");
    std::fs::write(&file, "path\na.mp4\n").unwrap();
    let manifest = Manifest::load(&file).unwrap();
    let path = |out: &str| manifest.row(0).record(&dir.path().join(out)).unwrap().path.into_owned();
    assert_eq!(path("clips/../clips/new.csv"), "a.mp4");
    assert_eq!(path("clips/../new.csv"), "clips/a.mp4");
    assert_eq!(path("new.csv"), "clips/a.mp4");
}
