//! What the loader yields.

use tgm_masking::{Grid, MotionField};
use tgm_video::{Clip, CropBox, Normalization, TubeletShape, VideoError, patchify, patchify_into};

use super::config::MotionSource;

/// One clip with everything that belongs to it.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// The row of the manifest.
    pub row: u32,
    /// The video's path, as the manifest has it.
    pub path: String,
    /// The epoch; 0 in evaluation.
    pub epoch: u64,
    /// The clip's number within the epoch: with [`Self::epoch`] the name of the streams of its further draws.
    pub number: u64,
    /// Which test view this is: in time and in space. Both 0 in training.
    pub view: (usize, usize),
    /// The frames that were taken, as numbers within the video.
    pub frames: Vec<usize>,
    /// Width and height of the video's frames in pixels.
    pub frame_size: (u32, u32),
    /// The part of the picture that was taken, in pixels of the video.
    pub crop: CropBox,
    /// Whether it was mirrored after that.
    pub flipped: bool,
    /// The pixels, cropped, resized, mirrored.
    pub clip: Clip,
    /// The whole frames of the clip, neither cropped nor mirrored, if they are wanted.
    pub whole: Option<Clip>,
    /// The tubelets' grid.
    pub grid: Grid,
    /// The size of a tubelet.
    pub tubelet: TubeletShape,
    /// What the pixels become for the model.
    pub normalization: Normalization,
    /// How the content of each tubelet moves, if that is wanted.
    pub motion: Option<MotionField>,
    /// Where `motion` comes from: [`MotionSource::Codec`] or [`MotionSource::Blocks`], or [`MotionSource::None`] without.
    pub motion_source: MotionSource,
    /// One of the row's captions: in training drawn anew for each clip, in evaluation the first.
    pub caption: Option<String>,
    /// The class index.
    pub label: Option<u32>,
}

impl Sample {
    /// The pixels normalised, `[N, t*p*p*3]`, a tubelet laid out `[t, y, x, c]`.
    ///
    /// They are made from the clip each time: four times its size, they are best made where they are wanted.
    ///
    /// # Errors
    /// [`VideoError::Invalid`] when the tubelets do not tile the clip, which those of a loader do.
    pub fn tubelets(&self) -> Result<Vec<f32>, VideoError> {
        patchify(&self.clip, self.tubelet, &self.normalization)
    }

    /// As [`Self::tubelets`], behind what is there already.
    ///
    /// # Errors
    /// As [`Self::tubelets`].
    pub fn tubelets_into(&self, tubelets: &mut Vec<f32>) -> Result<(), VideoError> {
        patchify_into(&self.clip, self.tubelet, &self.normalization, tubelets)
    }

    /// How many values the tubelets have.
    pub fn values(&self) -> usize {
        self.clip.data().len()
    }
}

/// A training batch.
#[derive(Clone, Debug, PartialEq)]
pub struct Batch {
    /// Its number in the run.
    pub step: u64,
    /// The clips; always as many as the batch size.
    pub samples: Vec<Sample>,
    /// The videos that could not be used. Each has been replaced by another.
    pub skipped: Vec<Skip>,
}

impl Batch {
    /// The normalised pixels of all clips, one behind the other, and their shape `[B, N, P]`: clips, tubelets of each, values of a
    /// tubelet. Laid out as [`Sample::tubelets`].
    ///
    /// # Errors
    /// [`VideoError::Invalid`] without clips, or when they differ in grid or tubelet, which those of a loader do not.
    pub fn tubelets(&self) -> Result<(Vec<f32>, [usize; 3]), VideoError> {
        let invalid =
            |what, value: String, must: &str| VideoError::Invalid { what, value, must: must.into() };
        let Some(first) = self.samples.first() else {
            return Err(invalid("the number of clips", "0".to_owned(), "a batch needs at least one"));
        };
        let shape = [self.samples.len(), first.grid.len(), first.tubelet.len()];
        let mut tubelets = Vec::with_capacity(self.samples.len() * first.values());
        for sample in &self.samples {
            if (sample.grid, sample.tubelet) != (first.grid, first.tubelet) {
                let value = format!("{} tubelets of {:?}", sample.grid, sample.tubelet);
                return Err(invalid("a clip's grid", value, "all clips of a batch must have the same"));
            }
            sample.tubelets_into(&mut tubelets)?;
        }
        Ok((tubelets, shape))
    }
}

/// A video that could not be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Skip {
    /// The row of the manifest.
    pub row: u32,
    /// The video's path, as the manifest has it.
    pub path: String,
    /// Why.
    pub reason: String,
}
