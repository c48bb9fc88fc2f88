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

    /// `/proc/thread-self/schedstat`, which was read before, moves in steps of 4 ms on some kernels.
    #[test]
    fn a_fraction_of_a_millisecond_of_work_is_seen() {
        let (thread_before, process_before) = (thread(), process());
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_micros(300) {
            std::hint::spin_loop();
        }
        assert!(thread() > thread_before);
        assert!(process() > process_before);
        let coarse = (0..100).map(|_| thread()).collect::<std::collections::BTreeSet<_>>().len();
        assert!(coarse > 50, "{coarse} readings of 100 are distinct");
    }
}
