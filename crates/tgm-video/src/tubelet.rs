//! A clip cut into tubelets, and back.

use serde::{Deserialize, Serialize};

use crate::clip::rgb_bytes;
use crate::{Clip, VideoError, ffi};

/// The size of one tubelet: `frames` × `patch` × `patch` pixels of three channels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TubeletShape {
    /// Frames per temporal slot (2).
    pub frames: usize,
    /// Width and height in pixels (16).
    pub patch: usize,
}

impl Default for TubeletShape {
    /// VideoMAE's 2 × 16 × 16.
    fn default() -> Self {
        Self { frames: 2, patch: 16 }
    }
}

impl TubeletShape {
    /// Numbers in one tubelet: `frames * patch * patch * 3`, or the largest number where that does not fit.
    #[allow(clippy::len_without_is_empty)]
    pub fn len(&self) -> usize {
        [self.patch, self.patch, 3].into_iter().fold(self.frames, usize::saturating_mul)
    }

    /// Slots, rows and columns of tubelets in a clip.
    ///
    /// # Errors
    /// [`VideoError::Invalid`] when the tubelets do not tile the clip exactly, or have no size.
    pub fn grid(&self, clip: &Clip) -> Result<(usize, usize, usize), VideoError> {
        self.grid_of(clip.frames(), clip.height(), clip.width())
    }

    /// As [`grid`](Self::grid), for a clip of this size that is not there yet.
    ///
    /// ```
    /// use tgm_video::TubeletShape;
    ///
    /// assert_eq!(TubeletShape::default().grid_of(16, 224, 224)?, (8, 14, 14));
    /// # Ok::<(), tgm_video::VideoError>(())
    /// ```
    ///
    /// # Errors
    /// As [`grid`](Self::grid).
    pub fn grid_of(
        &self,
        frames: usize,
        height: usize,
        width: usize,
    ) -> Result<(usize, usize, usize), VideoError> {
        let divide = |what, size: usize, by: usize| {
            if by > 0 && size > 0 && size.is_multiple_of(by) {
                return Ok(size / by);
            }
            Err(VideoError::invalid(
                what,
                size,
                format!("it must be a positive multiple of the tubelet's {by}"),
            ))
        };
        Ok((
            divide("the clip's number of frames", frames, self.frames)?,
            divide("the clip's height", height, self.patch)?,
            divide("the clip's width", width, self.patch)?,
        ))
    }
}

/// Mean and standard deviation per channel, for values in 0..=1.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Normalization {
    /// Subtracted first.
    pub mean: [f32; 3],
    /// Divided by; not zero.
    pub std: [f32; 3],
}

impl Normalization {
    /// ImageNet statistics: VideoMAE.
    pub const IMAGENET: Self = Self { mean: [0.485, 0.456, 0.406], std: [0.229, 0.224, 0.225] };
    /// CLIP's own statistics.
    pub const CLIP: Self = Self {
        mean: [0.481_454_66, 0.457_827_5, 0.408_210_73],
        std: [0.268_629_54, 0.261_302_6, 0.275_777_1],
    };
    /// Leaves values in 0..=1.
    pub const NONE: Self = Self { mean: [0.0; 3], std: [1.0; 3] };

    /// Refuses numbers that make infinities, or always the same, of every pixel.
    ///
    /// # Errors
    /// [`VideoError::Invalid`] naming the field.
    pub fn validate(&self) -> Result<(), VideoError> {
        let refuse =
            |what, values: &[f32; 3], must: &str| Err(VideoError::invalid(what, format!("{values:?}"), must));
        if !self.mean.iter().all(|mean| mean.is_finite()) {
            return refuse("normalization.mean", &self.mean, "each number must be finite");
        }
        if !self.std.iter().all(|std| std.is_normal() && *std > 0.0) {
            return refuse("normalization.std", &self.std, "each number must be finite and above 0");
        }
        Ok(())
    }

    /// Normalised value of each byte, per channel.
    fn table(&self) -> [[f32; 3]; 256] {
        std::array::from_fn(|byte| {
            std::array::from_fn(|c| (byte as f32 / 255.0 - self.mean[c]) / self.std[c])
        })
    }

    /// The byte a normalised value of channel `c` stands for.
    fn byte(&self, value: f32, c: usize) -> u8 {
        // `as` saturates, so values outside the range clip as a picture should.
        ((value * self.std[c] + self.mean[c]) * 255.0).round() as u8
    }
}

