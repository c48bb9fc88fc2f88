//! Pictures for people: what was hidden, and what the model made of it.
//!
//! A model with a normalised target says how a tubelet's pixels vary, not how bright or how contrasted it is. Pasting the
//! hidden tubelet's own statistics back would make any model look good (MCG-NJU/VideoMAE issue 120), so mean and
//! deviation are taken from the nearest *visible* tubelets of the same slot.

use std::path::Path;

use anyhow::{Context, Result};
use tgm_data::loader::{ClipConfig, Sample};
use tgm_masking::Mask;
use tgm_video::{Clip, Normalization, unpatchify, write_png};

/// Visible tubelets whose statistics a hidden one is given.
const NEIGHBOURS: usize = 4;

/// Pixels between pictures.
const GAP: usize = 2;

/// Where brightness and contrast of a hidden tubelet come from, when the model predicts standardised pixels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Statistics {
    /// From the nearest visible tubelets of its slot: nothing hidden is used.
    Neighbours,
    /// From the hidden tubelet itself: the usual picture, which makes any model look good.
    Oracle,
}

/// Writes one clip as a picture of three rows (clip, visible tubelets, reconstruction) with a column per temporal slot.
///
/// `prediction` holds the masked tubelets `[Nt, P]` in the mask's order.
///
/// # Errors
/// When the file cannot be written.
pub fn write(
    path: &Path,
    sample: &Sample,
    mask: &Mask,
    prediction: &[Vec<f32>],
    clip: &ClipConfig,
    normalized: bool,
) -> Result<()> {
    let len = sample.values() / sample.grid.len();
    let original = pixels(&sample.tubelets()?, &clip.normalization);
    let mut hidden = original.clone();
    let mut reconstructed = original.clone();
    for (&token, prediction) in mask.masked().iter().zip(prediction) {
        let range = token as usize * len..(token as usize + 1) * len;
        hidden[range.clone()].fill(0.5);
        let filled =
            if normalized { from_neighbours(&original, mask, token, prediction) } else { prediction.clone() };
        reconstructed[range].copy_from_slice(&filled);
    }
    let rows = [original, hidden, reconstructed].map(|tubelets| to_clip(&tubelets, sample, clip));
    let [original, hidden, reconstructed] = rows;
    let rows = [original?, hidden?, reconstructed?];
    let (rgb, width, height) = contact_sheet(&rows, sample.grid.slots());
    write_png(path, &rgb, width as u32, height as u32).with_context(|| path.display().to_string())
}

/// Writes one clip, `[N, P]` normalised, as a picture of two rows: the clip, and its visible tubelets.
///
/// # Errors
/// When the file cannot be written.
pub fn write_masked(path: &Path, tubelets: &[f32], mask: &Mask, clip: &ClipConfig) -> Result<()> {
    let grid = mask.grid();
    let len = tubelets.len() / grid.len();
    let original = pixels(tubelets, &clip.normalization);
    let mut hidden = original.clone();
    for &token in mask.masked() {
        hidden[token as usize * len..(token as usize + 1) * len].fill(0.5);
    }
    let grid = (grid.slots(), grid.rows(), grid.cols());
    let rows = [original, hidden].map(|pixels| unpatchify(&pixels, grid, clip.tubelet, &Normalization::NONE));
    let [original, hidden] = rows;
    let (rgb, width, height) = contact_sheet(&[original?, hidden?], grid.0);
    write_png(path, &rgb, width as u32, height as u32).with_context(|| path.display().to_string())
}

