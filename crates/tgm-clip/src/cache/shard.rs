//! One shard: a safetensors file with the maps of many videos, whose header says which.
//!
//! Tensors `NNNNNN.maps` (f16, `[frames, rows, cols]`) and `NNNNNN.times` (f64, `[frames]`); in the header's metadata
//! `format`, `spec`, and `entries`: the keys in the order of the numbers, each with a checksum.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, ErrorKind, Read, Seek, SeekFrom};
use std::path::Path;

use half::f16;
use safetensors::Dtype;
use safetensors::tensor::{Metadata, TensorInfo, TensorView};
use serde::{Deserialize, Serialize};

use super::{CacheError, CacheKey, CacheSpec, FORMAT, Maps};
use crate::source::fnv1a64;

/// As the safetensors library: a longer header is a damaged length.
const MAX_HEADER: u64 = 100_000_000;

/// Where the maps of one video lie in their shard.
#[derive(Clone, Copy, Debug)]
pub(super) struct Location {
    pub shard: u32,
    frames: usize,
    /// Positions in the file.
    maps: u64,
    times: u64,
    checksum: u64,
}

#[derive(Serialize, Deserialize)]
struct Entry {
    #[serde(flatten)]
    key: CacheKey,
    checksum: u64,
}

/// What is wrong with a shard.
#[derive(Debug)]
pub(super) enum Fault {
    Io(io::Error),
    Damaged(String),
    OtherSpec(Vec<String>),
    OtherFormat(String),
}

impl Fault {
    pub fn at(self, path: &Path) -> CacheError {
        let path = path.to_owned();
        match self {
            Self::Io(source) => CacheError::Io { path, source },
            Self::Damaged(reason) => CacheError::Damaged { path, reason },
            Self::OtherSpec(differences) => CacheError::OtherSpec { path, differences },
            Self::OtherFormat(found) => CacheError::Format { path, found, expected: FORMAT },
        }
    }
}

impl From<io::Error> for Fault {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            ErrorKind::UnexpectedEof => Self::Damaged("it is cut off".into()),
            _ => Self::Io(error),
        }
    }
}

fn damaged(reason: impl ToString) -> Fault {
    Fault::Damaged(reason.to_string())
}

/// The bytes of a shard.
pub(super) fn encode(entries: &[(CacheKey, Maps)], spec: &CacheSpec) -> io::Result<Vec<u8>> {
    let mut names = Vec::with_capacity(entries.len());
    let mut tensors = Vec::with_capacity(2 * entries.len());
    for (i, (key, maps)) in entries.iter().enumerate() {
        let (times, values) = (time_bytes(&maps.times), value_bytes(&maps.values));
        names.push(Entry { key: key.clone(), checksum: checksum(key, &times, &values) });
        let frames = maps.times.len();
        tensors.push((times_name(i), Dtype::F64, vec![frames], times));
        tensors.push((maps_name(i), Dtype::F16, vec![frames, maps.rows, maps.cols], values));
    }
    let metadata = HashMap::from([
        ("format".to_owned(), FORMAT.to_owned()),
        ("spec".to_owned(), serde_json::to_string(spec)?),
        ("entries".to_owned(), serde_json::to_string(&names)?),
    ]);
    let views = tensors.iter().map(|(name, dtype, shape, bytes)| {
        let view = TensorView::new(*dtype, shape.clone(), bytes).map_err(io::Error::other)?;
        Ok((name.as_str(), view))
    });
    let views = views.collect::<io::Result<Vec<_>>>()?;
    safetensors::serialize(views, Some(metadata)).map_err(io::Error::other)
}

