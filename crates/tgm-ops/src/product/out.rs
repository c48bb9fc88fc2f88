//! An output that several threads fill, each its own part.

use std::marker::PhantomData;

/// A slice whose parts are handed out by index.
pub(crate) struct Out<'a, T> {
    start: *mut T,
    len: usize,
    borrowed: PhantomData<&'a mut [T]>,
}

// SAFETY: `part` hands out disjoint slices only (its contract), which may be sent when `T` may.
unsafe impl<T: Send> Sync for Out<'_, T> {}
// SAFETY: as above.
unsafe impl<T: Send> Send for Out<'_, T> {}

impl<'a, T> Out<'a, T> {
    pub(crate) fn new(data: &'a mut [T]) -> Self {
        Self { start: data.as_mut_ptr(), len: data.len(), borrowed: PhantomData }
    }

    /// `len` elements from `start`.
    ///
    /// # Safety
    /// No two parts that are in use at the same time may overlap.
    ///
    /// # Panics
    /// When the part is not inside the slice.
    #[inline(always)]
    #[allow(clippy::mut_from_ref)]
    pub(crate) unsafe fn part(&self, start: usize, len: usize) -> &mut [T] {
        assert!(start <= self.len && len <= self.len - start, "a part outside of the output");
        // SAFETY: inside the slice, and disjoint from the other parts by contract.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(start), len) }
    }
}