/// The clip with its hidden tubelets as predicted, `[Nt, P]` in the mask's order; brightness and contrast from `statistics`,
/// or as predicted when the target is plain pixels.
///
/// # Errors
/// When the tubelets do not tile the clip.
pub fn reconstruction(
    sample: &Sample,
    mask: &Mask,
    prediction: &[Vec<f32>],
    clip: &ClipConfig,
    statistics: Option<Statistics>,
) -> Result<Clip> {
    let len = sample.values() / sample.grid.len();
    let original = pixels(&sample.tubelets()?, &clip.normalization);
    let mut reconstructed = original.clone();
    for (&token, prediction) in mask.masked().iter().zip(prediction) {
        let own = token as usize * len..(token as usize + 1) * len;
        let filled = match statistics {
            None => prediction.clone(),
            Some(Statistics::Neighbours) => from_neighbours(&original, mask, token, prediction),
            Some(Statistics::Oracle) => with_statistics(&original, &[token], prediction),
        };
        reconstructed[own].copy_from_slice(&filled);
    }
    to_clip(&reconstructed, sample, clip)
}

/// Tubelets as values in [0, 1].
fn pixels(tubelets: &[f32], normalization: &Normalization) -> Vec<f32> {
    let value = |(i, v): (usize, &f32)| v * normalization.std[i % 3] + normalization.mean[i % 3];
    tubelets.iter().enumerate().map(value).collect()
}

/// A predicted tubelet with the mean and deviation of its nearest visible neighbours.
fn from_neighbours(pixels: &[f32], mask: &Mask, token: u32, prediction: &[f32]) -> Vec<f32> {
    let grid = mask.grid();
    let place = |token: u32| {
        let (_, row, col) = grid.position(token);
        (row as f32, col as f32)
    };
    let (row, col) = place(token);
    let slot = token as usize / grid.cells();
    let mut near: Vec<(f32, u32)> = mask
        .visible_in(slot)
        .iter()
        .map(|&other| {
            let (r, c) = place(other);
            ((r - row).powi(2) + (c - col).powi(2), other)
        })
        .collect();
    near.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
    let near: Vec<u32> = near.into_iter().take(NEIGHBOURS).map(|(_, other)| other).collect();
    with_statistics(pixels, &near, prediction)
}

/// A standardised tubelet with the mean and deviation, channel by channel, of some others: the mean of theirs.
fn with_statistics(pixels: &[f32], of: &[u32], prediction: &[f32]) -> Vec<f32> {
    let len = prediction.len();
    let mut out = prediction.to_vec();
    for channel in 0..3 {
        let (mut mean, mut deviation) = (0.0, 0.0);
        for other in of {
            let values: Vec<f32> =
                pixels[*other as usize * len..][..len].iter().skip(channel).step_by(3).copied().collect();
            let m = values.iter().sum::<f32>() / values.len() as f32;
            let v = values.iter().map(|x| (x - m).powi(2)).sum::<f32>() / values.len() as f32;
            mean += m / of.len() as f32;
            deviation += v.sqrt() / of.len() as f32;
        }
        out.iter_mut().skip(channel).step_by(3).for_each(|v| *v = *v * deviation + mean);
    }
    out
}

fn to_clip(pixels: &[f32], sample: &Sample, clip: &ClipConfig) -> Result<Clip> {
    let grid = (sample.grid.slots(), sample.grid.rows(), sample.grid.cols());
    Ok(unpatchify(pixels, grid, clip.tubelet, &Normalization::NONE)?)
}

/// The first frame of every slot, a row per clip.
fn contact_sheet(rows: &[Clip], slots: usize) -> (Vec<u8>, usize, usize) {
    let (h, w) = (rows[0].height(), rows[0].width());
    let (width, height) = (slots * (w + GAP) - GAP, rows.len() * (h + GAP) - GAP);
    let mut sheet = vec![255; width * height * 3];
    for (row, clip) in rows.iter().enumerate() {
        let frames_per_slot = clip.frames() / slots;
        for slot in 0..slots {
            let frame = clip.frame(slot * frames_per_slot);
            for (y, line) in frame.chunks_exact(w * 3).enumerate() {
                let start = ((row * (h + GAP) + y) * width + slot * (w + GAP)) * 3;
                sheet[start..start + w * 3].copy_from_slice(line);
            }
        }
    }
    (sheet, width, height)
}
