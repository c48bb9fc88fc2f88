//! Any frame, byte for byte, whatever the file: against reading in order, and against the `ffmpeg` program.

mod common;

use std::path::{Path, PathBuf};

use common::packed::{EMPTY_PICTURE, avi_chunks, pack_b_frames, pair_before, with_avi_chunks};
use common::{assert_times_are_ffprobes, moving_square, read_all, run, square, text};
use proptest::prelude::*;
use rand::RngExt;
use tgm_random::Streams;
use tgm_video::{
    Clip, CropBox, EncodeOptions, Frame, PixelFormat, ReadOptions, Rotation, VideoFile, VideoReader,
    VideoWriter, View,
};

const SIZE: (u32, u32) = (128, 96);

fn source(folder: &Path, options: &EncodeOptions) -> PathBuf {
    let path = folder.join("source.mp4");
    moving_square(&path, SIZE, 60, (1, 0), options);
    path
}

/// Reads frames one by one and in batches, in orders drawn from a seed, and compares with reading in order.
fn assert_random_access_is_exact(path: &Path) -> Vec<Frame> {
    let sequential = read_all(path);
    let count = sequential.len();
    let mut reader = VideoReader::open(path, &ReadOptions::default()).unwrap();
    let rng = &mut Streams::new(5).stream("order", 0, 0);
    for size in [1, 1, 1, 1, 1, 2, 3, 5, 8, 1, 16, 1, 1] {
        let asked: Vec<usize> = (0..size).map(|_| rng.random_range(0..count)).collect();
        for (frame, &number) in reader.read(&asked).unwrap().iter().zip(&asked) {
            assert!(*frame == sequential[number], "{}: frame {number} of {asked:?} differs", path.display());
        }
    }
    assert_eq!(reader.decode_errors(), 0);
    assert_sparse_frames_and_views_are_exact(path, &sequential);
    sequential
}

/// Frames with gaps between them, as clips have them, at every stride, from a reader with a scan of its own and from one with a
/// stored index; and views of them, made without whole frames.
fn assert_sparse_frames_and_views_are_exact(path: &Path, sequential: &[Frame]) {
    let options = ReadOptions::default();
    let mut reader = VideoReader::open(path, &options).unwrap();
    let mut indexed = VideoReader::open_with_index(path, reader.index().clone(), &options).unwrap();
    let (width, height) = (sequential[0].width, sequential[0].height);
    let crop = CropBox { x: 3, y: 1, width: width - 10, height: height - 7 };
    let views = [
        View { crop, size: 40, flipped: true },
        View { crop: CropBox::whole(width, height), size: 32, flipped: false },
    ];
    for stride in [2, 3, 4, 7, 19, 29] {
        for start in 0..stride.min(4) {
            let asked: Vec<usize> = (start..sequential.len()).step_by(stride).collect();
            let expected: Vec<Frame> = asked.iter().map(|number| sequential[*number].clone()).collect();
            for reader in [&mut reader, &mut indexed] {
                let name = format!("{}: {asked:?}", path.display());
                assert!(reader.read(&asked).unwrap() == expected, "{name}");
                let viewed = reader.read_views(&asked, &views).unwrap();
                for (view, clip) in views.iter().zip(viewed.clips) {
                    assert!(clip == Clip::from_frames(&expected, view).unwrap(), "{name} {view:?}");
                }
                let plain = expected.iter().map(|frame| Frame { rgb: Vec::new(), ..frame.clone() });
                assert!(plain.eq(viewed.frames), "{name}");
            }
        }
    }
    assert_eq!((reader.decode_errors(), indexed.decode_errors()), (0, 0), "{}", path.display());
}

