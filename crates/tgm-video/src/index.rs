//! When each frame of a file is shown, and from where it can be decoded.

use std::ops::Range;

use serde::{Deserialize, Serialize};

/// The presentation time of every frame of a file, in order.
///
/// Usually it comes from one scan over the packets, without decoding. Where packets do not carry true presentation times
/// (AVI, MPEG program streams, raw streams, interlaced H.264, VP8 with its hidden frames) or not one packet makes one
/// frame, the file is decoded once instead. If it is an AVI file and each packet turned out to make one frame, packets are given
/// the times of their frames from then on, and the file is read like any other; else it is always read from its beginning. Two
/// frames in a packet, as DivX stores B-frames, are taken apart first.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FrameIndex {
    entries: Vec<Entry>,
    /// Seconds per tick, as numerator and denominator.
    time_base: (i32, i32),
    stamps: Stamps,
}

/// Where the time stamps come from, and so how a decoded frame is recognised.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Stamps {
    /// Packets: a frame is known by its time stamp wherever decoding began.
    Packets,
    /// A decoding pass: a frame is known by its ordinal number from the beginning.
    Decoded,
    /// A decoding pass that told which packet each frame came from: packets, known by their decoding times, are given the time
    /// stamps, and frames are known by them.
    Restored,
    /// As `Restored`, with packed B-frames (DivX, XviD) in packets of their own.
    Unpacked,
}

impl Stamps {
    /// Whether frames are known by their time stamps, wherever decoding began.
    pub(crate) fn are_kept(self) -> bool {
        self != Self::Decoded
    }

    /// Whether packets are given the time stamps of their frames.
    pub(crate) fn are_given(self) -> bool {
        matches!(self, Self::Restored | Self::Unpacked)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Entry {
    pub pts: i64,
    pub dts: i64,
    /// Position in decoding order.
    pub order: u32,
    /// Decoding may begin here, for this frame and those after it.
    pub entry_point: bool,
    /// Other frames may be predicted from it, for all that is known.
    pub reference: bool,
    /// It is certain that no other frame needs it to be decoded.
    pub spare: bool,
}

/// Where decoding may begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct EntryPoint {
    pub frame: usize,
    pub pts: i64,
    pub dts: i64,
    pub order: u32,
}

impl FrameIndex {
    /// `entries` come in presentation order.
    pub(crate) fn new(entries: Vec<Entry>, time_base: (i32, i32), stamps: Stamps) -> Self {
        Self { entries, time_base, stamps }
    }

    /// Number of frames.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are none; never so for an index of a [`VideoReader`](crate::VideoReader).
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Seconds per tick of the time stamps, as numerator and denominator.
    pub fn time_base(&self) -> (i32, i32) {
        self.time_base
    }

    /// The presentation time stamp of a frame, in ticks of the stream's time base.
    pub fn pts(&self, frame: usize) -> Option<i64> {
        self.entries.get(frame).map(|entry| entry.pts)
    }

    /// The presentation time of a frame, in seconds since the first frame.
    pub fn seconds(&self, frame: usize) -> Option<f64> {
        let ticks = self.pts(frame)?.wrapping_sub(self.entries[0].pts) as f64;
        Some(ticks * f64::from(self.time_base.0) / f64::from(self.time_base.1))
    }

    /// Length in seconds, the last frame being on display as long as the one before it; `None` for a single frame.
    pub fn duration(&self) -> Option<f64> {
        let last = self.len().checked_sub(1)?;
        let (end, before) = (self.seconds(last)?, self.seconds(last.checked_sub(1)?)?);
        Some(end + (end - before))
    }

    /// Whether decoding can begin at this frame.
    pub fn is_key(&self, frame: usize) -> bool {
        self.entries.get(frame).is_some_and(|entry| entry.entry_point)
    }

    /// The frame on display at a time in seconds since the first frame: the last one not after it, or the first.
    pub fn frame_at(&self, seconds: f64) -> usize {
        // Half a tick of slack: a time that was printed and read again still finds its frame.
        self.frames_before(seconds + self.half_tick()).saturating_sub(1)
    }

    /// The frames on display during `[start, end)` seconds since the first frame; at least one.
    pub fn range(&self, start: f64, end: f64) -> Range<usize> {
        let first = self.frame_at(start);
        first..self.frames_before(end - self.half_tick()).max(first + 1)
    }

    fn half_tick(&self) -> f64 {
        f64::from(self.time_base.0) / f64::from(self.time_base.1) / 2.0
    }

    fn frames_before(&self, seconds: f64) -> usize {
        let ticks = seconds / (2.0 * self.half_tick());
        self.entries.partition_point(|entry| (entry.pts.wrapping_sub(self.entries[0].pts) as f64) < ticks)
    }

