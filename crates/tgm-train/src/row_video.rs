//! The part of a video that a row of a manifest is, read by the rules of training.

use std::ops::Range;

use tgm_data::loader::{RowError, frames_of_row, patiently};
use tgm_data::manifest::Row;
use tgm_video::{ReadOptions, VideoReader};

/// The video, or part of one, that a row is, by name: what was made for it is found again wherever the row stands by then.
pub fn part_name(row: &Row<'_>) -> String {
    match (row.start(), row.end()) {
        (None, None) => row.path().to_owned(),
        (start, end) => {
            let show = |time: Option<f64>| time.map_or_else(String::new, |time| time.to_string());
            format!("{} from {} to {} s", row.path(), show(start), show(end))
        }
    }
}

/// A row's video, open.
pub struct RowVideo {
    /// Its reader.
    pub reader: VideoReader,
    /// The frames from the row's start to its end; at least one.
    pub frames: Range<usize>,
}

impl RowVideo {
    /// Opens a row's video and hands it to `read`, all of it [`patiently`].
    ///
    /// # Errors
    /// Those of opening and of `read`, and [`RowError::AfterEnd`] for a row that starts behind the end of its video.
    pub fn read<T>(
        row: &Row<'_>,
        options: &ReadOptions,
        mut read: impl FnMut(&mut Self) -> Result<T, RowError>,
    ) -> Result<T, RowError> {
        patiently(|| {
            let reader = VideoReader::open(row.video(), options)?;
            let frames = frames_of_row(row, reader.index())?;
            read(&mut Self { reader, frames })
        })
    }
}
