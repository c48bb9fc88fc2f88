//! How long a file may keep its reader busy.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// A point in time that can be moved; FFmpeg asks for it while it reads.
pub(crate) struct Deadline {
    /// Microseconds since [`epoch`].
    at: AtomicU64,
}

fn epoch() -> Instant {
    static EPOCH: OnceLock<Instant> = OnceLock::new();
    *EPOCH.get_or_init(Instant::now)
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

impl Deadline {
    /// A deadline `seconds` from now; a number that is no time never passes.
    pub(crate) fn after(seconds: f64) -> Self {
        let deadline = Self { at: AtomicU64::new(0) };
        deadline.restart(seconds);
        deadline
    }

    /// Moves the deadline to `seconds` from now.
    pub(crate) fn restart(&self, seconds: f64) {
        let now = micros(epoch().elapsed());
        let budget = Duration::try_from_secs_f64(seconds).map_or(u64::MAX, micros);
        self.at.store(now.saturating_add(budget), Ordering::Relaxed);
    }

    pub(crate) fn is_past(&self) -> bool {
        micros(epoch().elapsed()) >= self.at.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deadline_passes_and_can_be_moved() {
        let deadline = Deadline::after(0.0);
        assert!(deadline.is_past());
        deadline.restart(1e6);
        assert!(!deadline.is_past());
        for never in [f64::INFINITY, f64::NAN, 1e300, -1.0] {
            deadline.restart(never);
            assert!(!deadline.is_past());
        }
    }
}
