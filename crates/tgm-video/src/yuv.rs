//! 8-bit 4:2:0 pictures, which nearly all videos are, become RGB: only the part that is wanted, many pixels at a time.
//!
//! The arithmetic is swscale's (`yuv2rgb_full_1`, accurate rounding, full chroma interpolation), bit for bit: chroma is
//! interpolated 3:1 across; downwards the nearer line is taken, or the mean of two where swscale's weights round so.

use crate::CropBox;

/// One plane of bytes.
#[derive(Clone, Copy)]
pub(crate) struct Plane<'a> {
    pub data: &'a [u8],
    pub stride: usize,
}

impl<'a> Plane<'a> {
    fn line(&self, y: usize, start: usize, end: usize) -> &'a [u8] {
        &self.data[y * self.stride + start..y * self.stride + end]
    }
}

/// A stored picture of even width and height, each at least [`MIN_SIDE`].
#[derive(Clone, Copy)]
pub(crate) struct Yuv420<'a> {
    pub planes: [Plane<'a>; 3],
    pub width: usize,
    pub height: usize,
}

/// Smaller pictures get other filters in swscale.
pub(crate) const MIN_SIDE: usize = 16;

/// swscale's factors from YUV to RGB, with 13 fractional bits, and the offset of luma with 9.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Matrix {
    pub luma_offset: i32,
    pub luma: i32,
    pub v_to_r: i32,
    pub v_to_g: i32,
    pub u_to_g: i32,
    pub u_to_b: i32,
}

impl Matrix {
    /// From swscale's table of a colour space (`[v_to_r, u_to_b, -u_to_g, -v_to_g]`, 16 fractional bits, for limited range).
    pub(crate) fn new(table: [i32; 4], full_range: bool) -> Self {
        // Limited range: luma 16..=235 (219 steps), chroma 16..=240 (224 steps).
        let chroma = |factor: i32| {
            let factor = i64::from(factor);
            if full_range { factor * 224 / 255 } else { factor }
        };
        let rounded = |value: i64| ((value + (1 << 15)) >> 16).clamp(-0x8000, 0x7fff) as i32;
        let factor = |value: i64| rounded(value << 13);
        let (luma, offset) = if full_range { (1 << 16, 0) } else { ((1 << 16) * 255 / 219, 16 << 16) };
        Self {
            luma_offset: rounded(offset << 9),
            luma: factor(luma),
            v_to_r: factor(chroma(table[0])),
            u_to_b: factor(chroma(table[1])),
            u_to_g: factor(-chroma(table[2])),
            v_to_g: factor(-chroma(table[3])),
        }
    }
}

/// Line buffers, kept from one picture to the next.
#[derive(Default)]
pub(crate) struct Lines {
    u: Vec<i32>,
    v: Vec<i32>,
    pixels: Vec<u32>,
}

impl Lines {
    /// Writes the `part` of a picture to `rgb` (`[height, width, 3]` of the part). The part lies inside the picture.
    pub(crate) fn convert(&mut self, picture: &Yuv420<'_>, matrix: &Matrix, part: CropBox, rgb: &mut [u8]) {
        let [x, y, width, height] = [part.x, part.y, part.width, part.height].map(|v| v as usize);
        for (line, out) in (y..y + height).zip(rgb.chunks_exact_mut(width * 3)) {
            crate::ffi::widest(Line { lines: self, picture, matrix, y: line, x, width, out });
        }
    }
}

/// One line to be converted.
struct Line<'a, 'b> {
    lines: &'a mut Lines,
    picture: &'a Yuv420<'b>,
    matrix: &'a Matrix,
    y: usize,
    x: usize,
    width: usize,
    out: &'a mut [u8],
}

impl crate::ffi::Vectorized for Line<'_, '_> {
    #[inline(always)]
    fn run(self) {
        let Self { lines, picture, matrix, y, x, width, out } = self;
        // Whole pairs of pixels, which share a chroma sample.
        let (first, last) = (x / 2, (x + width).div_ceil(2));
        let [luma, u, v] = picture.planes;
        let rows = chroma_rows(y, picture.height);
        interpolate(&u, rows, first, last, picture.width / 2, &mut lines.u);
        interpolate(&v, rows, first, last, picture.width / 2, &mut lines.v);
        let luma = luma.line(y, 2 * first, 2 * last);
        lines.pixels.resize(luma.len(), 0);
        let inputs = luma.iter().zip(&lines.u).zip(&lines.v);
        for (pixel, ((luma, u), v)) in lines.pixels.iter_mut().zip(inputs) {
            *pixel = matrix.pixel(i32::from(*luma), *u, *v);
        }
        pack(&lines.pixels[x - 2 * first..][..width], out);
    }
}

