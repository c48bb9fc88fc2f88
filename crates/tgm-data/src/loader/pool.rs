//! Numbered jobs on worker threads, their results in the order of the numbers.

use std::any::Any;
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, unbounded};

/// Why there is no result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum PoolError {
    /// The job panicked, with this message.
    Panicked(String),
    /// All workers are gone.
    Dead,
}

/// Runs jobs ahead of their consumer, at most `window` of them, so that neither a slow job nor a slow consumer
/// lets results pile up.
pub(crate) struct OrderedPool<T> {
    jobs: Option<Sender<u64>>,
    results: Receiver<(u64, Result<T, PoolError>)>,
    early: BTreeMap<u64, Result<T, PoolError>>,
    next: u64,
    issued: u64,
    end: u64,
    window: u64,
    waited: Duration,
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl<T: Send + 'static> OrderedPool<T> {
    /// Starts the workers on the jobs from `start` to before `end`.
    pub fn new(
        workers: usize,
        window: usize,
        start: u64,
        end: u64,
        job: impl Fn(u64) -> T + Send + Sync + 'static,
    ) -> std::io::Result<Self> {
        let (jobs, pending) = unbounded::<u64>();
        let (finished, results) = unbounded();
        let stop = Arc::new(AtomicBool::new(false));
        let job = Arc::new(job);
        let mut pool = Self {
            jobs: Some(jobs),
            results,
            early: BTreeMap::new(),
            next: start,
            issued: start,
            end,
            window: window.max(1) as u64,
            waited: Duration::ZERO,
            stop: stop.clone(),
            threads: Vec::new(),
        };
        for worker in 0..workers.max(1) {
            let (pending, finished, stop, job) =
                (pending.clone(), finished.clone(), stop.clone(), job.clone());
            let run = move || {
                for number in pending {
                    if stop.load(Ordering::Relaxed) {
                        break;
                    }
                    let result = catch_unwind(AssertUnwindSafe(|| job(number)));
                    let result = result.map_err(|panic| PoolError::Panicked(message(panic.as_ref())));
                    if finished.send((number, result)).is_err() {
                        break;
                    }
                }
            };
            // When a later thread cannot be started, dropping `pool` ends the earlier ones.
            pool.threads.push(std::thread::Builder::new().name(format!("loader-{worker}")).spawn(run)?);
        }
        pool.issue();
        Ok(pool)
    }

    fn issue(&mut self) {
        while self.issued < self.end && self.issued - self.next < self.window {
            // Fails only when all workers are gone, which `next` reports.
            let _ = self.jobs.as_ref().map(|jobs| jobs.send(self.issued));
            self.issued += 1;
        }
    }

    /// The next result, `None` after the last.
    pub fn next(&mut self) -> Option<Result<T, PoolError>> {
        if self.next >= self.end {
            return None;
        }
        let begun = Instant::now();
        let result = loop {
            if let Some(result) = self.early.remove(&self.next) {
                break result;
            }
            match self.results.recv() {
                Ok((number, result)) => _ = self.early.insert(number, result),
                Err(_) => break Err(PoolError::Dead),
            }
        };
        self.waited += begun.elapsed();
        self.next += 1;
        self.issue();
        Some(result)
    }

    /// How long the consumer has waited for results so far.
    pub fn waited(&self) -> Duration {
        self.waited
    }
}

impl<T> Drop for OrderedPool<T> {
    /// Waits for the jobs that run, drops those that do not yet.
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.jobs = None;
        for thread in self.threads.drain(..) {
            // A worker catches the panics of its jobs and has none of its own.
            let _ = thread.join();
        }
    }
}

fn message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "no message".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicU64;

    #[test]
    fn results_come_in_order_whatever_the_jobs_take() {
        let slow = |number| {
            std::thread::sleep(Duration::from_millis(number % 7));
            number * number
        };
        let mut pool = OrderedPool::new(4, 9, 5, 60, slow).unwrap();
        for number in 5..60 {
            assert_eq!(pool.next(), Some(Ok(number * number)));
        }
        assert_eq!(pool.next(), None);
        assert!(pool.waited() > Duration::ZERO);
    }

    #[test]
    fn no_more_than_the_window_runs_ahead() {
        let highest = Arc::new(AtomicU64::new(0));
        let seen = highest.clone();
        let mut pool =
            OrderedPool::new(3, 4, 0, u64::MAX, move |n| seen.fetch_max(n, Ordering::SeqCst)).unwrap();
        for taken in 1..20 {
            pool.next().unwrap().unwrap();
            std::thread::sleep(Duration::from_millis(2));
            assert!(highest.load(Ordering::SeqCst) < taken + 4);
        }
    }

    #[test]
    fn a_panic_is_an_error_and_the_others_go_on() {
        let mut pool =
            OrderedPool::new(2, 8, 0, 5, |n| if n == 2 { panic!("job {n} broke") } else { n }).unwrap();
        let results: Vec<_> = std::iter::from_fn(|| pool.next()).collect();
        assert_eq!(results[2], Err(PoolError::Panicked("job 2 broke".to_owned())));
        assert_eq!([&results[1], &results[4]], [&Ok(1), &Ok(4)]);
    }

    #[test]
    fn dropping_the_pool_ends_it_after_the_jobs_that_run() {
        let begun = Instant::now();
        let pool =
            OrderedPool::new(2, 1000, 0, 1000, |_| std::thread::sleep(Duration::from_millis(20))).unwrap();
        std::thread::sleep(Duration::from_millis(5));
        drop(pool);
        assert!(begun.elapsed() < Duration::from_secs(2), "1000 jobs take 10 s");
    }
}
