//! Memory for activations that is used again instead of being given back.
//!
//! A step takes and frees hundreds of megabytes in pieces of the same few sizes. Allocators return pieces of that size to the
//! system, which clears every page when it is touched again: a fifth of a step's time.

use std::ops::{Deref, DerefMut};
use std::sync::{Mutex, PoisonError};

use crate::simd::Elem;

/// Freed memory of one element type.
pub(crate) struct Pool<E>(Mutex<Vec<Vec<E>>>);

impl<E> Pool<E> {
    pub(crate) const fn new() -> Self {
        Self(Mutex::new(Vec::new()))
    }

    fn with<R>(&self, f: impl FnOnce(&mut Vec<Vec<E>>) -> R) -> R {
        f(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Buffers that a pool keeps at most; more than a step of the deepest preset frees at a time.
const KEPT: usize = 512;
/// Shorter buffers are the allocator's business.
const SMALL: usize = 16 * 1024;

/// A vector of fixed length that goes back to its pool when it is dropped.
pub(crate) struct Buffer<E: Elem>(Vec<E>);

impl<E: Elem> Buffer<E> {
    /// `len` numbers, left over from earlier use: whoever takes a buffer writes all of it.
    pub(crate) fn new(len: usize) -> Self {
        if len < SMALL {
            return Self(vec![E::default(); len]);
        }
        // The newest of this length: most likely still in a cache.
        let recycled = E::pool().with(|free| {
            let at = free.iter().rposition(|v| v.len() == len)?;
            Some(free.swap_remove(at))
        });
        Self(recycled.unwrap_or_else(|| vec![E::default(); len]))
    }
}

impl<E: Elem> Drop for Buffer<E> {
    fn drop(&mut self) {
        if self.0.len() >= SMALL {
            let freed = std::mem::take(&mut self.0);
            E::pool().with(|free| {
                // The oldest is the least likely to be wanted: sizes have changed.
                if free.len() == KEPT {
                    free.remove(0);
                }
                free.push(freed);
            });
        }
    }
}

impl<E: Elem> Deref for Buffer<E> {
    type Target = [E];

    fn deref(&self) -> &[E] {
        &self.0
    }
}

impl<E: Elem> DerefMut for Buffer<E> {
    fn deref_mut(&mut self) -> &mut [E] {
        &mut self.0
    }
}

/// Gives the memory of freed activations back to the allocator: after training, or before a model of another size.
pub fn release_buffers() {
    f32::pool().with(Vec::clear);
    crate::simd::Bf16::pool().with(Vec::clear);
}
