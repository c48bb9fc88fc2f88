//! The learning rate's way through a probe's training.

use std::f64::consts::PI;

/// The factor on the peak rate at this many epochs, a fraction, since the start: linear warm-up from 0, then half a cosine to 0.
pub(super) fn warm_cosine(epoch: f64, warmup: usize, epochs: usize) -> f64 {
    let (warmup, epochs) = (warmup as f64, epochs as f64);
    if epoch < warmup {
        epoch / warmup
    } else {
        0.5 * (1.0 + (PI * (epoch - warmup) / (epochs - warmup)).cos())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_learning_rate_rises_to_its_peak_then_falls_to_nothing() {
        let at = |epoch| warm_cosine(epoch, 10, 90);
        assert_eq!((at(0.0), at(5.0), at(10.0)), (0.0, 0.5, 1.0));
        assert!((at(50.0) - 0.5).abs() < 1e-12);
        assert!(at(90.0).abs() < 1e-12);
        assert_eq!(warm_cosine(0.0, 0, 90), 1.0, "no warm-up");
    }
}
