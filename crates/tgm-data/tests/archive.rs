//! What is in a tar archive, and which archives are refused.

#[path = "common/tarballs.rs"]
mod tarballs;

use std::io::Cursor;
use std::path::Path;

use rand::RngExt;
use tar::{Builder, EntryType, Header};
use tarballs::{header, tarball};
use tgm_data::archive::{ArchiveError, Member, list_content};
use tgm_random::Streams;

fn list(bytes: &[u8]) -> Result<Vec<Member>, ArchiveError> {
    list_content(Cursor::new(bytes), Path::new("a.tar"))
}

fn names(bytes: &[u8]) -> Vec<String> {
    list(bytes).unwrap().into_iter().map(|member| member.name).collect()
}

/// The error, which must name the archive.
fn refused(bytes: &[u8]) -> ArchiveError {
    let error = list(bytes).unwrap_err();
    assert!(error.to_string().contains("a.tar"), "{error}");
    error
}

/// An archive of one member with this very name, which the `tar` crate would refuse to write.
fn with_raw_name(name: &[u8], kind: EntryType, content: &[u8]) -> Vec<u8> {
    let mut header = header(kind, content.len());
    header.as_gnu_mut().unwrap().name[..name.len()].copy_from_slice(name);
    header.set_cksum();
    let mut tar = Builder::new(Vec::new());
    tar.append(&header, content).unwrap();
    tar.into_inner().unwrap()
}

#[test]
fn members_lie_where_the_listing_says() {
    let bytes = tarball(&[("a.mp4", b"first"), ("d/b.json", b""), ("./d/./c.txt", &[7; 5000])]);
    let listed = list(&bytes).unwrap();
    let content = |member: &Member| &bytes[member.start as usize..][..member.length as usize];
    assert_eq!(listed.iter().map(content).collect::<Vec<_>>(), [b"first", &b""[..], &[7; 5000]]);
    assert_eq!(names(&bytes), ["a.mp4", "d/b.json", "d/c.txt"]);
    assert_eq!(list(&tarball(&[])).unwrap(), []);
}

#[test]
fn long_names_are_read_whether_gnu_pax_or_ustar() {
    let long = format!("{}/{}.mp4", "folder".repeat(20), "name".repeat(30));
    let gnu = tarball(&[(&long, b"x"), ("short.mp4", b"y")]);
    assert_eq!(names(&gnu), [long.as_str(), "short.mp4"]);

    let mut tar = Builder::new(Vec::new());
    tar.append_pax_extensions([("path", long.as_bytes()), ("comment", b"hello")]).unwrap();
    tar.append_data(&mut header(EntryType::Regular, 1), "cut-off", &b"x"[..]).unwrap();
    tar.append_data(&mut header(EntryType::Regular, 1), "short.mp4", &b"y"[..]).unwrap();
    assert_eq!(names(&tar.into_inner().unwrap()), [long.as_str(), "short.mp4"]);

    let (folder, file) = ("f".repeat(120), "n".repeat(90));
    let mut ustar = Header::new_ustar();
    ustar.set_path(format!("{folder}/{file}")).unwrap();
    ustar.set_size(0);
    ustar.set_cksum();
    let mut tar = Builder::new(Vec::new());
    tar.append(&ustar, &b""[..]).unwrap();
    assert_eq!(names(&tar.into_inner().unwrap()), [format!("{folder}/{file}")]);
}

#[test]
fn folders_and_notes_to_the_archive_are_left_out() {
    let mut tar = Builder::new(Vec::new());
    tar.append_data(&mut header(EntryType::XGlobalHeader, 13), "pax_global", &b"13 comment=x\n"[..]).unwrap();
    tar.append_data(&mut header(EntryType::Directory, 0), "d/", &b""[..]).unwrap();
    tar.append_data(&mut header(EntryType::Regular, 1), "d/a.mp4", &b"x"[..]).unwrap();
    assert_eq!(names(&tar.into_inner().unwrap()), ["d/a.mp4"]);
}

#[test]
fn names_that_lead_out_of_the_archive_are_refused() {
    for name in ["/etc/passwd", "../a.mp4", "a/../../b.mp4", "a/..", ".."] {
        let error = refused(&with_raw_name(name.as_bytes(), EntryType::Regular, b"x"));
        assert!(matches!(&error, ArchiveError::Name { member, .. } if member == name), "{error}");
    }
    for name in [&b"caf\xe9.mp4"[..], b"", b"."] {
        let error = refused(&with_raw_name(name, EntryType::Regular, b"x"));
        assert!(matches!(error, ArchiveError::Name { .. }), "{error}");
    }
    // The name may come from an extension.
    let mut tar = Builder::new(Vec::new());
    tar.append_pax_extensions([("path", &b"../../evil.mp4"[..])]).unwrap();
    tar.append_data(&mut header(EntryType::Regular, 1), "good.mp4", &b"x"[..]).unwrap();
    assert!(matches!(refused(&tar.into_inner().unwrap()), ArchiveError::Name { .. }));
}

