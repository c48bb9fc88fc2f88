//! Where a clip changes: the energy of its frame differences on the tubelet grid.

use tgm_data::loader::Sample;
use tgm_masking::Mask;

/// The energy of each tubelet: squared differences of brightness between each of its frames and that frame's neighbours
/// before and after, summed over its pixels. `[tubelets]` in the order of the flat index.
///
/// It stands for motion where no truth is known. A moving camera has energy everywhere.
pub fn frame_difference_energy(sample: &Sample) -> Vec<f64> {
    let (grid, clip) = (sample.grid, &sample.clip);
    let per_slot = clip.frames() / grid.slots();
    let (patch_h, patch_w) = (clip.height() / grid.rows(), clip.width() / grid.cols());
    let luma: Vec<Vec<f32>> = (0..clip.frames()).map(|i| brightness(clip.frame(i))).collect();
    let mut energy = vec![0.0; grid.len()];
    for (first, pair) in luma.windows(2).enumerate() {
        for (pixel, (a, b)) in pair[0].iter().zip(&pair[1]).enumerate() {
            let squared = f64::from((a - b) * (a - b));
            let cell = pixel / clip.width() / patch_h * grid.cols() + pixel % clip.width() / patch_w;
            for frame in [first, first + 1] {
                energy[frame / per_slot * grid.cells() + cell] += squared;
            }
        }
    }
    energy
}

/// BT.601 brightness of RGB pixels.
fn brightness(rgb: &[u8]) -> Vec<f32> {
    rgb.chunks_exact(3)
        .map(|p| 0.299 * f32::from(p[0]) + 0.587 * f32::from(p[1]) + 0.114 * f32::from(p[2]))
        .collect()
}

/// The share of the energy that lies under the mask; none for a clip in which nothing changes.
pub fn share_under(energy: &[f64], mask: &Mask) -> Option<f64> {
    let total: f64 = energy.iter().sum();
    let under: f64 = mask.masked().iter().map(|&index| energy[index as usize]).sum();
    (total > 0.0).then(|| under / total)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::localise::sample_of;
    use tgm_masking::Grid;
    use tgm_video::Clip;

    /// Four frames of 4×4 pixels in 2×2 cells and two slots; one pixel of the last frame is white.
    fn sample() -> Sample {
        let mut bytes = vec![0; 4 * 4 * 4 * 3];
        bytes[(3 * 16 + 2) * 3..][..3].fill(255);
        let clip = Clip::new(bytes, 4, 4, vec![0.0; 4]).unwrap();
        sample_of(clip, Grid::new(2, 2, 2).unwrap(), vec![0, 1, 2, 3])
    }

    #[test]
    fn energy_lies_where_and_when_a_pixel_changes() {
        let energy = frame_difference_energy(&sample());
        let changed: Vec<usize> = (0..8).filter(|&i| energy[i] > 0.0).collect();
        assert_eq!(changed, [5], "slot 1, upper right: {energy:?}");
    }

    #[test]
    fn the_share_is_of_the_whole_clip_and_a_still_clip_has_none() {
        let grid = sample().grid;
        let mask = Mask::from_masked(grid, vec![1, 5]).unwrap();
        assert_eq!(share_under(&frame_difference_energy(&sample()), &mask), Some(1.0));
        assert_eq!(share_under(&[1.0; 8], &mask), Some(0.25));
        assert_eq!(share_under(&[0.0; 8], &mask), None);
    }
}
