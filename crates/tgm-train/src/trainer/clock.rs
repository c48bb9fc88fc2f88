//! Time and averages of a run.

use std::time::{Duration, Instant};

use tgm_data::loader::TrainLoader;

/// A running mean.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Average {
    sum: f64,
    count: u64,
}

impl Average {
    /// One infinite value would hide all others: where every masked tubelet is flat, a loss relative to that of the mean is.
    pub fn add_if_finite(&mut self, value: f64) {
        if value.is_finite() {
            self.sum += value;
            self.count += 1;
        }
    }

    pub fn mean(&self) -> Option<f64> {
        (self.count > 0).then(|| self.sum / self.count as f64)
    }
}

/// Times steps, and the part of them that was spent waiting for data.
pub(super) struct Clock {
    since: Instant,
    waited: Duration,
}

/// What a [`Clock`] measured.
pub(super) struct Lap {
    pub clips_per_second: f64,
    pub data_wait: f64,
}

impl Clock {
    pub fn start(loader: &TrainLoader) -> Self {
        Self { since: Instant::now(), waited: loader.stats().waited }
    }

    pub fn lap(&mut self, clips: usize, loader: &TrainLoader) -> Lap {
        let (now, waited) = (Instant::now(), loader.stats().waited);
        let seconds = (now - self.since).as_secs_f64().max(1e-9);
        let share = (waited - self.waited).as_secs_f64() / seconds;
        (self.since, self.waited) = (now, waited);
        Lap { clips_per_second: clips as f64 / seconds, data_wait: share.min(1.0) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mean_is_that_of_the_finite_values() {
        let mut average = Average::default();
        assert_eq!(average.mean(), None);
        for value in [1.0, f64::INFINITY, f64::NAN, 3.0] {
            average.add_if_finite(value);
        }
        assert_eq!(average.mean(), Some(2.0));
    }
}