/// The `ffmpeg` program's RGB bytes, converted the way the crate documents.
fn assert_bytes_are_ffmpegs(path: &Path, frames: &[Frame]) {
    let filter = "scale=in_color_matrix=auto:flags=bilinear+accurate_rnd+full_chroma_int+bitexact";
    let arguments = ["-i", text(path), "-map", "0:v:0", "-fps_mode", "passthrough", "-vf", filter];
    let arguments = [&arguments[..], &["-pix_fmt", "rgb24", "-f", "rawvideo", "-"]].concat();
    let Some(expected) = run("ffmpeg", &arguments) else { return };
    let ours: Vec<u8> = frames.iter().flat_map(|frame| frame.rgb.iter().copied()).collect();
    assert_eq!(ours.len(), expected.len(), "{}: bytes in all", path.display());
    let different = ours.iter().zip(&expected).filter(|(a, b)| a != b).count();
    assert_eq!(different, 0, "{}: bytes that differ", path.display());
    let probe = tgm_video::probe(path, &ReadOptions::default()).unwrap();
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let facts = (frames.len(), probe.codec, probe.pixel_format);
    eprintln!(
        "{name:<36} {:>3} frames, {:<10} {:<12} one by one, sparse, views, ffmpeg's bytes: all equal",
        facts.0, facts.1, facts.2
    );
}

fn x264(parameters: &str, gop: u32, b_frames: u32) -> EncodeOptions {
    EncodeOptions { x264: parameters.to_owned(), gop, b_frames, ..EncodeOptions::default() }
}

#[test]
fn h264_with_every_kind_of_key_frame_and_reference() {
    let folder = tempfile::tempdir().unwrap();
    let cases = [
        ("one key frame", x264("", 250, 3)),
        ("closed groups", x264("", 12, 2)),
        ("no b-frames", x264("", 10, 0)),
        ("intra only", x264("", 1, 0)),
        ("open groups", x264("open-gop=1:keyint=12:min-keyint=1", 12, 3)),
        ("pyramid, many references", x264("b-pyramid=normal:ref=6:b-adapt=0", 30, 8)),
        ("gradual refresh without key frames", x264("intra-refresh=1:keyint=20", 20, 0)),
        ("several slices", x264("slices=4", 15, 2)),
        ("interlaced", x264("tff=1", 15, 2)),
        ("lossless 4:4:4", EncodeOptions { pixel_format: PixelFormat::Yuv444p, crf: 0, ..x264("", 9, 2) }),
        ("full range", EncodeOptions { full_range: true, ..x264("", 9, 2) }),
    ];
    for (name, options) in cases {
        for extension in ["mp4", "mkv", "ts", "avi", "mov"] {
            let path = folder.path().join(format!("{name}.{extension}"));
            moving_square(&path, SIZE, 60, (1, 0), &options);
            let frames = assert_random_access_is_exact(&path);
            assert_eq!(frames.len(), 60, "{}", path.display());
            if extension == "mp4" {
                assert_bytes_are_ffmpegs(&path, &frames);
            }
        }
    }
}