#[test]
fn members_that_are_no_plain_files_are_refused() {
    for kind in [
        EntryType::Symlink,
        EntryType::Link,
        EntryType::Char,
        EntryType::Block,
        EntryType::Fifo,
        EntryType::new(b'V'),
    ] {
        let error = refused(&with_raw_name(b"a.mp4", kind, b""));
        assert!(
            matches!(&error, ArchiveError::Kind { member, .. } if member == "a.mp4"),
            "{kind:?}: {error}"
        );
    }
    assert!(matches!(
        refused(&with_raw_name(b"holes.mp4", EntryType::GNUSparse, b"")),
        ArchiveError::Kind { .. } | ArchiveError::Damaged { .. }
    ));
    let mut tar = Builder::new(Vec::new());
    tar.append_pax_extensions([("GNU.sparse.major", &b"1"[..]), ("GNU.sparse.minor", b"0")]).unwrap();
    tar.append_data(&mut header(EntryType::Regular, 1), "holes.mp4", &b"x"[..]).unwrap();
    assert!(matches!(refused(&tar.into_inner().unwrap()), ArchiveError::Kind { kind: "a sparse file", .. }));
}

#[test]
fn two_members_of_one_name_are_refused() {
    let error = refused(&tarball(&[("a.mp4", b"x"), ("b.mp4", b"y"), ("./a.mp4", b"z")]));
    assert!(matches!(error, ArchiveError::Duplicate { member, .. } if member == "a.mp4"));
}

#[test]
fn an_archive_that_ends_too_early_is_refused_wherever_it_ends() {
    let whole = tarball(&[("a.mp4", &[1; 700]), ("b.mp4", &[2; 300])]);
    assert_eq!(whole.len(), 512 + 1024 + 512 + 512 + 1024);
    // One of the two blocks of zeros at the end is enough.
    for length in (0..whole.len() - 512).step_by(37).chain([1536, 2560, 2561]) {
        let error = refused(&whole[..length]);
        let expected = matches!(error, ArchiveError::Truncated { .. } | ArchiveError::Damaged { .. });
        assert!(expected, "{length}: {error}");
    }
    assert!(matches!(refused(&whole[..1000]), ArchiveError::Truncated { size: 1000, needed: 1536, .. }));
    assert!(matches!(refused(&whole[..2560]), ArchiveError::Truncated { size: 2560, .. }));
    assert_eq!(list(&whole[..3072]).unwrap().len(), 2);
}

#[test]
fn damaged_compressed_and_other_files_are_refused() {
    let mut damaged = tarball(&[("a.mp4", b"x"), ("b.mp4", b"y")]);
    damaged[1024 + 3] ^= 1;
    assert!(matches!(refused(&damaged), ArchiveError::Damaged { at: 1024, .. }));
    assert!(matches!(refused(&[b'x'; 2000]), ArchiveError::Damaged { at: 0, .. }));
    assert!(matches!(refused(b"\x1f\x8b\x08 and so on"), ArchiveError::Compressed { program: "gzip", .. }));
    let error = tgm_data::archive::list(Path::new("no/such/a.tar")).unwrap_err();
    assert!(matches!(error, ArchiveError::Read { .. }) && error.to_string().contains("no/such/a.tar"));
}

#[test]
fn headers_cannot_fill_the_memory() {
    let mut tar = Builder::new(Vec::new());
    let name = vec![b'n'; 3 << 20];
    tar.append(&with_size(EntryType::GNULongName, name.len()), &name[..]).unwrap();
    tar.append_data(&mut header(EntryType::Regular, 1), "a.mp4", &b"x"[..]).unwrap();
    let error = refused(&tar.into_inner().unwrap());
    assert!(error.to_string().contains("headers of more than"), "{error}");
}

fn with_size(kind: EntryType, size: usize) -> Header {
    let mut header = header(kind, size);
    header.set_path("././@LongLink").unwrap();
    header.set_cksum();
    header
}

/// Bits flipped, stretches overwritten, ends cut off: every outcome but a panic is fine, and no range leaves the archive.
#[test]
fn mutated_archives_are_listed_or_refused() {
    let long = "n".repeat(150);
    let whole = tarball(&[("a.mp4", &[1; 700]), (&long, &[2; 300]), ("b.json", b"{}"), ("b.mp4", &[3; 90])]);
    let (mut listed, mut refused) = (0, 0);
    for case in 0..4000 {
        let rng = &mut Streams::new(2).stream("mutate", 0, case);
        let mut bytes = whole.clone();
        for _ in 0..rng.random_range(1..6) {
            let at = rng.random_range(0..bytes.len());
            match rng.random_range(0..4) {
                0 => bytes[at] ^= 1 << rng.random_range(0..8),
                1 => bytes[at] = rng.random(),
                2 => bytes.truncate(at.max(1)),
                _ => {
                    let (from, size) = (rng.random_range(0..bytes.len()), rng.random_range(0..600));
                    let size = size.min(bytes.len() - from).min(bytes.len() - at);
                    bytes.copy_within(from..from + size, at);
                }
            }
            // Whatever a header says: only a right sum gets it past the first look.
            if rng.random() && bytes.len() >= 512 {
                let block = at / 512 * 512;
                if let Some(header) = bytes.get_mut(block..block + 512) {
                    header[148..156].fill(b' ');
                    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
                    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
                }
            }
        }
        match list(&bytes) {
            Ok(members) => {
                listed += 1;
                assert!(members.iter().all(|member| member.start + member.length <= bytes.len() as u64));
            }
            Err(error) => {
                refused += 1;
                assert!(error.to_string().contains("a.tar"));
            }
        }
    }
    eprintln!("of 4000 mutated archives {listed} are listed, {refused} refused");
    assert!(listed > 200 && refused > 200);
}
