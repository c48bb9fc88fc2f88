//! Manifests: which videos there are, and what is known about each.
//!
//! A manifest is a CSV file with a header, or JSON Lines with the same keys; which of the two is seen from the
//! first character.
//!
//! | column | meaning |
//! |---|---|
//! | `path` | required; relative to the manifest's folder |
//! | `split` | `train`, `val`, `test`, … |
//! | `label` | class name; empty for an unlabelled video |
//! | `caption`, `caption_2`, `caption_3`, … | descriptions; empty ones do not count |
//! | `start`, `end` | seconds from the first frame: the row is only this part of the video |
//!
//! Other columns are kept, see [`Manifest::other_columns`].
//!
//! A folder that holds a file `manifest.csv` stands for that. Any other may stand in for a manifest: its rows are the videos
//! below it in the order of their paths, and the lines of a text file beside a video, of the same name, are its captions.
//!
//! So may tar archives in WebDataset's layout: one (`clips.tar`), several (`clips-{000..012}.tar`), or a folder of them. `KEY.mp4`
//! is a video, `KEY.txt` has its captions, `KEY.cls` its label, and `KEY.json` values by the names of the columns above. Videos are
//! read where they lie, see [`archive`](crate::archive). Their paths go on behind the archive's, `clips-000.tar/KEY.mp4`, and
//! a manifest may have such paths, too.
//!
//! The rows lie in columns, texts end to end in one allocation each, so that a million rows cost little more
//! memory than the file has bytes.

mod classes;
mod column;
mod error;
mod folder;
mod places;
mod read;
mod shards;
mod table;
mod write;

use std::path::{Component, Path, PathBuf};

pub use classes::Classes;
use column::{CategoryColumn, TextColumn};
pub use error::ManifestError;
pub use folder::is_video;
use places::Places;
use tgm_video::VideoFile;
pub use write::{Record, write_manifest};

/// How to read a manifest.
#[derive(Clone, Debug, Default)]
pub struct ManifestOptions {
    /// Accept absolute paths and paths that climb out of the manifest's folder with `..`.
    ///
    /// Off by default: a manifest from elsewhere must not be able to name any file of the machine. The check
    /// is on the text of the path; symbolic links inside the folder are followed.
    pub allow_outside: bool,
    /// The classes and their order. By default the sorted labels of all rows.
    pub classes: Option<Classes>,
}

/// The rows of a manifest. Cheap to share behind an [`Arc`](std::sync::Arc).
#[derive(Debug)]
pub struct Manifest {
    file: PathBuf,
    root: PathBuf,
    lines: Vec<u32>,
    paths: TextColumn,
    splits: Option<CategoryColumn>,
    labels: Option<CategoryColumn>,
    classes: Classes,
    captions: Vec<TextColumn>,
    /// Seconds; `NaN` for none. Empty when no row has one.
    starts: Vec<f64>,
    ends: Vec<f64>,
    others: Vec<(String, TextColumn)>,
    places: Places,
}

impl Manifest {
    /// Reads a manifest whose paths stay inside its folder, or that of a folder, or the videos of a folder or of tar archives.
    ///
    /// # Errors
    /// [`ManifestError`] for anything that is wrong with the file or one of its rows. Whether the videos exist
    /// is not looked at: see [`Self::check_files`].
    pub fn load(file: impl AsRef<Path>) -> Result<Self, ManifestError> {
        Self::load_with(file, &ManifestOptions::default())
    }

    /// Reads a manifest.
    ///
    /// # Errors
    /// As [`Self::load`].
    pub fn load_with(file: impl AsRef<Path>, options: &ManifestOptions) -> Result<Self, ManifestError> {
        read::manifest(file.as_ref(), options)
    }

    /// A manifest that may be anywhere. `file` names it in messages, and its folder is the one that paths are relative to.
    ///
    /// # Errors
    /// As [`Self::load`].
    pub fn read(
        content: impl std::io::Read,
        file: &Path,
        options: &ManifestOptions,
    ) -> Result<Self, ManifestError> {
        read::content(file, content, options)
    }

