//! How the [`FrameIndex`] of a file is made.

use video_rs::ffmpeg::codec::{self, Id};
use video_rs::ffmpeg::{format, picture};

use crate::bitstream::{Framing, LayeredPicture, Mpeg4Packet, Picture, is_marked_packed, mpeg4_interlaced};
use crate::decode::{Decoding, Marks};
use crate::fetch::is_damaged;
use crate::ffi;
use crate::index::{Entry, FrameIndex, Stamps};
use crate::probe::Source;
use crate::{ReadOptions, VideoError};

/// Counts the changes to what is read out of a file: raise it with any that may give another index, or find another file bad.
const SCANNER: u32 = 1;

/// What frame indices are made by: this crate's scanner and FFmpeg's libraries. Another one may index the same file otherwise,
/// so what is kept for later is kept with this, and is of no use under another. One word of printable ASCII.
pub fn scanner_version() -> String {
    let dotted = |version: u32| format!("{}.{}.{}", version >> 16, version >> 8 & 0xff, version & 0xff);
    let (avformat, avcodec) = (dotted(format::version()), dotted(codec::version()));
    format!("scanner-{SCANNER}/avformat-{avformat}/avcodec-{avcodec}")
}

/// Indexes an open file and leaves it at an unknown position.
pub(crate) fn scan(source: &mut Source, options: &ReadOptions) -> Result<FrameIndex, VideoError> {
    let packets = scan_packets(source, options)?;
    let time_base = (source.time_base.0, source.time_base.1);
    if has_stamps(source)
        && let Some(entries) = packet_entries(&packets, source.codec)
    {
        return Ok(FrameIndex::new(entries, time_base, Stamps::Packets));
    }
    if is_packed(&packets, source) {
        if let Some(entries) = unpacked_entries(source, options) {
            return Ok(FrameIndex::new(entries, time_base, Stamps::Unpacked));
        }
        source.check_deadline(options)?;
        source.unpack(false)?;
    }
    let decoded = scan_frames(source, options)?;
    if let Some(entries) = restored_entries(packets, &decoded, source) {
        return Ok(FrameIndex::new(entries, time_base, Stamps::Restored));
    }
    source.check_deadline(options)?;
    Ok(FrameIndex::new(frame_entries(&decoded.frames), time_base, Stamps::Decoded))
}

/// The frames of a file with packed B-frames, once these are taken apart; `None` where something is not as it should be.
fn unpacked_entries(source: &mut Source, options: &ReadOptions) -> Option<Vec<Entry>> {
    source.unpack(true).ok()?;
    source.reopen(options).ok()?;
    let packets = scan_packets(source, options).ok()?;
    let decoded = scan_frames(source, options).ok()?;
    restored_entries(packets, &decoded, source)
}

/// The frames of a file whose packets turned out to make one frame each.
fn restored_entries(
    packets: Vec<ScannedPacket>,
    decoded: &Decoded,
    source: &mut Source,
) -> Option<Vec<Entry>> {
    let packets = restored(packets, decoded, source)?;
    let entries = packet_entries(&packets, source.codec)?;
    can_enter(&entries, &packets, source).then_some(entries)
}

/// Most bytes of an empty picture, as FFmpeg takes it.
const EMPTY_PICTURE: usize = 19;

/// Whether this is an AVI file with B-frames as DivX and XviD pack them: in the packet of the frame that is decoded before them,
/// each further one in the place of the one before, and an empty picture at the end.
///
/// A file that was cut out of a longer one may end before that: FFmpeg does not show the B-frame then, taken out or not. Any other
/// order FFmpeg decodes otherwise than its filter takes it apart.
fn is_packed(packets: &[ScannedPacket], source: &Source) -> bool {
    let marked = is_marked_packed(&source.facts.extradata)
        || packets[0].told.mpeg4.is_some_and(|packet| packet.marked);
    if source.probe.container != "avi" || !marked {
        return false;
    }
    let (mut packed, mut waiting) = (false, false);
    for packet in packets {
        let Some(told) = packet.told.mpeg4.filter(|told| !told.fields) else { return false };
        let empty = packet.size <= EMPTY_PICTURE;
        waiting = match (told.pictures, waiting) {
            (2, false) if !told.first_is_b && told.last_is_b => true,
            (1, true) if !empty && told.first_is_b => true,
            (1, true) if empty && !told.first_is_b => false,
            (1, false) if !empty => false,
            _ => return false,
        };
        packed |= waiting;
    }
    packed
}

/// Containers that store a presentation time with every packet.
const STAMPED_CONTAINERS: [&str; 6] = ["mov", "matroska", "mpegts", "flv", "gif", "nut"];

