//! Which rows are members of archives, and where in them.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::path::{Path, PathBuf};

use rayon::prelude::*;

use super::column::TextColumn;
use crate::archive::{self, ArchiveError, Member};

/// The places of rows; empty when no row is in an archive.
#[derive(Debug, Default)]
pub(super) struct Places {
    archives: Vec<PathBuf>,
    rows: Vec<Place>,
}

#[derive(Clone, Copy, Debug)]
struct Place {
    archive: u32,
    start: u64,
    length: u64,
}

/// The row is in no archive.
const NOWHERE: Place = Place { archive: u32::MAX, start: 0, length: 0 };

impl Places {
    /// Looks up the rows whose path goes on behind the name of an archive, such as `shards/000.tar/clip.mp4`. Of a path whose
    /// archive or member is not there nothing is kept: it is a file that does not exist.
    pub fn find(root: &Path, paths: &TextColumn) -> Result<Self, ArchiveError> {
        let mut inside: BTreeMap<&str, Vec<(usize, &str)>> = BTreeMap::new();
        for row in 0..paths.len() {
            if let Some((archive, member)) = split(paths.get(row)) {
                inside.entry(archive).or_default().push((row, member));
            }
        }
        let lists: Vec<_> = inside
            .par_iter()
            .map(|(archive, _)| root.join(archive))
            .filter(|archive| archive.is_file())
            .map(|archive| archive::list(&archive).map(|members| (archive, members)))
            .collect::<Result<_, _>>()?;
        let lists: HashMap<PathBuf, Vec<Member>> = lists.into_iter().collect();
        let mut places = Self::default();
        for (archive, rows) in inside {
            let Some((archive, members)) = lists.get_key_value(&root.join(archive)) else { continue };
            let members: HashMap<&str, &Member> =
                members.iter().map(|member| (member.name.as_str(), member)).collect();
            let number = places.archive(archive.clone());
            for (row, member) in rows {
                if let Some(member) = members.get(member) {
                    places.set(row, number, member);
                }
            }
        }
        Ok(places)
    }

    /// A number for an archive.
    pub fn archive(&mut self, path: PathBuf) -> u32 {
        self.archives.push(path);
        self.archives.len() as u32 - 1
    }

    pub fn set(&mut self, row: usize, archive: u32, member: &Member) {
        let place = Place { archive, start: member.start, length: member.length };
        if self.rows.len() <= row {
            self.rows.resize(row + 1, NOWHERE);
        }
        self.rows[row] = place;
    }

    /// The archive that a row is in, and the range of its bytes.
    pub fn get(&self, row: usize) -> Option<(&Path, Range<u64>)> {
        let place = self.rows.get(row)?;
        let archive = self.archives.get(place.archive as usize)?;
        Some((archive, place.start..place.start + place.length))
    }

    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    pub fn shrink(&mut self) {
        self.rows.shrink_to_fit();
    }
}

/// A path's archive, and the member within it.
fn split(path: &str) -> Option<(&str, &str)> {
    let ends_archive = |at: usize| {
        path.as_bytes()[..at].last_chunk().is_some_and(|end: &[u8; 4]| end.eq_ignore_ascii_case(b".tar"))
    };
    let (at, _) = path.match_indices('/').find(|(at, _)| ends_archive(*at))?;
    Some((&path[..at], &path[at + 1..]))
}

#[cfg(test)]
mod tests {
    use super::split;

    #[test]
    fn a_path_goes_on_behind_the_name_of_an_archive() {
        assert_eq!(split("a/b.tar/c/d.mp4"), Some(("a/b.tar", "c/d.mp4")));
        assert_eq!(split("a.TAR/b.tar/c.mp4"), Some(("a.TAR", "b.tar/c.mp4")));
        for plain in ["a.tar", "tar/a.mp4", "a.tarx/b.mp4", ".mp4", ""] {
            assert_eq!(split(plain), None);
        }
    }
}
