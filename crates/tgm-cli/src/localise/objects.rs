//! Where an object of the synthetic world is on the tubelet grid.

use tgm_data::loader::Sample;
use tgm_data::synth::PixelBox;
use tgm_masking::{Grid, Mask};

/// Some tubelets of a grid.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tubelets {
    grid: Grid,
    inside: Vec<bool>,
}

impl Tubelets {
    /// The tubelets of an object: those of which its box fills half or more (the mean over the tubelet's frames), and those
    /// in which the centre of a box lies, so that no object is lost.
    ///
    /// `boxes` has one for every frame of the video, in pixels of it.
    pub fn of_object(sample: &Sample, boxes: &[PixelBox]) -> Self {
        let grid = sample.grid;
        let per_slot = sample.frames.len() / grid.slots();
        let mut inside = vec![false; grid.len()];
        for slot in 0..grid.slots() {
            let mut filled = vec![0.0; grid.cells()];
            for frame in &sample.frames[slot * per_slot..(slot + 1) * per_slot] {
                let extent = seen(sample, boxes[*frame]);
                for (cell, filled) in filled.iter_mut().enumerate() {
                    let (row, col) = (cell / grid.cols(), cell % grid.cols());
                    *filled += overlap(row, grid.rows(), [extent[1], extent[3]])
                        * overlap(col, grid.cols(), [extent[0], extent[2]])
                        / per_slot as f64;
                }
                if let Some(cell) = centre_cell(grid, extent) {
                    filled[cell] = 1.0;
                }
            }
            for (cell, filled) in filled.into_iter().enumerate() {
                inside[slot * grid.cells() + cell] = filled >= 0.5;
            }
        }
        Self { grid, inside }
    }

    /// Those of `self` that are not in `other`.
    pub fn without(&self, other: &Self) -> Self {
        let inside = self.inside.iter().zip(&other.inside).map(|(a, b)| *a && !*b).collect();
        Self { grid: self.grid, inside }
    }

    /// How many they are.
    pub fn count(&self) -> usize {
        self.inside.iter().filter(|inside| **inside).count()
    }

    /// The mean of a value over them, `[tubelets]` in the order of the flat index.
    pub fn mean_of(&self, value: impl Fn(usize) -> f64) -> f64 {
        super::mean(self.inside.iter().enumerate().filter(|(_, inside)| **inside).map(|(i, _)| value(i)))
    }
}

/// The share of these tubelets that the mask hides; none if there are none.
pub fn share_masked(tubelets: &Tubelets, mask: &Mask) -> Option<f64> {
    let hidden = mask.masked().iter().filter(|&&index| tubelets.inside[index as usize]).count();
    let count = tubelets.count();
    (count > 0).then(|| hidden as f64 / count as f64)
}

/// A box in fractions of the clip: left, top, right, bottom.
fn seen(sample: &Sample, [left, top, right, bottom]: PixelBox) -> [f64; 4] {
    let crop = sample.crop;
    let x = |x: u32| (f64::from(x) - f64::from(crop.x)) / f64::from(crop.width);
    let y = |y: u32| (f64::from(y) - f64::from(crop.y)) / f64::from(crop.height);
    if sample.flipped {
        [1.0 - x(right), y(top), 1.0 - x(left), y(bottom)]
    } else {
        [x(left), y(top), x(right), y(bottom)]
    }
}

/// The share of cell `index` of `cells` along an axis that lies within.
fn overlap(index: usize, cells: usize, [low, high]: [f64; 2]) -> f64 {
    let (start, end) = (index as f64, index as f64 + 1.0);
    ((high * cells as f64).min(end) - (low * cells as f64).max(start)).max(0.0)
}

fn centre_cell(grid: Grid, [left, top, right, bottom]: [f64; 4]) -> Option<usize> {
    let (x, y) = ((left + right) / 2.0, (top + bottom) / 2.0);
    let inside = (0.0..1.0).contains(&x) && (0.0..1.0).contains(&y);
    inside.then(|| (y * grid.rows() as f64) as usize * grid.cols() + (x * grid.cols() as f64) as usize)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::localise::sample_of;
    use tgm_video::{Clip, CropBox};

    /// Two frames of a video of 32×32 pixels, seen through a crop on a grid of 4×4 cells.
    fn sample(crop: CropBox, flipped: bool) -> Sample {
        let clip = Clip::new(vec![0; 2 * 8 * 8 * 3], 8, 8, vec![0.0, 1.0]).unwrap();
        let sample = sample_of(clip, Grid::new(1, 4, 4).unwrap(), vec![3, 5]);
        Sample { frame_size: (32, 32), crop, flipped, ..sample }
    }

    fn boxes(at: PixelBox) -> Vec<PixelBox> {
        vec![at; 6]
    }

    fn cells(tubelets: &Tubelets) -> Vec<usize> {
        (0..tubelets.inside.len()).filter(|&i| tubelets.inside[i]).collect()
    }

    #[test]
    fn a_tubelet_is_the_objects_when_half_full_or_when_the_centre_is_in_it() {
        let whole = sample(CropBox::whole(32, 32), false);
        // Cells of 8 pixels: columns 1 and 2 of row 1, column 2 half.
        assert_eq!(cells(&Tubelets::of_object(&whole, &boxes([8, 8, 20, 16]))), [5, 6]);
        assert_eq!(cells(&Tubelets::of_object(&whole, &boxes([8, 8, 19, 16]))), [5]);
        assert_eq!(
            cells(&Tubelets::of_object(&whole, &boxes([17, 25, 19, 27]))),
            [14],
            "too small to fill half"
        );
    }

    #[test]
    fn boxes_go_through_the_crop_and_the_mirror() {
        let part = CropBox { x: 16, y: 16, width: 16, height: 16 };
        assert_eq!(cells(&Tubelets::of_object(&sample(part, false), &boxes([20, 16, 24, 20]))), [1]);
        assert_eq!(cells(&Tubelets::of_object(&sample(part, true), &boxes([20, 16, 24, 20]))), [2]);
        assert_eq!(Tubelets::of_object(&sample(part, false), &boxes([0, 0, 8, 8])).count(), 0);
    }

    #[test]
    fn the_share_masked_counts_only_the_objects_tubelets() {
        let whole = sample(CropBox::whole(32, 32), false);
        let object = Tubelets::of_object(&whole, &boxes([8, 8, 24, 16]));
        let mask = Mask::from_masked(whole.grid, vec![0, 1, 5, 15]).unwrap();
        assert_eq!(share_masked(&object, &mask), Some(0.5));
        assert_eq!(share_masked(&object.without(&object), &mask), None);
        assert_eq!(object.mean_of(|i| i as f64), 5.5);
    }
}
