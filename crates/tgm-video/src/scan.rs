//! How the [`FrameIndex`] of a file is made.

use video_rs::ffmpeg::codec::Id;
use video_rs::ffmpeg::{Error, Packet, picture};

use crate::bitstream::{Framing, LayeredPicture, Picture};
use crate::decode::Decoding;
use crate::ffi;
use crate::index::{Entry, FrameIndex, Stamps};
use crate::probe::Source;
use crate::{ReadOptions, VideoError};

/// Indexes an open file and leaves it at an unknown position.
pub(crate) fn scan(source: &mut Source, options: &ReadOptions) -> Result<FrameIndex, VideoError> {
    let packets = scan_packets(source, options)?;
    let (entries, stamps) = match packet_entries(packets, source) {
        Some(entries) => (entries, Stamps::Packets),
        None => (scan_frames(source, options)?, Stamps::Decoded),
    };
    Ok(FrameIndex::new(entries, (source.time_base.0, source.time_base.1), stamps))
}

/// Containers that store a presentation time with every packet.
const STAMPED_CONTAINERS: [&str; 6] = ["mov", "matroska", "mpegts", "flv", "gif", "nut"];

struct ScannedPacket {
    pts: Option<i64>,
    dts: Option<i64>,
    key: bool,
    told: Told,
}

/// What the packet's own bytes tell.
#[derive(Clone, Copy, Default)]
struct Told {
    picture: Option<Picture>,
    layered: Option<LayeredPicture>,
}

fn scan_packets(source: &mut Source, options: &ReadOptions) -> Result<Vec<ScannedPacket>, VideoError> {
    let framing = match source.codec {
        Id::HEVC => Framing::of_hevc(&source.facts.extradata),
        _ => Framing::of_h264(&source.facts.extradata),
    };
    let (mut shown, mut whole) = (Vec::new(), 0);
    let mut cut = false;
    loop {
        let packet = match next_packet(source) {
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
        let told = match source.codec {
            Id::H264 => Told { picture: framing.picture(packet.data().unwrap_or(&[])), layered: None },
            Id::HEVC => {
                Told { layered: framing.layered_picture(packet.data().unwrap_or(&[])), picture: None }
            }
            _ => Told::default(),
        };
        let intra = source.codec != Id::H264 || told.picture.is_some_and(|picture| picture.intra);
        shown.push(ScannedPacket {
            pts: packet.pts(),
            dts: packet.dts(),
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

/// The next packet of the video stream; `None` at the end.
pub(crate) fn next_packet(source: &mut Source) -> Result<Option<Packet>, Error> {
    loop {
        let mut packet = Packet::empty();
        match packet.read(&mut source.input) {
            // Not every demuxer looks at the clock itself.
            Ok(()) if source.deadline.is_past() => return Err(Error::Exit),
            Ok(()) if packet.stream() == source.stream => return Ok(Some(packet)),
            Ok(()) => {}
            Err(Error::Eof) => return Ok(None),
            Err(error) => return Err(error),
        }
    }
}

/// The frames in presentation order, or `None` when packets are not enough to tell.
fn packet_entries(packets: Vec<ScannedPacket>, source: &Source) -> Option<Vec<Entry>> {
    let stamped = source.probe.container.split(',').any(|name| STAMPED_CONTAINERS.contains(&name));
    if !stamped || source.facts.interlaced || source.codec == Id::VP8 {
        return None;
    }
    let mut latest = i64::MIN;
    let top_layer =
        packets.iter().filter_map(|packet| packet.told.layered).map(|picture| picture.layer).max();
    let mut entries = Vec::with_capacity(packets.len());
    for (order, packet) in packets.into_iter().enumerate() {
        let pts = packet.pts?;
        let Told { picture, layered } = packet.told;
        let spare = match source.codec {
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
            entry_point: packet.key && has_entry_points(source.codec),
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

/// Indexes the file by decoding it.
fn scan_frames(source: &mut Source, options: &ReadOptions) -> Result<Vec<Entry>, VideoError> {
    source.reopen(options)?;
    let mut decoding = Decoding::open(source, options, 0)?;
    let mut stamps = Vec::new();
    let mut references = Vec::new();
    while let Some(frame) = decoding.next_frame(source, None) {
        if stamps.len() == options.max_frames {
            return Err(VideoError::TooManyFrames {
                path: source.path.clone(),
                max_frames: options.max_frames,
            });
        }
        stamps.push(frame.timestamp());
        references.push(frame.kind() != picture::Type::B);
    }
    source.check_deadline(options)?;
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
        spare: false,
    });
    Ok(entries.collect())
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
