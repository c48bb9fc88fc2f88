//! The frame indices of a dataset's videos, so that a video that is known need not be scanned again.
//!
//! `data check` writes them beside the manifest, in `MANIFEST.index`; a loader reads that file if it is there, and remembers what
//! it learns itself while it runs. An index counts only as long as its video has the same size and time of change.
//!
//! ```text
//! file    "tgm-index 1\n" record*
//! record  u32 length of the body · u64 FNV-1a of the body · body
//! body    u16 length of the path · path · u64 bytes · u64 seconds of the change · the index (FrameIndex::to_bytes)
//! ```
//!
//! Numbers are little-endian. A file that ends within a record, or has one that fails its checksum, counts up to there.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use tgm_video::{FrameIndex, VideoFile};

use crate::survey::identity;

const MAGIC: &[u8] = b"tgm-index 1\n";

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
        let Some(mut rest) = bytes.strip_prefix(MAGIC) else { return Ok(()) };
        while let Some((path, known, after)) = record(rest) {
            self.insert(path, known);
            rest = after;
        }
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
}

impl IndexWriter {
    /// Goes on with the manifest's file, or with `fresh` begins it anew. A later record of a path replaces an earlier one.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn open(manifest: &Path, fresh: bool) -> io::Result<Self> {
        let path = IndexStore::file_of(manifest);
        let mut file = OpenOptions::new().create(true).append(true).open(path)?;
        if fresh {
            file.set_len(0)?;
        }
        if file.metadata()?.len() == 0 {
            file.write_all(MAGIC)?;
        }
        Ok(Self { file: Mutex::new(file) })
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
        record.extend_from_slice(&fnv(&body).to_le_bytes());
        record.extend_from_slice(&body);
        // One write, so that an interruption leaves whole records but the last.
        self.file.lock().unwrap_or_else(PoisonError::into_inner).write_all(&record)
    }
}

/// The first record, and what follows it.
fn record(bytes: &[u8]) -> Option<(&str, Known, &[u8])> {
    let (length, rest) = bytes.split_first_chunk::<4>()?;
    let (sum, rest) = rest.split_first_chunk::<8>()?;
    let (body, after) = rest.split_at_checked(u32::from_le_bytes(*length) as usize)?;
    if fnv(body) != u64::from_le_bytes(*sum) {
        return None;
    }
    let (length, body) = body.split_first_chunk::<2>()?;
    let (path, body) = body.split_at_checked(u16::from_le_bytes(*length).into())?;
    let (bytes, body) = body.split_first_chunk::<8>()?;
    let (modified, index) = body.split_first_chunk::<8>()?;
    let identity = (u64::from_le_bytes(*bytes), u64::from_le_bytes(*modified));
    Some((std::str::from_utf8(path).ok()?, Known { identity, index: index.into() }, after))
}

/// FNV-1a: finds accidents, not attacks.
fn fnv(bytes: &[u8]) -> u64 {
    bytes
        .iter()
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
