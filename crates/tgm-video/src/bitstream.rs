//! What one H.264 packet tells without decoding it (ITU-T H.264, sections 7.3.1 and 7.3.3).
//!
//! The container's key-frame flag is not enough for exact seeking: it is also set where a gradual refresh of predicted
//! slices begins, from where decoding is not exact at first.

/// How the slices of a picture are coded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Picture {
    /// Every slice is intra-coded.
    pub intra: bool,
    /// Later pictures may refer to it.
    pub reference: bool,
}

/// How an H.264 stream separates its NAL units.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Framing {
    /// Start codes (MPEG-TS, raw streams).
    AnnexB,
    /// A length of this many bytes before each (MP4, Matroska).
    Length(usize),
}

impl Framing {
    /// From the codec's extradata: an `avcC` box begins with version 1.
    pub(crate) fn from_extradata(extradata: &[u8]) -> Self {
        match extradata {
            [1, _, _, _, sizes, ..] => Self::Length(usize::from(sizes & 3) + 1),
            _ => Self::AnnexB,
        }
    }

    /// Reads the slice headers of one packet; `None` if there is no slice in it.
    pub(crate) fn picture(self, packet: &[u8]) -> Option<Picture> {
        let mut picture = None;
        let mut see = |nal: &[u8]| {
            if let Some(slice) = slice(nal) {
                let so_far = picture.unwrap_or(Picture { intra: true, reference: false });
                picture = Some(Picture {
                    intra: so_far.intra && slice.intra,
                    reference: so_far.reference || slice.reference,
                });
            }
        };
        match self {
            Self::AnnexB => annex_b(packet).for_each(&mut see),
            Self::Length(size) => length_prefixed(packet, size).for_each(&mut see),
        }
        picture
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

/// The first bits of a slice header: too few for an emulation-prevention byte to occur in them.
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
    fn the_length_size_comes_from_the_extradata() {
        assert!(matches!(Framing::from_extradata(&[1, 100, 0, 31, 0xff]), Framing::Length(4)));
        assert!(matches!(Framing::from_extradata(&[0, 0, 0, 1, 0x67]), Framing::AnnexB));
        assert!(matches!(Framing::from_extradata(&[]), Framing::AnnexB));
    }
}
