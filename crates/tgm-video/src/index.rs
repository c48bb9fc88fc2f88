//! When each frame of a file is shown, and from where it can be decoded.

use std::ops::Range;

use serde::{Deserialize, Serialize};
use video_rs::ffmpeg::codec::Id;
use video_rs::ffmpeg::{Error, Packet, picture};

use crate::bitstream::Framing;
use crate::decode::Decoding;
use crate::ffi;
use crate::probe::Source;
use crate::{ReadOptions, VideoError};

/// The presentation time of every frame of a file, in order.
///
/// Usually it comes from one scan over the packets, without decoding. Where packets do not carry true presentation times
/// (AVI, MPEG program streams, raw streams, interlaced H.264, VP8 with its hidden frames) or not one packet makes one
/// frame, the file is decoded once instead, and is always read from its beginning.
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
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Entry {
    pts: i64,
    dts: i64,
    /// Position in decoding order.
    order: u32,
    /// Decoding may begin here, for this frame and those after it.
    entry_point: bool,
    /// Other frames may be predicted from it.
    reference: bool,
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

    pub(crate) fn stamps(&self) -> Stamps {
        self.stamps
    }

    /// The frame with this time stamp.
    pub(crate) fn find(&self, pts: i64) -> Option<usize> {
        self.entries.binary_search_by_key(&pts, |entry| entry.pts).ok()
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

/// Indexes an open file and leaves it at an unknown position.
pub(crate) fn scan(source: &mut Source, options: &ReadOptions) -> Result<FrameIndex, VideoError> {
    let packets = scan_packets(source, options)?;
    match packets.into_entries(source) {
        Some(entries) => Ok(FrameIndex {
            entries,
            time_base: (source.time_base.0, source.time_base.1),
            stamps: Stamps::Packets,
        }),
        None => scan_frames(source, options),
    }
}

/// Containers that store a presentation time with every packet.
const STAMPED_CONTAINERS: [&str; 6] = ["mov", "matroska", "mpegts", "flv", "gif", "nut"];

struct ScannedPacket {
    pts: Option<i64>,
    dts: Option<i64>,
    key: bool,
    reference: Option<bool>,
}

struct ScannedPackets {
    shown: Vec<ScannedPacket>,
}

fn scan_packets(source: &mut Source, options: &ReadOptions) -> Result<ScannedPackets, VideoError> {
    let framing = (source.codec == Id::H264).then(|| Framing::from_extradata(&source.facts.extradata));
    let (mut shown, mut whole) = (Vec::new(), 0);
    let mut cut = false;
    loop {
        let packet = match next_packet(source) {
            Ok(Some(packet)) => packet,
            Ok(None) => break,
            Err(_) => {
                cut = true;
                break;
            }
        };
        // A container that ends within a packet delivers the rest of it, marked.
        cut = packet.is_corrupt();
        whole += usize::from(!cut);
        if ffi::is_discarded(&packet) || packet.size() == 0 {
            continue;
        }
        if shown.len() == options.max_frames {
            return Err(VideoError::TooManyFrames {
                path: source.path.clone(),
                max_frames: options.max_frames,
            });
        }
        let picture = framing.and_then(|framing| framing.picture(packet.data()?));
        shown.push(ScannedPacket {
            pts: packet.pts(),
            dts: packet.dts(),
            key: packet.is_key() && (framing.is_none() || picture.is_some_and(|p| p.intra)),
            reference: picture.map(|p| p.reference),
        });
    }
    let stream = source.input.stream(source.stream).map(|stream| ffi::stream_facts(&stream).index_entries);
    let expected = stream.unwrap_or(0).max(whole + usize::from(cut || source.cut));
    if whole < expected && !options.allow_truncated {
        return Err(VideoError::Truncated { path: source.path.clone(), expected, found: whole });
    }
    if shown.is_empty() {
        return Err(VideoError::NoFrames { path: source.path.clone() });
    }
    Ok(ScannedPackets { shown })
}

/// The next packet of the video stream; `None` at the end.
pub(crate) fn next_packet(source: &mut Source) -> Result<Option<Packet>, Error> {
    loop {
        let mut packet = Packet::empty();
        match packet.read(&mut source.input) {
            Ok(()) if packet.stream() == source.stream => return Ok(Some(packet)),
            Ok(()) => {}
            Err(Error::Eof) => return Ok(None),
            Err(error) => return Err(error),
        }
    }
}

impl ScannedPackets {
    /// The frames in presentation order, or `None` when packets are not enough to tell.
    fn into_entries(self, source: &Source) -> Option<Vec<Entry>> {
        let stamped = source.probe.container.split(',').any(|name| STAMPED_CONTAINERS.contains(&name));
        if !stamped || source.facts.interlaced || source.codec == Id::VP8 {
            return None;
        }
        let mut latest = i64::MIN;
        let mut entries = Vec::with_capacity(self.shown.len());
        for (order, packet) in self.shown.into_iter().enumerate() {
            let pts = packet.pts?;
            entries.push(Entry {
                pts,
                dts: packet.dts.unwrap_or(pts),
                order: order as u32,
                entry_point: packet.key && has_entry_points(source.codec),
                // Only H.264 (told above) and later codecs, which export no motion, predict from frames shown out of order.
                reference: packet.reference.unwrap_or(pts > latest),
            });
            latest = latest.max(pts);
        }
        entries.sort_by_key(|entry| entry.pts);
        let distinct = entries.windows(2).all(|pair| pair[0].pts < pair[1].pts);
        distinct.then_some(entries)
    }
}

/// Codecs whose key packets decode without anything before them. GIF's do not: pictures are drawn over one another.
fn has_entry_points(codec: Id) -> bool {
    use Id::*;
    matches!(
        codec,
        H264 | HEVC | VP9 | AV1 | MPEG1VIDEO | MPEG2VIDEO | MPEG4 | H263 | MJPEG | PRORES | DNXHD | FFV1
    )
}

/// Indexes the file by decoding it.
fn scan_frames(source: &mut Source, options: &ReadOptions) -> Result<FrameIndex, VideoError> {
    source.reopen(options)?;
    let mut decoding = Decoding::open(source, options, 0)?;
    let mut stamps = Vec::new();
    let mut references = Vec::new();
    while let Some(frame) = decoding.next_frame(source) {
        if stamps.len() == options.max_frames {
            return Err(VideoError::TooManyFrames {
                path: source.path.clone(),
                max_frames: options.max_frames,
            });
        }
        stamps.push(frame.timestamp());
        references.push(frame.kind() != picture::Type::B);
    }
    if stamps.is_empty() {
        return Err(VideoError::NoFrames { path: source.path.clone() });
    }
    let interval = match source.probe.average_fps {
        fps if fps > 0.0 => (1.0 / fps / f64::from(source.time_base)).round().max(1.0) as i64,
        _ => 1,
    };
    let stamps = fill_stamps(&stamps, interval);
    let entries = stamps.into_iter().zip(decoding_orders(&references)).zip(&references).enumerate();
    let entries = entries.map(|(number, ((pts, order), &reference))| Entry {
        pts,
        dts: pts,
        order,
        entry_point: number == 0,
        reference,
    });
    let time_base = (source.time_base.0, source.time_base.1);
    Ok(FrameIndex { entries: entries.collect(), time_base, stamps: Stamps::Decoded })
}

/// Gives frames without time stamp, or with one that does not increase, one `interval` after the frame before; those before the
/// first stamp count back from it.
fn fill_stamps(stamps: &[Option<i64>], interval: i64) -> Vec<i64> {
    let known = stamps.iter().enumerate().find_map(|(i, stamp)| Some((i, (*stamp)?)));
    let start = known.map_or(0, |(i, stamp)| stamp.saturating_sub(interval.saturating_mul(i as i64)));
    let mut previous = None;
    let fill = |stamp: &Option<i64>| {
        let next = previous.map_or(start, |previous: i64| previous.saturating_add(interval));
        let stamp = stamp.filter(|stamp| previous.is_none_or(|previous| *stamp > previous)).unwrap_or(next);
        previous = Some(stamp);
        stamp
    };
    stamps.iter().map(fill).collect()
}

/// Positions in decoding order of frames in presentation order: those that are no reference (B-frames) are decoded after the
/// reference that follows them.
fn decoding_orders(references: &[bool]) -> Vec<u32> {
    let mut waiting = 0;
    let order = |(number, &reference): (usize, &bool)| {
        let order = if reference { number - waiting } else { number + 1 };
        waiting = if reference { 0 } else { waiting + 1 };
        order as u32
    };
    references.iter().enumerate().map(order).collect()
}

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
                Entry { pts, dts: order as i64, order: order as u32, entry_point, reference }
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

    #[test]
    fn b_frames_follow_their_anchor_in_decoding_order() {
        assert_eq!(decoding_orders(&[true, false, false, true, true, false, true]), [0, 2, 3, 1, 4, 6, 5]);
    }

    #[test]
    fn missing_time_stamps_run_at_the_nominal_rate() {
        assert_eq!(
            fill_stamps(&[None, None, Some(0), Some(40), None, Some(70), Some(200)], 40),
            [-80, -40, 0, 40, 80, 120, 200]
        );
        assert_eq!(fill_stamps(&[None; 3], 2), [0, 2, 4]);
        assert_eq!(fill_stamps(&[Some(i64::MAX), None], 2), [i64::MAX, i64::MAX]);
    }
}
