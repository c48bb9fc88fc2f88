//! Where a video's bytes are.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Seek, SeekFrom};
use std::ops::Range;
use std::path::{Path, PathBuf};

/// The bytes of a video: a file, or a part of one, such as a member of a tar archive. Parts are read where they lie; nothing is
/// unpacked.
///
/// Whatever takes a `VideoFile` takes a path as well, as a [`Path`] or a text.
///
/// ```
/// use tgm_video::{EncodeOptions, ReadOptions, VideoFile, VideoReader, VideoWriter};
///
/// # let folder = tempfile::tempdir()?;
/// # let path = folder.path().join("grey.mp4");
/// # let mut writer = VideoWriter::create(&path, 96, 64, &EncodeOptions::default())?;
/// # for level in 0..40u8 { writer.write(&vec![5 * level; 96 * 64 * 3])?; }
/// # writer.finish()?;
/// let bytes = std::fs::read(&path)?;
/// let archive = folder.path().join("archive");
/// std::fs::write(&archive, [b"something before", &bytes[..], b"something after"].concat())?;
/// let video = VideoFile::part(&archive, 16..16 + bytes.len() as u64, folder.path().join("archive/grey.mp4"));
///
/// let options = ReadOptions::default();
/// let whole = VideoReader::open(&path, &options)?.read(&[7])?;
/// assert_eq!(VideoReader::open(&video, &options)?.read(&[7])?, whole);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct VideoFile {
    path: PathBuf,
    part: Option<Part>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Part {
    range: Range<u64>,
    name: PathBuf,
}

impl VideoFile {
    /// A whole file.
    pub fn whole(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), part: None }
    }

    /// These bytes of a file. Messages call them `name`.
    pub fn part(path: impl Into<PathBuf>, range: Range<u64>, name: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), part: Some(Part { range, name: name.into() }) }
    }

    /// What messages call it.
    pub fn name(&self) -> &Path {
        self.part.as_ref().map_or(&self.path, |part| &part.name)
    }

    /// The file that has the bytes.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Which of that file's bytes they are; `None` for all.
    pub fn range(&self) -> Option<Range<u64>> {
        self.part.as_ref().map(|part| part.range.clone())
    }

    /// Whether the file is there, and is one.
    pub fn exists(&self) -> bool {
        self.path.is_file()
    }

    /// How many bytes the video has.
    ///
    /// # Errors
    /// When a whole file is absent.
    pub fn length(&self) -> io::Result<u64> {
        match &self.part {
            Some(part) => Ok(part.range.end.saturating_sub(part.range.start)),
            None => Ok(fs::metadata(&self.path)?.len()),
        }
    }

    /// The URL by which FFmpeg reads it.
    ///
    /// `file:` in front keeps FFmpeg from taking a colon in a file name for a protocol.
    pub fn ffmpeg_url(&self) -> OsString {
        let mut url = OsString::new();
        if let Some(Part { range, .. }) = &self.part {
            url.push(format!("subfile,,start,{},end,{},,:", range.start, range.end));
        }
        url.push("file:");
        url.push(&self.path);
        url
    }

    /// Opens the file at the first byte of the video, which has this many.
    pub(crate) fn open(&self) -> io::Result<(File, u64)> {
        let mut file = File::open(&self.path)?;
        let length = match &self.part {
            Some(part) => {
                file.seek(SeekFrom::Start(part.range.start))?;
                self.length()?
            }
            None => file.metadata()?.len(),
        };
        Ok((file, length))
    }
}

impl From<&Path> for VideoFile {
    fn from(path: &Path) -> Self {
        Self::whole(path)
    }
}

impl From<PathBuf> for VideoFile {
    fn from(path: PathBuf) -> Self {
        Self::whole(path)
    }
}

impl From<&PathBuf> for VideoFile {
    fn from(path: &PathBuf) -> Self {
        Self::whole(path)
    }
}

impl From<&str> for VideoFile {
    fn from(path: &str) -> Self {
        Self::whole(path)
    }
}

impl From<String> for VideoFile {
    fn from(path: String) -> Self {
        Self::whole(path)
    }
}

impl From<&String> for VideoFile {
    fn from(path: &String) -> Self {
        Self::whole(path)
    }
}

impl From<&Self> for VideoFile {
    fn from(file: &Self) -> Self {
        file.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_what_messages_say_and_urls_what_ffmpeg_reads() {
        let whole = VideoFile::from(Path::new("/a:b.mp4"));
        assert_eq!((whole.name(), whole.range()), (Path::new("/a:b.mp4"), None));
        assert_eq!(whole.ffmpeg_url(), "file:/a:b.mp4");
        assert_eq!([VideoFile::from("/a:b.mp4"), "/a:b.mp4".to_owned().into()], [whole.clone(), whole]);
        let part = VideoFile::part("/s.tar", 512..700, "/s.tar/a.mp4");
        assert_eq!((part.name(), part.path()), (Path::new("/s.tar/a.mp4"), Path::new("/s.tar")));
        assert_eq!(part.length().unwrap(), 188);
        assert_eq!(part.ffmpeg_url(), "subfile,,start,512,end,700,,:file:/s.tar");
    }
}