/// The clip as normalised tubelets `[slots * rows * cols, frames * patch * patch * 3]`.
///
/// Tubelets are ordered time first, then row, then column; within a tubelet the layout is `[t, y, x, c]`, which is both
/// VideoMAE's embedding input (up to a fixed permutation of the weights) and its reconstruction target.
///
/// # Errors
/// [`VideoError::Invalid`] when the tubelets do not tile the clip, or the normalization fails [`Normalization::validate`].
pub fn patchify(
    clip: &Clip,
    shape: TubeletShape,
    normalization: &Normalization,
) -> Result<Vec<f32>, VideoError> {
    let mut tubelets = Vec::new();
    patchify_into(clip, shape, normalization, &mut tubelets)?;
    Ok(tubelets)
}

/// As [`patchify`], behind what is there already: the clips of a batch one after the other, or, cleared before, in memory that is
/// used again.
///
/// # Errors
/// As [`patchify`]; then nothing is added.
pub fn patchify_into(
    clip: &Clip,
    shape: TubeletShape,
    normalization: &Normalization,
    tubelets: &mut Vec<f32>,
) -> Result<(), VideoError> {
    let grid = shape.grid(clip)?;
    normalization.validate()?;
    tubelets.reserve(clip.data().len());
    let table = normalization.table();
    let fused = Fused::new(normalization);
    if fused.gives(&table) && ffi::fused(Cut { fused: &fused, clip, grid, shape, tubelets }) {
        return Ok(());
    }
    cut(clip, grid, shape, tubelets, |bytes, values| {
        for (values, pixel) in values.chunks_exact_mut(3).zip(bytes.chunks_exact(3)) {
            for c in 0..3 {
                values[c] = table[usize::from(pixel[c])][c];
            }
        }
    });
    Ok(())
}

/// Appends every tubelet, which `normalize` makes from its pixel rows. A tubelet fits the nearest cache; made there, its memory need
/// not be cleared first.
#[inline(always)]
fn cut(
    clip: &Clip,
    grid: (usize, usize, usize),
    shape: TubeletShape,
    tubelets: &mut Vec<f32>,
    normalize: impl Fn(&[u8], &mut [f32]),
) {
    let mut tubelet = vec![0.0; shape.len()];
    let mut rows = rows(grid, shape);
    for _ in 0..grid.0 * grid.1 * grid.2 {
        for (line, (start, len)) in tubelet.chunks_exact_mut(shape.patch * 3).zip(&mut rows) {
            normalize(&clip.data()[start..start + len], line);
        }
        tubelets.extend_from_slice(&tubelet);
    }
}

/// Values that are worked on at once: whole pixels, and whole vectors.
const LANES: usize = 48;

/// Normalisation by multiplications: what division gives, without its cost.
///
/// A quotient `x / y` from the rounded reciprocal `r` of `y`: the product `q = x r` may be one unit off, and a step of Newton's
/// with the remainder `x - q y`, which is exact, puts that right (Markstein 1990). That it does so for each of the 256 bytes
/// is not believed but compared, by [`gives`](Self::gives).
struct Fused {
    mean: [f32; LANES],
    std: [f32; LANES],
    reciprocal: [f32; LANES],
}

impl Fused {
    fn new(normalization: &Normalization) -> Self {
        let lanes = |value: &[f32; 3]| std::array::from_fn(|lane| value[lane % 3]);
        let reciprocal = normalization.std.map(|std| 1.0 / std);
        Self {
            mean: lanes(&normalization.mean),
            std: lanes(&normalization.std),
            reciprocal: lanes(&reciprocal),
        }
    }

    #[inline(always)]
    fn value(&self, byte: u8, lane: usize) -> f32 {
        let quotient = |x: f32, y: f32, reciprocal: f32| {
            let near = x * reciprocal;
            (-near).mul_add(y, x).mul_add(reciprocal, near)
        };
        let level = quotient(f32::from(byte), 255.0, 1.0 / 255.0);
        quotient(level - self.mean[lane], self.std[lane], self.reciprocal[lane])
    }

    #[inline(always)]
    fn line(&self, bytes: &[u8], values: &mut [f32]) {
        let (groups, rest) = bytes.as_chunks::<LANES>();
        let (whole, tail) = values.as_chunks_mut::<LANES>();
        for (values, bytes) in whole.iter_mut().zip(groups) {
            for lane in 0..LANES {
                values[lane] = self.value(bytes[lane], lane);
            }
        }
        for (lane, (value, byte)) in tail.iter_mut().zip(rest).enumerate() {
            *value = self.value(*byte, lane);
        }
    }

