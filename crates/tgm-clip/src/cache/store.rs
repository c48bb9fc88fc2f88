//! The files of a cache folder.

use std::fs::{self, File, TryLockError};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::{CacheError, CacheSpec, FORMAT};

const DESCRIPTION: &str = "cache.json";
const LEFTOVER: &str = ".tmp";

#[derive(Debug)]
pub(super) struct Store {
    dir: PathBuf,
}

#[derive(Serialize, Deserialize)]
struct Description<S> {
    format: String,
    spec: S,
}

impl Store {
    pub fn new(dir: &Path) -> Self {
        Self { dir: dir.to_owned() }
    }

    pub fn dir(&self) -> &Path {
        &self.dir
    }

    pub fn shard(&self, number: u32) -> PathBuf {
        self.dir.join(format!("shard-{number:05}.safetensors"))
    }

    /// Numbers of the shards, increasing.
    pub fn shards(&self) -> Result<Vec<u32>, CacheError> {
        let number = |name: &String| {
            let number: u32 = name.strip_prefix("shard-")?.strip_suffix(".safetensors")?.parse().ok()?;
            // Other spellings of a number are not ours, and a next number must exist.
            (number < u32::MAX && self.shard(number).ends_with(name)).then_some(number)
        };
        let mut numbers: Vec<u32> = self.names()?.iter().filter_map(number).collect();
        numbers.sort_unstable();
        Ok(numbers)
    }

    /// Makes the folder and becomes its only writer, for as long as the file lives.
    pub fn lock(&self) -> Result<File, CacheError> {
        fs::create_dir_all(&self.dir).map_err(CacheError::io(&self.dir))?;
        let path = self.dir.join("lock");
        let file = File::options().create(true).truncate(false).write(true).open(&path);
        let file = file.map_err(CacheError::io(&path))?;
        match file.try_lock() {
            Ok(()) => Ok(file),
            Err(TryLockError::WouldBlock) => Err(CacheError::Locked { path }),
            Err(TryLockError::Error(source)) => Err(CacheError::Io { path, source }),
        }
    }

    /// How the cache in the folder was made.
    pub fn description(&self) -> Result<CacheSpec, CacheError> {
        let path = self.dir.join(DESCRIPTION);
        let bytes = match fs::read(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                return Err(CacheError::Absent { path: self.dir.clone() });
            }
            other => other.map_err(CacheError::io(&path))?,
        };
        let damaged =
            |e: serde_json::Error| CacheError::Damaged { path: path.clone(), reason: e.to_string() };
        // The format first: another one may have another specification.
        let Description { format, spec } =
            serde_json::from_slice::<Description<serde_json::Value>>(&bytes).map_err(damaged)?;
        if format != FORMAT {
            return Err(CacheError::Format { path, found: format, expected: FORMAT });
        }
        serde_json::from_value(spec).map_err(damaged)
    }

    /// Fails unless the folder has a cache made as `spec` says.
    pub fn check_description(&self, spec: &CacheSpec) -> Result<(), CacheError> {
        let differences = spec.differences(&self.description()?);
        if differences.is_empty() {
            return Ok(());
        }
        Err(CacheError::OtherSpec { path: self.dir.join(DESCRIPTION), differences })
    }

    /// As [`Store::check_description`], but takes a description that is absent or unreadable for none: the shards, if
    /// any, say themselves how they were made.
    pub fn is_described(&self, spec: &CacheSpec) -> Result<bool, CacheError> {
        match self.check_description(spec) {
            Ok(()) => Ok(true),
            Err(CacheError::Absent { .. } | CacheError::Damaged { .. }) => Ok(false),
            Err(other) => Err(other),
        }
    }

    /// Writes the description.
    pub fn describe(&self, spec: &CacheSpec) -> Result<(), CacheError> {
        let path = self.dir.join(DESCRIPTION);
        let description = Description { format: FORMAT.to_owned(), spec };
        let json = serde_json::to_vec_pretty(&description).map_err(|e| CacheError::io(&path)(e.into()))?;
        self.write(&path, &json)
    }

    /// Writes a file so that it is there completely or not at all, even if the power fails.
    pub fn write(&self, path: &Path, bytes: &[u8]) -> Result<(), CacheError> {
        let mut beside = path.as_os_str().to_owned();
        beside.push(LEFTOVER);
        let beside = PathBuf::from(beside);
        let write = || {
            let mut file = File::create(&beside)?;
            file.write_all(bytes)?;
            file.sync_all()?;
            fs::rename(&beside, path)?;
            // The new name is in the folder, which only Unix can sync.
            if cfg!(unix) { File::open(&self.dir)?.sync_all() } else { Ok(()) }
        };
        write().map_err(CacheError::io(path))
    }

    /// Deletes what an interrupted [`Store::write`] left.
    pub fn remove_leftovers(&self) -> Result<(), CacheError> {
        let ours = |name: &&String| {
            name.ends_with(LEFTOVER) && (name.starts_with("shard-") || name.starts_with(DESCRIPTION))
        };
        for name in self.names()?.iter().filter(ours) {
            let path = self.dir.join(name);
            fs::remove_file(&path).map_err(CacheError::io(&path))?;
        }
        Ok(())
    }

    fn names(&self) -> Result<Vec<String>, CacheError> {
        let error = CacheError::io(&self.dir);
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.dir).map_err(&error)? {
            names.extend(entry.map_err(&error)?.file_name().into_string());
        }
        Ok(names)
    }
}
