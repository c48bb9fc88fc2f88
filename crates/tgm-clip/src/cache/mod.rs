//! The score cache: CLIP looks at each video and caption once, however many epochs follow.
//!
//! A cache is a folder of shards, each a safetensors file with the full-frame score maps of some thousand videos. The
//! index is distributed: every shard's header lists its own keys, so that no two files can contradict each other and a
//! shard is complete or absent. `cache.json` describes what all maps have in common.
//!
//! Files are written beside, synced and renamed: an interruption at any point costs at most the maps that were not yet in
//! a shard. A shard that is cut off or altered all the same is dropped when the cache is next opened for writing, and
//! only its videos are scored again. One process writes at a time, many read, also meanwhile.
//!
//! ```
//! use tgm_clip::ScoreOptions;
//! use tgm_clip::cache::{CacheKey, CacheSpec, Maps, Region, ScoreCache};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let folder = tempfile::tempdir()?;
//! # let dir = folder.path();
//! let spec = CacheSpec::new("openai/clip@1 f32", ScoreOptions::default(), (2, 2), "every frame");
//! let key = CacheKey { video: "a.mp4 1234 bytes".into(), caption: "a red circle".into() };
//!
//! let mut cache = ScoreCache::open_or_create(dir, &spec)?;
//! if !cache.contains(&key) {
//!     let scores = [0.25, 0.5, 0.0, 1.0]; // from `ClipModel::score`
//!     cache.insert(key.clone(), Maps::new(vec![0.0], (2, 2), &scores)?)?;
//! }
//! cache.finish()?;
//!
//! let maps = ScoreCache::open(dir, &spec)?.get(&key)?.expect("was inserted");
//! assert_eq!(maps.crop(&Region::WHOLE, true, (2, 2), &[0.0])?, [0.5, 0.25, 1.0, 0.0]); // mirrored
//! # Ok(())
//! # }
//! ```

mod error;
mod maps;
mod shard;
mod store;

use std::collections::HashMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use serde::{Deserialize, Serialize};

use self::shard::Location;
use self::store::Store;
use crate::ScoreOptions;

pub use self::error::CacheError;
pub use self::maps::Maps;
pub use tgm_masking::Region;

const FORMAT: &str = "tgm-score-cache 1";

/// A shard is also full at this size, which bounds the memory of the writer.
const SHARD_BYTES: usize = 64 << 20;

/// What all maps of a cache have in common. A cache that was made with another specification is refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CacheSpec {
    /// Which model scored: [`ClipModel::identity`](crate::ClipModel::identity), and the type it ran in.
    pub model: String,
    /// How it scored.
    pub options: ScoreOptions,
    /// Rows of a map. Finer than the grid of the masked autoencoder keeps detail for small crops.
    pub rows: usize,
    /// Columns of a map.
    pub cols: usize,
    /// Which frames of a video have maps, in words that change when the rule changes ("every 4th frame").
    pub frames: String,
    /// Maps of how many videos and captions make a shard. It may change from run to run and is not compared.
    #[serde(skip, default = "default_maps_per_shard")]
    pub maps_per_shard: usize,
}

fn default_maps_per_shard() -> usize {
    4096
}

impl CacheSpec {
    /// A specification with 4,096 maps per shard; `grid` is rows and columns.
    pub fn new(model: &str, options: ScoreOptions, grid: (usize, usize), frames: &str) -> Self {
        let maps_per_shard = default_maps_per_shard();
        let (model, frames) = (model.to_owned(), frames.to_owned());
        Self { model, options, rows: grid.0, cols: grid.1, frames, maps_per_shard }
    }

    /// How the cache in a folder was made: its grid and its frames are of no concern to those who only read it.
    ///
    /// # Errors
    /// [`CacheError::Absent`], [`CacheError::Format`], [`CacheError::Damaged`] or [`CacheError::Io`].
    pub fn of_folder(dir: &Path) -> Result<Self, CacheError> {
        Store::new(dir).description()
    }

    /// How a cache was made differently from `self`.
    fn differences(&self, cached: &Self) -> Vec<String> {
        let facts = |spec: &Self| {
            // Every field is named, so that a new one cannot be forgotten.
            let Self { model, options, rows, cols, frames, maps_per_shard: _ } = spec;
            let ScoreOptions { features, resample } = options;
            [
                ("model", model.clone()),
                ("features", format!("{features:?}")),
                ("resample", format!("{resample:?}")),
                ("grid", format!("{rows}×{cols}")),
                ("frames", frames.clone()),
            ]
        };
        let pairs = facts(cached).into_iter().zip(facts(self));
        pairs
            .filter(|(cached, wanted)| cached != wanted)
            .map(|((name, cached), (_, wanted))| format!("{name}: cached {cached}, wanted {wanted}"))
            .collect()
    }
}

