//! Which packets to decode for which frames.

use std::path::Path;

use video_rs::ffmpeg::codec::Id;
use video_rs::ffmpeg::frame::Video;

use crate::decode::{Decoding, Marks, Selection};
use crate::index::{EntryPoint, FrameIndex, Stamps};
use crate::probe::Source;
use crate::{ReadOptions, VideoError};

/// Gets decoded pictures out of a file.
///
/// Frames in a row are decoded in a row, and the next call goes on from there. Frames with gaps between them, as a clip
/// has them, are decoded *sparsely*: pictures that nothing wanted needs are never given to the decoder, and what it holds
/// back at the end is flushed out rather than pushed out by further pictures. A frame that does not arrive undamaged that
/// way is decoded again with everything before it.
pub(crate) struct Fetcher {
    pub source: Source,
    pub options: ReadOptions,
    pub index: FrameIndex,
    decoding: Decoding,
    place: Place,
    /// Packets that failed in decoders that have been replaced.
    past_errors: usize,
}

/// A decoded picture and where it belongs.
pub(crate) struct Shot<'a> {
    pub video: &'a Video,
    /// Number in presentation order.
    pub number: usize,
    pub source: &'a Source,
    pub index: &'a FrameIndex,
    pub options: &'a ReadOptions,
    pub damaged: bool,
}

/// Where decoding stands.
#[derive(Clone, Copy, Debug)]
enum Place {
    /// The demuxer is somewhere else: seek or start again.
    Unknown,
    /// Frames from `entered` on decode; `last` was the last one to come out.
    Running { entered: usize, last: Option<usize> },
}

/// Ways to reach a frame, cheapest first.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Approach {
    Continue,
    Seek,
    Restart,
}

/// Packets that are decoded and thrown away sooner than seeking over them.
const SEEK_PAYS: u32 = 8;
/// Frames the H.264 decoder can hold back at most.
const MAX_REORDER: usize = 16;

impl Fetcher {
    /// For a source at its first packet, or with `at_start` false anywhere.
    pub(crate) fn new(
        mut source: Source,
        index: FrameIndex,
        options: &ReadOptions,
        at_start: bool,
    ) -> Result<Self, VideoError> {
        source.unpack(index.stamps() == Stamps::Unpacked)?;
        let decoding = Decoding::open(&source, options, reorder(&source, &index), marks(&index))?;
        let place = if at_start { Place::Running { entered: 0, last: None } } else { Place::Unknown };
        Ok(Self { source, options: options.clone(), index, decoding, place, past_errors: 0 })
    }

    /// Packets that did not decode so far.
    pub(crate) fn errors(&self) -> usize {
        self.past_errors + self.decoding.errors()
    }

