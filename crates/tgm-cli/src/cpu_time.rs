//! Processor time, by the system's own clocks. What Linux shows of it in `/proc` may be a tick (4 ms) old.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// Processor time of the calling thread so far.
pub(crate) fn thread() -> Duration {
    read(ClockId::ThreadCPUTime)
}

/// Processor time of all threads of this process so far, those that have ended too.
pub(crate) fn process() -> Duration {
    read(ClockId::ProcessCPUTime)
}

fn read(clock: ClockId) -> Duration {
    Duration::try_from(clock_gettime(clock)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;

    /// With some slack: a clock that is a tick old is not one to measure milliseconds with.
    #[test]
    fn work_is_seen() {
        let (thread_before, process_before) = (thread(), process());
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_millis(20) {
            std::hint::spin_loop();
        }
        assert!(thread() > thread_before);
        assert!(process() > process_before);
    }
}
