//! What can go wrong while a world is made.

use std::path::PathBuf;

/// Why a world could not be made or read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WorldError {
    /// A key of the configuration has a value that makes no world.
    #[error("world: `{key} = {value}` is not possible: it must be {allowed}")]
    BadConfig {
        /// The key.
        key: &'static str,
        /// Its value.
        value: String,
        /// What would be possible.
        allowed: &'static str,
    },
    /// The folder holds a world of another configuration.
    #[error(
        "{} holds another world: it has {found}, wanted is {wanted}; choose another folder or remove it",
        dir.display()
    )]
    OtherWorld {
        /// The folder.
        dir: PathBuf,
        /// The first key that differs, as the folder has it.
        found: String,
        /// The same key as wanted.
        wanted: String,
    },
    /// The folder has files of these names that no world wrote.
    #[error("{} already has `{name}`, but no `world.toml`: choose another folder", dir.display())]
    NotAWorld {
        /// The folder.
        dir: PathBuf,
        /// What is in the way.
        name: &'static str,
    },
    /// A file could not be read or written (no such folder, disk full, no permission).
    #[error("{}: {source}", file.display())]
    Io {
        /// The file.
        file: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// `world.toml` or `truth.jsonl` is not what it should be.
    #[error("{}: {message}", file.display())]
    Syntax {
        /// The file.
        file: PathBuf,
        /// What is wrong.
        message: String,
    },
    /// A clip could not be encoded.
    #[error(transparent)]
    Video(#[from] tgm_video::VideoError),
}
