//! Draws the mask of every strategy for a clip in which one object moves from the left to the right.
//!
//! ```text
//! cargo run -p tgm-masking --example strategies [SEED]
//! ```
#![allow(clippy::print_stdout)]

use std::error::Error;

use tgm_masking::{
    BoxPath, Cues, Grid, Mask, MaskError, Masking, MotionBoxConfig, MotionField, MotionWarpConfig,
    RunningCell, ScoreMap, Select, TextConfig,
};
use tgm_random::Streams;

/// Columns that the object crosses in a slot.
const SPEED: f32 = 1.5;

/// How much of the tubelet at `(slot, row, col)` the object covers, softly.
fn object(slot: usize, row: usize, col: usize) -> f32 {
    let (dy, dx) = (row as f32 - 4.5, col as f32 - (2.0 + SPEED * slot as f32));
    (-(dy * dy + dx * dx) / 6.0).exp()
}

/// A line of pictures, one per slot.
fn draw(grid: Grid, title: &str, symbol: impl Fn(u32) -> char) {
    println!("\n{title}");
    for row in 0..grid.rows() {
        let line = |slot| (0..grid.cols()).map(|col| symbol(grid.index(slot, row, col))).collect::<String>();
        println!("  {}", (0..grid.slots()).map(line).collect::<Vec<_>>().join("  "));
    }
}

fn draw_mask(mask: &Mask, title: &str, covers: &[f32]) {
    let is_masked = mask.to_bools();
    draw(mask.grid(), title, |i| match (is_masked[i as usize], covers[i as usize] > 0.5) {
        (true, true) => '@',
        (true, false) => '#',
        (false, true) => 'o',
        (false, false) => '.',
    });
}

fn main() -> Result<(), Box<dyn Error>> {
    let seed = std::env::args().nth(1).map_or(Ok(0), |seed| seed.parse())?;
    let streams = Streams::new(seed);
    let grid = Grid::new(6, 10, 14)?;
    let (scores, motion, covers) = cues(grid)?;
    let cues = Cues { scores: Some(&scores), motion: Some(&motion) };

    println!(
        "o and @: the object   # and @: masked   {} slots of {}×{}",
        grid.slots(),
        grid.rows(),
        grid.cols()
    );
    draw(grid, "the clip", |i| if covers[i as usize] > 0.5 { 'o' } else { '.' });

    let motion_box = |path| Masking::MotionBox(MotionBoxConfig { ratio: 0.3, path, ..Default::default() });
    let text = |select| Masking::Text(TextConfig { ratio: 0.3, select, temperature: 0.1 });
    for (title, masking) in [
        ("random", Masking::Random { ratio: 0.75 }),
        ("tube", Masking::Tube { ratio: 0.75 }),
        ("motion-box", motion_box(BoxPath::Motion)),
        ("motion-box, simulated", motion_box(BoxPath::Simulated)),
        ("motion-warp", Masking::MotionWarp(MotionWarpConfig { ratio: 0.75, ..Default::default() })),
        ("text, top-k", text(Select::TopK)),
        ("text, bottom-k", text(Select::BottomK)),
        ("text, sample", text(Select::Sample)),
    ] {
        let mask = masking.mask(&grid, &cues, &mut streams.stream("mask", 0, 0))?;
        draw_mask(&mask, &format!("{title}, ratio {}", masking.ratio()), &covers);
    }

    let tube = Masking::Tube { ratio: 0.75 }.mask(&grid, &cues, &mut streams.stream("mask", 0, 0))?;
    let targets = RunningCell::default().targets(&tube, &mut streams.stream("decoder", 0, 0))?;
    let is_masked = tube.to_bools();
    draw(grid, "running cell on the tube mask: # is reconstructed, + is masked only", |i| {
        match (targets.binary_search(&i).is_ok(), is_masked[i as usize]) {
            (true, _) => '#',
            (false, true) => '+',
            (false, false) => '.',
        }
    });
    Ok(())
}

/// The scores and the motion of the clip, and how much of each tubelet the object covers.
fn cues(grid: Grid) -> Result<(ScoreMap, MotionField, Vec<f32>), MaskError> {
    let covers: Vec<f32> = (0..grid.len() as u32)
        .map(|i| {
            let (slot, row, col) = grid.position(i);
            object(slot, row, col)
        })
        .collect();
    let vectors = covers.iter().map(|&cover| if cover > 0.5 { [SPEED, 0.0] } else { [0.0; 2] }).collect();
    Ok((ScoreMap::new(grid, covers.clone())?, MotionField::new(grid, vectors)?, covers))
}