    /// Gives each of these frames to `take`, in presentation order. `wanted` is in order without repetition.
    pub(crate) fn each(
        &mut self,
        wanted: &[usize],
        mut take: impl FnMut(Shot<'_>) -> Result<(), VideoError>,
    ) -> Result<(), VideoError> {
        self.source.deadline.restart(self.options.max_seconds);
        if let Some(&frame) = wanted.last().filter(|frame| **frame >= self.index.len()) {
            let (path, frames) = (self.path().to_owned(), self.index.len());
            return Err(VideoError::FrameOutOfRange { path, frame, frames });
        }
        let gaps = matches!(wanted, [first, .., last] if last - first >= wanted.len());
        let mut rest = wanted;
        while !rest.is_empty() {
            let group = gaps.then(|| self.group(rest)).flatten();
            let (length, done) = match group {
                Some(group) => (group.length, self.fetch_group(&group, &rest[..group.length], &mut take)?),
                None => (1, 0),
            };
            for &number in &rest[done..length] {
                let video = self.decode(number)?;
                take(self.shot(&video, number))?;
            }
            rest = &rest[length..];
        }
        Ok(())
    }

    fn shot<'a>(&'a self, video: &'a Video, number: usize) -> Shot<'a> {
        let Self { source, index, options, .. } = self;
        Shot { video, number, source, index, options, damaged: is_damaged(video) }
    }

    fn path(&self) -> &Path {
        &self.source.path
    }

    fn seconds(&self, frame: usize) -> f64 {
        self.index.seconds(frame).unwrap_or(f64::NAN)
    }

    /// Decodes one frame, by the cheapest approach that delivers it undamaged.
    fn decode(&mut self, number: usize) -> Result<Video, VideoError> {
        let entry = self.index.stamps().are_kept().then(|| self.index.entry_point(number)).flatten();
        for approach in [Approach::Continue, Approach::Seek, Approach::Restart] {
            self.source.check_deadline(&self.options)?;
            let ready = match approach {
                Approach::Continue => self.can_continue(number, entry),
                Approach::Seek => entry.is_some_and(|entry| self.seek(entry)),
                Approach::Restart => self.restart().map(|()| true)?,
            };
            let Some(frame) = ready.then(|| self.run_to(number)).flatten() else { continue };
            if !is_damaged(&frame) || approach == Approach::Restart && self.options.allow_damaged {
                return Ok(frame);
            }
            if approach == Approach::Restart {
                let (path, seconds) = (self.path().to_owned(), self.seconds(number));
                return Err(VideoError::Damaged { path, frame: number, seconds });
            }
        }
        self.source.check_deadline(&self.options)?;
        Err(VideoError::Undecodable {
            path: self.path().to_owned(),
            frame: number,
            seconds: self.seconds(number),
            errors: self.errors(),
        })
    }

    /// The first of these frames that are decoded from one entry point on; `None` where frames are not known by time stamp.
    fn group(&self, wanted: &[usize]) -> Option<Group> {
        if !self.index.stamps().are_kept() {
            return None;
        }
        let entry = self.index.entry_point(*wanted.first()?)?;
        let (mut last, mut length) = (0, 0);
        for &frame in wanted {
            let nearest = self.index.entry_point(frame)?;
            if length > 0 && nearest.order > last + SEEK_PAYS {
                break;
            }
            last = last.max(self.index.order(frame));
            length += 1;
        }
        Some(Group { entry, length, last })
    }

    /// Decodes the frames of a group sparsely; how many of them came, undamaged and in order.
    fn fetch_group(
        &mut self,
        group: &Group,
        wanted: &[usize],
        take: &mut impl FnMut(Shot<'_>) -> Result<(), VideoError>,
    ) -> Result<usize, VideoError> {
        let at_start =
            matches!(self.place, Place::Running { entered: 0, last: None }) && self.decoding.is_fresh();
        let ready = at_start && group.entry.order == 0 || self.seek(group.entry);
        self.place = Place::Unknown;
        let mut done = 0;
        while ready && done < wanted.len() {
            let selection = Selection { index: &self.index, wanted, last: group.last };
            let Some(video) = self.decoding.next_frame(&mut self.source, Some(&selection)) else { break };
            let Some(number) = video.pts().and_then(|pts| self.index.find(pts)) else { continue };
            if number > wanted[done] || number == wanted[done] && is_damaged(&video) {
                break;
            }
            if number == wanted[done] {
                take(self.shot(&video, number))?;
                done += 1;
            }
        }
        Ok(done)
    }

    /// Whether the frame is still to come, and no entry point on the way would save much decoding.
    fn can_continue(&self, number: usize, entry: Option<EntryPoint>) -> bool {
        let Place::Running { entered, last } = self.place else { return false };
        let comes = number >= entered && last.is_none_or(|last| number > last);
        let fed = self
            .decoding
            .fed()
            .and_then(|pts| self.index.find(pts))
            .map_or(0, |frame| self.index.order(frame));
        comes && entry.is_none_or(|entry| entry.order <= fed + SEEK_PAYS)
    }

    fn seek(&mut self, entry: EntryPoint) -> bool {
        let moved = self.decoding.seek(&mut self.source, &self.index, entry);
        self.place = if moved { Place::Running { entered: entry.frame, last: None } } else { Place::Unknown };
        moved
    }

    fn restart(&mut self) -> Result<(), VideoError> {
        self.place = Place::Unknown;
        self.source.reopen(&self.options)?;
        self.past_errors += self.decoding.errors();
        let (reorder, marks) = (reorder(&self.source, &self.index), marks(&self.index));
        self.decoding = Decoding::open(&self.source, &self.options, reorder, marks)?;
        self.place = Place::Running { entered: 0, last: None };
        Ok(())
    }

    /// Decodes on until this frame comes out; `None` if a later one or the end comes first.
    fn run_to(&mut self, number: usize) -> Option<Video> {
        while let Some(frame) = self.decoding.next_frame(&mut self.source, None) {
            let Place::Running { entered, last } = self.place else { return None };
            let current = if self.index.stamps().are_kept() {
                frame.pts().and_then(|pts| self.index.find(pts))
            } else {
                Some(last.map_or(0, |last| last + 1))
            };
            let Some(current) = current else { continue };
            self.place = Place::Running { entered, last: Some(current) };
            match current.cmp(&number) {
                std::cmp::Ordering::Less => {}
                std::cmp::Ordering::Equal => return Some(frame),
                std::cmp::Ordering::Greater => return None,
            }
        }
        self.place = Place::Unknown;
        None
    }
}

/// Frames that are decoded together.
struct Group {
    entry: EntryPoint,
    /// How many they are.
    length: usize,
    /// Position in decoding order of the last one.
    last: u32,
}

fn reorder(source: &Source, index: &FrameIndex) -> usize {
    match source.codec {
        Id::H264 if index.stamps().are_kept() => index.reorder_depth().min(MAX_REORDER),
        _ => 0,
    }
}

fn marks(index: &FrameIndex) -> Marks {
    if index.stamps().are_given() { Marks::Times(index.packet_times()) } else { Marks::Own }
}

pub(crate) fn is_damaged(frame: &Video) -> bool {
    frame.is_corrupt() || frame.has_decode_errors()
}