    /// Whether these are the values of a table, to the bit.
    fn gives(&self, table: &[[f32; 3]; 256]) -> bool {
        let mut bytes = [0; 768];
        bytes.iter_mut().enumerate().for_each(|(i, byte)| *byte = (i / 3) as u8);
        let mut values = [0.0; 768];
        struct Line<'a>(&'a Fused, &'a [u8], &'a mut [f32]);
        impl ffi::Vectorized for Line<'_> {
            #[inline(always)]
            fn run(self) {
                self.0.line(self.1, self.2);
            }
        }
        ffi::fused(Line(self, &bytes, &mut values))
            && values.iter().zip(table.as_flattened()).all(|(a, b)| a.to_bits() == b.to_bits())
    }
}

/// A clip to be cut into tubelets.
struct Cut<'a> {
    fused: &'a Fused,
    clip: &'a Clip,
    grid: (usize, usize, usize),
    shape: TubeletShape,
    tubelets: &'a mut Vec<f32>,
}

impl ffi::Vectorized for Cut<'_> {
    #[inline(always)]
    fn run(self) {
        let Self { fused, clip, grid, shape, tubelets } = self;
        cut(clip, grid, shape, tubelets, |bytes, values| fused.line(bytes, values));
    }
}

/// The inverse of [`patchify`]: exact for tubelets that came from bytes; other values are rounded and clipped.
///
/// `grid` is (slots, rows, columns). The clip's times are all zero: tubelets do not carry them.
///
/// # Errors
/// [`VideoError::Invalid`] when the number of values does not fit the grid.
pub fn unpatchify(
    tubelets: &[f32],
    grid: (usize, usize, usize),
    shape: TubeletShape,
    normalization: &Normalization,
) -> Result<Clip, VideoError> {
    let (slots, row_count, cols) = grid;
    let sides = || {
        let frames = slots.checked_mul(shape.frames)?;
        Some((frames, row_count.checked_mul(shape.patch)?, cols.checked_mul(shape.patch)?))
    };
    let sides = sides().filter(|&(frames, height, width)| {
        rgb_bytes(frames, height, width).is_some_and(|bytes| bytes == tubelets.len())
    });
    let Some((frames, height, width)) = sides else {
        let must = format!("there must be {slots}x{row_count}x{cols} tubelets of {} values", shape.len());
        return Err(VideoError::invalid("the number of tubelet values", tubelets.len(), must));
    };
    let mut data = vec![0; tubelets.len()];
    let mut values = tubelets.iter();
    for (start, len) in rows(grid, shape) {
        for (i, (byte, value)) in data[start..start + len].iter_mut().zip(&mut values).enumerate() {
            *byte = normalization.byte(*value, i % 3);
        }
    }
    Clip::new(data, height, width, vec![0.0; frames])
}

