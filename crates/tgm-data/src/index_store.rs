//! The frame indices of a dataset's videos, so that a video that is known need not be scanned again.
//!
//! `data check` writes them beside the manifest, in `MANIFEST.index`; a loader reads that file if it is there, and remembers what
//! it learns itself while it runs. An index counts only as long as its video has the same size and time of change, and for the
//! scanner and the FFmpeg that made it: a file of others counts as none.
//!
//! ```text
//! file    "tgm-index 2 " scanner_version() "\n" record*
//! record  u32 length of the body · u64 FNV-1a of the first line and the body · body
//! body    u16 length of the path · path · u64 bytes · u64 seconds of the change · the index (FrameIndex::to_bytes)
//! ```
//!
//! Numbers are little-endian. A file that ends within a record, or has one that fails its checksum, counts up to there, and is
//! cut off there by whoever writes to it next.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use tgm_video::{FrameIndex, VideoFile, scanner_version};

use crate::survey::identity;

/// The first line of a file that counts here.
fn first_line() -> Vec<u8> {
    format!("tgm-index 2 {}\n", scanner_version()).into_bytes()
}

/// Indices by path, of bounded size; shared by threads.
#[derive(Debug)]
pub struct IndexStore {
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    known: HashMap<String, Known>,
    bytes_left: usize,
}

#[derive(Debug)]
struct Known {
    /// Size and time of change of the video.
    identity: (u64, u64),
    index: Box<[u8]>,
}

/// Memory of an entry besides its path and its index.
const OVERHEAD: usize = 96;

impl IndexStore {
    /// The file that belongs to a manifest.
    pub fn file_of(manifest: &Path) -> PathBuf {
        let mut name = manifest.as_os_str().to_owned();
        name.push(".index");
        name.into()
    }

    /// A store of at most `bytes`, with what the manifest's file has, if there is one.
    pub fn load(manifest: &Path, bytes: usize) -> Self {
        let store = Self { state: Mutex::new(State { known: HashMap::new(), bytes_left: bytes }) };
        if bytes > 0 {
            // Without the file, or with a part of it, videos are scanned when they are opened.
            let _ = store.read(&Self::file_of(manifest));
        }
        store
    }

    fn read(&self, file: &Path) -> io::Result<()> {
        let mut bytes = Vec::new();
        File::open(file)?.read_to_end(&mut bytes)?;
        walk(&bytes, &first_line(), |path, known| self.insert(path, known));
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic elsewhere cannot leave the state half-changed.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn insert(&self, path: &str, known: Known) {
        let mut state = self.lock();
        let size = path.len() + known.index.len() + OVERHEAD;
        let freed = state.known.remove(path).map_or(0, |old| path.len() + old.index.len() + OVERHEAD);
        state.bytes_left += freed;
        if size <= state.bytes_left {
            state.bytes_left -= size;
            state.known.insert(path.to_owned(), known);
        }
    }

    /// The index of a video that did not change since it was made.
    pub fn get(&self, path: &str, file: &VideoFile) -> Option<FrameIndex> {
        let identity = identity(file);
        let state = self.lock();
        let known = state.known.get(path).filter(|known| known.identity == identity)?;
        FrameIndex::from_bytes(&known.index)
    }

    /// Remembers an index, while there is room.
    pub fn put(&self, path: &str, file: &VideoFile, index: &FrameIndex) {
        let known = Known { identity: identity(file), index: index.to_bytes().into() };
        self.insert(path, known);
    }

    /// How many indices there are.
    pub fn len(&self) -> usize {
        self.lock().known.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Writes a dataset's indices, one after the other; shared by threads.
#[derive(Debug)]
pub struct IndexWriter {
    file: Mutex<File>,
    first_line: Vec<u8>,
}

impl IndexWriter {
    /// Goes on behind the last good record of the manifest's file, or begins it anew: with `fresh`, and where it counts as none.
    /// A later record of a path replaces an earlier one. Several processes may write the same file.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn open(manifest: &Path, fresh: bool) -> io::Result<Self> {
        let path = IndexStore::file_of(manifest);
        let mut file = OpenOptions::new().create(true).read(true).append(true).open(path)?;
        let first_line = first_line();
        alone(&mut file, |file| {
            let mut bytes = Vec::new();
            file.read_to_end(&mut bytes)?;
            let good = if fresh { 0 } else { walk(&bytes, &first_line, |_, _| ()) };
            // Nobody would read what is written behind a record that was torn off.
            file.set_len(good as u64)?;
            if good == 0 { file.write_all(&first_line) } else { Ok(()) }
        })?;
        Ok(Self { file: Mutex::new(file), first_line })
    }

    /// Appends the index of a video.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn append(&self, path: &str, file: &VideoFile, index: &FrameIndex) -> io::Result<()> {
        let Ok(length) = u16::try_from(path.len()) else { return Ok(()) };
        let (bytes, modified) = identity(file);
        let mut body = length.to_le_bytes().to_vec();
        body.extend_from_slice(path.as_bytes());
        body.extend_from_slice(&bytes.to_le_bytes());
        body.extend_from_slice(&modified.to_le_bytes());
        body.extend_from_slice(&index.to_bytes());
        let mut record = (body.len() as u32).to_le_bytes().to_vec();
        record.extend_from_slice(&checksum(&self.first_line, &body).to_le_bytes());
        record.extend_from_slice(&body);
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        // One write, so that an interruption leaves whole records but the last.
        alone(&mut file, |file| file.write_all(&record))
    }
}

/// Works on a file while no other writer does. Not every file system has locks, and some say so in odd ways (NFS without its
/// lock service): there, writers must not meet.
fn alone<T>(file: &mut File, work: impl FnOnce(&mut File) -> io::Result<T>) -> io::Result<T> {
    let locked = file.lock().is_ok();
    let done = work(file);
    if locked {
        file.unlock()?;
    }
    done
}

/// Calls `each` on the records up to the first that is damaged; where they end, 0 for a file with another first line.
fn walk(bytes: &[u8], first_line: &[u8], mut each: impl FnMut(&str, Known)) -> usize {
    let Some(mut rest) = bytes.strip_prefix(first_line) else { return 0 };
    while let Some((path, known, after)) = record(rest, first_line) {
        each(path, known);
        rest = after;
    }
    bytes.len() - rest.len()
}

/// The first record, and what follows it.
fn record<'a>(bytes: &'a [u8], first_line: &[u8]) -> Option<(&'a str, Known, &'a [u8])> {
    let (length, rest) = bytes.split_first_chunk::<4>()?;
    let (sum, rest) = rest.split_first_chunk::<8>()?;
    let (body, after) = rest.split_at_checked(u32::from_le_bytes(*length) as usize)?;
    if checksum(first_line, body) != u64::from_le_bytes(*sum) {
        return None;
    }
    let (length, body) = body.split_first_chunk::<2>()?;
    let (path, body) = body.split_at_checked(u16::from_le_bytes(*length).into())?;
    let (bytes, body) = body.split_first_chunk::<8>()?;
    let (modified, index) = body.split_first_chunk::<8>()?;
    let identity = (u64::from_le_bytes(*bytes), u64::from_le_bytes(*modified));
    Some((std::str::from_utf8(path).ok()?, Known { identity, index: index.into() }, after))
}

