//! AVI files of MPEG-4 with packed B-frames, as DivX and XviD write them and FFmpeg cannot.

/// What stands in the place of a packed B-frame: a predicted picture that is not coded.
pub const EMPTY_PICTURE: [u8; 6] = [0, 0, 1, 0xb6, 0x51, 0x7f];

/// An AVI file of MPEG-4 with its B-frames packed as DivX does.
pub fn pack_b_frames(avi: &[u8]) -> Vec<u8> {
    let find = |chunk: &[u8], code: u8| chunk.windows(4).position(|w| w == [0, 0, 1, code]);
    let is_b = |chunk: &[u8]| find(chunk, 0xb6).is_some_and(|at| chunk[at + 4] >> 6 == 2);
    let mut packed: Vec<Vec<u8>> = Vec::new();
    // The first B-frame after a reference joins it, each further one takes the place of the one before.
    let mut behind = false;
    for mut chunk in avi_chunks(avi) {
        if is_b(&chunk) {
            match behind {
                true => packed.push(chunk),
                false => packed.last_mut().expect("a reference comes first").append(&mut chunk),
            }
            behind = true;
            continue;
        }
        if std::mem::take(&mut behind) {
            packed.push(EMPTY_PICTURE.to_vec());
        }
        if let Some(at) = find(&chunk, 0x20) {
            // Behind the headers, where DivX writes its name.
            let at = at
                + find(&chunk[at..], 0xb6)
                    .map(|to| find(&chunk[at..], 0xb3).map_or(to, |b3| b3.min(to)))
                    .unwrap();
            chunk.splice(at..at, *b"\x00\x00\x01\xb2DivX503b1393p");
        }
        packed.push(chunk);
    }
    if behind {
        packed.push(EMPTY_PICTURE.to_vec());
    }
    with_avi_chunks(avi, &packed)
}

/// The last packet before packet `end` that holds two pictures.
pub fn pair_before(chunks: &[Vec<u8>], end: usize) -> usize {
    let pictures = |chunk: &[u8]| chunk.windows(4).filter(|w| *w == [0, 0, 1, 0xb6]).count();
    chunks[..end].iter().rposition(|chunk| pictures(chunk) == 2).expect("a packed B-frame")
}

/// The position of the list of packets.
fn avi_packets(avi: &[u8]) -> usize {
    avi.windows(4).position(|w| w == b"movi").expect("an AVI file") + 4
}

/// The packets of an AVI file with one stream.
pub fn avi_chunks(avi: &[u8]) -> Vec<Vec<u8>> {
    let mut rest = &avi[avi_packets(avi)..];
    let mut chunks = Vec::new();
    while let Some(after) = rest.strip_prefix(b"00dc") {
        let size = u32::from_le_bytes(*after.first_chunk().unwrap()) as usize;
        chunks.push(after[4..4 + size].to_vec());
        rest = &after[4 + size + size % 2..];
    }
    chunks
}

/// The same file with other packets, those with headers marked as key frames.
pub fn with_avi_chunks(avi: &[u8], chunks: &[Vec<u8>]) -> Vec<u8> {
    let start = avi_packets(avi);
    let mut file = avi[..start].to_vec();
    let mut index = Vec::new();
    for chunk in chunks {
        let is_key = chunk.windows(5).any(|w| w[..4] == [0, 0, 1, 0xb6] && w[4] >> 6 == 0);
        let entry = [u32::from(is_key) << 4, (file.len() - start + 4) as u32, chunk.len() as u32];
        index.extend_from_slice(b"00dc");
        index.extend(entry.into_iter().flat_map(u32::to_le_bytes));
        file.extend_from_slice(b"00dc");
        file.extend((chunk.len() as u32).to_le_bytes());
        file.extend(chunk);
        file.resize(file.len().next_multiple_of(2), 0);
    }
    let movi = (file.len() - start + 4) as u32;
    file[start - 8..start - 4].copy_from_slice(&movi.to_le_bytes());
    file.extend_from_slice(b"idx1");
    file.extend((index.len() as u32).to_le_bytes());
    file.extend(index);
    let riff = (file.len() - 8) as u32;
    file[4..8].copy_from_slice(&riff.to_le_bytes());
    file
}