#[test]
fn other_codecs_and_containers() {
    let folder = tempfile::tempdir().unwrap();
    let source = source(folder.path(), &x264("", 250, 0));
    let cases: &[(&str, &[&str])] = &[
        ("mpeg4.avi", &["-c:v", "mpeg4", "-bf", "2", "-g", "12"]),
        ("xvid-like.avi", &["-c:v", "mpeg4", "-bf", "0", "-g", "12", "-vtag", "XVID"]),
        (
            "mpeg4-sound.avi",
            &["-f", "lavfi", "-i", "sine=duration=3", "-c:v", "mpeg4", "-bf", "2", "-g", "9"],
        ),
        ("h264.avi", &["-c:v", "libx264", "-bf", "3", "-g", "9"]),
        ("h264-sound.avi", &["-f", "lavfi", "-i", "sine=duration=3", "-c:v", "libx264", "-g", "250"]),
        ("intra.avi", &["-c:v", "mjpeg", "-q:v", "3"]),
        ("mpeg2.avi", &["-c:v", "mpeg2video", "-bf", "2", "-g", "12"]),
        ("divx3.avi", &["-c:v", "msmpeg4v3", "-g", "12"]),
        ("mpeg4.mp4", &["-c:v", "mpeg4", "-bf", "2", "-g", "12", "-flags", "+qpel"]),
        ("mpeg1.mpg", &["-c:v", "mpeg1video", "-bf", "2", "-g", "12"]),
        ("mpeg2.ts", &["-c:v", "mpeg2video", "-bf", "2", "-g", "12"]),
        ("mpeg2.mkv", &["-c:v", "mpeg2video", "-bf", "2", "-g", "12"]),
        ("vp9.webm", &["-c:v", "libvpx-vp9", "-g", "20", "-deadline", "realtime", "-cpu-used", "8"]),
        (
            "vp9-altref.webm",
            &[
                "-c:v",
                "libvpx-vp9",
                "-g",
                "30",
                "-auto-alt-ref",
                "1",
                "-lag-in-frames",
                "16",
                "-cpu-used",
                "5",
            ],
        ),
        (
            "vp8-altref.webm",
            &["-c:v", "libvpx", "-g", "30", "-auto-alt-ref", "1", "-lag-in-frames", "16", "-cpu-used", "5"],
        ),
        (
            "hevc.mp4",
            &[
                "-c:v",
                "libx265",
                "-x265-params",
                "keyint=15:open-gop=1:log-level=none",
                "-preset",
                "ultrafast",
            ],
        ),
        (
            "hevc-10.mkv",
            &[
                "-c:v",
                "libx265",
                "-x265-params",
                "keyint=15:log-level=none",
                "-pix_fmt",
                "yuv420p10le",
                "-preset",
                "ultrafast",
            ],
        ),
        ("h264-10.mp4", &["-c:v", "libx264", "-pix_fmt", "yuv422p10le", "-g", "15"]),
        ("motion.mov", &["-c:v", "mjpeg", "-q:v", "3"]),
        ("ffv1.mkv", &["-c:v", "ffv1", "-g", "10"]),
        ("picture.gif", &["-vf", "fps=25"]),
        ("flash.flv", &["-c:v", "flv1", "-g", "12"]),
        ("raw.h264", &["-c:v", "libx264", "-bf", "2", "-g", "15"]),
        ("av1.mkv", &["-c:v", "libaom-av1", "-g", "20", "-cpu-used", "8", "-usage", "realtime"]),
        ("av1-hidden.mp4", &["-c:v", "libaom-av1", "-g", "30", "-cpu-used", "8", "-lag-in-frames", "16"]),
        ("hevc-444.mp4", &["-c:v", "libx265", "-x265-params", "log-level=none", "-pix_fmt", "yuv444p"]),
        // The second one is there to be passed over.
        (
            "two-streams.mkv",
            &[
                "-map", "0:v", "-map", "0:v", "-c:v", "libx264", "-crf:v:0", "1", "-crf:v:1", "51", "-s:v:1",
                "32x24",
            ],
        ),
        ("h263.3gp", &["-c:v", "h263", "-g", "12"]),
        ("wmv.asf", &["-c:v", "wmv2", "-g", "12"]),
    ];
    for (name, codec) in cases {
        let path = folder.path().join(name);
        let arguments = [&["-y", "-i", text(&source)], *codec, &["-threads", "1", text(&path)]].concat();
        if run("ffmpeg", &arguments).is_none() {
            continue;
        }
        let frames = assert_random_access_is_exact(&path);
        assert_eq!(frames.len(), 60, "{name}");
        assert!(frames.windows(2).all(|pair| pair[0].pts < pair[1].pts), "{name}");
        assert_bytes_are_ffmpegs(&path, &frames);
    }
}

/// FFmpeg weighs the frames that it read of each stream to learn about it; the header alone has read none.
#[test]
fn an_index_is_read_with_the_stream_that_it_was_made_of() {
    let folder = tempfile::tempdir().unwrap();
    let source = source(folder.path(), &x264("", 250, 0));
    let path = folder.path().join("two.mkv");
    // The first one has a frame a second.
    let streams = ["-map", "0:v", "-map", "0:v", "-r:v:0", "1", "-disposition:v", "0"];
    let codec = ["-c:v", "mpeg4", "-b:v", "200k", "-threads", "1"];
    let arguments = [&["-y", "-i", text(&source)], &streams[..], &codec, &[text(&path)]].concat();
    if run("ffmpeg", &arguments).is_none() {
        return;
    }
    assert_eq!(tgm_video::probe(&path, &ReadOptions::default()).unwrap().stream, 1);
    assert_eq!(assert_random_access_is_exact(&path).len(), 60);
}

