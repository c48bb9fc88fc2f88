//! What can be wrong with a tar archive.

use std::io;
use std::path::PathBuf;

/// Why an archive, or a set of them, could not be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ArchiveError {
    /// The archive is absent or cannot be read.
    #[error("cannot read the archive {}: {source}", archive.display())]
    Read {
        /// The archive.
        archive: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The archive is compressed: its members have no place of their own in it.
    #[error("{} is compressed with {program}; videos gain nothing from that: unpack it to a plain tar archive", archive.display())]
    Compressed {
        /// The archive.
        archive: PathBuf,
        /// What it is compressed with.
        program: &'static str,
    },
    /// A header of the archive makes no sense, or the file is no tar archive at all.
    #[error("{}: damaged at byte {at}, or no tar archive ({source}); fetch or make it again", archive.display())]
    Damaged {
        /// The archive.
        archive: PathBuf,
        /// Where the header, or what belongs to it, is.
        at: u64,
        /// What is wrong.
        source: io::Error,
    },
    /// The archive ends before its members do, or without the mark of its end.
    #[error("{}: truncated: it has {size} bytes, and needs at least {needed}; fetch it again", archive.display())]
    Truncated {
        /// The archive.
        archive: PathBuf,
        /// The bytes that are there.
        size: u64,
        /// The least that it must have.
        needed: u64,
    },
    /// A member has a name by which it cannot be told, or that would lead out of the archive.
    #[error("{}: the name of the member `{member}` {problem}; make the archive again", archive.display())]
    Name {
        /// The archive.
        archive: PathBuf,
        /// The name.
        member: String,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// Two members have the same name.
    #[error("{}: two members are named `{member}`; make the archive again", archive.display())]
    Duplicate {
        /// The archive.
        archive: PathBuf,
        /// The name.
        member: String,
    },
    /// A member is no plain file: a link, a device, a file with holes.
    #[error("{}: the member `{member}` is {kind}; make the archive again from plain files", archive.display())]
    Kind {
        /// The archive.
        archive: PathBuf,
        /// The member.
        member: String,
        /// What it is.
        kind: &'static str,
    },
    /// What is said about a video, in the JSON or text beside it, makes no sense.
    #[error("{}: the member `{member}` {problem}", archive.display())]
    Text {
        /// The archive.
        archive: PathBuf,
        /// The member.
        member: String,
        /// What is wrong.
        problem: String,
    },
    /// The pattern of a set of archives cannot be expanded.
    #[error("the pattern {}: {problem}; write `shard-{{000..012}}.tar` or `{{a,b}}.tar`", pattern.display())]
    Pattern {
        /// The pattern.
        pattern: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
}
