//! Features as a file for other programs, written so that an interrupted run goes on where it stopped.
//!
//! The result is one safetensors file:
//!
//! | tensor | shape | |
//! |---|---|---|
//! | `features` | `[videos, views, dim]` f32 | mean of the encoder's tokens, per view |
//! | `labels` | `[videos]` i64 | class index, −1 without label |
//! | `rows` | `[videos]` i64 | row of the manifest, from 0 |
//!
//! Its metadata holds `paths`, `classes` and `splits` as JSON lists, and what the features were made with. Until it is
//! complete the rows lie in a journal beside it, `NAME.part`: a line that says what it belongs to, then a record
//! per video. Only whole records count when a run goes on.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, BufWriter, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use candle_core::Tensor;
use safetensors::tensor::{Dtype, TensorView, serialize_to_file};

use crate::{Error, Result};

/// What a feature file says about itself, and what decides whether an interrupted one may be continued.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct About {
    /// A digest of the encoder's weights.
    pub encoder: String,
    /// A digest of the rows: paths, labels and cuts.
    pub data: String,
    /// How clips were made, as JSON.
    pub clip: String,
    /// Views of each video, in time and in space.
    pub views: (usize, usize),
    /// Length of one vector.
    pub dim: usize,
    /// The format of this file.
    pub version: u32,
}

/// One video of the file.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// The row of the manifest.
    pub row: u32,
    /// The path as the manifest has it.
    pub path: String,
    /// The split, empty without.
    pub split: String,
    /// The class index.
    pub label: Option<u32>,
}

/// A feature file while it is written.
#[derive(Debug)]
pub struct Writer {
    path: PathBuf,
    journal: PathBuf,
    output: BufWriter<File>,
    about: About,
    done: usize,
}

impl Writer {
    /// Begins the file at `path`, or goes on with an interrupted one.
    ///
    /// # Errors
    /// [`Error::OtherFeatures`] when the interrupted file was made with other data or another encoder; [`Error::Store`] when
    /// a file cannot be read or written; [`Error::Empty`] for features of no values.
    pub fn open(path: &Path, about: About) -> Result<Self> {
        if about.values() == 0 {
            return Err(Error::Empty { what: "features", missing: "values: views, crops or dim is 0" });
        }
        let journal = journal(path);
        let failed = |source| Error::Store { file: journal.clone(), source };
        let header = serde_json::to_string(&about).map_err(|e| failed(e.into()))? + "\n";
        let mut file = OpenOptions::new()
            .create(true)
            .read(true)
            .write(true)
            .truncate(false)
            .open(&journal)
            .map_err(failed)?;
        let mut first = String::new();
        BufReader::new(&mut file).read_line(&mut first).map_err(failed)?;
        let done = if first.ends_with('\n') {
            if first != header {
                return Err(Error::OtherFeatures { file: journal });
            }
            let bytes = file.metadata().map_err(failed)?.len() - header.len() as u64;
            (bytes / about.record()) as usize
        } else {
            0
        };
        // What was cut off in the middle of a record, or of the first line, goes.
        let keep = if done == 0 { 0 } else { header.len() as u64 + done as u64 * about.record() };
        file.set_len(keep).map_err(failed)?;
        file.seek(SeekFrom::End(0)).map_err(failed)?;
        let mut output = BufWriter::new(file);
        if keep == 0 {
            output.write_all(header.as_bytes()).map_err(failed)?;
        }
        Ok(Self { path: path.to_owned(), journal, output, about, done })
    }

    /// How many videos are in it already.
    pub fn done(&self) -> usize {
        self.done
    }

    /// Adds the next video, `[views, dim]`.
    ///
    /// # Errors
    /// [`Error::Length`] for a wrong number of values, [`Error::Store`] when the journal cannot be written.
    pub fn push(&mut self, features: &[f32]) -> Result<()> {
        let expected = self.about.values();
        if features.len() != expected {
            return Err(Error::Length { what: "features", expected, got: features.len() });
        }
        let bytes: Vec<u8> = features.iter().flat_map(|value| value.to_le_bytes()).collect();
        self.output
            .write_all(&bytes)
            .map_err(|source| Error::Store { file: self.journal.clone(), source })?;
        self.done += 1;
        Ok(())
    }