/// What one video's maps are found by.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct CacheKey {
    /// Which file, and that it is still the same: a hash, or what [`CacheKey::for_file`] says.
    pub video: String,
    /// The caption, to the letter.
    pub caption: String,
}

impl CacheKey {
    /// A key from the size and modification time of a file. `name` is what the file is called in the manifest, so that
    /// a cache survives moving both.
    ///
    /// # Errors
    /// [`CacheError::Io`] when the file is absent.
    pub fn for_file(name: &str, path: &Path, caption: &str) -> Result<Self, CacheError> {
        let error = CacheError::io(path);
        let metadata = fs::metadata(path).map_err(&error)?;
        let modified = match metadata.modified().map_err(&error)?.duration_since(UNIX_EPOCH) {
            Ok(since) => since.as_nanos() as i128,
            Err(before) => -(before.duration().as_nanos() as i128),
        };
        let video = format!("{name}, {} bytes, modified {modified} ns", metadata.len());
        Ok(Self { video, caption: caption.to_owned() })
    }
}

/// A shard that was not used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DamagedShard {
    /// The file; gone already if the cache was opened for writing.
    pub path: PathBuf,
    /// What is wrong with it.
    pub reason: String,
}

/// Score maps of videos and captions on disk. Keys are in memory, maps are read when they are asked for.
#[derive(Debug)]
pub struct ScoreCache {
    store: Store,
    spec: CacheSpec,
    index: HashMap<CacheKey, Place>,
    damaged: Vec<DamagedShard>,
    writer: Option<Writer>,
}

#[derive(Clone, Copy, Debug)]
enum Place {
    Shard(Location),
    /// Index into [`Writer::pending`].
    Pending(usize),
}

#[derive(Debug)]
struct Writer {
    /// Held until the cache is dropped; the operating system releases it even if the process is killed.
    _lock: File,
    next_shard: u32,
    pending: Vec<(CacheKey, Maps)>,
    pending_bytes: usize,
}

impl ScoreCache {
    /// Opens a cache for reading. Shards that are written later are not seen.
    ///
    /// Only headers and lengths are checked here, each map when it is read. Damaged shards are left out, with a warning:
    /// see [`ScoreCache::damaged`].
    ///
    /// # Errors
    /// [`CacheError::Absent`], [`CacheError::OtherSpec`], [`CacheError::Format`], or [`CacheError::Io`].
    pub fn open(dir: &Path, spec: &CacheSpec) -> Result<Self, CacheError> {
        let store = Store::new(dir);
        store.check_description(spec)?;
        Self::scan(store, spec, None)
    }

    /// Opens a cache for writing, and makes it if there is none. What is already there is read through and checked;
    /// damaged shards and what an interrupted run left half-written are deleted.
    ///
    /// # Errors
    /// [`CacheError::Locked`] while another writer has it, [`CacheError::OtherSpec`] or [`CacheError::Format`] (then
    /// nothing is changed), [`CacheError::Invalid`] for an empty grid or shards of no maps, or [`CacheError::Io`].
    pub fn open_or_create(dir: &Path, spec: &CacheSpec) -> Result<Self, CacheError> {
        if spec.rows == 0 || spec.cols == 0 || spec.maps_per_shard == 0 {
            return Err(CacheError::Invalid {
                what: "grid and maps per shard",
                got: format!("{}×{} and {}", spec.rows, spec.cols, spec.maps_per_shard),
                expected: "at least 1 each".into(),
            });
        }
        let store = Store::new(dir);
        let lock = store.lock()?;
        let described = store.is_described(spec)?;
        let writer = Writer { _lock: lock, next_shard: 0, pending: Vec::new(), pending_bytes: 0 };
        let cache = Self::scan(store, spec, Some(writer))?;
        // Only now that no shard objects.
        if !described {
            cache.store.describe(spec)?;
        }
        cache.store.remove_leftovers()?;
        Ok(cache)
    }

    fn scan(store: Store, spec: &CacheSpec, mut writer: Option<Writer>) -> Result<Self, CacheError> {
        let mut index = HashMap::new();
        let mut damaged = Vec::new();
        for number in store.shards()? {
            let path = store.shard(number);
            if let Some(writer) = &mut writer {
                // The number of a damaged shard is not used at once: a reader may still look for the old file.
                writer.next_shard = number + 1;
            }
            match shard::scan(&path, number, spec, writer.is_some()) {
                Ok(entries) => {
                    index.extend(entries.into_iter().map(|(key, location)| (key, Place::Shard(location))));
                }
                Err(shard::Fault::Damaged(reason)) => {
                    tracing::warn!(shard = %path.display(), reason, "damaged shard of the score cache left out");
                    damaged.push(DamagedShard { path, reason });
                }
                Err(fault) => return Err(fault.at(&path)),
            }
        }
        // Only now that every other shard is known to be of this cache.
        if writer.is_some() {
            for DamagedShard { path, .. } in &damaged {
                fs::remove_file(path).map_err(CacheError::io(path))?;
            }
        }
        Ok(Self { store, spec: spec.clone(), index, damaged, writer })
    }

