//! Which tubelets of a video clip to hide from a masked autoencoder.
//!
//! A strategy ([`Masking`]) takes a tubelet [`Grid`], the [`Cues`] it asks for (a [`ScoreMap`] saying how
//! well each tubelet matches a caption, a [`MotionField`] saying how it moves) and a random generator, and
//! gives a [`Mask`]. The crate is pure: it knows no tensors, no video files and no model.
//!
//! The key decision is that a [`Mask`] has *exactly* the same number of visible tubelets in every temporal
//! slot, and that this number depends on ratio and grid alone. Masks of any strategies therefore stack into a
//! batch, and no later stage pads, truncates or checks. Tubelets that tie are told apart by the generator,
//! never by their place: on a constant score map an order by index would mask the top-left corner of every
//! clip.
//!
//! | strategy | masks | source |
//! |---|---|---|
//! | [`Random`](Masking::Random) | other tubelets in each slot | MAE, applied per slot |
//! | [`Tube`](Masking::Tube) | the same tubelets in all slots | VideoMAE, arXiv 2203.12602 |
//! | [`MotionBox`](Masking::MotionBox) | a rectangle that follows the motion | MGM, arXiv 2308.12962 |
//! | [`MotionWarp`](Masking::MotionWarp) | a random map that the motion carries | MGMAE, arXiv 2308.10794 |
//! | [`Text`](Masking::Text) | the tubelets that match the caption best | TGM, arXiv 2408.00759 |
//!
//! [`RunningCell`] then says which of the masked tubelets the decoder reconstructs (VideoMAE V2, arXiv
//! 2303.16727).
//!
//! ```
//! use tgm_masking::{Cues, Grid, Masking, ScoreMap};
//! use tgm_random::Streams;
//!
//! // 16 frames of 224×224 pixels in tubelets of 2×16×16.
//! let grid = Grid::new(8, 14, 14)?;
//! // The caption matches the right half of the picture.
//! let scores = (0..grid.len()).map(|i| if i % 14 >= 7 { 0.3 } else { 0.1 }).collect();
//! let scores = ScoreMap::new(grid, scores)?;
//!
//! let masking = Masking::default(); // text-guided, ratio 0.6
//! let mut rng = Streams::new(17).stream("mask", 0, 0);
//! let mask = masking.mask(&grid, &Cues::from_scores(&scores), &mut rng)?;
//!
//! assert_eq!((mask.masked_per_slot(), mask.visible_per_slot()), (117, 79));
//! assert_eq!(mask.visible().len() + mask.masked().len(), 1568);
//! // All 98 tubelets of the right half are hidden in every slot.
//! assert!(mask.visible().iter().all(|i| i % 14 < 7));
//! # Ok::<(), tgm_masking::MaskError>(())
//! ```
//!
//! Scores may come from any model that looks at frames, on a grid of its own:
//!
//! ```
//! use tgm_masking::{Cues, Grid, Masking, ScoreMap};
//! use tgm_random::Streams;
//!
//! // What your model says about 16 frames, on its 7×7 cells: `[16, 7, 7]`.
//! let yours: Vec<f32> = (0..16 * 7 * 7).map(|i| if i % 7 >= 4 { 0.3 } else { 0.1 }).collect();
//! // Two frames are a slot of the masked autoencoder, whose grid is 8×14×14.
//! let scores = ScoreMap::from_frames(Grid::new(8, 7, 7)?, 2, &yours)?.resampled(14, 14)?;
//!
//! let mut rng = Streams::new(17).stream("mask", 0, 0); // or any generator of `tgm_masking::rand`
//! let mask = Masking::default().mask(&scores.grid(), &Cues::from_scores(&scores), &mut rng)?;
//! assert_eq!(mask.masked_per_slot(), 117);
//! // The right half matches best: all of it is hidden.
//! assert!(mask.visible().iter().all(|i| i % 14 < 7));
//! # Ok::<(), tgm_masking::MaskError>(())
//! ```
#![deny(missing_docs)]

mod cues;
mod error;
mod grid;
mod mask;
mod masking;
mod motion;
mod motion_box;
mod motion_warp;
mod nearest;
mod resample;
mod running_cell;
mod select;
mod text;

pub use cues::{Cues, ScoreMap};
pub use error::MaskError;
pub use grid::Grid;
pub use mask::Mask;
pub use masking::Masking;
pub use motion::MotionField;
pub use motion_box::{BoxPath, MotionBoxConfig};
pub use motion_warp::{BaseSlot, MotionWarpConfig};
pub use resample::Region;
pub use running_cell::RunningCell;
pub use text::{Select, TextConfig};

/// Its generators are what masks are drawn from: here in the version that [`Masking::mask`] takes.
pub use rand;