    /// A manifest that is in no file: the rows of other annotation files. `file` names it in messages, and its folder is the
    /// one that paths are relative to; a row's line is its number from 1.
    ///
    /// # Errors
    /// As [`Self::load`], for what is wrong with a row.
    pub fn from_records<'a>(
        file: &Path,
        records: impl IntoIterator<Item = Record<'a>>,
        options: &ManifestOptions,
    ) -> Result<Self, ManifestError> {
        read::from_records(file, records, options)
    }

    /// The manifest file.
    pub fn file(&self) -> &Path {
        &self.file
    }

    /// How many rows there are; at least one.
    #[expect(clippy::len_without_is_empty, reason = "a manifest is never empty")]
    pub fn len(&self) -> usize {
        self.paths.len()
    }

    /// A row, counted from 0.
    ///
    /// # Panics
    /// When there is no such row.
    pub fn row(&self, index: usize) -> Row<'_> {
        assert!(index < self.len(), "row {index} of a manifest of {}", self.len());
        Row { manifest: self, index }
    }

    /// All rows.
    pub fn rows(&self) -> impl ExactSizeIterator<Item = Row<'_>> + Clone {
        (0..self.len()).map(|index| Row { manifest: self, index })
    }

    /// The classes, over all splits.
    pub fn classes(&self) -> &Classes {
        &self.classes
    }

    /// The names of the splits, in the order in which they appear.
    pub fn split_names(&self) -> &[String] {
        self.splits.as_ref().map_or(&[], CategoryColumn::names)
    }

    /// The rows of a split. A manifest without a column `split` is all `train`.
    ///
    /// # Errors
    /// [`ManifestError::NoSuchSplit`], which names the splits that there are.
    pub fn split(&self, split: &str) -> Result<Vec<u32>, ManifestError> {
        let rows: Vec<u32> = match &self.splits {
            None if split == "train" => (0..self.len() as u32).collect(),
            None => Vec::new(),
            Some(splits) => {
                (0..self.len()).filter(|&row| splits.name(row) == Some(split)).map(|row| row as u32).collect()
            }
        };
        if rows.is_empty() {
            let (file, split, found) = (self.file.clone(), split.to_owned(), self.split_names().to_vec());
            return Err(ManifestError::NoSuchSplit { file, split, found });
        }
        Ok(rows)
    }

    /// Fails unless some row has a value in this column.
    ///
    /// # Errors
    /// [`ManifestError::MissingColumn`].
    pub fn require(&self, column: &str) -> Result<(), ManifestError> {
        if self.columns().iter().any(|name| name == column) {
            return Ok(());
        }
        let (file, column, found) = (self.file.clone(), column.to_owned(), self.columns());
        Err(ManifestError::MissingColumn { file, column, found })
    }

    /// The columns in which some row has a value; all captions count as `caption`.
    pub fn columns(&self) -> Vec<String> {
        let known = [
            ("path", true),
            ("split", !self.split_names().is_empty()),
            ("label", self.labels.as_ref().is_some_and(|labels| !labels.is_blank())),
            ("caption", self.captions.iter().any(|captions| !captions.is_blank())),
            ("start", !self.starts.is_empty()),
            ("end", !self.ends.is_empty()),
        ];
        let others =
            self.others.iter().filter(|(_, values)| !values.is_blank()).map(|(name, _)| name.as_str());
        known
            .iter()
            .filter(|(_, there)| *there)
            .map(|(name, _)| *name)
            .chain(others)
            .map(str::to_owned)
            .collect()
    }

    /// The columns that this crate gives no meaning to.
    pub fn other_columns(&self) -> impl Iterator<Item = &str> {
        self.others.iter().map(|(name, _)| name.as_str())
    }

    /// Of these rows, those whose video is not there.
    pub fn missing_files(&self, rows: &[u32]) -> Vec<u32> {
        rows.iter().copied().filter(|&row| !self.row(row as usize).video().exists()).collect()
    }

    /// Fails when a video of these rows is not there.
    ///
    /// # Errors
    /// [`ManifestError::MissingFiles`], with the first few and the count.
    pub fn check_files(&self, rows: &[u32]) -> Result<(), ManifestError> {
        let missing = self.missing_files(rows);
        if missing.is_empty() {
            return Ok(());
        }
        let first = missing.iter().take(3).map(|&row| self.row(row as usize).path().to_owned()).collect();
        Err(ManifestError::MissingFiles {
            file: self.file.clone(),
            count: missing.len(),
            rows: rows.len(),
            first,
        })
    }
}

