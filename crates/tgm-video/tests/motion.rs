//! Motion from the codec and from the pixels, on the tubelet grid.

mod common;

use std::path::Path;

use common::{moving_square, run, square, text};
use tgm_video::{
    Clip, CropBox, EncodeOptions, Frame, MotionGrid, ReadOptions, TubeletShape, VideoReader, View,
    block_motion, motion_grid,
};

const WIDTH: u32 = 256;
const HEIGHT: u32 = 128;
const SHAPE: TubeletShape = TubeletShape { frames: 2, patch: 16 };

fn whole(size: u32) -> View {
    View { crop: CropBox { x: 0, y: 0, width: HEIGHT, height: HEIGHT }, size, flipped: false }
}

fn read(path: &Path, frames: &[usize]) -> Vec<Frame> {
    let options = ReadOptions { motion_vectors: true, ..ReadOptions::default() };
    VideoReader::open(path, &options).unwrap().read(frames).unwrap()
}

fn encode(folder: &Path, step: (i32, i32), b_frames: u32) -> std::path::PathBuf {
    let path = folder.join(format!("{step:?}-{b_frames}.mp4"));
    let options =
        EncodeOptions { b_frames, gop: 250, x264: "b-adapt=0".to_owned(), ..EncodeOptions::default() };
    moving_square(&path, (WIDTH, HEIGHT), 16, step, &options);
    path
}

/// Mean vectors of the cells that lie inside the 40-pixel square during slot `slot`, and of those far from it, for a square
/// that starts at (16, 24) and moves by `step` pixels per clip frame.
fn inside_and_outside(grid: &MotionGrid, slot: usize, step: (i32, i32)) -> ([f32; 2], [f32; 2]) {
    let (mut inside, mut outside) = (Vec::new(), Vec::new());
    let now = 2 * slot as i32;
    for (cell, vector) in
        grid.vectors[slot * grid.rows * grid.cols..][..grid.rows * grid.cols].iter().enumerate()
    {
        let (x, y) = ((cell % grid.cols * 16) as i32, (cell / grid.cols * 16) as i32);
        let covers = |x: i32, y: i32, square: i32, top: i32| {
            x >= square && x + 16 <= square + 40 && y >= top && y + 16 <= top + 40
        };
        let touches = |at: i32, square: i32| at + 32 > square && at - 32 < square + 40;
        let at = |t: i32| (16 + t * step.0, 24 + t * step.1);
        let ((x0, y0), (x1, y1)) = (at(now), at(now + 1));
        if covers(x, y, x0, y0) && covers(x, y, x1, y1) {
            inside.push(*vector);
        } else if !(touches(x, x0) && touches(y, y0)) {
            outside.push(*vector);
        }
    }
    // Where the encoder chose intra coding, nothing is known.
    let cells = inside.len();
    inside.retain(|vector| *vector != [0.0; 2]);
    assert!(inside.len() * 2 >= cells.max(1), "slot {slot}: {} of {cells} cells known", inside.len());
    let mean =
        |all: &[[f32; 2]]| [0, 1].map(|i| all.iter().map(|v| v[i]).sum::<f32>() / all.len().max(1) as f32);
    assert!(!outside.is_empty());
    (mean(&inside), mean(&outside))
}

fn assert_moves(grid: &MotionGrid, slots: impl Iterator<Item = usize>, step: (i32, i32), expected: [f32; 2]) {
    for slot in slots {
        let (inside, outside) = inside_and_outside(grid, slot, step);
        for i in 0..2 {
            assert!((inside[i] - expected[i]).abs() < 0.12, "slot {slot}: {inside:?}, not {expected:?}");
            assert!(outside[i].abs() < 0.05, "slot {slot}: still parts move {outside:?}");
        }
    }
}

#[test]
fn codec_motion_follows_a_square_with_and_without_b_frames() {
    let folder = tempfile::tempdir().unwrap();
    for step in [(4, 0), (-1, 3), (0, -1)] {
        for b_frames in [0, 1, 3] {
            let frames = read(&encode(folder.path(), step, b_frames), &(0..16).collect::<Vec<_>>());
            assert_eq!(frames[0].motion.as_deref(), Some(&[][..]), "an intra frame has no vectors");
            let grid = motion_grid(&frames, &whole(128), SHAPE).unwrap();
            assert_eq!((grid.slots, grid.rows, grid.cols), (8, 8, 8));
            // Two frames a slot, 16 pixels a cell.
            let expected = [step.0 as f32 / 8.0, step.1 as f32 / 8.0];
            assert_moves(&grid, 1..5, step, expected);
        }
    }
}