    /// Brings what was pushed to the disk.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub fn flush(&mut self) -> Result<()> {
        let failed = |source| Error::Store { file: self.journal.clone(), source };
        self.output.flush().map_err(failed)
    }

    /// Writes the complete file and removes the journal.
    ///
    /// # Errors
    /// [`Error::Length`] unless there is an entry per video, [`Error::Store`] when a file cannot be read or written.
    pub fn finish(mut self, entries: &[Entry], classes: &[String]) -> Result<()> {
        if entries.len() != self.done {
            return Err(Error::Length { what: "feature file", expected: entries.len(), got: self.done });
        }
        self.flush()?;
        let failed = |source| Error::Store { file: self.path.clone(), source };
        let mut features = Vec::with_capacity(self.done * self.about.record() as usize);
        let mut input = BufReader::new(File::open(&self.journal).map_err(failed)?);
        input.read_line(&mut String::new()).map_err(failed)?;
        input.read_to_end(&mut features).map_err(failed)?;
        let numbers = |of: &dyn Fn(&Entry) -> i64| -> Vec<u8> {
            entries.iter().flat_map(|entry| of(entry).to_le_bytes()).collect()
        };
        let labels = numbers(&|entry| entry.label.map_or(-1, i64::from));
        let rows = numbers(&|entry| i64::from(entry.row));
        let (videos, (times, crops)) = (self.done, self.about.views);
        let shape = vec![videos, times * crops, self.about.dim];
        let views = [
            ("features", Dtype::F32, shape, &features),
            ("labels", Dtype::I64, vec![videos], &labels),
            ("rows", Dtype::I64, vec![videos], &rows),
        ];
        let tensors = views
            .into_iter()
            .map(|(name, dtype, shape, data)| Ok((name, TensorView::new(dtype, shape, data)?)))
            .collect::<Result<Vec<_>, safetensors::SafeTensorError>>()
            .map_err(|error| failed(io::Error::other(error)))?;
        let temporary = beside(&self.path, ".tmp");
        serialize_to_file(tensors, Some(self.metadata(entries, classes)?), &temporary)
            .map_err(|error| failed(io::Error::other(error)))?;
        File::open(&temporary).and_then(|file| file.sync_all()).map_err(failed)?;
        std::fs::rename(&temporary, &self.path).map_err(failed)?;
        std::fs::remove_file(&self.journal).map_err(failed)
    }

    fn metadata(&self, entries: &[Entry], classes: &[String]) -> Result<HashMap<String, String>> {
        let json = |value: &dyn Fn(&Entry) -> String| -> String {
            serde_json::Value::from(entries.iter().map(value).collect::<Vec<_>>()).to_string()
        };
        let about = serde_json::to_string(&self.about)
            .map_err(|error| Error::Store { file: self.path.clone(), source: error.into() })?;
        Ok(HashMap::from([
            ("paths".into(), json(&|entry| entry.path.clone())),
            ("splits".into(), json(&|entry| entry.split.clone())),
            ("classes".into(), serde_json::Value::from(classes.to_vec()).to_string()),
            ("about".into(), about),
        ]))
    }
}

impl About {
    /// Version of the file format.
    pub const VERSION: u32 = 1;

    /// Values of one video.
    fn values(&self) -> usize {
        self.views.0 * self.views.1 * self.dim
    }

    /// Bytes of one video.
    fn record(&self) -> u64 {
        (self.values() * size_of::<f32>()) as u64
    }
}

/// The file that features lie in until all are there: with it beside `path`, [`Writer::open`] goes on.
pub fn journal(path: &Path) -> PathBuf {
    beside(path, ".part")
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// A digest (FNV-1a, 64 bits) of what comes in, to tell whether two things are the same.
#[derive(Clone, Copy, Debug)]
pub struct Digest(u64);

impl Default for Digest {
    fn default() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }
}

