//! Packets in, frames out, one after the other.

use std::cmp::Ordering;

use video_rs::ffmpeg::codec::decoder;
use video_rs::ffmpeg::{Error, Packet, frame};

use crate::index::{EntryPoint, FrameIndex};
use crate::probe::Source;
use crate::{ReadOptions, VideoError, ffi};

/// What packets are marked with before they are decoded.
pub(crate) enum Marks {
    /// What the container says.
    Own,
    /// Their number in the file, from one on, in place of their duration: frames keep it.
    Numbers,
    /// The presentation time that an index has for their decoding time; pairs of the two, in order.
    Times(Vec<(i64, i64)>),
}

/// A decoder and what is on its way into it.
pub(crate) struct Decoding {
    decoder: decoder::Video,
    /// A packet read while seeking.
    pending: Option<Packet>,
    /// Every packet was sent; the decoder is giving out the rest.
    draining: bool,
    /// Time stamp of the last packet sent.
    fed: Option<i64>,
    /// Packets the decoder refused.
    errors: usize,
    marks: Marks,
    /// Packets read so far.
    packets: usize,
}

/// The packets that some frames need.
#[derive(Clone, Copy)]
pub(crate) struct Selection<'a> {
    pub index: &'a FrameIndex,
    /// The frames, in order.
    pub wanted: &'a [usize],
    /// Position in decoding order of the last of them.
    pub last: u32,
}

/// Where a packet stands to a selection.
enum Part {
    Within,
    /// No wanted frame needs it.
    Beside,
    /// The last one that is needed.
    Last,
    After,
}

impl Selection<'_> {
    fn part(&self, packet: &Packet) -> Part {
        // What is not in the index is not shown, but may be referred to.
        let Some(frame) = packet.pts().and_then(|pts| self.index.find(pts)) else { return Part::Within };
        match self.index.order(frame).cmp(&self.last) {
            Ordering::Equal => Part::Last,
            Ordering::Greater => Part::After,
            Ordering::Less if self.index.is_spare(frame) && self.wanted.binary_search(&frame).is_err() => {
                Part::Beside
            }
            Ordering::Less => Part::Within,
        }
    }
}

/// POSIX `EAGAIN`: the decoder needs another packet first.
const AGAIN: Error = Error::Other { errno: video_rs::ffmpeg::error::EAGAIN };

/// Errors in a row after which a decoder that is giving out its last frames is left.
const MAX_DRAIN_ERRORS: usize = 64;

impl Decoding {
    /// Opens a decoder for a source at its first packet. `reorder` is as for [`ffi::open_decoder`].
    pub(crate) fn open(
        source: &Source,
        options: &ReadOptions,
        reorder: usize,
        marks: Marks,
    ) -> Result<Self, VideoError> {
        let failed = |error| VideoError::Decoder {
            path: source.path.clone(),
            codec: source.codec.name().to_owned(),
            source: error,
        };
        let stream = source.input.stream(source.stream).ok_or_else(|| failed(Error::StreamNotFound))?;
        let (motion_vectors, max_pixels) = (options.motion_vectors, options.max_pixels);
        let decoder = ffi::open_decoder(&stream, source.unpacker(), motion_vectors, max_pixels, reorder)
            .map_err(failed)?;
        Ok(Self { decoder, pending: None, draining: false, fed: None, errors: 0, marks, packets: 0 })
    }

    /// The next frame in the decoder's order; `None` at the end of the file.
    ///
    /// Packets that do not decode are counted and passed over, like a damaged end of the file.
    /// With a selection, only its packets are decoded, and the last of them ends it: what the decoder holds back then comes
    /// out at once. After that only a seek leads on.
    pub(crate) fn next_frame(
        &mut self,
        source: &mut Source,
        selection: Option<&Selection<'_>>,
    ) -> Option<frame::Video> {
        let mut frame = frame::Video::empty();
        let mut drain_errors = 0;
        loop {
            match self.decoder.receive_frame(&mut frame) {
                Ok(()) => return Some(frame),
                Err(Error::Eof) => return None,
                Err(AGAIN) => {}
                Err(_) => self.errors += 1,
            }
            if self.draining {
                drain_errors += 1;
                if drain_errors > MAX_DRAIN_ERRORS {
                    return None;
                }
                continue;
            }
            let packet = self.pending.take().or_else(|| self.read(source));
            let part = match (&packet, selection) {
                (None, _) => Part::After,
                (Some(_), None) => Part::Within,
                (Some(packet), Some(selection)) => selection.part(packet),
            };
            if let Some(packet) = packet.filter(|_| matches!(part, Part::Within | Part::Last)) {
                self.fed = packet.pts().or(self.fed);
                if self.decoder.send_packet(&packet).is_err() {
                    self.errors += 1;
                }
            }
            if matches!(part, Part::Last | Part::After) {
                self.draining = true;
                if self.decoder.send_eof().is_err() {
                    return None;
                }
            }
        }
    }

    /// Moves to the packet of `point`, or one before it. False if the demuxer cannot: the position is then unknown.
    pub(crate) fn seek(&mut self, source: &mut Source, index: &FrameIndex, point: EntryPoint) -> bool {
        // Some demuxers search by presentation time, some by decoding time, whatever they are given.
        let time_stamps = match self.marks {
            Marks::Times(_) => &[point.dts][..],
            _ => &[point.pts, point.dts],
        };
        for &time_stamp in time_stamps {
            self.decoder.flush();
            (self.pending, self.draining, self.fed) = (None, false, None);
            if source.seek(time_stamp).is_err() {
                continue;
            }
            let Some(packet) = self.read(source) else { continue };
            let lands = if ffi::is_discarded(&packet) {
                packet.dts().is_some_and(|dts| dts <= point.dts)
            } else {
                packet
                    .pts()
                    .and_then(|pts| index.find(pts))
                    .is_some_and(|frame| index.order(frame) <= point.order)
            };
            if lands {
                self.pending = Some(packet);
                return true;
            }
        }
        false
    }

    /// The next packet, marked; `None` at the end and where reading fails.
    fn read(&mut self, source: &mut Source) -> Option<Packet> {
        let mut packet = source.next_packet().ok().flatten()?;
        self.packets += 1;
        match &self.marks {
            Marks::Own => {}
            Marks::Numbers => packet.set_duration(self.packets as i64),
            Marks::Times(times) => {
                let place =
                    packet.dts().and_then(|dts| times.binary_search_by_key(&dts, |(dts, _)| *dts).ok());
                packet.set_pts(place.map(|place| times[place].1));
            }
        }
        Some(packet)
    }

    /// Packets read so far.
    pub(crate) fn packets(&self) -> usize {
        self.packets
    }

    /// Whether nothing was sent yet to this decoder.
    pub(crate) fn is_fresh(&self) -> bool {
        self.fed.is_none() && self.pending.is_none() && !self.draining
    }

    /// Time stamp of the last packet sent since the last seek.
    pub(crate) fn fed(&self) -> Option<i64> {
        self.fed
    }

    /// Packets that did not decode so far.
    pub(crate) fn errors(&self) -> usize {
        self.errors
    }
}
