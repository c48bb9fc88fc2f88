//! The innermost loop: a tile of sums in registers.
//!
//! With 512 bits, twelve rows by two vectors are 24 accumulators; with two vectors of the right matrix and one broadcast
//! word of the left that is 27 of 32 registers, and 14 loads feed 24 multiplications of 16 words each.
//!
//! With 256 bits and 16 registers the tile is computed in parts of six rows by two vectors, twelve
//! accumulators. Parts take turns every [`CHUNK`] words of depth, so that both matrices come to the first-level cache
//! once.
//!
//! Where no fast instruction multiplies pairs of bfloat16, packing has made f32 of them ([`crate::simd::Widened`]).

#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::*;
use std::marker::PhantomData;

use crate::simd::{Factor, Level, level};

/// Rows of a tile.
pub(crate) const ROWS: usize = 12;
/// Columns of a tile: two vectors.
pub(crate) const COLS: usize = 32;

/// A tile of sums.
#[derive(Clone)]
#[repr(C, align(64))]
pub(crate) struct Tile(pub(crate) [[f32; COLS]; ROWS]);

impl Tile {
    /// Adds the sums of another tile to this one's.
    #[inline(always)]
    pub(crate) fn add(&mut self, other: &Self) {
        self.0.as_flattened_mut().iter_mut().zip(other.0.as_flattened()).for_each(|(sum, &v)| *sum += v);
    }
}

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
    pub(crate) fn in_place<W: Factor>(data: &'a [W], stride: usize, depth: usize) -> Self {
        assert!(depth.is_multiple_of(W::GROUP) && stride.is_multiple_of(W::GROUP));
        assert!(data.len() >= (ROWS - 1) * stride + depth, "twelve rows of {depth}, {stride} apart");
        let start = data.as_ptr().cast();
        Self { start, row: stride / W::GROUP, group: 1, groups: depth / W::GROUP, borrowed: PhantomData }
    }

    /// Rows of `groups` words, `stride` words apart.
    ///
    /// # Panics
    /// When twelve such rows do not fit.
    pub(crate) fn rows(words: &'a [u32], stride: usize, groups: usize) -> Self {
        assert!(words.len() >= (ROWS - 1) * stride + groups, "twelve rows of {groups}, {stride} apart");
        Self { start: words.as_ptr(), row: stride, group: 1, groups, borrowed: PhantomData }
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
pub(crate) fn multiply<W: Factor>(groups: usize, lhs: &Lhs<'_>, rhs: &[u32], stride: usize, tile: &mut Tile) {
    multiply_into::<W>(groups, lhs, rhs, stride, tile.0.as_flattened_mut(), COLS);
}

/// [`multiply`] to the first [`COLS`] columns of rows of `width`.
///
/// # Panics
/// When a matrix has fewer groups, or `sums` less than a tile.
#[inline(always)]
pub(crate) fn multiply_into<W: Factor>(
    groups: usize,
    lhs: &Lhs<'_>,
    rhs: &[u32],
    stride: usize,
    sums: &mut [f32],
    width: usize,
) {
    // SAFETY: `level` is what the processor has.
    unsafe { multiply_at::<W>(level(), groups, lhs, rhs, stride, sums, width) }
}

/// [`multiply_into`] by the instructions of a level.
///
/// # Safety
/// The processor has the level.
///
/// # Panics
/// When a matrix has fewer groups, or `sums` less than a tile.
#[inline(always)]
pub(super) unsafe fn multiply_at<W: Factor>(
    level: Level,
    groups: usize,
    lhs: &Lhs<'_>,
    rhs: &[u32],
    stride: usize,
    sums: &mut [f32],
    width: usize,
) {
    assert!(groups <= lhs.groups && (groups == 0 || rhs.len() >= (groups - 1) * stride + COLS));
    assert!(width >= COLS && sums.len() >= (ROWS - 1) * width + COLS);
    debug_assert!(level <= crate::simd::level());
    #[cfg(target_arch = "x86_64")]
    {
        let (rhs, to) = (rhs.as_ptr(), Sums { start: sums.as_mut_ptr(), width });
        // SAFETY: the instructions are there. The bounds of all matrices were checked: `Lhs` when it was made, for
        // `lhs.groups` groups of twelve rows; the others above.
        unsafe {
            match (W::GROUP, level) {
                (1, Level::Avx2) => return avx2(groups, lhs, rhs, stride, to),
                (1, Level::Avx512 | Level::Avx512Bf16) => return avx512_f32(groups, lhs, rhs, stride, to),
                (_, Level::Avx512Bf16) => return avx512_bf16(groups, lhs, rhs, stride, to),
                _ => {}
            }
        }
    }
    emulated::<W>(groups, lhs, rhs, stride, sums, width);
}

/// Where the sums of a tile go: row `i` begins `i · width` numbers from `start`.
#[cfg(target_arch = "x86_64")]
#[derive(Clone, Copy)]
struct Sums {
    start: *mut f32,
    width: usize,
}

/// The same in plain Rust: what the instructions are tested against, and what Miri runs.
pub(crate) fn emulated<W: Factor>(
    groups: usize,
    lhs: &Lhs<'_>,
    rhs: &[u32],
    stride: usize,
    sums: &mut [f32],
    width: usize,
) {
    for (i, row) in sums.chunks_mut(width).enumerate().take(ROWS) {
        let row = &mut row[..COLS];
        row.fill(0.0);
        for g in 0..groups {
            // SAFETY: inside the matrix that `lhs` was made from; numbers narrower than a word may be unaligned.
            let a = unsafe { lhs.start.add(i * lhs.row + g * lhs.group).read_unaligned() };
            for (sum, &b) in row.iter_mut().zip(&rhs[g * stride..]) {
                *sum = W::dot(*sum, a, b);
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
        unsafe fn $name(groups: usize, lhs: &Lhs<'_>, rhs: *const u32, stride: usize, to: Sums) {
            let mut sums = [[_mm512_setzero_ps(); 2]; ROWS];
            // Four pointers, three rows each: few enough to stay in registers.
            // SAFETY: the caller checked that `groups` groups of both matrices exist.
            unsafe {
                let mut lhs_at = [0, 1, 2, 3].map(|q| lhs.start.wrapping_add(3 * q * lhs.row));
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
                for (r, sums) in sums.into_iter().enumerate() {
                    let row = to.start.add(r * to.width);
                    _mm512_storeu_ps(row, sums[0]);
                    _mm512_storeu_ps(row.add(16), sums[1]);
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
/// Words of depth between two turns of a part: 16 KiB of the right matrix and 6 KiB of the left.
#[cfg(target_arch = "x86_64")]
const CHUNK: usize = 128;
/// Numbers in a vector of 256 bits.
#[cfg(target_arch = "x86_64")]
const LANES: usize = 8;
/// Rows of a part.
#[cfg(target_arch = "x86_64")]
const PART: usize = 6;

/// The loop in vectors of 256 bits, in parts of [`PART`] rows.
///
/// # Safety
/// `groups` groups of both matrices exist, and all rows of the sums.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
unsafe fn avx2(groups: usize, lhs: &Lhs<'_>, rhs: *const u32, stride: usize, to: Sums) {
    // Without groups, one chunk of nothing clears the sums.
    for start in (0..groups.max(1)).step_by(CHUNK) {
        let chunk = CHUNK.min(groups - start);
        for row in (0..ROWS).step_by(PART) {
            for col in (0..COLS).step_by(2 * LANES) {
                // SAFETY: rows and columns are inside the tile, and the groups exist.
                unsafe {
                    let lhs_at = lhs.start.wrapping_add(row * lhs.row + start * lhs.group);
                    let rhs = rhs.wrapping_add(start * stride + col);
                    let to = Sums { start: to.start.add(row * to.width + col), ..to };
                    part(chunk, lhs, lhs_at, rhs, stride, start > 0, to);
                }
            }
        }
    }
}

/// `chunk` words of depth for [`PART`] rows and two vectors of columns of sums, added to what is there if `add` says so.
///
/// Not inlined: the compiler would keep all sums of the tile at hand, on the stack.
///
/// # Safety
/// `chunk` groups exist from both pointers, and the sums, in [`PART`] rows and two vectors.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
#[inline(never)]
unsafe fn part(
    chunk: usize,
    lhs: &Lhs<'_>,
    lhs_at: *const u32,
    rhs_at: *const u32,
    stride: usize,
    add: bool,
    to: Sums,
) {
    let mut sums = [[_mm256_setzero_ps(); 2]; PART];
    // SAFETY: the caller's.
    unsafe {
        if add {
            for (r, sums) in sums.iter_mut().enumerate() {
                *sums = [0, LANES].map(|at| _mm256_loadu_ps(to.start.add(r * to.width + at)));
            }
        }
        // Two pointers, half of the rows each: few enough to stay in registers.
        let mut halves = [lhs_at, lhs_at.wrapping_add(PART / 2 * lhs.row)];
        let mut rhs_at = rhs_at;
        for _ in 0..chunk {
            let b = [0, LANES].map(|at| _mm256_loadu_ps(rhs_at.add(at).cast()));
            for half in 0..2 {
                for r in 0..PART / 2 {
                    let a = _mm256_set1_ps(halves[half].add(r * lhs.row).cast::<f32>().read_unaligned());
                    for v in 0..2 {
                        let sum = &mut sums[half * (PART / 2) + r][v];
                        *sum = _mm256_fmadd_ps(a, b[v], *sum);
                    }
                }
            }
            halves = halves.map(|at| at.wrapping_add(lhs.group));
            rhs_at = rhs_at.wrapping_add(stride);
        }
        for (r, sums) in sums.into_iter().enumerate() {
            for (v, sum) in sums.into_iter().enumerate() {
                _mm256_storeu_ps(to.start.add(r * to.width + v * LANES), sum);
            }
        }
    }
}
