//! A [`FrameIndex`] in few bytes, to be kept: about six a frame.

use crate::FrameIndex;
use crate::index::{Entry, Stamps};

/// Most frames that stored bytes may claim before they are read: more than any file has.
const MAX_FRAMES: u64 = 1 << 32;

impl FrameIndex {
    /// This index in few bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        let (entries, (numerator, denominator)) = (self.entries(), self.time_base());
        let stamps = match self.stamps() {
            Stamps::Packets => 0,
            Stamps::Decoded => 1,
            Stamps::Restored => 2,
            Stamps::Unpacked => 3,
        };
        let mut bytes = vec![stamps];
        put(&mut bytes, entries.len() as i64);
        put(&mut bytes, numerator.into());
        put(&mut bytes, denominator.into());
        let mut before = 0i64;
        for (number, entry) in entries.iter().enumerate() {
            put(&mut bytes, entry.pts.wrapping_sub(before));
            put(&mut bytes, entry.dts.wrapping_sub(entry.pts));
            put(&mut bytes, i64::from(entry.order).wrapping_sub(number as i64));
            bytes.push(
                u8::from(entry.entry_point) | u8::from(entry.reference) << 1 | u8::from(entry.spare) << 2,
            );
            before = entry.pts;
        }
        bytes
    }

    /// The index of [`to_bytes`](Self::to_bytes); `None` for bytes that are none.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let mut rest = bytes;
        let stamps = match take_byte(&mut rest)? {
            0 => Stamps::Packets,
            1 => Stamps::Decoded,
            2 => Stamps::Restored,
            3 => Stamps::Unpacked,
            _ => return None,
        };
        let frames = u64::try_from(take(&mut rest)?).ok().filter(|frames| *frames < MAX_FRAMES)?;
        let time_base = (i32::try_from(take(&mut rest)?).ok()?, i32::try_from(take(&mut rest)?).ok()?);
        let mut before = 0i64;
        let mut entry = |number: u64| {
            let pts = before.wrapping_add(take(&mut rest)?);
            let dts = pts.wrapping_add(take(&mut rest)?);
            let order = u32::try_from((number as i64).wrapping_add(take(&mut rest)?)).ok()?;
            let flags = take_byte(&mut rest)?;
            before = pts;
            let flag = |bit: u8| flags >> bit & 1 == 1;
            Some(Entry { pts, dts, order, entry_point: flag(0), reference: flag(1), spare: flag(2) })
        };
        let entries = (0..frames).map(&mut entry).collect::<Option<Vec<_>>>()?;
        let sorted = entries.windows(2).all(|pair| pair[0].pts <= pair[1].pts);
        (rest.is_empty() && sorted).then(|| Self::new(entries, time_base, stamps))
    }
}

/// Appends a number: seven bits to a byte, low ones first; the sign in the lowest bit, so that small numbers are short.
fn put(bytes: &mut Vec<u8>, value: i64) {
    let mut value = (value << 1 ^ value >> 63) as u64;
    while value >= 0x80 {
        bytes.push(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
}

fn take_byte(bytes: &mut &[u8]) -> Option<u8> {
    let (first, rest) = bytes.split_first()?;
    *bytes = rest;
    Some(*first)
}

fn take(bytes: &mut &[u8]) -> Option<i64> {
    let mut value = 0u64;
    for shift in (0..64).step_by(7) {
        let byte = take_byte(bytes)?;
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some((value >> 1) as i64 ^ -((value & 1) as i64));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn index() -> impl Strategy<Value = FrameIndex> {
        let entry = (any::<i64>(), any::<i64>(), any::<u32>(), any::<[bool; 3]>());
        (prop::collection::vec(entry, 0..40), any::<i32>(), any::<i32>(), 0..4usize).prop_map(
            |(entries, numerator, denominator, stamps)| {
                let mut entries: Vec<Entry> = entries
                    .into_iter()
                    .map(|(pts, dts, order, [entry_point, reference, spare])| Entry {
                        pts,
                        dts,
                        order,
                        entry_point,
                        reference,
                        spare,
                    })
                    .collect();
                entries.sort_by_key(|entry| entry.pts);
                let stamps = [Stamps::Packets, Stamps::Decoded, Stamps::Restored, Stamps::Unpacked][stamps];
                FrameIndex::new(entries, (numerator, denominator), stamps)
            },
        )
    }

    proptest! {
        #[test]
        fn any_index_survives(index in index()) {
            prop_assert_eq!(FrameIndex::from_bytes(&index.to_bytes()), Some(index));
        }

        #[test]
        fn any_bytes_are_an_index_or_none(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = FrameIndex::from_bytes(&bytes);
        }

        #[test]
        fn a_part_of_an_index_is_none(index in index(), cut in 1..20usize) {
            let bytes = index.to_bytes();
            prop_assert_eq!(FrameIndex::from_bytes(&bytes[..bytes.len().saturating_sub(cut)]), None);
        }
    }
}