/// AVI files do not say when their frames are shown; once that is known, they are read from key frames like others.
#[test]
fn avi_files_are_entered_at_their_key_frames() {
    let folder = tempfile::tempdir().unwrap();
    let source = source(folder.path(), &x264("", 250, 0));
    // With the least number of places where decoding can begin.
    let cases: [(&str, &[&str], usize); 6] = [
        ("mpeg4.avi", &["-c:v", "mpeg4", "-bf", "2", "-g", "12"], 5),
        ("xvid.avi", &["-c:v", "mpeg4", "-bf", "0", "-g", "12", "-vtag", "XVID"], 5),
        ("h264.avi", &["-c:v", "libx264", "-bf", "2", "-g", "12", "-sc_threshold", "0"], 5),
        ("h264-one.avi", &["-c:v", "libx264"], 1),
        ("intra.avi", &["-c:v", "mjpeg"], 60),
        ("fields.avi", &["-c:v", "mpeg4", "-flags", "+ildct+ilme", "-top", "1", "-g", "12"], 1),
    ];
    for (name, codec, keys) in cases {
        let path = folder.path().join(name);
        let arguments = [&["-y", "-i", text(&source)], codec, &["-threads", "1", text(&path)]].concat();
        if run("ffmpeg", &arguments).is_none() {
            continue;
        }
        let frames = assert_random_access_is_exact(&path);
        assert_bytes_are_ffmpegs(&path, &frames);
        let reader = VideoReader::open(&path, &ReadOptions::default()).unwrap();
        let found = (0..60).filter(|frame| reader.index().is_key(*frame)).count();
        assert!(found >= keys, "{name}: {found}");
        assert_times_are_ffprobes(&path, reader.index());
        let stored = tgm_video::FrameIndex::from_bytes(&reader.index().to_bytes()).unwrap();
        assert_eq!(&stored, reader.index(), "{name}");
    }
}

/// With fields and B-frames, FFmpeg's MPEG-4 decoder gives a little else after a seek, and even with another number of threads.
#[test]
fn mpeg4_in_fields_is_read_from_the_beginning() {
    let folder = tempfile::tempdir().unwrap();
    let source = source(folder.path(), &x264("", 250, 0));
    for name in ["fields.avi", "fields.mp4", "fields.mkv"] {
        let path = folder.path().join(name);
        let codec = ["-c:v", "mpeg4", "-flags", "+ildct+ilme", "-top", "1", "-bf", "2", "-g", "12"];
        let arguments = [&["-y", "-i", text(&source)], &codec[..], &["-threads", "1", text(&path)]].concat();
        if run("ffmpeg", &arguments).is_none() {
            continue;
        }
        assert_random_access_is_exact(&path);
        let reader = VideoReader::open(&path, &ReadOptions::default()).unwrap();
        assert_eq!((0..60).filter(|frame| reader.index().is_key(*frame)).count(), 1, "{name}");
    }
}

/// DivX and XviD put a B-frame into the packet of the frame decoded before it, and an empty picture in its place.
#[test]
fn packed_b_frames_are_taken_apart() {
    let folder = tempfile::tempdir().unwrap();
    let source = source(folder.path(), &x264("", 250, 0));
    // B-frames at most in a row, the least number of places where decoding can begin, and whether the file ends in the middle.
    for (b_frames, gop, keys, cut) in
        [("1", "12", 5, false), ("2", "12", 5, false), ("2", "300", 1, false), ("2", "12", 3, true)]
    {
        let (plain, packed) = (folder.path().join("plain.avi"), folder.path().join("packed.avi"));
        let codec = ["-c:v", "mpeg4", "-bf", b_frames, "-g", gop, "-sc_threshold", "1000000000"];
        let arguments = [&["-y", "-i", text(&source)], &codec[..], &["-threads", "1", text(&plain)]].concat();
        if run("ffmpeg", &arguments).is_none() {
            return;
        }
        let mut bytes = pack_b_frames(&std::fs::read(&plain).unwrap());
        if cut {
            // As clips are cut out of films: the last packet has a B-frame that no packet follows.
            let mut chunks = avi_chunks(&bytes);
            chunks.truncate(pair_before(&chunks, 40) + 1);
            bytes = with_avi_chunks(&bytes, &chunks);
        }
        std::fs::write(&packed, bytes).unwrap();
        let frames = assert_random_access_is_exact(&packed);
        let pixels = |frames: &[Frame]| frames.iter().map(|frame| frame.rgb.clone()).collect::<Vec<_>>();
        if !cut {
            assert!(pixels(&frames) == pixels(&read_all(&plain)), "packing changes no frame");
        }
        assert_bytes_are_ffmpegs(&packed, &frames);
        let reader = VideoReader::open(&packed, &ReadOptions::default()).unwrap();
        let found = (0..frames.len()).filter(|frame| reader.index().is_key(*frame)).count();
        assert!(found >= keys, "{b_frames} B-frames, groups of {gop}: {found}");
        assert_times_are_ffprobes(&packed, reader.index());
        let stored = tgm_video::FrameIndex::from_bytes(&reader.index().to_bytes()).unwrap();
        assert_eq!(&stored, reader.index());
    }
}