#[test]
fn crop_resize_and_flip_take_the_motion_along() {
    let folder = tempfile::tempdir().unwrap();
    let frames = read(&encode(folder.path(), (4, 0), 2), &(0..16).collect::<Vec<_>>());
    let full = View { crop: CropBox { x: 0, y: 0, width: WIDTH, height: HEIGHT }, size: 256, flipped: false };
    let plain = motion_grid(&frames, &full, SHAPE).unwrap();
    let flipped = motion_grid(&frames, &View { flipped: true, ..full }, SHAPE).unwrap();
    for row in 0..8 * 16 {
        for col in 0..16 {
            let ([dx, dy], [fx, fy]) = (plain.vectors[row * 16 + col], flipped.vectors[row * 16 + 15 - col]);
            assert!((dx + fx).abs() < 1e-5 && (dy - fy).abs() < 1e-5);
        }
    }
    // Half of the height at twice the scale: twice the cells per slot, and the crop's origin is the grid's.
    let part = View { crop: CropBox { x: 32, y: 16, width: 64, height: 64 }, size: 128, flipped: false };
    let grid = motion_grid(&frames, &part, SHAPE).unwrap();
    // In slot 2 the square covers x 32..72 then 36..76, y 24..64: clip columns 0..88 and rows 16..96.
    for (row, col) in [(2, 1), (3, 2), (4, 3)] {
        let [dx, dy] = grid.vectors[(2 * 8 + row) * 8 + col];
        assert!((dx - 1.0).abs() < 0.2 && dy.abs() < 0.1, "({row}, {col}): {dx} {dy}");
    }
    assert!(grid.vectors[(2 * 8 + 3) * 8 + 7][0].abs() < 0.1);
}

#[test]
fn slots_count_source_frames_and_repeated_frames_stand_still() {
    let folder = tempfile::tempdir().unwrap();
    let path = encode(folder.path(), (2, 0), 0);
    let strided = motion_grid(&read(&path, &[1, 3, 5, 7]), &whole(128), SHAPE).unwrap();
    let dense = motion_grid(&read(&path, &[1, 2, 3, 4]), &whole(128), SHAPE).unwrap();
    // At frame 1 the square covers x 18..58, y 24..64: cell (2, 2) lies inside.
    assert!((dense.vectors[2 * 8 + 2][0] - 0.25).abs() < 0.05);
    assert!((strided.vectors[2 * 8 + 2][0] - 0.5).abs() < 0.1);
    let padded = motion_grid(&read(&path, &[14, 15, 15, 15]), &whole(128), SHAPE).unwrap();
    assert!(padded.vectors[64..].iter().all(|v| *v == [0.0; 2]));
    assert!(padded.vectors[..64].iter().any(|v| v[0] > 0.1));
}

#[test]
fn older_codecs_have_motion_and_vp9_has_none() {
    let folder = tempfile::tempdir().unwrap();
    let source = encode(folder.path(), (4, 0), 0);
    // The slots that hold a frame with vectors: in MPEG-4 with two B-frames, frames 3, 6, 9.
    let cases: [(&str, &str, &str, &[usize]); 4] = [
        ("p.avi", "mpeg4", "0", &[1, 2, 3, 4]),
        ("b.avi", "mpeg4", "2", &[1, 3, 4]),
        ("b.mp4", "mpeg4", "2", &[1, 3, 4]),
        ("b.mpg", "mpeg1video", "2", &[1, 2, 3, 4]),
    ];
    for (name, codec, b_frames, slots) in cases {
        let path = folder.path().join(name);
        let arguments = [
            "-y",
            "-i",
            text(&source),
            "-c:v",
            codec,
            "-bf",
            b_frames,
            "-q:v",
            "2",
            "-g",
            "100",
            text(&path),
        ];
        if run("ffmpeg", &arguments).is_none() {
            return;
        }
        let frames = read(&path, &(0..16).collect::<Vec<_>>());
        let grid = motion_grid(&frames, &whole(128), SHAPE).unwrap();
        assert_moves(&grid, slots.iter().copied(), (4, 0), [0.5, 0.0]);
        assert_eq!(grid.vectors[2 * 64..3 * 64].iter().all(|v| *v == [0.0; 2]), !slots.contains(&2));
    }
    let webm = folder.path().join("a.webm");
    if run("ffmpeg", &["-y", "-i", text(&source), "-c:v", "libvpx-vp9", "-cpu-used", "8", text(&webm)])
        .is_some()
    {
        assert!(read(&webm, &[3])[0].motion.is_none());
        assert!(!tgm_video::probe(&webm, &ReadOptions::default()).unwrap().has_codec_motion);
    }
}

