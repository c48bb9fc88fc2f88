//! What is in a tar archive, and where, so that its videos are read in their place.
//!
//! An archive is listed once: for each file its name and the range of its bytes. Nothing is unpacked, and nothing but headers is
//! read. A listing is complete or an error: an archive that is cut off, or has a member that cannot be read by its range, would
//! otherwise give less data than it was made with, in silence.

mod error;
mod sample;
mod shards;

use std::collections::HashSet;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Component, Path};

pub use error::ArchiveError;
pub use sample::{Sample, samples};
pub use shards::{Shards, is_archive};
use tar::{Entry, EntryType};

/// A file in an archive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Its path within the archive, with `/` between the parts; relative and without `..`.
    pub name: String,
    /// Its first byte, from the beginning of the archive.
    pub start: u64,
    /// Its bytes.
    pub length: u64,
}

/// All files of an archive, in its order. Folders are left out.
///
/// POSIX (ustar, pax) and GNU archives are understood, with names of any length.
///
/// # Errors
/// [`ArchiveError`], for anything that is wrong with the archive or one of its members.
pub fn list(archive: &Path) -> Result<Vec<Member>, ArchiveError> {
    let unreadable = |source| ArchiveError::Read { archive: archive.to_owned(), source };
    list_content(File::open(archive).map_err(unreadable)?, archive)
}

/// As [`list`], of an archive that may be anywhere; `archive` names it in messages.
///
/// # Errors
/// As [`list`].
pub fn list_content(mut content: impl Read + Seek, archive: &Path) -> Result<Vec<Member>, ArchiveError> {
    let unreadable = |source| ArchiveError::Read { archive: archive.to_owned(), source };
    let size = content.seek(SeekFrom::End(0)).map_err(unreadable)?;
    content.rewind().map_err(unreadable)?;
    refuse_compressed(&mut content, archive).map_err(unreadable)??;

    let damaged = |at, source| ArchiveError::Damaged { archive: archive.to_owned(), at, source };
    let mut tar = tar::Archive::new(Bounded { content, left: HEADERS_LIMIT });
    let (mut members, mut names, mut end) = (Vec::new(), HashSet::new(), 0);
    for entry in tar.entries_with_seek().map_err(unreadable)? {
        let mut entry = entry.map_err(|source| damaged(end, source))?;
        let name = name_of(&entry, archive)?;
        let (start, length) = (entry.raw_file_position(), entry.size());
        let is_file = is_file(&mut entry, &name, archive).map_err(|source| damaged(start, source))??;
        end = start.saturating_add(length).div_ceil(BLOCK).saturating_mul(BLOCK);
        if end > size {
            return Err(ArchiveError::Truncated { archive: archive.to_owned(), size, needed: end });
        }
        if !is_file {
            continue;
        }
        if !names.insert(name.clone()) {
            return Err(ArchiveError::Duplicate { archive: archive.to_owned(), member: name });
        }
        members.push(Member { name, start, length });
    }
    // Blocks of zeros mark the end. Without them a download may have stopped between two members.
    if end + BLOCK > size {
        return Err(ArchiveError::Truncated { archive: archive.to_owned(), size, needed: end + 2 * BLOCK });
    }
    Ok(members)
}

/// Headers and contents begin at multiples of this.
const BLOCK: u64 = 512;

/// Most bytes of headers before one member: long names and extended attributes. It keeps an archive from filling the memory.
const HEADERS_LIMIT: u64 = 1 << 20;

/// Passes no more than a number of bytes on between two seeks; the `tar` crate seeks before each header.
struct Bounded<R> {
    content: R,
    left: u64,
}

impl<R: Read> Read for Bounded<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.left == 0 && !buffer.is_empty() {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                format!("headers of more than {HEADERS_LIMIT} bytes"),
            ));
        }
        let most = buffer.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        let read = self.content.read(&mut buffer[..most])?;
        self.left -= read as u64;
        Ok(read)
    }
}

impl<R: Seek> Seek for Bounded<R> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.left = HEADERS_LIMIT;
        self.content.seek(to)
    }
}

/// First bytes of what archives are often compressed with.
const COMPRESSED: [(&[u8], &str); 4] =
    [(b"\x1f\x8b", "gzip"), (b"\x28\xb5\x2f\xfd", "zstd"), (b"BZh", "bzip2"), (b"\xfd7zXZ", "xz")];

fn refuse_compressed(
    content: &mut (impl Read + Seek),
    archive: &Path,
) -> io::Result<Result<(), ArchiveError>> {
    let mut head = Vec::new();
    content.by_ref().take(8).read_to_end(&mut head)?;
    content.rewind()?;
    let program = COMPRESSED.iter().find(|(magic, _)| head.starts_with(magic));
    Ok(program.map_or(Ok(()), |(_, program)| {
        Err(ArchiveError::Compressed { archive: archive.to_owned(), program })
    }))
}

/// The name of a member, if it stays within the archive.
fn name_of<R: Read>(entry: &Entry<'_, R>, archive: &Path) -> Result<String, ArchiveError> {
    let bytes = entry.path_bytes();
    let name = std::str::from_utf8(&bytes).map_err(|_| ArchiveError::Name {
        archive: archive.to_owned(),
        member: String::from_utf8_lossy(&bytes).into_owned(),
        problem: "is not UTF-8",
    })?;
    let problem =
        |problem| ArchiveError::Name { archive: archive.to_owned(), member: name.to_owned(), problem };
    let mut parts = Vec::new();
    for part in Path::new(name).components() {
        match part {
            Component::Normal(part) => parts.push(part.to_string_lossy()),
            Component::CurDir => {}
            Component::ParentDir => return Err(problem("climbs with `..`")),
            Component::RootDir | Component::Prefix(_) => return Err(problem("is absolute")),
        }
    }
    Ok(parts.join("/"))
}

/// Whether a member is a file that can be read by its range (or a folder, or a note to the whole archive, that can be left out).
fn is_file<R: Read>(
    entry: &mut Entry<'_, R>,
    name: &str,
    archive: &Path,
) -> io::Result<Result<bool, ArchiveError>> {
    let kind = match entry.header().entry_type() {
        EntryType::Regular | EntryType::Continuous => {
            if name.is_empty() {
                let (archive, member) = (archive.to_owned(), String::new());
                return Ok(Err(ArchiveError::Name { archive, member, problem: "is empty" }));
            }
            if !is_sparse(entry)? {
                return Ok(Ok(true));
            }
            "a sparse file"
        }
        EntryType::Directory | EntryType::XGlobalHeader => return Ok(Ok(false)),
        EntryType::Symlink | EntryType::Link => "a link",
        EntryType::GNUSparse => "a sparse file",
        EntryType::Char | EntryType::Block | EntryType::Fifo => "a device",
        _ => "of an unknown kind",
    };
    Ok(Err(ArchiveError::Kind { archive: archive.to_owned(), member: name.to_owned(), kind }))
}

/// Whether pax attributes say that the content has holes that are not stored.
fn is_sparse<R: Read>(entry: &mut Entry<'_, R>) -> io::Result<bool> {
    let Some(attributes) = entry.pax_extensions()? else { return Ok(false) };
    for attribute in attributes {
        if attribute?.key_bytes().starts_with(b"GNU.sparse.") {
            return Ok(true);
        }
    }
    Ok(false)
}