/// In any other order FFmpeg shows other frames than its filter gives packets to: then nothing is taken apart.
#[test]
fn b_frames_packed_in_an_odd_way_are_read_as_ffmpeg_does() {
    let folder = tempfile::tempdir().unwrap();
    let source = source(folder.path(), &x264("", 250, 0));
    let (plain, packed) = (folder.path().join("plain.avi"), folder.path().join("packed.avi"));
    let codec = ["-c:v", "mpeg4", "-bf", "2", "-g", "12", "-threads", "1"];
    if run("ffmpeg", &[&["-i", text(&source)], &codec[..], &[text(&plain)]].concat()).is_none() {
        return;
    }
    let bytes = pack_b_frames(&std::fs::read(&plain).unwrap());
    let chunks = avi_chunks(&bytes);
    let empty = chunks.iter().position(|chunk| chunk.len() == EMPTY_PICTURE.len()).unwrap();
    let pair = pair_before(&chunks, 40);
    let unmarked = |chunk: &Vec<u8>| {
        let at = chunk.windows(5).position(|w| w == b"1393p");
        at.map_or(chunk.clone(), |at| [&chunk[..at + 4], &chunk[at + 5..]].concat())
    };
    let cases = [
        ("an empty picture is missing", [&chunks[..empty], &chunks[empty + 1..]].concat()),
        ("a frame in place of the empty picture", [&chunks[..=pair], &chunks[..1]].concat()),
        ("an empty picture too many", [&chunks[..=empty], &chunks[empty..]].concat()),
        ("no mark", chunks.iter().map(unmarked).collect()),
    ];
    for (name, chunks) in cases {
        std::fs::write(&packed, with_avi_chunks(&bytes, &chunks)).unwrap();
        let frames = read_all(&packed);
        eprintln!("{name}: {} packets, {} frames", chunks.len(), frames.len());
        assert_bytes_are_ffmpegs(&packed, &frames);
        let asked: Vec<usize> = (1..frames.len()).step_by(4).collect();
        let mut reader = VideoReader::open(&packed, &ReadOptions::default()).unwrap();
        let sparse = reader.read(&asked).unwrap();
        assert!(sparse.iter().zip(&asked).all(|(frame, number)| *frame == frames[*number]), "{name}");
    }
}

#[test]
fn cut_files_and_negative_times_show_what_a_player_shows() {
    let folder = tempfile::tempdir().unwrap();
    let source = source(folder.path(), &x264("", 20, 2));
    let cases: &[(&str, &[&str], &[&str])] = &[
        // Starts between key frames: an edit list hides the frames before.
        ("edit-list.mp4", &["-ss", "1.03"], &["-c", "copy"]),
        ("edit-list.mov", &["-ss", "0.5", "-t", "1"], &["-c", "copy"]),
        ("negative.mkv", &["-itsoffset", "-1"], &["-c", "copy", "-avoid_negative_ts", "disabled"]),
        ("late.mkv", &["-itsoffset", "7"], &["-c", "copy"]),
        ("late.ts", &["-itsoffset", "7"], &["-c", "copy"]),
        ("fragments.mp4", &[], &["-c", "copy", "-movflags", "frag_keyframe+empty_moov"]),
    ];
    for (name, before, after) in cases {
        let path = folder.path().join(name);
        let arguments = [&["-y"], *before, &["-i", text(&source)], *after, &[text(&path)]].concat();
        if run("ffmpeg", &arguments).is_none() {
            continue;
        }
        let frames = assert_random_access_is_exact(&path);
        assert_bytes_are_ffmpegs(&path, &frames);
        assert_eq!(frames[0].seconds, 0.0, "{name}");
        let reader = VideoReader::open(&path, &ReadOptions::default()).unwrap();
        assert_times_are_ffprobes(&path, reader.index());
        if name.starts_with("negative") {
            assert_eq!(frames[0].pts, -1000);
        }
    }
}