/// FNV-1a: finds accidents, not attacks. A record that the writer of another scanner appended to a file of this one is one.
fn checksum(first_line: &[u8], body: &[u8]) -> u64 {
    (first_line.iter().chain(body))
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tgm_video::{ReadOptions, VideoReader};

    fn index_of(file: &VideoFile) -> FrameIndex {
        VideoReader::open(file, &ReadOptions::default()).unwrap().index().clone()
    }

    /// A manifest's name, and two videos.
    fn videos() -> (tempfile::TempDir, PathBuf, [VideoFile; 2]) {
        let dir = tempfile::tempdir().unwrap();
        let world = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/world/videos");
        let files = ["a.mp4", "b.mp4"].map(|name| VideoFile::whole(dir.path().join(name)));
        for (file, name) in files.iter().zip(["train-00000.mp4", "train-00001.mp4"]) {
            std::fs::copy(world.join(name), file.path()).unwrap();
        }
        let manifest = dir.path().join("m.csv");
        (dir, manifest, files)
    }

    #[test]
    fn what_was_written_is_known_again_until_the_video_changes() {
        let (_dir, manifest, [a, b]) = videos();
        let writer = IndexWriter::open(&manifest, false).unwrap();
        writer.append("a.mp4", &a, &index_of(&a)).unwrap();
        IndexWriter::open(&manifest, false).unwrap().append("b.mp4", &b, &index_of(&b)).unwrap();
        let store = IndexStore::load(&manifest, 1 << 20);
        assert_eq!(store.get("a.mp4", &a), Some(index_of(&a)));
        assert_eq!(store.get("b.mp4", &b), Some(index_of(&b)));
        assert_eq!(store.get("c.mp4", &b), None);
        std::fs::write(b.path(), "another video").unwrap();
        assert_eq!(store.get("b.mp4", &b), None);
        IndexWriter::open(&manifest, true).unwrap();
        assert!(IndexStore::load(&manifest, 1 << 20).is_empty());
    }

    #[test]
    fn a_damaged_file_counts_up_to_the_damage() {
        let (_dir, manifest, [a, b]) = videos();
        let writer = IndexWriter::open(&manifest, false).unwrap();
        writer.append("a.mp4", &a, &index_of(&a)).unwrap();
        let first = std::fs::metadata(IndexStore::file_of(&manifest)).unwrap().len() as usize;
        writer.append("b.mp4", &b, &index_of(&b)).unwrap();
        let whole = std::fs::read(IndexStore::file_of(&manifest)).unwrap();
        let known = |bytes: &[u8]| {
            std::fs::write(IndexStore::file_of(&manifest), bytes).unwrap();
            IndexStore::load(&manifest, 1 << 20).len()
        };
        assert_eq!(known(&whole), 2);
        assert_eq!(known(&whole[..whole.len() - 1]), 1);
        assert_eq!(known(&whole[..first]), 1);
        assert_eq!(known(&whole[..first - 1]), 0);
        assert_eq!(known(b"something else"), 0);
        let mut flipped = whole.clone();
        flipped[first + 40] ^= 1;
        assert_eq!(known(&flipped), 1);
    }

    /// It used to hide all that was written behind it, for good.
    #[test]
    fn a_torn_record_is_cut_off_before_others_follow() {
        let (_dir, manifest, [a, b]) = videos();
        let name = IndexStore::file_of(&manifest);
        let begun = IndexWriter::open(&manifest, true).unwrap();
        let empty = std::fs::read(&name).unwrap().len();
        begun.append("a.mp4", &a, &index_of(&a)).unwrap();
        let whole = std::fs::read(&name).unwrap();
        for (length, kept) in [(whole.len(), 1), (whole.len() - 1, 0), (empty + 3, 0), (empty - 1, 0), (0, 0)]
        {
            for rubbish in ["", "rubbish behind it"] {
                std::fs::write(&name, [&whole[..length], rubbish.as_bytes()].concat()).unwrap();
                let writer = IndexWriter::open(&manifest, false).unwrap();
                writer.append("b.mp4", &b, &index_of(&b)).unwrap();
                let store = IndexStore::load(&manifest, 1 << 20);
                assert_eq!(store.len(), kept + 1, "{length} {rubbish}");
                assert_eq!(store.get("b.mp4", &b), Some(index_of(&b)), "{length} {rubbish}");
            }
        }
    }

    #[test]
    fn indices_of_another_scanner_or_ffmpeg_are_none() {
        let (_dir, manifest, [a, b]) = videos();
        let name = IndexStore::file_of(&manifest);
        let stale = IndexWriter::open(&manifest, false).unwrap();
        stale.append("a.mp4", &a, &index_of(&a)).unwrap();
        let ours = std::fs::read(&name).unwrap();
        assert!(ours.starts_with(format!("tgm-index 2 {}\n", scanner_version()).as_bytes()));
        let records = &ours[first_line().len()..];
        for theirs in ["tgm-index 1\n", "tgm-index 2 scanner-0/avformat-1.2.3/avcodec-1.2.3\n"] {
            std::fs::write(&name, [theirs.as_bytes(), records].concat()).unwrap();
            assert!(IndexStore::load(&manifest, 1 << 20).is_empty(), "{theirs}");
            let writer = IndexWriter::open(&manifest, false).unwrap();
            writer.append("b.mp4", &b, &index_of(&b)).unwrap();
            let store = IndexStore::load(&manifest, 1 << 20);
            assert_eq!((store.len(), store.get("b.mp4", &b)), (1, Some(index_of(&b))), "{theirs}");
        }
        // A process of theirs that still writes when ours has begun the file anew.
        let theirs = IndexWriter { first_line: b"tgm-index 2 theirs\n".to_vec(), ..stale };
        IndexWriter::open(&manifest, true).unwrap();
        theirs.append("a.mp4", &a, &index_of(&a)).unwrap();
        assert!(IndexStore::load(&manifest, 1 << 20).is_empty());
    }

    #[test]
    fn writers_that_come_together_write_one_file() {
        let (_dir, manifest, [a, _]) = videos();
        let index = index_of(&a);
        for _ in 0..20 {
            let _ = std::fs::remove_file(IndexStore::file_of(&manifest));
            std::thread::scope(|scope| {
                for writer in 0..4 {
                    let (manifest, a, index) = (&manifest, &a, &index);
                    scope.spawn(move || {
                        for record in 0..5 {
                            let opened = IndexWriter::open(manifest, false).unwrap();
                            opened.append(&format!("{writer}-{record}.mp4"), a, index).unwrap();
                        }
                    });
                }
            });
            assert_eq!(IndexStore::load(&manifest, 1 << 20).len(), 20);
        }
    }

    #[test]
    fn a_full_store_takes_no_more() {
        let (_dir, manifest, [a, b]) = videos();
        let size = index_of(&a).to_bytes().len() + OVERHEAD + 10;
        let store = IndexStore::load(&manifest, size);
        store.put("a.mp4", &a, &index_of(&a));
        store.put("b.mp4", &b, &index_of(&b));
        store.put("a.mp4", &a, &index_of(&a));
        assert_eq!(store.len(), 1);
        assert!(store.get("a.mp4", &a).is_some());
        let none = IndexStore::load(&manifest, 0);
        none.put("a.mp4", &a, &index_of(&a));
        assert!(none.is_empty());
    }
}
