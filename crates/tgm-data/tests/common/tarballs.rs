//! Tar archives for tests.

use tar::{Builder, EntryType, Header};

pub fn header(kind: EntryType, size: usize) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_size(size as u64);
    header.set_mode(0o644);
    header
}

/// An archive of plain members.
pub fn tarball(members: &[(&str, &[u8])]) -> Vec<u8> {
    let mut tar = Builder::new(Vec::new());
    for (name, content) in members {
        tar.append_data(&mut header(EntryType::Regular, content.len()), name, *content).unwrap();
    }
    tar.into_inner().unwrap()
}
