//! What one packet of H.264 (ITU-T H.264, sections 7.3.1 and 7.3.3) or HEVC (ITU-T H.265, section 7.3.1.2) tells without
//! decoding it.
//!
//! The container's key-frame flag is not enough for exact seeking: it is also set where a gradual refresh of predicted
//! slices begins, from where decoding is not exact at first. And what no other picture refers to need not be decoded
//! unless it is wanted itself.

/// How the slices of an H.264 picture are coded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Picture {
    /// Every slice is intra-coded.
    pub intra: bool,
    /// Later pictures may refer to it.
    pub reference: bool,
}

/// Where an HEVC picture stands among the temporal layers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LayeredPicture {
    /// Pictures of its own temporal layer may refer to it; those of higher layers always may.
    pub reference: bool,
    /// The temporal layer.
    pub layer: u8,
}

/// How a stream separates its NAL units.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Framing {
    /// Start codes (MPEG-TS, raw streams).
    AnnexB,
    /// A length of this many bytes before each (MP4, Matroska).
    Length(usize),
}

impl Framing {
    /// From H.264's extradata: an `avcC` box begins with version 1.
    pub(crate) fn of_h264(extradata: &[u8]) -> Self {
        match extradata {
            [1, _, _, _, sizes, ..] => Self::Length(usize::from(sizes & 3) + 1),
            _ => Self::AnnexB,
        }
    }

    /// From HEVC's extradata: FFmpeg takes for an `hvcC` box what does not begin as a start code does.
    pub(crate) fn of_hevc(extradata: &[u8]) -> Self {
        match extradata.get(21) {
            Some(sizes) if extradata[..3] != [0, 0, 0] && extradata[..3] != [0, 0, 1] => {
                Self::Length(usize::from(sizes & 3) + 1)
            }
            _ => Self::AnnexB,
        }
    }

    /// Reads the slice headers of one H.264 packet; `None` if there is no slice in it.
    pub(crate) fn picture(self, packet: &[u8]) -> Option<Picture> {
        let both = |a: Picture, b: Picture| Picture {
            intra: a.intra && b.intra,
            reference: a.reference || b.reference,
        };
        self.fold(packet, slice, both)
    }

    /// Reads the headers of one HEVC packet; `None` if there is no slice in it.
    pub(crate) fn layered_picture(self, packet: &[u8]) -> Option<LayeredPicture> {
        let both = |a: LayeredPicture, b: LayeredPicture| LayeredPicture {
            reference: a.reference || b.reference,
            layer: a.layer.min(b.layer),
        };
        self.fold(packet, layered_slice, both)
    }

    /// What all NAL units of a packet say together.
    fn fold<T>(self, packet: &[u8], read: fn(&[u8]) -> Option<T>, both: impl Fn(T, T) -> T) -> Option<T> {
        match self {
            Self::AnnexB => annex_b(packet).filter_map(read).reduce(both),
            Self::Length(size) => length_prefixed(packet, size).filter_map(read).reduce(both),
        }
    }
}

fn length_prefixed(packet: &[u8], size: usize) -> impl Iterator<Item = &[u8]> {
    let mut rest = packet;
    std::iter::from_fn(move || {
        let (length, after) = rest.split_at_checked(size)?;
        let length = length.iter().fold(0, |sum, byte| sum << 8 | usize::from(*byte));
        let (nal, after) = after.split_at_checked(length)?;
        rest = after;
        Some(nal)
    })
}

/// What follows each start code; trailing zeros belong to the next one and do no harm here.
fn annex_b(packet: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = packet;
    std::iter::from_fn(move || {
        let at = rest.windows(3).position(|w| w == [0, 0, 1])?;
        rest = &rest[at + 3..];
        let end = rest.windows(3).position(|w| w == [0, 0, 1]).unwrap_or(rest.len());
        Some(&rest[..end])
    })
}

/// What a packet of MPEG-4 Part 2 (ISO/IEC 14496-2, section 6.2.5) holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Mpeg4Packet {
    /// How many pictures begin in it. Two of them are DivX's way of storing B-frames, with an empty picture in a later packet.
    pub pictures: usize,
    /// The first of them is a B-frame.
    pub first_is_b: bool,
    /// The last of them is a B-frame.
    pub last_is_b: bool,
    /// A header in it says that pictures may be coded as fields.
    pub fields: bool,
    /// DivX's name stands in it, with the mark of B-frames stored that way.
    pub marked: bool,
}

impl Mpeg4Packet {
    pub(crate) fn read(packet: &[u8]) -> Self {
        let is_start = |at: &usize| packet[*at..].starts_with(&[0, 0, 1, 0xb6]);
        let starts: Vec<usize> = (0..packet.len()).filter(is_start).collect();
        let (first, last) = (starts.first().copied(), starts.last().copied());
        let is_b = |start: usize| packet.get(start + 4).is_some_and(|kind| kind >> 6 == 2);
        Self {
            pictures: starts.len(),
            first_is_b: first.is_some_and(is_b),
            last_is_b: last.is_some_and(is_b),
            fields: mpeg4_interlaced(packet),
            marked: is_marked_packed(&packet[..first.unwrap_or(packet.len())]),
        }
    }
}