/// Start and length, in the clip's bytes, of every pixel row of every tubelet, in tubelet order.
fn rows(grid: (usize, usize, usize), shape: TubeletShape) -> impl Iterator<Item = (usize, usize)> {
    let (slots, rows, cols) = grid;
    let TubeletShape { frames, patch } = shape;
    let (height, width) = (rows * patch, cols * patch);
    (0..slots * rows * cols).flat_map(move |tubelet| {
        let (slot, row, col) = (tubelet / (rows * cols), tubelet / cols % rows, tubelet % cols);
        (0..frames * patch).map(move |line| {
            let (t, y) = (slot * frames + line / patch, row * patch + line % patch);
            (((t * height + y) * width + col * patch) * 3, patch * 3)
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn clip(frames: usize, height: usize, width: usize, seed: u64) -> Clip {
        let byte = |i: usize| (i as u64).wrapping_mul(2_654_435_761).wrapping_add(seed).rotate_right(7) as u8;
        Clip::new((0..frames * height * width * 3).map(byte).collect(), height, width, vec![0.0; frames])
            .unwrap()
    }

    proptest! {
        #[test]
        fn unpatchify_is_the_exact_inverse(
            frames in 1..4usize, patch in 1..9usize, slots in 1..4usize, rows in 1..5usize, cols in 1..5usize, seed: u64,
        ) {
            let shape = TubeletShape { frames, patch };
            let clip = clip(slots * frames, rows * patch, cols * patch, seed);
            prop_assert_eq!(shape.grid(&clip).unwrap(), (slots, rows, cols));
            for normalization in [Normalization::IMAGENET, Normalization::CLIP, Normalization::NONE] {
                let tubelets = patchify(&clip, shape, &normalization).unwrap();
                prop_assert_eq!(tubelets.len(), slots * rows * cols * shape.len());
                let back = unpatchify(&tubelets, (slots, rows, cols), shape, &normalization).unwrap();
                prop_assert_eq!(back.data(), clip.data());
            }
        }

        #[test]
        fn every_value_lies_where_the_layout_says(t in 0..4usize, y in 0..6usize, x in 0..8usize, c in 0..3usize) {
            let shape = TubeletShape { frames: 2, patch: 2 };
            let clip = clip(4, 6, 8, 5);
            let tubelets = patchify(&clip, shape, &Normalization::NONE).unwrap();
            let tubelet = (t / 2 * 3 + y / 2) * 4 + x / 2;
            let within = ((t % 2 * 2 + y % 2) * 2 + x % 2) * 3 + c;
            let byte = clip.data()[((t * 6 + y) * 8 + x) * 3 + c];
            prop_assert_eq!(tubelets[tubelet * shape.len() + within], f32::from(byte) / 255.0);
        }
    }

    #[test]
    fn every_byte_survives_every_normalization() {
        for normalization in [Normalization::IMAGENET, Normalization::CLIP, Normalization::NONE] {
            for (byte, values) in (0..=255u8).zip(normalization.table()) {
                assert!((0..3).all(|c| normalization.byte(values[c], c) == byte));
            }
        }
    }

    proptest! {
        /// To the bit what the table says, by whichever way it is computed.
        #[test]
        fn every_value_is_the_tables(
            patch in 1..40usize, seed: u64, mean in prop::array::uniform3(-2.0..2f32), std in prop::array::uniform3(f32::MIN_POSITIVE..3f32),
        ) {
            let shape = TubeletShape { frames: 1, patch };
            let clip = clip(2, 2 * patch, patch, seed);
            for normalization in [Normalization { mean, std }, Normalization::IMAGENET] {
                let table = normalization.table();
                let mut tubelets = vec![7.0];
                patchify_into(&clip, shape, &normalization, &mut tubelets).unwrap();
                prop_assert_eq!((tubelets[0], tubelets.len()), (7.0, 1 + clip.data().len()));
                let pixels = clip.data().iter().enumerate();
                for (value, (i, byte)) in tubelets[1..].iter().zip(pixels) {
                    // With one column of tubelets, their order is that of the pixels.
                    prop_assert_eq!(value.to_bits(), table[usize::from(*byte)][i % 3].to_bits());
                }
            }
        }
    }

    /// They became infinities, which nobody refused before the model.
    #[test]
    fn normalizations_that_divide_by_nothing_are_refused() {
        let (clip, shape) = (clip(2, 4, 4, 0), TubeletShape { frames: 2, patch: 4 });
        let none = Normalization::NONE;
        for (normalization, key) in [
            (Normalization { std: [1.0, 0.0, 1.0], ..none }, "normalization.std"),
            (Normalization { std: [1.0, 1.0, -1.0], ..none }, "normalization.std"),
            (Normalization { std: [f32::NAN; 3], ..none }, "normalization.std"),
            (Normalization { mean: [0.0, f32::NAN, 0.0], ..none }, "normalization.mean"),
            (Normalization { mean: [f32::INFINITY; 3], ..none }, "normalization.mean"),
        ] {
            let mut tubelets = vec![7.0];
            let error = patchify_into(&clip, shape, &normalization, &mut tubelets).unwrap_err().to_string();
            assert!(error.contains(key), "{error}");
            assert_eq!(tubelets, [7.0]);
        }
    }

    /// The number of values came out as 0 in release builds.
    #[test]
    fn grids_whose_size_does_not_fit_are_refused() {
        let half = 1 << (usize::BITS / 2);
        for (grid, patch) in [((1, half, half), 1), ((half, 1, 1), half), ((0, usize::MAX, 1), 2)] {
            let shape = TubeletShape { frames: 1, patch };
            assert!(unpatchify(&[], grid, shape, &Normalization::NONE).is_err(), "{grid:?}");
        }
        assert_eq!(TubeletShape { frames: 1, patch: half }.len(), usize::MAX);
    }

    #[test]
    fn the_usual_normalizations_need_no_table() {
        if !ffi::fused(Nothing) {
            return;
        }
        for normalization in [Normalization::IMAGENET, Normalization::CLIP, Normalization::NONE] {
            assert!(Fused::new(&normalization).gives(&normalization.table()));
        }
    }

    struct Nothing;

    impl ffi::Vectorized for Nothing {
        fn run(self) {}
    }

    #[test]
    fn sizes_that_do_not_divide_are_refused() {
        for (frames, height, width) in [(3, 4, 4), (2, 5, 4), (2, 4, 6), (2, 0, 4)] {
            let shape = TubeletShape { frames: 2, patch: 4 };
            assert!(patchify(&clip(frames, height, width, 0), shape, &Normalization::NONE).is_err());
        }
        assert!(TubeletShape { frames: 2, patch: 0 }.grid(&clip(2, 4, 4, 0)).is_err());
        assert!(
            unpatchify(&[0.0; 11], (1, 1, 1), TubeletShape { frames: 1, patch: 2 }, &Normalization::NONE)
                .is_err()
        );
    }
}
