//! Event files that TensorBoard reads: scalars, pictures, text.
//!
//! An event file is a row of TFRecords, each of them a protocol buffer of type `tensorflow.Event`. Both formats are a page
//! long and have not changed in years, so they are written here without TensorFlow (`record`) and without a protocol
//! buffer compiler (`proto`).

mod proto;
mod record;

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::metrics::now;
use proto::Message;

/// An event file that is being written.
#[derive(Debug)]
pub struct EventFile {
    path: PathBuf,
    file: File,
}

impl EventFile {
    /// A new event file in `folder` for the steps after `step`. What earlier files say about later steps, TensorBoard drops
    /// when it reads that the session starts again there.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn create(folder: &Path, step: u64) -> Result<Self> {
        fs::create_dir_all(folder).with_context(|| format!("cannot make the folder {}", folder.display()))?;
        let name = format!("events.out.tfevents.{:010}.{}.tgm", now() as u64, std::process::id());
        let path = folder.join(name);
        let file = File::create(&path).with_context(|| format!("cannot write {}", path.display()))?;
        let mut events = Self { path, file };
        events.push(Message::default().double(1, now()).string(3, "brain.Event:2"))?;
        const START: u64 = 1;
        let session = Message::default().varint(1, START);
        events.push(Message::default().double(1, now()).varint(2, step + 1).message(7, session))?;
        Ok(events)
    }

    /// Adds numbers. Those that are not finite are left out: TensorBoard would draw a gap either way.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn scalars(&mut self, step: u64, scalars: &[(&str, f64)]) -> Result<()> {
        let mut summary = Message::default();
        for (tag, value) in scalars.iter().filter(|(_, value)| value.is_finite()) {
            summary = summary.message(1, Message::default().string(1, tag).float(2, *value as f32));
        }
        self.summary(step, summary)
    }

    /// Adds a picture: the bytes of a PNG file.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn picture(&mut self, step: u64, tag: &str, png: &[u8]) -> Result<()> {
        const RGB: u64 = 3;
        let (width, height) = png_size(png);
        let image = Message::default().varint(1, height).varint(2, width).varint(3, RGB).bytes(4, png);
        self.summary(step, Message::default().message(1, Message::default().string(1, tag).message(4, image)))
    }

    /// Adds a text in Markdown.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn text(&mut self, step: u64, tag: &str, text: &str) -> Result<()> {
        const STRING: u64 = 7;
        let plugin = Message::default().message(1, Message::default().string(1, "text"));
        let shape = Message::default().message(2, Message::default().varint(1, 1));
        let tensor = Message::default().varint(1, STRING).message(2, shape).string(8, text);
        let value = Message::default().string(1, tag).message(8, tensor).message(9, plugin);
        self.summary(step, Message::default().message(1, value))
    }

    fn summary(&mut self, step: u64, summary: Message) -> Result<()> {
        self.push(Message::default().double(1, now()).varint(2, step).message(5, summary))
    }

    fn push(&mut self, event: Message) -> Result<()> {
        record::write(&mut self.file, event.as_bytes())
            .with_context(|| format!("cannot write {}", self.path.display()))
    }
}

/// Width and height from the header that every PNG file begins with; 0 when it is cut off.
fn png_size(png: &[u8]) -> (u64, u64) {
    let number = |at: usize| {
        let bytes = png.get(at..at + 4).and_then(|bytes| bytes.try_into().ok());
        bytes.map_or(0, |bytes| u64::from(u32::from_be_bytes(bytes)))
    };
    (number(16), number(20))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The records of a file, their checksums compared.
    fn records(path: &Path) -> Vec<Vec<u8>> {
        let bytes = fs::read(path).unwrap();
        let (mut rest, mut records) = (&bytes[..], Vec::new());
        while !rest.is_empty() {
            let len = u64::from_le_bytes(rest[..8].try_into().unwrap()) as usize;
            let sum = |at: usize| u32::from_le_bytes(rest[at..at + 4].try_into().unwrap());
            assert_eq!(sum(8), record::masked_crc32c(&rest[..8]));
            assert_eq!(sum(12 + len), record::masked_crc32c(&rest[12..12 + len]));
            records.push(rest[12..12 + len].to_vec());
            rest = &rest[16 + len..];
        }
        records
    }

    #[test]
    fn a_file_begins_with_its_version_and_the_step_it_starts_at() {
        let dir = tempfile::tempdir().unwrap();
        let mut events = EventFile::create(dir.path(), 41).unwrap();
        events.scalars(42, &[("loss", 0.5), ("broken", f64::NAN)]).unwrap();
        let records = records(&events.path);
        assert_eq!(records.len(), 3);
        assert!(records[0].ends_with(b"\x1a\x0dbrain.Event:2"));
        // step (field 2) = 42; session_log (field 7) { status (field 1) = START }.
        assert!(records[1].ends_with(b"\x10\x2a\x3a\x02\x08\x01"));
        // summary { value { tag = "loss", simple_value = 0.5 } }, and nothing of the other.
        assert!(records[2].ends_with(b"\x10\x2a\x2a\x0d\x0a\x0b\x0a\x04loss\x15\x00\x00\x00\x3f"));
    }

    #[test]
    fn a_picture_says_its_size() {
        let mut png = vec![0; 24];
        png[16..24].copy_from_slice(&[0, 0, 1, 2, 0, 0, 0, 9]);
        assert_eq!((png_size(&png), png_size(&[1, 2])), ((258, 9), (0, 0)));
    }
}