/// Whether these bytes hold user data such as `DivX503b1393p`, whose last letter says that B-frames are packed.
pub(crate) fn is_marked_packed(bytes: &[u8]) -> bool {
    bytes.windows(8).enumerate().filter(|(_, w)| **w == *b"\x00\x00\x01\xb2DivX").any(|(at, _)| {
        let name = bytes[at + 8..].iter().take(MAX_NAME).take_while(|byte| byte.is_ascii_alphanumeric());
        name.last() == Some(&b'p')
    })
}

/// Most letters of DivX's name that are looked at.
const MAX_NAME: usize = 32;

/// Whether a header of MPEG-4 Part 2 (section 6.2.3) in these bytes says that pictures may be coded as fields.
pub(crate) fn mpeg4_interlaced(bytes: &[u8]) -> bool {
    let is_layer = |w: &[u8]| w[..3] == [0, 0, 1] && w[3] & 0xf0 == 0x20;
    let Some(at) = bytes.windows(4).position(is_layer) else { return false };
    interlaced_layer(Bits { bytes: &bytes[at + 4..], at: 0 }).unwrap_or(false)
}

/// The `interlaced` bit of a video object layer; `None` where the header ends before it.
fn interlaced_layer(mut bits: Bits<'_>) -> Option<bool> {
    bits.skip(1 + 8);
    if bits.bit()? == 1 {
        bits.skip(4 + 3);
    }
    if bits.number(4)? == 15 {
        bits.skip(8 + 8);
    }
    if bits.bit()? == 1 {
        bits.skip(2 + 1);
        if bits.bit()? == 1 {
            bits.skip(79);
        }
    }
    if bits.number(2)? != 0 {
        // Not a rectangle: FFmpeg does not decode it.
        return None;
    }
    bits.skip(1);
    let resolution = bits.number(16)?;
    bits.skip(1);
    if bits.bit()? == 1 {
        let length = u32::BITS - resolution.saturating_sub(1).leading_zeros();
        bits.skip(length.max(1) as usize);
    }
    bits.skip(1 + 13 + 1 + 13 + 1);
    Some(bits.bit()? == 1)
}

fn slice(nal: &[u8]) -> Option<Picture> {
    let (header, body) = nal.split_first()?;
    if !matches!(header & 31, 1 | 2 | 5) {
        return None;
    }
    let mut bits = Bits { bytes: body, at: 0 };
    let _first_macroblock = bits.exp_golomb()?;
    // Types 2 and 4 are I and SI; 5 to 9 say the same of the whole picture.
    let intra = matches!(bits.exp_golomb()? % 5, 2 | 4);
    Some(Picture { intra, reference: header >> 5 & 3 != 0 })
}

/// Types 0 to 9 are ordinary and leading pictures, the even ones of them not for reference; 16 to 21 are the intra-coded.
fn layered_slice(nal: &[u8]) -> Option<LayeredPicture> {
    let [first, second, ..] = nal else { return None };
    let kind = first >> 1 & 63;
    let layer = (second & 7).checked_sub(1)?;
    matches!(kind, 0..=9 | 16..=21).then(|| LayeredPicture { reference: kind > 9 || kind % 2 == 1, layer })
}