#[test]
fn rotated_files_have_rotated_motion() {
    let folder = tempfile::tempdir().unwrap();
    let source = encode(folder.path(), (4, 0), 0);
    let path = folder.path().join("rotated.mp4");
    if run("ffmpeg", &["-y", "-i", text(&source), "-c", "copy", "-metadata:s:v", "rotate=90", text(&path)])
        .is_none()
    {
        return;
    }
    let frames = read(&path, &[4, 5]);
    assert_eq!((frames[0].width, frames[0].height), (HEIGHT, WIDTH));
    // The displacement must point where the bright square went.
    let centre = |frame: &Frame| {
        let bright = |i: &usize| frame.rgb[i * 3] > 150;
        let all: Vec<usize> = (0..frame.rgb.len() / 3).filter(bright).collect();
        let width = frame.width as usize;
        let mean =
            |f: &dyn Fn(usize) -> usize| all.iter().map(|i| f(*i)).sum::<usize>() as f32 / all.len() as f32;
        (mean(&|i| i % width), mean(&|i| i / width))
    };
    let (from, to) = (centre(&frames[0]), centre(&frames[1]));
    let fast = |v: &&tgm_video::MotionVector| v.dx.abs() + v.dy.abs() > 2.0;
    let moving: Vec<_> = frames[1].motion.iter().flatten().filter(fast).collect();
    assert!(moving.len() >= 4);
    for vector in moving {
        assert!((vector.dx - (to.0 - from.0)).abs() < 1.5 && (vector.dy - (to.1 - from.1)).abs() < 1.5);
        assert!((vector.x - to.0).abs() <= 32.0 && (vector.y - to.1).abs() <= 32.0, "{vector:?} {to:?}");
    }
}

fn rendered(step: (i32, i32)) -> Clip {
    let data = (0..16).flat_map(|t| square(128, 128, 16 + t * step.0, 24 + t * step.1, 40)).collect();
    Clip::new(data, 128, 128, (0..16).map(f64::from).collect()).unwrap()
}

#[test]
fn block_motion_follows_a_square_and_flips_with_the_clip() {
    for step in [(4, 0), (-1, 3), (0, -1)] {
        let grid = block_motion(&rendered(step), SHAPE, 8).unwrap();
        assert_moves(&grid, 0..5, step, [step.0 as f32 / 8.0, step.1 as f32 / 8.0]);
    }
    let plain = block_motion(&rendered((4, 0)), SHAPE, 8).unwrap();
    let mut mirrored = rendered((4, 0));
    mirrored.flip_horizontal();
    let flipped = block_motion(&mirrored, SHAPE, 8).unwrap();
    let cells = (1..7).flat_map(|slot| [(slot * 8 + 2, slot + 1), (slot * 8 + 3, slot + 1)]);
    let agree = cells.filter(|&(row, col)| {
        col < 8 && plain.vectors[row * 8 + col][0] == -flipped.vectors[row * 8 + 7 - col][0]
    });
    assert!(agree.count() >= 8);
}

#[test]
fn block_motion_of_noise_and_flat_pictures_is_zero() {
    let still = Clip::new(square(64, 64, 8, 8, 20).repeat(4), 64, 64, vec![0.0; 4]).unwrap();
    let flat = Clip::new(vec![77; 4 * 64 * 64 * 3], 64, 64, vec![0.0; 4]).unwrap();
    let shake = |i: usize, v: u8| v.saturating_add((i * 7919 % 3) as u8);
    let noisy = still.data().iter().enumerate().map(|(i, v)| shake(i, *v)).collect();
    let noisy = Clip::new(noisy, 64, 64, vec![0.0; 4]).unwrap();
    for clip in [still, flat, noisy] {
        for patch in [4, 8, 16] {
            let grid = block_motion(&clip, TubeletShape { frames: 2, patch }, 6).unwrap();
            assert!(grid.vectors.iter().all(|v| *v == [0.0; 2]), "patch {patch}");
        }
    }
}

/// 40,000 asked for 51 GB of displacements, and 2³² was taken for 0.
#[test]
fn block_motion_refuses_a_radius_that_leaves_the_frame_from_everywhere() {
    let clip = rendered((1, 0));
    assert!(block_motion(&clip, SHAPE, 0).is_ok());
    for radius in [128, 40_000, 1 << 32] {
        let error = block_motion(&clip, SHAPE, radius).unwrap_err().to_string();
        assert!(error.contains(&format!("{radius}, but it must be below the frame's 128 pixels")), "{error}");
    }
}

#[test]
fn views_that_tubelets_do_not_tile_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let frames = read(&encode(folder.path(), (4, 0), 0), &[0, 1, 2]);
    assert!(motion_grid(&frames, &whole(128), SHAPE).is_err());
    assert!(motion_grid(&frames[..2], &whole(120), SHAPE).is_err());
    assert!(motion_grid(&[], &whole(128), SHAPE).is_err());
    assert!(block_motion(&rendered((1, 0)), TubeletShape { frames: 3, patch: 16 }, 4).is_err());
}
