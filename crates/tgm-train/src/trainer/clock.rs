//! The time that steps take.

use std::time::{Duration, Instant};

use tgm_data::loader::TrainLoader;

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