/// The first bits of a header. Of a slice's too few are read for an emulation-prevention byte to occur in them.
struct Bits<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Bits<'_> {
    fn bit(&mut self) -> Option<u32> {
        let byte = *self.bytes.get(self.at / 8)?;
        let bit = byte >> (7 - self.at % 8) & 1;
        self.at += 1;
        Some(bit.into())
    }

    fn skip(&mut self, bits: usize) {
        self.at += bits;
    }

    fn number(&mut self, bits: usize) -> Option<u32> {
        (0..bits).try_fold(0, |value, _| Some(value << 1 | self.bit()?))
    }

    fn exp_golomb(&mut self) -> Option<u32> {
        let mut zeros = 0;
        while self.bit()? == 0 {
            zeros += 1;
            if zeros > 31 {
                return None;
            }
        }
        (0..zeros).try_fold(1u32, |value, _| Some(value << 1 | self.bit()?)).map(|value| value - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `first_mb` 0 is the bit 1; slice types 7 (I) and 5 (P) are 0001000 and 00110.
    const IDR_I: [u8; 3] = [0x65, 0b1000_1000, 0];
    const P: [u8; 3] = [0x41, 0b1001_1000, 0];
    const SPARE_B: [u8; 3] = [0x01, 0b1001_1100, 0];
    const SPS: [u8; 2] = [0x67, 1];

    fn packet(nals: &[&[u8]], framing: Framing) -> Vec<u8> {
        let prefix = |nal: &[u8]| match framing {
            Framing::AnnexB => vec![0, 0, 1],
            Framing::Length(size) => (nal.len() as u32).to_be_bytes()[4 - size..].to_vec(),
        };
        nals.iter().flat_map(|nal| [prefix(nal), nal.to_vec()].concat()).collect()
    }

    #[test]
    fn slices_are_read_in_either_framing() {
        for framing in [Framing::AnnexB, Framing::Length(4), Framing::Length(2)] {
            let read = |nals: &[&[u8]]| framing.picture(&packet(nals, framing));
            assert_eq!(read(&[&SPS, &IDR_I]), Some(Picture { intra: true, reference: true }));
            assert_eq!(read(&[&P]), Some(Picture { intra: false, reference: true }));
            assert_eq!(read(&[&SPARE_B]), Some(Picture { intra: false, reference: false }));
            assert_eq!(read(&[&IDR_I, &P]), Some(Picture { intra: false, reference: true }));
            assert_eq!(read(&[&SPS]), None);
        }
    }

    #[test]
    fn broken_packets_are_no_picture() {
        for bytes in [&[][..], &[0, 0, 0, 9, 0x65], &[0, 0, 1], &[0, 0, 0, 1, 0x65], &[0; 40]] {
            assert_eq!(Framing::Length(4).picture(bytes), None);
            assert_eq!(Framing::AnnexB.picture(bytes), None);
        }
    }

    #[test]
    fn hevc_pictures_tell_their_layer_and_whether_it_needs_them() {
        let read = |nals: &[&[u8]]| Framing::Length(4).layered_picture(&packet(nals, Framing::Length(4)));
        let nal = |kind: u8, layer: u8| [kind << 1, layer + 1, 0x80];
        let picture = |reference, layer| Some(LayeredPicture { reference, layer });
        assert_eq!(read(&[&nal(33, 0), &nal(19, 0)]), picture(true, 0));
        assert_eq!(read(&[&nal(1, 0)]), picture(true, 0));
        assert_eq!(read(&[&nal(0, 1)]), picture(false, 1));
        assert_eq!(read(&[&nal(0, 1), &nal(1, 1)]), picture(true, 1));
        assert_eq!(read(&[&nal(8, 0)]), picture(false, 0));
        assert_eq!(read(&[&nal(33, 0)]), None);
        assert_eq!(read(&[&[0, 0], &[0]]), None);
    }

    #[test]
    fn the_length_size_comes_from_the_extradata() {
        assert!(matches!(Framing::of_h264(&[1, 100, 0, 31, 0xff]), Framing::Length(4)));
        assert!(matches!(Framing::of_h264(&[0, 0, 0, 1, 0x67]), Framing::AnnexB));
        assert!(matches!(Framing::of_h264(&[]), Framing::AnnexB));
        let hvcc: Vec<u8> = [&[1; 21][..], &[0xfd]].concat();
        assert!(matches!(Framing::of_hevc(&hvcc), Framing::Length(2)));
        assert!(matches!(Framing::of_hevc(&[0; 30]), Framing::AnnexB));
        assert!(matches!(Framing::of_hevc(&[1; 5]), Framing::AnnexB));
    }

    #[test]
    fn pictures_of_mpeg4_are_counted_and_b_frames_known() {
        let read = |bytes: &[u8]| {
            let Mpeg4Packet { pictures, first_is_b, last_is_b, .. } = Mpeg4Packet::read(bytes);
            (pictures, first_is_b, last_is_b)
        };
        assert_eq!(read(&[0, 0, 1, 0xb0, 1, 0, 0, 1, 0xb6, 0x10]), (1, false, false));
        assert_eq!(read(&[0, 0, 0, 1, 0xb6, 0x50, 7, 0, 0, 1, 0xb6, 0x90]), (2, false, true));
        assert_eq!(read(&[0, 0, 1, 0xb6, 0x90]), (1, true, true));
        assert_eq!(read(&[0, 0, 1, 0xb6, 0x90, 0, 0, 1, 0xb6]), (2, true, false), "cut behind a start");
        assert_eq!(read(&[0, 0, 1]), (0, false, false));
    }

    #[test]
    fn the_mark_of_packed_b_frames_is_the_end_of_divx_name() {
        let name = |name: &str| [b"\0\0\x01\xb2", name.as_bytes(), b"\0\0\x01\xb6"].concat();
        assert!(is_marked_packed(&name("DivX503b1393p")));
        assert!(is_marked_packed(&name("DivX501Build413p")));
        for other in ["DivX503b1393", "XviD0055", "Lavc59.37.100p", "DivX"] {
            assert!(!is_marked_packed(&name(other)), "{other}");
        }
        assert!(!is_marked_packed(b"\0\0\x01\xb2DivX"));
    }
}