impl Digest {
    /// Adds bytes, and that they end here.
    pub fn bytes(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|&byte| self.word(u64::from(byte)));
        self.word(u64::MAX);
    }

    /// Adds numbers by their bits.
    pub fn floats(&mut self, values: &[f32]) {
        values.iter().for_each(|value| self.word(u64::from(value.to_bits())));
        self.word(u64::MAX);
    }

    /// Adds the name and the numbers of a tensor.
    ///
    /// # Errors
    /// When it does not hold 32-bit floats.
    pub fn tensor(&mut self, name: &str, tensor: &Tensor) -> Result<()> {
        self.bytes(name.as_bytes());
        self.floats(&tensor.flatten_all()?.to_vec1::<f32>()?);
        Ok(())
    }

    fn word(&mut self, word: u64) {
        self.0 = (self.0 ^ word).wrapping_mul(0x0100_0000_01b3);
    }

    /// Sixteen hexadecimal digits.
    pub fn text(self) -> String {
        format!("{:016x}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn about(encoder: &str) -> About {
        let (data, clip) = ("d".into(), "{}".into());
        About { encoder: encoder.into(), data, clip, views: (2, 1), dim: 3, version: About::VERSION }
    }

    fn entries(count: u32) -> Vec<Entry> {
        let entry = |row| Entry {
            row,
            path: format!("a b/{row}.mp4"),
            split: "test".into(),
            label: (row > 0).then_some(row),
        };
        (0..count).map(entry).collect()
    }

    fn row(of: u32) -> Vec<f32> {
        (0..6).map(|i| (of * 10 + i) as f32).collect()
    }

    /// Records of no bytes were divided by.
    #[test]
    fn features_of_no_values_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("features.safetensors");
        for about in [About { dim: 0, ..about("e") }, About { views: (0, 1), ..about("e") }] {
            assert!(matches!(Writer::open(&path, about), Err(Error::Empty { .. })));
        }
        assert!(!journal(&path).exists());
    }

    #[test]
    fn an_interrupted_file_goes_on_after_its_last_whole_record_and_ends_as_an_unbroken_one() {
        let dir = tempfile::tempdir().unwrap();
        let (whole, parts) = (dir.path().join("whole.safetensors"), dir.path().join("parts.safetensors"));
        let mut writer = Writer::open(&whole, about("e")).unwrap();
        (0..4).for_each(|i| writer.push(&row(i)).unwrap());
        writer.finish(&entries(4), &["x".into()]).unwrap();

        let mut writer = Writer::open(&parts, about("e")).unwrap();
        (0..3).for_each(|i| writer.push(&row(i)).unwrap());
        drop(writer);
        let journal = dir.path().join("parts.safetensors.part");
        let bytes = std::fs::read(&journal).unwrap();
        std::fs::write(&journal, &bytes[..bytes.len() - 5]).unwrap();
        let mut writer = Writer::open(&parts, about("e")).unwrap();
        assert_eq!(writer.done(), 2);
        (2..4).for_each(|i| writer.push(&row(i)).unwrap());
        writer.finish(&entries(4), &["x".into()]).unwrap();
        let read = |file: &Path| {
            let bytes = std::fs::read(file).unwrap();
            let tensors = safetensors::SafeTensors::deserialize(&bytes).unwrap();
            let view = |name: &str| {
                let tensor = tensors.tensor(name).unwrap();
                (tensor.shape().to_vec(), tensor.data().to_vec())
            };
            [view("features"), view("labels"), view("rows")]
        };
        assert_eq!(read(&whole), read(&parts));
        assert_eq!(read(&whole)[0].0, [4, 2, 3]);
        assert!(!journal.exists());
    }

    #[test]
    fn an_interrupted_file_of_another_encoder_is_not_continued() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f.safetensors");
        let mut writer = Writer::open(&path, about("one")).unwrap();
        writer.push(&row(0)).unwrap();
        drop(writer);
        let error = Writer::open(&path, about("two")).unwrap_err();
        assert!(matches!(error, Error::OtherFeatures { .. }), "{error}");
    }

    #[test]
    fn a_file_lacking_videos_is_not_finished() {
        let dir = tempfile::tempdir().unwrap();
        let mut writer = Writer::open(&dir.path().join("f.safetensors"), about("e")).unwrap();
        writer.push(&row(0)).unwrap();
        assert!(matches!(writer.push(&[1.0]), Err(Error::Length { expected: 6, got: 1, .. })));
        assert!(matches!(writer.finish(&entries(2), &[]), Err(Error::Length { expected: 2, got: 1, .. })));
    }

    #[test]
    fn digests_tell_borders_apart() {
        let digest = |parts: &[&str]| {
            let mut digest = Digest::default();
            parts.iter().for_each(|part| digest.bytes(part.as_bytes()));
            digest.text()
        };
        assert_ne!(digest(&["ab", "c"]), digest(&["a", "bc"]));
        assert_eq!(digest(&["ab", "c"]), digest(&["ab", "c"]));
    }
}
