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

/// swscale's factors from YUV to RGB, with 13 fractional bits. Of 16 bits, so that products of two of them take one instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Matrix {
    luma: i16,
    v_to_r: i16,
    v_to_g: i16,
    u_to_g: i16,
    u_to_b: i16,
    /// What is added to 8 times luma times its factor: half a step, less the luma of black.
    bias: i32,
}

impl Matrix {
    /// From swscale's table of a colour space (`[v_to_r, u_to_b, -u_to_g, -v_to_g]`, 16 fractional bits, for limited range).
    pub(crate) fn new(table: [i32; 4], full_range: bool) -> Self {
        // Limited range: luma 16..=235 (219 steps), chroma 16..=240 (224 steps).
        let chroma = |factor: i32| {
            let factor = i64::from(factor);
            if full_range { factor * 224 / 255 } else { factor }
        };
        let factor = |value: i64| (((value << 13) + (1 << 15)) >> 16).clamp(-0x8000, 0x7fff) as i16;
        let (luma, black) = if full_range { (1 << 16, 0) } else { ((1 << 16) * 255 / 219, 16) };
        let luma = factor(luma);
        Self {
            luma,
            bias: (1 << 15) - 8 * black * i32::from(luma),
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
    u: Vec<i16>,
    v: Vec<i16>,
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
            *pixel = matrix.pixel(*luma, *u, *v);
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

/// Eight times the chroma of each pixel of the pairs `first..last`, around zero: swscale's number less its six lowest bits,
/// which are zero.
#[inline(always)]
fn interpolate(
    plane: &Plane<'_>,
    (above, below): (usize, usize),
    first: usize,
    last: usize,
    samples: usize,
    out: &mut Vec<i16>,
) {
    let (start, end) = (first.saturating_sub(1), (last + 1).min(samples));
    let (a, b) = (plane.line(above, start, end), plane.line(below, start, end));
    out.resize(2 * (last - first), 0);
    let sum = |i: usize| i16::from(a[i]) + i16::from(b[i]);
    let scaled = |near: i16, far: i16| 3 * near + far - 1024;
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
            let at = |i: usize| i16::from(a[i]) + i16::from(b[i]);
            out[2 * i] = scaled(at(i + 1), at(i));
            out[2 * i + 1] = scaled(at(i + 1), at(i + 2));
        }
    }
}

impl Matrix {
    /// A pixel as `0x00BBGGRR`. Sums wrap, as swscale's do, once they have its six lower bits.
    #[inline(always)]
    fn pixel(&self, luma: u8, u: i16, v: i16) -> u32 {
        let product = |a: i16, b: i16| i32::from(a) * i32::from(b);
        let base = product(i16::from(luma) << 3, self.luma) + self.bias;
        let red = base + product(v, self.v_to_r);
        let green = base + product(v, self.v_to_g) + product(u, self.u_to_g);
        let blue = base + product(u, self.u_to_b);
        let byte = |value: i32| ((value << 6).clamp(0, (1 << 30) - 1) >> 22) as u32;
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
