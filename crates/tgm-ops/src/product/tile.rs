//! The innermost loop: a tile of sums in registers.
//!
//! Twelve rows by two vectors are 24 accumulators; with two vectors of the right matrix and one broadcast word of the
//! left that is 27 of 32 registers, and 14 loads feed 24 multiplications of 16 words each.

use std::marker::PhantomData;

use crate::simd::Elem;

/// Rows of a tile.
pub(crate) const ROWS: usize = 12;
/// Columns of a tile: two vectors.
pub(crate) const COLS: usize = 32;

/// A tile of sums.
#[derive(Clone)]
#[repr(C, align(64))]
pub(crate) struct Tile(pub(crate) [[f32; COLS]; ROWS]);

impl Default for Tile {
    fn default() -> Self {
        Self([[0.0; COLS]; ROWS])
    }
}

/// Twelve rows of a left matrix: word `g` of row `i` is at `start + i · row + g · group`.
#[derive(Clone, Copy)]
pub(crate) struct Lhs<'a> {
    start: *const u32,
    row: usize,
    group: usize,
    groups: usize,
    borrowed: PhantomData<&'a [u32]>,
}

impl<'a> Lhs<'a> {
    /// Rows that lie in memory as they are, `stride` numbers apart, each `depth` numbers long.
    ///
    /// # Panics
    /// When twelve such rows do not fit, or words do not divide them.
    pub(crate) fn in_place<E: Elem>(data: &'a [E], stride: usize, depth: usize) -> Self {
        assert!(depth.is_multiple_of(E::GROUP) && stride.is_multiple_of(E::GROUP));
        assert!(data.len() >= (ROWS - 1) * stride + depth, "twelve rows of {depth}, {stride} apart");
        let start = data.as_ptr().cast();
        Self { start, row: stride / E::GROUP, group: 1, groups: depth / E::GROUP, borrowed: PhantomData }
    }

    /// A packed panel of twelve lanes.
    pub(crate) fn packed(panel: &'a [u32]) -> Self {
        Self::lanes(panel, ROWS)
    }

    /// Groups of words, `stride` words apart, of which the first twelve are meant.
    ///
    /// # Panics
    /// When there are fewer than twelve.
    pub(crate) fn lanes(words: &'a [u32], stride: usize) -> Self {
        assert!(stride >= ROWS);
        let groups = if words.len() < ROWS { 0 } else { (words.len() - ROWS) / stride + 1 };
        Self { start: words.as_ptr(), row: 1, group: stride, groups, borrowed: PhantomData }
    }
}

/// `tile[i][j] = Σ_g lhs[i][g] · rhs[g][j]` over `groups` words; the groups of `rhs` are `stride` words apart.
///
/// # Panics
/// When a matrix has fewer groups.
#[inline(always)]
pub(crate) fn multiply<E: Elem>(groups: usize, lhs: &Lhs<'_>, rhs: &[u32], stride: usize, tile: &mut Tile) {
    assert!(groups <= lhs.groups && (groups == 0 || rhs.len() >= (groups - 1) * stride + COLS));
    #[cfg(target_arch = "x86_64")]
    if super::available::<E>() {
        // SAFETY: the instructions are there. The bounds of both matrices were checked: `Lhs` when it was made, for
        // `lhs.groups` groups of twelve rows; `rhs` above.
        unsafe {
            match E::GROUP {
                1 => avx512_f32(groups, lhs, rhs.as_ptr(), stride, tile),
                _ => avx512_bf16(groups, lhs, rhs.as_ptr(), stride, tile),
            }
        }
        return;
    }
    emulated::<E>(groups, lhs, rhs, stride, tile);
}

/// The same in plain Rust: what the instructions are tested against, and what Miri runs.
pub(crate) fn emulated<E: Elem>(groups: usize, lhs: &Lhs<'_>, rhs: &[u32], stride: usize, tile: &mut Tile) {
    *tile = Tile::default();
    for g in 0..groups {
        for (i, row) in tile.0.iter_mut().enumerate() {
            // SAFETY: inside the matrix that `lhs` was made from; numbers narrower than a word may be unaligned.
            let a = unsafe { lhs.start.add(i * lhs.row + g * lhs.group).read_unaligned() };
            for (sum, &b) in row.iter_mut().zip(&rhs[g * stride..]) {
                *sum = E::dot(*sum, a, b);
            }
        }
    }
}

/// Defines the loop for one instruction.
#[cfg(target_arch = "x86_64")]
macro_rules! avx512 {
    ($name:ident, $features:literal, |$sum:ident, $a:ident, $b:ident| $dot:expr) => {
        #[target_feature(enable = $features)]
        #[allow(clippy::undocumented_unsafe_blocks, reason = "the comment is in the macro")]
        unsafe fn $name(groups: usize, lhs: &Lhs<'_>, rhs: *const u32, stride: usize, tile: &mut Tile) {
            use std::arch::x86_64::*;
            let mut sums = [[_mm512_setzero_ps(); 2]; ROWS];
            // Four pointers, three rows each: few enough to stay in registers.
            // SAFETY: the caller checked that `groups` groups of both matrices exist.
            unsafe {
                let mut lhs_at = [0, 1, 2, 3].map(|q| lhs.start.add(3 * q * lhs.row));
                let mut rhs_at = rhs;
                for _ in 0..groups {
                    let b = [_mm512_loadu_si512(rhs_at.cast()), _mm512_loadu_si512(rhs_at.add(16).cast())];
                    for q in 0..4 {
                        for r in 0..3 {
                            let word = lhs_at[q].add(r * lhs.row).cast::<i32>().read_unaligned();
                            let $a = _mm512_set1_epi32(word);
                            for v in 0..2 {
                                let ($sum, $b) = (sums[3 * q + r][v], b[v]);
                                sums[3 * q + r][v] = $dot;
                            }
                        }
                        lhs_at[q] = lhs_at[q].wrapping_add(lhs.group);
                    }
                    rhs_at = rhs_at.wrapping_add(stride);
                }
                for (row, sums) in tile.0.iter_mut().zip(sums) {
                    _mm512_store_ps(row.as_mut_ptr(), sums[0]);
                    _mm512_store_ps(row.as_mut_ptr().add(16), sums[1]);
                }
            }
        }
    };
}

#[cfg(target_arch = "x86_64")]
avx512!(avx512_f32, "avx512f", |sum, a, b| _mm512_fmadd_ps(
    _mm512_castsi512_ps(a),
    _mm512_castsi512_ps(b),
    sum
));
#[cfg(target_arch = "x86_64")]
avx512!(avx512_bf16, "avx512f,avx512bf16", |sum, a, b| _mm512_dpbf16_ps(
    sum,
    std::mem::transmute::<__m512i, __m512bh>(a),
    std::mem::transmute::<__m512i, __m512bh>(b)
));