struct ScannedPacket {
    pts: Option<i64>,
    dts: Option<i64>,
    size: usize,
    key: bool,
    told: Told,
}

/// What the packet's own bytes tell.
#[derive(Clone, Copy, Default)]
struct Told {
    picture: Option<Picture>,
    layered: Option<LayeredPicture>,
    mpeg4: Option<Mpeg4Packet>,
}

impl Told {
    /// MPEG-4: it has more or less than one picture, or the pictures may be fields. Those with B-frames FFmpeg decodes a little
    /// differently by what came before.
    fn is_irregular(&self) -> bool {
        self.mpeg4.is_some_and(|packet| packet.fields || packet.pictures != 1)
    }
}

fn scan_packets(source: &mut Source, options: &ReadOptions) -> Result<Vec<ScannedPacket>, VideoError> {
    let framing = match source.codec {
        Id::HEVC => Framing::of_hevc(&source.facts.extradata),
        _ => Framing::of_h264(&source.facts.extradata),
    };
    let fields = source.codec == Id::MPEG4 && mpeg4_interlaced(&source.facts.extradata);
    let (mut shown, mut whole) = (Vec::new(), 0);
    let mut cut = false;
    loop {
        let packet = match source.next_packet() {
            Ok(Some(packet)) => packet,
            Ok(None) => break,
            Err(_) => {
                source.check_deadline(options)?;
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
        let data = packet.data().unwrap_or(&[]);
        let told = match source.codec {
            Id::H264 => Told { picture: framing.picture(data), ..Told::default() },
            Id::HEVC => Told { layered: framing.layered_picture(data), ..Told::default() },
            Id::MPEG4 => {
                let packet = Mpeg4Packet::read(data);
                let fields = fields || packet.fields;
                Told { mpeg4: Some(Mpeg4Packet { fields, ..packet }), ..Told::default() }
            }
            _ => Told::default(),
        };
        let intra = source.codec != Id::H264 || told.picture.is_some_and(|picture| picture.intra);
        shown.push(ScannedPacket {
            pts: packet.pts(),
            dts: packet.dts(),
            size: packet.size(),
            key: packet.is_key() && intra,
            told,
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
    Ok(shown)
}

/// Whether packets state when they are shown, each for one frame.
fn has_stamps(source: &Source) -> bool {
    let stamped = source.probe.container.split(',').any(|name| STAMPED_CONTAINERS.contains(&name));
    stamped && !source.facts.interlaced && source.codec != Id::VP8
}

/// The frames in presentation order, or `None` when the packets' times are not enough to tell.
fn packet_entries(packets: &[ScannedPacket], codec: Id) -> Option<Vec<Entry>> {
    let mut latest = i64::MIN;
    let top_layer =
        packets.iter().filter_map(|packet| packet.told.layered).map(|picture| picture.layer).max();
    let mut entries = Vec::with_capacity(packets.len());
    for (order, packet) in packets.iter().enumerate() {
        let pts = packet.pts?;
        let Told { picture, layered, .. } = packet.told;
        if packet.told.is_irregular() {
            return None;
        }
        let spare = match codec {
            Id::H264 => picture.is_some_and(|picture| !picture.reference),
            Id::HEVC => layered.is_some_and(|picture| !picture.reference && Some(picture.layer) == top_layer),
            // Only B-frames are shown before what was decoded before them, and here they are never referred to.
            Id::MPEG1VIDEO | Id::MPEG2VIDEO | Id::MPEG4 => pts < latest,
            _ => false,
        };
        entries.push(Entry {
            pts,
            dts: packet.dts.unwrap_or(pts),
            order: order as u32,
            entry_point: packet.key && has_entry_points(codec),
            // Of the codecs that export motion only H.264, told above, predicts from frames shown out of order.
            reference: picture.map_or(pts > latest, |picture| picture.reference),
            spare,
        });
        latest = latest.max(pts);
    }
    entries.sort_by_key(|entry| entry.pts);
    let distinct = entries.windows(2).all(|pair| pair[0].pts < pair[1].pts);
    distinct.then_some(entries)
}

/// Codecs whose key packets decode without anything before them. GIF's do not: pictures are drawn over one another.
fn has_entry_points(codec: Id) -> bool {
    use Id::*;
    matches!(
        codec,
        H264 | HEVC | VP9 | AV1 | MPEG1VIDEO | MPEG2VIDEO | MPEG4 | H263 | MJPEG | PRORES | DNXHD | FFV1
    )
}

/// What decoding a file once told.
struct Decoded {
    frames: Vec<DecodedFrame>,
    /// Packets that were read for them.
    packets: usize,
    /// Whether every one of them decoded, without damage, as a whole picture.
    sound: bool,
}

struct DecodedFrame {
    pts: i64,
    kind: picture::Type,
    /// Number of the packet that it came from, from one on.
    packet: i64,
}

/// Decodes the whole file.
fn scan_frames(source: &mut Source, options: &ReadOptions) -> Result<Decoded, VideoError> {
    source.reopen(options)?;
    let mut decoding = Decoding::open(source, options, 0, Marks::Numbers)?;
    let (mut stamps, mut facts) = (Vec::new(), Vec::new());
    let mut sound = true;
    while let Some(frame) = decoding.next_frame(source, None) {
        if stamps.len() == options.max_frames {
            return Err(VideoError::TooManyFrames {
                path: source.path.clone(),
                max_frames: options.max_frames,
            });
        }
        sound &= !is_damaged(&frame) && !frame.is_interlaced();
        stamps.push(frame.timestamp());
        facts.push((frame.kind(), frame.packet().duration));
    }
    source.check_deadline(options)?;
    if stamps.is_empty() {
        return Err(VideoError::NoFrames { path: source.path.clone() });
    }
    let interval = match source.probe.average_fps {
        fps if fps > 0.0 => (1.0 / fps / f64::from(source.time_base)).round().max(1.0) as i64,
        _ => 1,
    };
    let stamps = fill_stamps(&stamps, interval).into_iter().zip(facts);
    let frames = stamps.map(|(pts, (kind, packet))| DecodedFrame { pts, kind, packet }).collect();
    Ok(Decoded { frames, packets: decoding.packets(), sound: sound && decoding.errors() == 0 })
}

/// The packets of an AVI file with the times of the frames that they became, if each became one frame.
///
/// An AVI file counts its packets, and the count, which is the decoding time, is the same wherever reading began.
fn restored(
    mut packets: Vec<ScannedPacket>,
    decoded: &Decoded,
    source: &Source,
) -> Option<Vec<ScannedPacket>> {
    let counted = source.probe.container == "avi" && has_entry_points(source.codec);
    let count = packets.len();
    let one_each = decoded.sound && [decoded.packets, decoded.frames.len()] == [count; 2];
    let in_order = packets.windows(2).all(|pair| pair[0].dts < pair[1].dts) && packets[0].dts.is_some();
    if !(counted && one_each && in_order) || source.facts.interlaced {
        return None;
    }
    packets.iter_mut().for_each(|packet| packet.pts = None);
    for frame in &decoded.frames {
        let packet = packets.get_mut(usize::try_from(frame.packet).ok()?.checked_sub(1)?)?;
        if packet.pts.replace(frame.pts).is_some() {
            return None;
        }
        packet.key &= frame.kind == picture::Type::I;
    }
    Some(packets)
}

/// Entry points that are tried.
const TRIED: usize = 8;

/// Whether the demuxer finds entry points, and knows the packets there for what they are.
fn can_enter(entries: &[Entry], packets: &[ScannedPacket], source: &mut Source) -> bool {
    let points: Vec<&Entry> = entries.iter().filter(|entry| entry.entry_point).collect();
    points.iter().rev().step_by(points.len().div_ceil(TRIED).max(1)).all(|point| {
        let expected = &packets[point.order as usize];
        let moved = source.seek(point.dts).is_ok();
        let found = if moved { source.next_packet().ok().flatten() } else { None };
        found.is_some_and(|packet| packet.dts() == expected.dts && packet.size() == expected.size)
    })
}

/// The frames of a file that is always decoded from its beginning.
fn frame_entries(frames: &[DecodedFrame]) -> Vec<Entry> {
    let references: Vec<bool> = frames.iter().map(|frame| frame.kind != picture::Type::B).collect();
    let entry = |(number, (frame, order)): (usize, (&DecodedFrame, u32))| Entry {
        pts: frame.pts,
        dts: frame.pts,
        order,
        entry_point: number == 0,
        reference: references[number],
        spare: false,
    };
    frames.iter().zip(decoding_orders(&references)).enumerate().map(entry).collect()
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

    #[test]
    fn the_scanners_version_is_one_word_with_ffmpegs_versions() {
        let version = scanner_version();
        let parts: Vec<_> = version.split('/').filter_map(|part| part.split_once('-')).collect();
        assert_eq!(parts.iter().map(|part| part.0).collect::<Vec<_>>(), ["scanner", "avformat", "avcodec"]);
        assert!(parts[1..].iter().all(|part| part.1.split('.').count() == 3), "{version}");
        assert!(version.bytes().all(|byte| byte.is_ascii_graphic()), "{version}");
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
