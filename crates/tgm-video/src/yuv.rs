//! 8-bit 4:2:0 pictures, which nearly all videos are, become RGB: only the part that is wanted, many pixels at a time.
//!
//! The arithmetic is swscale's (`yuv2rgb_full_1`, accurate rounding, full chroma interpolation), bit for bit: chroma is
//! interpolated 3:1 across; downwards the nearer line is taken, or the mean of two where swscale's weights round so.

use std::ops::Range;

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
    sums: Vec<i16>,
    u: Vec<i16>,
    v: Vec<i16>,
    /// Red, green, blue: a loop over bytes of each and one that interleaves them take less than one over whole pixels.
    rgb: [Vec<u8>; 3],
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
        let pairs = x / 2..(x + width).div_ceil(2);
        let [luma, u, v] = picture.planes;
        let luma = luma.line(y, 2 * pairs.start, 2 * pairs.end);
        let Lines { sums, u: us, v: vs, rgb: [red, green, blue] } = lines;
        let rows = chroma_rows(y, picture.height);
        for (plane, out) in [(u, &mut *us), (v, &mut *vs)] {
            add_lines(&plane, rows, &pairs, picture.width / 2, sums);
            out.resize(2 * pairs.len(), 0);
            interpolate(sums, out);
        }
        [&mut *red, green, blue].into_iter().for_each(|plane| plane.resize(luma.len(), 0));
        matrix.apply(luma, us, vs, red, green, blue);
        let skipped = x - 2 * pairs.start..;
        interleave(&red[skipped.clone()], &green[skipped.clone()], &blue[skipped], out);
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

/// The sums of two lines of chroma for some pairs of pixels, with one more on either side; at the edges of the picture the
/// outermost repeats.
#[inline(always)]
fn add_lines(
    plane: &Plane<'_>,
    (above, below): (usize, usize),
    pairs: &Range<usize>,
    samples: usize,
    sums: &mut Vec<i16>,
) {
    let (start, end) = (pairs.start.saturating_sub(1), (pairs.end + 1).min(samples));
    let (a, b) = (plane.line(above, start, end), plane.line(below, start, end));
    let len = pairs.len() + 2;
    sums.resize(len, 0);
    let (left_edge, right_edge) = (pairs.start == 0, pairs.end == samples);
    for ((sum, &a), &b) in sums[usize::from(left_edge)..].iter_mut().zip(a).zip(b) {
        *sum = i16::from(a) + i16::from(b);
    }
    if left_edge {
        sums[0] = sums[1];
    }
    if right_edge {
        sums[len - 1] = sums[len - 2];
    }
}

/// Eight times the chroma of each pixel, around zero, from [`add_lines`]: swscale's number less its six lowest bits, which are
/// zero.
#[inline(always)]
fn interpolate(sums: &[i16], out: &mut [i16]) {
    let pairs = sums.len() - 2;
    let out = &mut out[..2 * pairs];
    for i in 0..pairs {
        let near = 3 * sums[i + 1] - 1024;
        out[2 * i] = near + sums[i];
        out[2 * i + 1] = near + sums[i + 2];
    }
}

impl Matrix {
    /// The pixels of a line, in a plane for each colour.
    #[inline(always)]
    fn apply(&self, luma: &[u8], u: &[i16], v: &[i16], red: &mut [u8], green: &mut [u8], blue: &mut [u8]) {
        let count = luma.len();
        let (u, v) = (&u[..count], &v[..count]);
        let (red, green, blue) = (&mut red[..count], &mut green[..count], &mut blue[..count]);
        for i in 0..count {
            [red[i], green[i], blue[i]] = self.pixel(luma[i], u[i], v[i]);
        }
    }

    /// Red, green and blue. Sums wrap, as swscale's do, once they have its six lower bits.
    #[inline(always)]
    fn pixel(&self, luma: u8, u: i16, v: i16) -> [u8; 3] {
        let product = |a: i16, b: i16| i32::from(a) * i32::from(b);
        let base = product(i16::from(luma) << 3, self.luma) + self.bias;
        let red = base + product(v, self.v_to_r);
        let green = base + product(v, self.v_to_g) + product(u, self.u_to_g);
        let blue = base + product(u, self.u_to_b);
        // The bounds of a byte after the shift: packing instructions keep to them without further ado.
        [red, green, blue].map(|value| ((value << 6) >> 22).clamp(0, 255) as u8)
    }
}

/// As many pixels of three colours as `out` has place for.
#[inline(always)]
fn interleave(red: &[u8], green: &[u8], blue: &[u8], out: &mut [u8]) {
    let count = out.len() / 3;
    let (red, green, blue, out) = (&red[..count], &green[..count], &blue[..count], &mut out[..3 * count]);
    for i in 0..count {
        out[3 * i] = red[i];
        out[3 * i + 1] = green[i];
        out[3 * i + 2] = blue[i];
    }
}
