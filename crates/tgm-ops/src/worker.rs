//! Where sequences of operations run.

/// Runs `work` on a thread of the pool that this crate's operations are spread over, and waits for it.
///
/// An operation that is called on any other thread wakes the pool, sleeps until it has finished, and is woken; called on the
/// pool's own threads it begins at once. A training step is some hundred operations, which is why models' steps go through
/// here. Results are the same. `work` must not wait for another thread that itself needs the pool.
pub fn on_worker<R: Send>(work: impl FnOnce() -> R + Send) -> R {
    rayon::scope(|_| work())
}