/// The two chroma lines whose sum a line takes; twice the same where it takes one.
fn chroma_rows(y: usize, height: usize) -> (usize, usize) {
    match y {
        0 => (0, 0),
        _ if y + 1 == height => (height / 2 - 2, height / 2 - 1),
        _ if y.is_multiple_of(2) => (y / 2 - 1, y / 2),
        _ => (y / 2, y / 2),
    }
}

/// Twice the chroma of each pixel of the pairs `first..last`, times four, in swscale's 17-bit scale around zero.
#[inline(always)]
fn interpolate(
    plane: &Plane<'_>,
    (above, below): (usize, usize),
    first: usize,
    last: usize,
    samples: usize,
    out: &mut Vec<i32>,
) {
    let (start, end) = (first.saturating_sub(1), (last + 1).min(samples));
    let (a, b) = (plane.line(above, start, end), plane.line(below, start, end));
    out.resize(2 * (last - first), 0);
    let sum = |i: usize| i32::from(a[i]) + i32::from(b[i]);
    let scaled = |near: i32, far: i32| 64 * (3 * near + far) - 65536;
    let mut pair = |at: usize, left: usize, middle: usize, right: usize| {
        out[2 * at] = scaled(sum(middle), sum(left));
        out[2 * at + 1] = scaled(sum(middle), sum(right));
    };
    // At the edges of the picture the outermost sample repeats.
    let inner = (first - start, last - start);
    let right_edge = end - start - 1;
    pair(0, inner.0.saturating_sub(1), inner.0, (inner.0 + 1).min(right_edge));
    pair(last - first - 1, (inner.1 - 1).saturating_sub(1), inner.1 - 1, inner.1.min(right_edge));
    if last - first > 2 {
        let count = last - first - 2;
        let (a, b) = (&a[inner.0..][..count + 2], &b[inner.0..][..count + 2]);
        let out = &mut out[2..][..2 * count];
        for i in 0..count {
            let at = |i: usize| i32::from(a[i]) + i32::from(b[i]);
            let near = 3 * at(i + 1);
            out[2 * i] = 64 * (near + at(i)) - 65536;
            out[2 * i + 1] = 64 * (near + at(i + 2)) - 65536;
        }
    }
}

impl Matrix {
    /// A pixel as `0x00BBGGRR`. Sums wrap as swscale's do.
    #[inline(always)]
    fn pixel(&self, luma: i32, u: i32, v: i32) -> u32 {
        let base = ((luma << 9) - self.luma_offset).wrapping_mul(self.luma).wrapping_add(1 << 21);
        let red = base.wrapping_add(v.wrapping_mul(self.v_to_r));
        let green = base.wrapping_add(v.wrapping_mul(self.v_to_g)).wrapping_add(u.wrapping_mul(self.u_to_g));
        let blue = base.wrapping_add(u.wrapping_mul(self.u_to_b));
        let byte = |value: i32| (value.clamp(0, (1 << 30) - 1) >> 22) as u32;
        byte(red) | byte(green) << 8 | byte(blue) << 16
    }
}

/// Drops the empty byte of each pixel.
#[inline(always)]
fn pack(pixels: &[u32], out: &mut [u8]) {
    let (groups, rest) = pixels.as_chunks::<4>();
    let (packed, tail) = out.as_chunks_mut::<12>();
    for (out, [a, b, c, d]) in packed.iter_mut().zip(groups) {
        let words = [a | b << 24, b >> 8 | c << 16, c >> 16 | d << 8];
        for (bytes, word) in out.as_chunks_mut::<4>().0.iter_mut().zip(words) {
            *bytes = word.to_le_bytes();
        }
    }
    for (bytes, pixel) in tail.chunks_exact_mut(3).zip(rest) {
        bytes.copy_from_slice(&pixel.to_le_bytes()[..3]);
    }
}