/// Which maps a shard holds. Its length and header are checked; with `verify`, every map too.
pub(super) fn scan(
    path: &Path,
    shard: u32,
    spec: &CacheSpec,
    verify: bool,
) -> Result<Vec<(CacheKey, Location)>, Fault> {
    let file = File::open(path)?;
    let (header, data) = header(&file)?;
    let text = |name: &str| {
        let value = header.metadata().as_ref().and_then(|metadata| metadata.get(name));
        value.ok_or_else(|| damaged(format!("its header has no `{name}`")))
    };
    if text("format")? != FORMAT {
        return Err(Fault::OtherFormat(text("format")?.clone()));
    }
    let made_with: CacheSpec = serde_json::from_str(text("spec")?).map_err(damaged)?;
    let differences = spec.differences(&made_with);
    if !differences.is_empty() {
        return Err(Fault::OtherSpec(differences));
    }
    let entries: Vec<Entry> = serde_json::from_str(text("entries")?).map_err(damaged)?;
    let mut found = Vec::with_capacity(entries.len());
    for (i, Entry { key, checksum }) in entries.into_iter().enumerate() {
        let maps = tensor(&header, &maps_name(i), Dtype::F16)?;
        let times = tensor(&header, &times_name(i), Dtype::F64)?;
        let &[frames] = &times.shape[..] else { return Err(damaged(format!("times {:?}", times.shape))) };
        if maps.shape != [frames, spec.rows, spec.cols] {
            return Err(damaged(format!("maps {:?}, times {:?}", maps.shape, times.shape)));
        }
        let at = |tensor: &TensorInfo| data + tensor.data_offsets.0 as u64;
        let location = Location { shard, frames, maps: at(maps), times: at(times), checksum };
        if verify {
            read(&file, &key, &location, spec)?;
        }
        found.push((key, location));
    }
    Ok(found)
}

/// The maps of one video.
pub(super) fn read(
    file: &File,
    key: &CacheKey,
    location: &Location,
    spec: &CacheSpec,
) -> Result<Maps, Fault> {
    let bytes = |start: u64, len: usize| -> io::Result<Vec<u8>> {
        let mut file = file;
        let mut bytes = vec![0; len];
        file.seek(SeekFrom::Start(start))?;
        file.read_exact(&mut bytes)?;
        Ok(bytes)
    };
    let times = bytes(location.times, location.frames * 8)?;
    let values = bytes(location.maps, location.frames * spec.rows * spec.cols * 2)?;
    if checksum(key, &times, &values) != location.checksum {
        return Err(damaged(format!("the checksum of {key:?} does not fit")));
    }
    let (times, _) = times.as_chunks();
    let (values, _) = values.as_chunks();
    let maps = Maps {
        times: times.iter().map(|bytes| f64::from_le_bytes(*bytes)).collect(),
        rows: spec.rows,
        cols: spec.cols,
        values: values.iter().map(|bytes| f16::from_le_bytes(*bytes)).collect(),
    };
    maps.checked().map_err(damaged)
}

/// The header, and where the data begins. The file is exactly as long as the header says.
fn header(mut file: &File) -> Result<(Metadata, u64), Fault> {
    let length = file.metadata()?.len();
    let mut size = [0; 8];
    file.read_exact(&mut size)?;
    let size = u64::from_le_bytes(size);
    if size > MAX_HEADER || size + 8 > length {
        return Err(damaged(format!("a header of {size} bytes in a file of {length}")));
    }
    let mut header = vec![0; size as usize];
    file.read_exact(&mut header)?;
    // Reading it checks that offsets follow one another and fit shapes and types.
    let header: Metadata = serde_json::from_slice(&header).map_err(damaged)?;
    let expected = 8 + size + header.data_len() as u64;
    if length != expected {
        return Err(damaged(format!("{length} bytes, expected {expected}")));
    }
    Ok((header, 8 + size))
}

fn tensor<'a>(header: &'a Metadata, name: &str, dtype: Dtype) -> Result<&'a TensorInfo, Fault> {
    header
        .info(name)
        .filter(|info| info.dtype == dtype)
        .ok_or_else(|| damaged(format!("it has no tensor {name} of type {dtype:?}")))
}

fn maps_name(i: usize) -> String {
    format!("{i:06}.maps")
}

fn times_name(i: usize) -> String {
    format!("{i:06}.times")
}

fn time_bytes(times: &[f64]) -> Vec<u8> {
    times.iter().flat_map(|time| time.to_le_bytes()).collect()
}

fn value_bytes(values: &[f16]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

fn checksum(key: &CacheKey, times: &[u8], values: &[u8]) -> u64 {
    fnv1a64([key.video.as_bytes(), key.caption.as_bytes(), times, values])
}
