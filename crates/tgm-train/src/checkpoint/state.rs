//! What a checkpoint says about itself, and whether its files are still what was written.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::{self, File};
use std::io::Read;
use std::path::Path;

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

/// The file that is written last: a folder without it is no checkpoint.
pub(super) const STATE: &str = "state.json";

/// Where a run stands.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Position {
    /// Batches consumed: what the data, the masks and the learning rate follow.
    pub step: u64,
    /// Of them, those whose gradient was not finite and was not used.
    pub skipped: u64,
    /// How many of them came last, without a good one in between.
    pub skipped_in_a_row: u64,
    /// The masked loss, relative to that of the mean, since the last checkpoint that was due: a run that was interrupted in between rates
    /// the next one as an unbroken run does.
    #[serde(default)]
    pub progress: Average,
}

/// A running mean.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Average {
    sum: f64,
    count: u64,
}

impl Average {
    /// One infinite value would hide all others: where every masked tubelet is flat, a loss relative to that of the mean is.
    pub fn add_if_finite(&mut self, value: f64) {
        if value.is_finite() {
            self.sum += value;
            self.count += 1;
        }
    }

    /// None of no values.
    pub fn mean(&self) -> Option<f64> {
        (self.count > 0).then(|| self.sum / self.count as f64)
    }
}

impl Position {
    /// How often the optimiser moved.
    pub fn updates(&self) -> u64 {
        self.step - self.skipped
    }
}

/// How good a checkpoint is; comparable within a run only.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Score {
    /// What was measured, such as `knn top-1`.
    pub name: String,
    /// The higher, the better.
    pub value: f64,
}

impl Score {
    /// Whether it can be compared and stored: JSON has no infinity and no NaN, and what is written for them is not read back.
    pub fn is_finite(&self) -> bool {
        self.value.is_finite()
    }
}

/// The data that a run was trained on, as far as its order matters.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DataPrint {
    /// Rows of the training split.
    pub rows: usize,
    /// CRC-32 over the paths, cuts and captions of these rows, in order.
    pub crc32: u32,
}

impl fmt::Display for DataPrint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} rows with checksum {:08x}", self.rows, self.crc32)
    }
}

/// What a checkpoint says about itself.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct State {
    /// Where the run stands.
    #[serde(flatten)]
    pub position: Position,
    /// How good it is, if that was measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub score: Option<Score>,
    /// The data.
    pub data: DataPrint,
    /// The program's version.
    pub version: String,
    /// Every other file.
    pub(super) files: BTreeMap<String, FileSum>,
}

/// Size and checksum of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct FileSum {
    bytes: u64,
    crc32: u32,
}

impl FileSum {
    fn of(path: &Path) -> Result<Self> {
        let read = || -> std::io::Result<Self> {
            let mut file = File::open(path)?;
            let (mut crc, mut bytes, mut buffer) = (crc32fast::Hasher::new(), 0, vec![0; 1 << 20]);
            loop {
                match file.read(&mut buffer)? {
                    0 => return Ok(Self { bytes, crc32: crc.finalize() }),
                    n => {
                        crc.update(&buffer[..n]);
                        bytes += n as u64;
                    }
                }
            }
        };
        read().with_context(|| format!("cannot read {}", path.display()))
    }
}

/// Syncs every file of a folder to the disk and sums it.
pub(super) fn seal(folder: &Path) -> Result<BTreeMap<String, FileSum>> {
    let mut files = BTreeMap::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let path = entry.path();
        File::open(&path)
            .and_then(|file| file.sync_all())
            .with_context(|| format!("cannot write {}", path.display()))?;
        files.insert(entry.file_name().to_string_lossy().into_owned(), FileSum::of(&path)?);
    }
    Ok(files)
}

/// Writes a checkpoint's state.
pub(super) fn write(folder: &Path, state: &State) -> Result<()> {
    crate::run_dir::write_atomically(&folder.join(STATE), serde_json::to_string_pretty(state)?.as_bytes())
}

/// Reads a checkpoint's state without looking at the other files.
///
/// # Errors
/// When it cannot be read.
pub fn read(folder: &Path) -> Result<State> {
    let path = folder.join(STATE);
    let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    serde_json::from_str(&text).with_context(|| format!("{}: damaged", path.display()))
}

/// Whether a folder is a checkpoint that a run has written.
pub fn is_of_a_run(folder: &Path) -> bool {
    folder.join(STATE).is_file()
}

/// Reads a checkpoint's state and compares every file with what was written.
///
/// # Errors
/// Naming the first file that is missing or differs.
pub fn check(folder: &Path) -> Result<State> {
    let state = read(folder)?;
    for (name, expected) in &state.files {
        let file = folder.join(name);
        let found = FileSum::of(&file)?;
        if found.bytes != expected.bytes {
            bail!("{}: damaged, {} bytes instead of {}", file.display(), found.bytes, expected.bytes);
        }
        if found.crc32 != expected.crc32 {
            bail!(
                "{}: damaged, checksum {:08x} instead of {:08x}",
                file.display(),
                found.crc32,
                expected.crc32
            );
        }
    }
    Ok(state)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mean_is_that_of_the_finite_values() {
        let mut average = Average::default();
        assert_eq!(average.mean(), None);
        for value in [1.0, f64::INFINITY, f64::NAN, 3.0] {
            average.add_if_finite(value);
        }
        assert_eq!(average.mean(), Some(2.0));
    }
}
