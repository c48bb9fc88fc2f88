//! Colours come out as they went in, whatever the matrix, range and storage.

mod common;

use common::{read_all, run, text};
use tgm_video::{ColorMatrix, EncodeOptions, PixelFormat, VideoWriter};

const COLORS: [[u8; 3]; 7] =
    [[254, 0, 0], [0, 254, 0], [0, 0, 254], [255, 255, 255], [0, 0, 0], [128, 128, 128], [200, 120, 40]];

fn flat(color: [u8; 3], width: u32, height: u32) -> Vec<u8> {
    color.repeat((width * height) as usize)
}

fn worst_difference(rgb: &[u8], color: [u8; 3]) -> u8 {
    rgb.chunks_exact(3).flat_map(|pixel| (0..3).map(|c| pixel[c].abs_diff(color[c]))).max().unwrap_or(0)
}

#[test]
fn every_matrix_range_and_pixel_format_round_trips() {
    let folder = tempfile::tempdir().unwrap();
    for matrix in [ColorMatrix::Bt601, ColorMatrix::Bt709] {
        for full_range in [false, true] {
            for pixel_format in [PixelFormat::Yuv420p, PixelFormat::Yuv444p] {
                let path = folder.path().join("flat.mp4");
                let options = EncodeOptions {
                    matrix: Some(matrix),
                    full_range,
                    pixel_format,
                    crf: 1,
                    ..EncodeOptions::default()
                };
                let mut writer = VideoWriter::create(&path, 64, 48, &options).unwrap();
                COLORS.iter().for_each(|color| writer.write(&flat(*color, 64, 48)).unwrap());
                writer.finish().unwrap();
                for (frame, color) in read_all(&path).iter().zip(COLORS) {
                    let worst = worst_difference(&frame.rgb, color);
                    assert!(worst <= 4, "{options:?} {color:?}: {:?}", &frame.rgb[..3]);
                }
            }
        }
    }
}

#[test]
fn files_without_colour_tags_are_bt601_when_small_and_bt709_from_720_lines() {
    let folder = tempfile::tempdir().unwrap();
    for (size, matrix, other) in [("320x240", "bt601", "bt709"), ("1280x720", "bt709", "bt601")] {
        for (stored, is_right) in [(matrix, true), (other, false)] {
            let path = folder.path().join(format!("{size}-{stored}.mp4"));
            let source = format!("color=c=0xfe0000:size={size}:rate=5:duration=1,format=rgb24");
            let filter = format!("scale=out_color_matrix={stored}:out_range=tv,format=yuv420p");
            // Matroska and MP4 take the tags from the encoder: "unspecified" leaves none.
            let arguments =
                ["-y", "-f", "lavfi", "-i", &source, "-vf", &filter, "-colorspace", "2", "-color_range", "0"];
            let arguments = [&arguments[..], &["-c:v", "libx264", "-qp", "1", text(&path)]].concat();
            if run("ffmpeg", &arguments).is_none() {
                return;
            }
            let frame = read_all(&path).remove(0);
            let worst = worst_difference(&frame.rgb, [254, 0, 0]);
            assert_eq!(worst <= 4, is_right, "{size} {stored}: {:?}", &frame.rgb[..3]);
        }
    }
}
