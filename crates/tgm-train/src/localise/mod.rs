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
