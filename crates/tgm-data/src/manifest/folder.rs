//! A folder of videos without a manifest.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::ManifestError;
use crate::archive::is_archive;

/// Endings of the files that count as videos.
const VIDEOS: [&str; 19] = [
    "3gp", "asf", "avi", "divx", "flv", "m2ts", "m4v", "mkv", "mov", "mp4", "mpeg", "mpg", "mts", "ogv",
    "qt", "ts", "vob", "webm", "wmv",
];

/// The endings, for a person.
pub(super) fn endings() -> String {
    VIDEOS.map(|ending| format!(".{ending}")).join(" ")
}

/// What a folder holds. Paths are relative to it, with `/` between the parts.
pub(super) enum Found {
    /// A video.
    Video {
        /// Its path.
        path: String,
        /// The lines of the text file of the same name, if there is one.
        captions: Vec<String>,
    },
    /// A tar archive, by its path.
    Archive(String),
}

impl Found {
    pub fn path(&self) -> &str {
        match self {
            Self::Video { path, .. } | Self::Archive(path) => path,
        }
    }
}

/// All videos and archives below a folder, in the order of their paths, so that the rows are the same on every machine. Hidden
/// files and folders are left out; links are followed, but for one back to a folder that it lies in, which has nothing new.
///
/// # Errors
/// [`ManifestError::Read`] for a folder or text file that cannot be read, [`ManifestError::NotUtf8`], [`ManifestError::NoVideos`].
pub(super) fn find(folder: &Path) -> Result<Vec<Found>, ManifestError> {
    let mut paths = Vec::new();
    walk(folder, Path::new(""), &mut Vec::new(), &mut paths)?;
    if paths.is_empty() {
        return Err(ManifestError::NoVideos { folder: folder.to_owned() });
    }
    let mut found = Vec::with_capacity(paths.len());
    for path in paths {
        let Some(parts) = path.iter().map(|part| part.to_str()).collect::<Option<Vec<_>>>() else {
            return Err(ManifestError::NotUtf8 { folder: folder.to_owned(), path });
        };
        let name = parts.join("/");
        if is_archive(&path) {
            found.push(Found::Archive(name));
            continue;
        }
        let text = folder.join(path.with_extension("txt"));
        let captions = match fs::read_to_string(&text) {
            Ok(text) => {
                text.lines().map(str::trim).filter(|line| !line.is_empty()).map(str::to_owned).collect()
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(source) => return Err(ManifestError::Read { file: text, source }),
        };
        found.push(Found::Video { path: name, captions });
    }
    found.sort_by(|a, b| a.path().cmp(b.path()));
    Ok(found)
}

/// `above` has the folders on the way here, as they are really called.
fn walk(
    root: &Path,
    below: &Path,
    above: &mut Vec<PathBuf>,
    into: &mut Vec<PathBuf>,
) -> Result<(), ManifestError> {
    let folder = root.join(below);
    let unreadable = |source| ManifestError::Read { file: folder.clone(), source };
    let real = folder.canonicalize().map_err(unreadable)?;
    if above.contains(&real) {
        return Ok(());
    }
    above.push(real);
    for entry in fs::read_dir(&folder).map_err(unreadable)? {
        let entry = entry.map_err(unreadable)?;
        let name = entry.file_name();
        if name.to_string_lossy().starts_with('.') {
            continue;
        }
        let path = below.join(&name);
        if entry.path().is_dir() {
            walk(root, &path, above, into)?;
        } else if is_video(&path) || is_archive(&path) {
            into.push(path);
        }
    }
    above.pop();
    Ok(())
}

/// Whether a file is taken for a video: by the end of its name.
pub fn is_video(path: &Path) -> bool {
    let ending = path.extension().map(|ending| ending.to_string_lossy().to_ascii_lowercase());
    ending.is_some_and(|ending| VIDEOS.contains(&ending.as_str()))
}
