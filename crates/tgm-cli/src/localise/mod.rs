//! How well cues and masks find what matters: against the known objects of the synthetic world, and against the energy of
//! frame differences in any video.

mod energy;
mod methods;
mod objects;

pub use energy::{frame_difference_energy, share_under};
pub use methods::{Cue, Method, Strategy};
pub use objects::{Tubelets, share_masked};

/// The mean, or 0 of nothing.
pub fn mean(values: impl IntoIterator<Item = f64>) -> f64 {
    let (sum, count) = values.into_iter().fold((0.0, 0usize), |(sum, n), value| (sum + value, n + 1));
    if count == 0 { 0.0 } else { sum / count as f64 }
}

/// A whole-frame, unmirrored sample of frames of a video that nobody has.
#[cfg(test)]
fn sample_of(clip: tgm_video::Clip, grid: tgm_masking::Grid, frames: Vec<usize>) -> tgm_data::loader::Sample {
    tgm_data::loader::Sample {
        row: 0,
        path: "a.mp4".into(),
        epoch: 0,
        number: 0,
        view: (0, 0),
        frames,
        frame_size: (clip.width() as u32, clip.height() as u32),
        crop: tgm_video::CropBox::whole(clip.width() as u32, clip.height() as u32),
        flipped: false,
        clip,
        whole: None,
        grid,
        tubelet: tgm_video::TubeletShape::default(),
        normalization: tgm_video::Normalization::NONE,
        motion: None,
        motion_source: tgm_data::loader::MotionSource::None,
        caption: None,
        label: None,
    }
}
