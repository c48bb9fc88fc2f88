//! Frames of a video, from the file or from memory.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use tgm_video::{
    Clip, Frame, FrameIndex, MotionVector, ReadOptions, VideoError, VideoFile, VideoReader, View,
    ViewedFrames,
};

use super::RowError;
use crate::index_store::IndexStore;
use crate::manifest::Row;

/// An open video.
pub(super) enum Source {
    File(Box<VideoReader>),
    Memory(Arc<Decoded>),
}

/// A video in memory.
pub(super) struct Decoded {
    index: FrameIndex,
    frames: Vec<Frame>,
}

/// Clips, and the frames that they were made of.
pub(super) struct Cut {
    pub clips: Vec<Clip>,
    /// Perhaps without pixels.
    pub frames: Vec<Frame>,
    pub views: Vec<View>,
}

impl Cut {
    fn of(
        frames: Vec<Frame>,
        mut choose: impl FnMut(u32, u32) -> Result<Vec<View>, VideoError>,
    ) -> Result<Self, VideoError> {
        let (width, height) = frames.first().map_or((0, 0), |frame| (frame.width, frame.height));
        let views = choose(width, height)?;
        let clips = views.iter().map(|view| Clip::from_frames(&frames, view)).collect::<Result<_, _>>()?;
        Ok(Self { clips, frames, views })
    }

    /// The same views of some of the frames, by their places; a frame may come more than once.
    pub fn pick(&self, places: &[usize]) -> Result<Self, VideoError> {
        let part = |clip: &Clip| {
            let data = places.iter().flat_map(|&at| clip.frame(at)).copied().collect();
            let times = places.iter().map(|&at| clip.times()[at]).collect();
            Clip::new(data, clip.height(), clip.width(), times)
        };
        Ok(Self {
            clips: self.clips.iter().map(part).collect::<Result<_, _>>()?,
            frames: places.iter().map(|&at| self.frames[at].clone()).collect(),
            views: self.views.clone(),
        })
    }
}

fn has_size(frames: &[Frame], width: u32, height: u32) -> bool {
    frames.first().is_none_or(|frame| (frame.width, frame.height) == (width, height))
}

impl Source {
    /// Clips of the frames at these numbers, one for each view that `choose` makes for their width and height.
    pub fn read(
        &mut self,
        numbers: &[usize],
        mut choose: impl FnMut(u32, u32) -> Result<Vec<View>, VideoError>,
    ) -> Result<Cut, VideoError> {
        match self {
            Self::File(reader) => {
                let (width, height) = (reader.probe().width, reader.probe().height);
                let views = choose(width, height)?;
                match reader.read_views(numbers, &views) {
                    Ok(ViewedFrames { clips, frames }) if has_size(&frames, width, height) => {
                        Ok(Cut { clips, frames, views })
                    }
                    // The headers are wrong about the size.
                    Ok(_) | Err(VideoError::Invalid { .. }) => Cut::of(reader.read(numbers)?, choose),
                    Err(error) => Err(error),
                }
            }
            Self::Memory(video) => {
                Cut::of(numbers.iter().map(|&number| video.frames[number].clone()).collect(), choose)
            }
        }
    }

    pub fn index(&self) -> &FrameIndex {
        match self {
            Self::File(reader) => reader.index(),
            Self::Memory(video) => &video.index,
        }
    }
}

/// The frames on display from a row's `start` to before its `end`, in seconds from the first frame; at least one.
///
/// # Errors
/// [`RowError::AfterEnd`] when the video ends before the row starts.
pub fn frames_of_row(row: &Row<'_>, index: &FrameIndex) -> Result<Range<usize>, RowError> {
    let (start, end) = (row.start().unwrap_or(0.0), row.end().unwrap_or(f64::INFINITY));
    let duration = index.duration().unwrap_or(0.0);
    if start > duration {
        return Err(RowError::AfterEnd { file: row.video().name().to_owned(), start, duration });
    }
    Ok(index.range(start, end))
}

/// Decoded videos that stay in memory, until the budget is used up; then nothing more comes in.
pub(super) struct Cache {
    state: Mutex<State>,
    indices: IndexStore,
}

struct State {
    videos: HashMap<String, Arc<Decoded>>,
    bytes_left: usize,
}

impl Cache {
    pub fn new(bytes: usize, indices: IndexStore) -> Self {
        Self { state: Mutex::new(State { videos: HashMap::new(), bytes_left: bytes }), indices }
    }

    /// Opens a video; keeps it in memory when it fits.
    pub fn open(&self, path: &str, file: &VideoFile, options: &ReadOptions) -> Result<Source, VideoError> {
        if let Some(video) = self.lock().videos.get(path) {
            return Ok(Source::Memory(video.clone()));
        }
        let mut reader = self.reader(path, file, options)?;
        let frames = reader.index().len();
        let estimate = frames * reader.probe().width as usize * reader.probe().height as usize * 3;
        if !self.reserve(estimate) {
            return Ok(Source::File(Box::new(reader)));
        }
        // A frame that no clip wants may be broken: that is no reason to fail, only not to keep the video.
        let all: Vec<usize> = (0..frames).collect();
        let Ok(frames) = reader.read(&all) else {
            self.give_back(estimate);
            return Ok(Source::File(Box::new(VideoReader::open(file, options)?)));
        };
        let bytes: usize = frames.iter().map(bytes_of).sum();
        let video = Arc::new(Decoded { index: reader.index().clone(), frames });
        let mut state = self.lock();
        state.bytes_left = (state.bytes_left + estimate).saturating_sub(bytes);
        if state.videos.insert(path.to_owned(), video.clone()).is_some() {
            // Another worker decoded it at the same time; there is still only one copy.
            state.bytes_left += bytes;
        }
        Ok(Source::Memory(video))
    }

    /// A reader, by a known index where there is one.
    fn reader(&self, path: &str, file: &VideoFile, options: &ReadOptions) -> Result<VideoReader, VideoError> {
        // A limit that was lowered since holds for known videos, too.
        let known = self.indices.get(path, file).filter(|index| index.len() <= options.max_frames);
        if let Some(index) = known {
            return VideoReader::open_with_index(file, index, options);
        }
        let reader = VideoReader::open(file, options)?;
        self.indices.put(path, file, reader.index());
        Ok(reader)
    }

    fn reserve(&self, bytes: usize) -> bool {
        let mut state = self.lock();
        let fits = bytes <= state.bytes_left;
        if fits {
            state.bytes_left -= bytes;
        }
        fits
    }

    fn give_back(&self, bytes: usize) {
        self.lock().bytes_left += bytes;
    }

    /// A panic elsewhere cannot leave the state half-changed.
    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn bytes_of(frame: &Frame) -> usize {
    frame.rgb.len() + frame.motion.as_ref().map_or(0, |vectors| vectors.len() * size_of::<MotionVector>())
}