#[test]
fn a_part_of_a_file_reads_like_a_file_of_its_own() {
    let folder = tempfile::tempdir().unwrap();
    let source = source(folder.path(), &x264("", 20, 2));
    let encoders: [(&str, &[&str]); 7] = [
        ("a.mp4", &["-c", "copy"]),
        ("a.mkv", &["-c", "copy"]),
        ("a.ts", &["-c", "copy"]),
        ("fragments.mp4", &["-c", "copy", "-movflags", "frag_keyframe+empty_moov"]),
        ("a.avi", &["-c:v", "mpeg4", "-bf", "2"]),
        ("a.mpg", &["-c:v", "mpeg1video", "-bf", "2"]),
        ("a.gif", &["-vf", "fps=25"]),
    ];
    let (mut archive, mut parts) = (vec![0x47; 1000], Vec::new());
    for (name, encoder) in encoders {
        let path = folder.path().join(name);
        let arguments = [&["-y", "-i", text(&source)], encoder, &["-threads", "1", text(&path)]].concat();
        if run("ffmpeg", &arguments).is_none() {
            return;
        }
        let start = archive.len() as u64;
        archive.extend(std::fs::read(&path).unwrap());
        parts.push((path, start..archive.len() as u64));
        // What follows looks like another video.
        archive.extend(std::fs::read(&source).unwrap());
    }
    let all = folder.path().join("all: of, them");
    std::fs::write(&all, archive).unwrap();
    let options = ReadOptions { motion_vectors: true, ..ReadOptions::default() };
    for (path, range) in parts {
        let part = VideoFile::part(&all, range, "inside");
        let mut alone = VideoReader::open(&path, &options).unwrap();
        let mut inside = VideoReader::open(&part, &options).unwrap();
        assert_eq!((inside.index(), inside.probe()), (alone.index(), alone.probe()), "{}", path.display());
        let count = alone.index().len();
        for numbers in [vec![31], vec![2, 50, 7], (0..count).collect(), (5..count).step_by(4).collect()] {
            let (ours, expected) = (inside.read(&numbers).unwrap(), alone.read(&numbers).unwrap());
            assert!(ours == expected, "{}: {numbers:?}", path.display());
        }
        let mut known = VideoReader::open_with_index(&part, alone.index().clone(), &options).unwrap();
        assert!(known.read(&[40, 41]).unwrap() == alone.read(&[40, 41]).unwrap(), "{}", path.display());
    }
}

#[test]
fn rotated_and_mirrored_files_are_upright() {
    let folder = tempfile::tempdir().unwrap();
    // Full colour resolution, so that it does not matter whether colours are converted before or after turning.
    let options = EncodeOptions { pixel_format: PixelFormat::Yuv444p, ..x264("", 20, 2) };
    let source = source(folder.path(), &options);
    let mut seen = Vec::new();
    for degrees in ["90", "180", "270"] {
        let path = folder.path().join(format!("{degrees}.mp4"));
        let tag = format!("rotate={degrees}");
        if run("ffmpeg", &["-y", "-i", text(&source), "-c", "copy", "-metadata:s:v", &tag, text(&path)])
            .is_none()
        {
            return;
        }
        let frames = assert_random_access_is_exact(&path);
        let probed = tgm_video::probe(&path, &ReadOptions::default()).unwrap();
        assert_eq!((probed.width, probed.height), (frames[3].width, frames[3].height));
        assert_eq!(probed.width == SIZE.1, degrees != "180");
        // Without `-noautorotate`, ffmpeg turns the frames upright before it converts them.
        assert_bytes_are_ffmpegs(&path, &frames);
        seen.push(probed.rotation);
    }
    assert!(
        [Rotation::Clockwise90, Rotation::Clockwise180, Rotation::Clockwise270]
            .iter()
            .all(|r| seen.contains(r))
    );
}