    /// Whether the maps of a key are there: in a shard, or inserted.
    pub fn contains(&self, key: &CacheKey) -> bool {
        self.index.contains_key(key)
    }

    /// Number of keys.
    pub fn len(&self) -> usize {
        self.index.len()
    }

    /// Whether there is no key.
    pub fn is_empty(&self) -> bool {
        self.index.is_empty()
    }

    /// Shards that were found damaged when the cache was opened.
    pub fn damaged(&self) -> &[DamagedShard] {
        &self.damaged
    }

    /// The maps of a key, read from disk now.
    ///
    /// # Errors
    /// [`CacheError::Io`], or [`CacheError::Damaged`] when the bytes are not those that were written.
    pub fn get(&self, key: &CacheKey) -> Result<Option<Maps>, CacheError> {
        match self.index.get(key) {
            None => Ok(None),
            Some(&Place::Pending(i)) => Ok(self
                .writer
                .as_ref()
                .and_then(|writer| writer.pending.get(i))
                .map(|(_, maps)| maps.clone())),
            Some(Place::Shard(location)) => {
                let path = self.store.shard(location.shard);
                let file = File::open(&path).map_err(CacheError::io(&path))?;
                shard::read(&file, key, location, &self.spec).map(Some).map_err(|fault| fault.at(&path))
            }
        }
    }

    /// Adds the maps of a key; one that is there already stays as it is. They are on disk when the shard is full, or
    /// after [`ScoreCache::finish`].
    ///
    /// # Errors
    /// [`CacheError::ReadOnly`], [`CacheError::Invalid`] for maps of another grid, or [`CacheError::Io`] when a shard
    /// cannot be written; nothing is lost then, and the next call tries again.
    pub fn insert(&mut self, key: CacheKey, maps: Maps) -> Result<(), CacheError> {
        let Some(writer) = &mut self.writer else {
            return Err(CacheError::ReadOnly { path: self.store.dir().to_owned() });
        };
        if maps.grid() != (self.spec.rows, self.spec.cols) {
            return Err(CacheError::Invalid {
                what: "maps",
                got: format!("{}×{}", maps.rows, maps.cols),
                expected: format!("{}×{}, the grid of the cache", self.spec.rows, self.spec.cols),
            });
        }
        if !self.index.contains_key(&key) {
            self.index.insert(key.clone(), Place::Pending(writer.pending.len()));
            writer.add(key, maps);
        }
        if writer.pending.len() >= self.spec.maps_per_shard || writer.pending_bytes >= SHARD_BYTES {
            self.write_shard()?;
        }
        Ok(())
    }

    /// Writes what is not yet in a shard into a smaller one, so that an interruption costs no more than what follows.
    ///
    /// # Errors
    /// [`CacheError::Io`] when the shard cannot be written; nothing is lost then.
    pub fn flush(&mut self) -> Result<(), CacheError> {
        self.write_shard()
    }

    /// Writes what is not yet in a shard, and releases the cache for the next writer. Without it, that is lost.
    ///
    /// # Errors
    /// [`CacheError::Io`] when the last shard cannot be written.
    pub fn finish(mut self) -> Result<(), CacheError> {
        self.write_shard()
    }

    fn write_shard(&mut self) -> Result<(), CacheError> {
        let Some(writer) = self.writer.as_mut().filter(|writer| !writer.pending.is_empty()) else {
            return Ok(());
        };
        let path = self.store.shard(writer.next_shard);
        let bytes = shard::encode(&writer.pending, &self.spec).map_err(CacheError::io(&path))?;
        self.store.write(&path, &bytes)?;
        let entries = shard::scan(&path, writer.next_shard, &self.spec, false).map_err(|f| f.at(&path))?;
        self.index.extend(entries.into_iter().map(|(key, location)| (key, Place::Shard(location))));
        writer.next_shard += 1;
        writer.pending.clear();
        writer.pending_bytes = 0;
        Ok(())
    }
}

impl Writer {
    fn add(&mut self, key: CacheKey, maps: Maps) {
        // Names are in the header, twice escaped at worst; it must stay far below what safetensors takes.
        let header = 512 + 16 * (key.video.len() + key.caption.len());
        self.pending_bytes += 2 * maps.values.len() + 8 * maps.times.len() + header;
        self.pending.push((key, maps));
    }
}
