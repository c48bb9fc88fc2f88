//! What many test views cost: the decoding of all views of each video together, against that of its single middle view.
//!
//! `cargo run --release -p tgm-data --example view_cost -- VIDEO…`

use std::time::{Duration, Instant};

use tgm_video::{ReadOptions, Sampling, VideoError, VideoReader};

/// Frames asked for and the time they took, for one video opened anew.
fn read(file: &str, sampling: Sampling, views: usize) -> Result<(usize, Duration), VideoError> {
    let start = Instant::now();
    let mut reader = VideoReader::open(std::path::Path::new(file), &ReadOptions::default())?;
    let frames = reader.index().len();
    let mut numbers: Vec<usize> =
        (0..views).flat_map(|view| sampling.test_view(frames, view, views)).collect();
    numbers.sort_unstable();
    numbers.dedup();
    Ok((reader.read(&numbers)?.len(), start.elapsed()))
}

fn main() -> Result<(), VideoError> {
    let files: Vec<String> = std::env::args().skip(1).collect();
    for (name, sampling, views) in [
        ("dense 16×4, 5 views", Sampling::Dense { frames: 16, stride: 4 }, 5),
        ("uniform 16, 2 views", Sampling::Uniform { frames: 16 }, 2),
    ] {
        let (mut one, mut all) = ((0, Duration::ZERO), (0, Duration::ZERO));
        for _round in 0..3 {
            for file in &files {
                for (views, sum) in [(1, &mut one), (views, &mut all)] {
                    let (frames, time) = read(file, sampling, views)?;
                    *sum = (sum.0 + frames, sum.1 + time);
                }
            }
        }
        let ratio = all.1.as_secs_f64() / one.1.as_secs_f64().max(1e-9);
        eprintln!(
            "{name}: {} frames in {:.2?}, one view {} in {:.2?}: {ratio:.2}×",
            all.0, all.1, one.0, one.1
        );
    }
    Ok(())
}