/// One row of a manifest.
#[derive(Clone, Copy, Debug)]
pub struct Row<'a> {
    manifest: &'a Manifest,
    index: usize,
}

impl<'a> Row<'a> {
    /// Which row this is, from 0.
    pub fn index(&self) -> usize {
        self.index
    }

    /// The line of the manifest at which the row begins, from 1.
    pub fn line(&self) -> u64 {
        u64::from(self.manifest.lines[self.index])
    }

    /// The path as the manifest has it.
    pub fn path(&self) -> &'a str {
        self.manifest.paths.get(self.index)
    }

    /// Where the video is: an absolute path, or a part of an archive.
    pub fn video(&self) -> VideoFile {
        let path = self.manifest.root.join(self.path());
        match self.manifest.places.get(self.index) {
            Some((archive, range)) => VideoFile::part(archive, range, path),
            None => VideoFile::whole(path),
        }
    }

    /// The split.
    pub fn split(&self) -> Option<&'a str> {
        self.manifest.splits.as_ref()?.name(self.index)
    }

    /// The class index, see [`Manifest::classes`].
    pub fn label(&self) -> Option<u32> {
        self.manifest.labels.as_ref()?.get(self.index)
    }

    /// The class name.
    pub fn label_name(&self) -> Option<&'a str> {
        self.manifest.classes.name(self.label()?)
    }

    /// The captions that are not empty.
    pub fn captions(&self) -> impl Iterator<Item = &'a str> + use<'a> {
        let index = self.index;
        self.manifest
            .captions
            .iter()
            .map(move |column| column.get(index))
            .filter(|caption| !caption.is_empty())
    }

    /// Where the row begins, in seconds from the first frame.
    pub fn start(&self) -> Option<f64> {
        self.manifest.starts.get(self.index).copied().filter(|seconds| !seconds.is_nan())
    }

    /// Where the row ends, in seconds from the first frame; the end itself is outside.
    pub fn end(&self) -> Option<f64> {
        self.manifest.ends.get(self.index).copied().filter(|seconds| !seconds.is_nan())
    }

    /// The value of one of [`Manifest::other_columns`], empty when the row has none.
    pub fn other(&self, column: &str) -> Option<&'a str> {
        let (_, values) = self.manifest.others.iter().find(|(name, _)| name == column)?;
        Some(values.get(self.index))
    }
}

/// The absolute folder that a manifest's paths are relative to: it must keep its meaning when the program changes its
/// working directory.
fn absolute_folder(manifest: &Path) -> std::io::Result<PathBuf> {
    Ok(std::path::absolute(manifest)?.parent().unwrap_or(Path::new("/")).to_owned())
}

/// A path without the parts that lead nowhere, to tell whether two are the same: `./a.mp4` and `b/../a.mp4` are `a.mp4`. The
/// text alone is looked at: links are not followed.
///
/// ```
/// use tgm_data::manifest::plain_path;
///
/// assert_eq!(plain_path("./b/../a.mp4"), plain_path("a.mp4"));
/// ```
pub fn plain_path(path: impl AsRef<Path>) -> PathBuf {
    let mut plain = PathBuf::new();
    for part in path.as_ref().components() {
        match part {
            Component::CurDir => {}
            Component::ParentDir if plain.file_name().is_some() => drop(plain.pop()),
            part => plain.push(part),
        }
    }
    plain
}

/// Whether a path stays below the folder that it is relative to.
fn stays_inside(path: &str) -> bool {
    let mut depth = 0_usize;
    for component in Path::new(path).components() {
        match component {
            Component::Normal(_) => depth += 1,
            Component::CurDir => {}
            Component::ParentDir if depth > 0 => depth -= 1,
            Component::ParentDir | Component::RootDir | Component::Prefix(_) => return false,
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::stays_inside;

    #[test]
    fn a_path_may_not_climb_out_even_for_a_moment() {
        for inside in ["a.mp4", "./a.mp4", "a/../b.mp4", "a/b/../../c.mp4", "..a.mp4", "a..b/c"] {
            assert!(stays_inside(inside), "{inside}");
        }
        for outside in ["/a.mp4", "../a.mp4", "a/../../b.mp4", "a/../../manifest/b.mp4"] {
            assert!(!stays_inside(outside), "{outside}");
        }
    }
}