    pub(crate) fn entries(&self) -> &[Entry] {
        &self.entries
    }

    pub(crate) fn stamps(&self) -> Stamps {
        self.stamps
    }

    /// Decoding and presentation time of every packet, in decoding order.
    pub(crate) fn packet_times(&self) -> Vec<(i64, i64)> {
        let mut times: Vec<(i64, i64)> = self.entries.iter().map(|entry| (entry.dts, entry.pts)).collect();
        times.sort_unstable();
        times
    }

    /// The frame with this time stamp.
    pub(crate) fn find(&self, pts: i64) -> Option<usize> {
        self.entries.binary_search_by_key(&pts, |entry| entry.pts).ok()
    }

    /// Whether it is certain that no other frame needs this one to be decoded.
    pub(crate) fn is_spare(&self, frame: usize) -> bool {
        self.entries[frame].spare
    }

    /// Position of a frame in decoding order.
    pub(crate) fn order(&self, frame: usize) -> u32 {
        self.entries[frame].order
    }

    /// The last place from where this frame decodes.
    pub(crate) fn entry_point(&self, frame: usize) -> Option<EntryPoint> {
        let last = self.entries[frame].order;
        let frame =
            (0..=frame).rev().find(|&i| self.entries[i].entry_point && self.entries[i].order <= last)?;
        let Entry { pts, dts, order, .. } = self.entries[frame];
        Some(EntryPoint { frame, pts, dts, order })
    }

    /// The most frames decoded before a frame that is shown before them.
    pub(crate) fn reorder_depth(&self) -> usize {
        let mut by_order: Vec<(u32, usize)> =
            self.entries.iter().enumerate().map(|(i, e)| (e.order, i)).collect();
        by_order.sort_unstable();
        // Frames are held back while one shown earlier is still to come: those decoded by then minus those shown.
        let mut shown = 0;
        let mut decoded = vec![false; self.len()];
        let mut depth = 0;
        for (count, &(_, frame)) in by_order.iter().enumerate() {
            decoded[frame] = true;
            while shown < decoded.len() && decoded[shown] {
                shown += 1;
            }
            depth = depth.max(count + 1 - shown);
        }
        depth
    }

    /// Frames from `frame` back to its likely reference in the past, and on to the one in the future.
    ///
    /// FFmpeg exports the direction of a vector, not its reference. The default first entry of the reference lists is meant
    /// here: the nearest reference frame, on that side in presentation order, among those already decoded.
    pub(crate) fn reference_distance(&self, frame: usize) -> (usize, usize) {
        let usable = |entry: &Entry| entry.reference && entry.order < self.entries[frame].order;
        let past = self.entries[..frame].iter().rev().take(MAX_DISTANCE).position(usable);
        let future = self.entries[frame + 1..].iter().take(MAX_DISTANCE).position(usable);
        (past.map_or(1, |distance| distance + 1), future.map_or(1, |distance| distance + 1))
    }
}

/// Farthest reference looked for; H.264 keeps at most 16 frames.
const MAX_DISTANCE: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;

    /// An index from the display numbers of frames in decoding order, and whether each is a reference.
    fn index(decoded: &[(i64, bool)]) -> FrameIndex {
        let mut entries: Vec<Entry> = decoded
            .iter()
            .enumerate()
            .map(|(order, &(pts, reference))| {
                let entry_point = order == 0;
                Entry {
                    pts,
                    dts: order as i64,
                    order: order as u32,
                    entry_point,
                    reference,
                    spare: !reference,
                }
            })
            .collect();
        entries.sort_by_key(|entry| entry.pts);
        FrameIndex { entries, time_base: (1, 25), stamps: Stamps::Packets }
    }

    #[test]
    fn reorder_depth_is_what_the_decoder_must_hold_back() {
        assert_eq!(index(&[(0, true), (1, true), (2, true)]).reorder_depth(), 0);
        assert_eq!(index(&[(0, true), (3, true), (1, false), (2, false)]).reorder_depth(), 1);
        assert_eq!(index(&[(0, true), (4, true), (2, true), (1, false), (3, false)]).reorder_depth(), 2);
    }

    #[test]
    fn references_are_the_nearest_frames_decoded_before() {
        // I0 P4 B2 b1 b3 P5
        let index = index(&[(0, true), (4, true), (2, true), (1, false), (3, false), (5, true)]);
        let past_and_future = |frame| index.reference_distance(frame);
        assert_eq!(past_and_future(4).0, 4);
        assert_eq!(past_and_future(2), (2, 2));
        assert_eq!(past_and_future(1), (1, 1));
        assert_eq!(past_and_future(3), (1, 1));
        assert_eq!(past_and_future(5).0, 1);
    }
}