#[test]
fn variable_frame_rates_keep_their_times() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("vfr.mp4");
    let mut writer = VideoWriter::create(&path, 64, 64, &x264("", 8, 2)).unwrap();
    let times = [0.0, 1.0, 1.5, 4.0, 4.25, 9.0, 10.0, 10.5, 20.0];
    for (i, time) in times.iter().enumerate() {
        writer.write_at(&square(64, 64, 2 * i as i32, 8, 20), *time).unwrap();
    }
    assert!(writer.write_at(&square(64, 64, 0, 0, 20), 20.0).is_err());
    writer.finish().unwrap();
    let frames = assert_random_access_is_exact(&path);
    for (frame, time) in frames.iter().zip(times) {
        assert!((frame.seconds - time / 25.0).abs() < 1e-4, "{} {time}", frame.seconds);
    }
    let reader = VideoReader::open(&path, &ReadOptions::default()).unwrap();
    let index = reader.index();
    assert_eq!(index.frame_at(4.1 / 25.0), 3);
    assert_eq!(index.frame_at(-5.0), 0);
    assert_eq!(index.frame_at(99.0), 8);
    assert_eq!(index.range(1.5 / 25.0, 9.0 / 25.0), 2..5);
    assert_eq!(index.range(5.0 / 25.0, 5.1 / 25.0), 4..5);
    assert_eq!(index.range(50.0, 60.0), 8..9);
}

#[test]
fn a_stored_index_reads_the_same_frames() {
    let folder = tempfile::tempdir().unwrap();
    let path = source(folder.path(), &x264("", 12, 2));
    let mut reader = VideoReader::open(&path, &ReadOptions::default()).unwrap();
    let stored = serde_json::from_str(&serde_json::to_string(reader.index()).unwrap()).unwrap();
    let mut again = VideoReader::open_with_index(&path, stored, &ReadOptions::default()).unwrap();
    assert_eq!(again.read(&[31, 7]).unwrap(), reader.read(&[31, 7]).unwrap());
}

#[test]
fn the_encoder_is_deterministic_and_lossless_when_asked() {
    let folder = tempfile::tempdir().unwrap();
    let (a, b) = (folder.path().join("a.mp4"), folder.path().join("b.mp4"));
    for path in [&a, &b] {
        moving_square(path, SIZE, 20, (2, 1), &EncodeOptions::default());
    }
    assert_eq!(std::fs::read(&a).unwrap(), std::fs::read(&b).unwrap());
    let lossless = EncodeOptions { crf: 0, pixel_format: PixelFormat::Yuv444p, ..EncodeOptions::default() };
    moving_square(&a, SIZE, 20, (2, 1), &lossless);
    for (i, frame) in read_all(&a).iter().enumerate() {
        let original = square(SIZE.0, SIZE.1, 16 + 2 * i as i32, 24 + i as i32, 40);
        // What remains is the rounding of 8-bit YUV.
        let worst = frame.rgb.iter().zip(&original).map(|(a, b)| a.abs_diff(*b)).max();
        assert!(worst <= Some(3), "{worst:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, ..ProptestConfig::default() })]

    #[test]
    fn any_gop_any_frames(gop in 1..30u32, b_frames in 0..5u32, open: bool, asked in prop::collection::vec(0..40usize, 1..12)) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.mp4");
        let options = x264(if open { "open-gop=1:min-keyint=1" } else { "min-keyint=1" }, gop, b_frames);
        moving_square(&path, (64, 80), 40, (1, 0), &options);
        let sequential = read_all(&path);
        let mut reader = VideoReader::open(&path, &ReadOptions::default()).unwrap();
        for (frame, number) in reader.read(&asked).unwrap().iter().zip(asked) {
            prop_assert!(*frame == sequential[number]);
        }
    }
}

#[test]
fn frames_come_in_the_order_asked_and_each_is_mapped_once() {
    let folder = tempfile::tempdir().unwrap();
    let path = source(folder.path(), &x264("", 12, 2));
    let mut reader = VideoReader::open(&path, &ReadOptions::default()).unwrap();
    let asked = [9, 2, 2, 30, 9];
    let numbers: Vec<usize> = reader.read(&asked).unwrap().iter().map(|frame| frame.number).collect();
    assert_eq!(numbers, asked);
    let mut seen = Vec::new();
    let mapped = reader.read_map(&asked, |frame| {
        seen.push(frame.number);
        Ok(frame.number * 10)
    });
    assert_eq!(mapped.unwrap(), asked.map(|number| number * 10));
    assert_eq!(seen, [2, 9, 30]);
}
