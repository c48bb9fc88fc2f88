//! Whether a container claims more bytes than its file has.
//!
//! FFmpeg reads a cut Matroska or AVI file to its end without a word; MP4 shows the loss in its sample tables.

use std::io::Read;

use crate::VideoFile;

/// Bytes at the start of a file that are looked at.
const HEAD: u64 = 4096;

/// Whether the file ends before the end that its container states. Containers that state none are taken to be whole.
pub(crate) fn is_cut(file: &VideoFile) -> std::io::Result<bool> {
    let (content, length) = file.open()?;
    let mut head = Vec::new();
    content.take(HEAD.min(length)).read_to_end(&mut head)?;
    Ok(riff_length(&head).or_else(|| matroska_length(&head)).is_some_and(|stated| stated > length))
}

/// Length of the first RIFF chunk with its header (an AVI file over 1 GB goes on after it).
fn riff_length(head: &[u8]) -> Option<u64> {
    let size = head.strip_prefix(b"RIFF")?.first_chunk()?;
    Some(u64::from(u32::from_le_bytes(*size)) + 8)
}

/// End of a Matroska segment of known size (RFC 8794, section 5; RFC 9559, section 5.1).
fn matroska_length(head: &[u8]) -> Option<u64> {
    let (header_size, after) = vint(head.strip_prefix(&[0x1a, 0x45, 0xdf, 0xa3])?)?;
    let after = after.get(usize::try_from(header_size?).ok()?..)?;
    let (segment_size, content) = vint(after.strip_prefix(&[0x18, 0x53, 0x80, 0x67])?)?;
    ((head.len() - content.len()) as u64).checked_add(segment_size?)
}

/// An EBML variable-length size and what follows it; the size of all ones means "unknown".
fn vint(bytes: &[u8]) -> Option<(Option<u64>, &[u8])> {
    let length = bytes.first()?.leading_zeros() as usize + 1;
    let (number, rest) = bytes.split_at_checked(length).filter(|_| length <= 8)?;
    let value = number.iter().fold(0u64, |value, byte| value << 8 | u64::from(*byte));
    let mask = (1u64 << (7 * length)) - 1;
    Some(((value & mask != mask).then_some(value & mask), rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn riff_and_matroska_state_their_length() {
        assert_eq!(riff_length(b"RIFF\x00\x01\x00\x00AVI "), Some(264));
        let matroska = |size: &[u8]| {
            let head: &[u8] = &[0x1a, 0x45, 0xdf, 0xa3, 0x82, 9, 9, 0x18, 0x53, 0x80, 0x67];
            matroska_length(&[head, size].concat())
        };
        assert_eq!(matroska(&[0x85]), Some(17));
        assert_eq!(matroska(&[0x01, 0, 0, 0, 0, 0, 1, 0]), Some(19 + 256));
        assert_eq!(matroska(&[0x01, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]), None);
        assert_eq!(matroska(&[0xff]), None);
    }

    #[test]
    fn other_and_broken_heads_state_nothing() {
        for head in [
            &b""[..],
            b"RIFF\x01",
            b"\x1a\x45\xdf\xa3",
            b"\x1a\x45\xdf\xa3\x00",
            b"\x1a\x45\xdf\xa3\xfe\x18",
            b"ftyp",
        ] {
            assert_eq!(riff_length(head).or(matroska_length(head)), None, "{head:?}");
        }
    }
}
