//! Still pictures.

use std::fs::File;
use std::io::BufWriter;
use std::path::Path;

use crate::VideoError;
use crate::clip::rgb_bytes;

/// Writes RGB pixels `[H, W, 3]` as a PNG file.
///
/// # Errors
/// [`VideoError::Invalid`] when the number of bytes does not fit, [`VideoError::Io`] and [`VideoError::Png`] when
/// the file cannot be written.
pub fn write_png(path: impl AsRef<Path>, rgb: &[u8], width: u32, height: u32) -> Result<(), VideoError> {
    let path = path.as_ref();
    if rgb_bytes(1, height as usize, width as usize) != Some(rgb.len()) {
        let must = format!("a {width}x{height} RGB picture needs 3 for each pixel");
        return Err(VideoError::invalid("the picture's length in bytes", rgb.len(), must));
    }
    let file = File::create(path).map_err(|source| VideoError::io(path, source))?;
    let failed = |source| VideoError::Png { path: path.to_owned(), source };
    let mut encoder = png::Encoder::new(BufWriter::new(file), width, height);
    encoder.set_color(png::ColorType::Rgb);
    encoder.set_depth(png::BitDepth::Eight);
    let mut writer = encoder.write_header().map_err(failed)?;
    writer.write_image_data(rgb).map_err(failed)?;
    writer.finish().map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_picture_reads_back_as_written() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.png");
        let rgb: Vec<u8> = (0..5 * 3 * 3).collect();
        write_png(&path, &rgb, 5, 3).unwrap();
        let mut reader =
            png::Decoder::new(std::io::BufReader::new(File::open(&path).unwrap())).read_info().unwrap();
        let mut back = vec![0; reader.output_buffer_size().unwrap()];
        let info = reader.next_frame(&mut back).unwrap();
        assert_eq!((info.width, info.height, back), (5, 3, rgb));
    }

    #[test]
    fn wrong_lengths_and_absent_folders_are_errors() {
        assert!(matches!(write_png("x.png", &[0; 5], 1, 1), Err(VideoError::Invalid { .. })));
        assert!(matches!(write_png("no/such/x.png", &[0; 3], 1, 1), Err(VideoError::Io { .. })));
    }
}
