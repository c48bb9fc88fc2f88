//! How a stored picture is turned to be displayed upright.

use serde::{Deserialize, Serialize};

use crate::CropBox;

/// The quarter turns to apply to stored pictures so that they display upright.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Rotation {
    /// Stored upright.
    #[default]
    None,
    /// A quarter turn clockwise.
    Clockwise90,
    /// Upside down.
    Clockwise180,
    /// A quarter turn counter-clockwise.
    Clockwise270,
}

/// A rotation and perhaps a mirror: one of the eight ways a picture can lie on a rectangle.
///
/// Displayed coordinates are `x' = a*x + c*y`, `y' = b*x + d*y`, shifted so that the picture starts at the origin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Orientation {
    a: i8,
    b: i8,
    c: i8,
    d: i8,
}

impl Orientation {
    pub(crate) const UPRIGHT: Self = Self { a: 1, b: 0, c: 0, d: 1 };

    /// From the four factors of a display matrix (`[a, b, c, d]`, any scale), if they are within a degree of a quarter turn.
    pub(crate) fn from_matrix(matrix: [i32; 4]) -> Option<Self> {
        let [a, b, c, d] = matrix.map(f64::from);
        let unit = |value: f64, x: f64, y: f64| {
            let share = value / x.hypot(y);
            [-1i8, 0, 1].into_iter().find(|&v| (share - f64::from(v)).abs() < 0.0175)
        };
        let turned = Self { a: unit(a, a, b)?, b: unit(b, a, b)?, c: unit(c, c, d)?, d: unit(d, c, d)? };
        let whole = turned.a.abs() == turned.d.abs()
            && turned.b.abs() == turned.c.abs()
            && turned.a.abs() != turned.b.abs();
        whole.then_some(turned)
    }

    /// Whether left and right are swapped after the rotation.
    pub(crate) fn mirrored(self) -> bool {
        self.a * self.d - self.b * self.c < 0
    }

    pub(crate) fn rotation(self) -> Rotation {
        // Undoing a mirror after the rotation negates displayed x.
        let a = if self.mirrored() { -self.a } else { self.a };
        match (a, self.b) {
            (1, _) => Rotation::None,
            (-1, _) => Rotation::Clockwise180,
            (_, 1) => Rotation::Clockwise90,
            _ => Rotation::Clockwise270,
        }
    }

    /// Displayed width and height of a stored picture.
    pub(crate) fn size(self, width: u32, height: u32) -> (u32, u32) {
        if self.a == 0 { (height, width) } else { (width, height) }
    }

    /// A displacement as displayed.
    pub(crate) fn vector(self, dx: f32, dy: f32) -> (f32, f32) {
        let [a, b, c, d] = [self.a, self.b, self.c, self.d].map(f32::from);
        (a * dx + c * dy, b * dx + d * dy)
    }

    /// A point of a stored picture of this size as displayed.
    pub(crate) fn point(self, x: f32, y: f32, width: f32, height: f32) -> (f32, f32) {
        let (x, y) = self.vector(x, y);
        let (right, bottom) = self.vector(width, height);
        (x - right.min(0.0), y - bottom.min(0.0))
    }

    /// The part of a stored picture of this size that is displayed as `part`.
    pub(crate) fn stored(self, part: CropBox, width: u32, height: u32) -> CropBox {
        let (shown_width, shown_height) = self.size(width, height);
        // The matrix is orthogonal, so its transpose leads back; a negative factor counts from the far edge.
        let axis = |along_x: i8, along_y: i8| {
            let (start, length, size) = if along_x != 0 {
                (part.x, part.width, shown_width)
            } else {
                (part.y, part.height, shown_height)
            };
            if along_x + along_y < 0 { (size - start - length, length) } else { (start, length) }
        };
        let ((x, width), (y, height)) = (axis(self.a, self.b), axis(self.c, self.d));
        CropBox { x, y, width, height }
    }

    /// Copies packed RGB lines of `stride` bytes, `width` × `height` pixels as stored, to upright pixels `out`, `[H, W, 3]`.
    pub(crate) fn upright(self, lines: &[u8], stride: usize, width: usize, height: usize, out: &mut [u8]) {
        if self == Self::UPRIGHT {
            for (line, out) in lines.chunks(stride).zip(out.chunks_exact_mut(width * 3)) {
                out.copy_from_slice(&line[..width * 3]);
            }
            return;
        }
        let (shown_width, _) = self.size(width as u32, height as u32);
        let from_edge =
            |forward: i8, backward: i8, size: usize| if forward + backward < 0 { size - 1 } else { 0 };
        let (x0, y0) = (from_edge(self.a, self.b, width), from_edge(self.c, self.d, height));
        let [a, b, c, d] = [self.a, self.b, self.c, self.d].map(isize::from);
        for (y, line) in (0isize..).zip(out.chunks_exact_mut(shown_width as usize * 3)) {
            for (x, pixel) in (0isize..).zip(line.chunks_exact_mut(3)) {
                let stored_x = x0.wrapping_add_signed(a * x + b * y);
                let stored_y = y0.wrapping_add_signed(c * x + d * y);
                pixel.copy_from_slice(&lines[stored_y * stride + stored_x * 3..][..3]);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: i32 = 1 << 16;

    /// Stored 3 x 2: 0 1 2 / 3 4 5.
    fn shown(matrix: [i32; 4]) -> (Vec<u8>, Rotation, bool) {
        let orientation = Orientation::from_matrix(matrix).unwrap();
        let stride = 11;
        let mut lines = vec![99; stride * 2];
        for i in 0..6 {
            lines[i / 3 * stride + i % 3 * 3..][..3].fill(i as u8);
        }
        let mut rgb = vec![0; 18];
        orientation.upright(&lines, stride, 3, 2, &mut rgb);
        let pixels = rgb.chunks(3).map(|p| p[0]).collect();
        (pixels, orientation.rotation(), orientation.mirrored())
    }

    #[test]
    fn pictures_are_turned_as_the_display_matrix_says() {
        assert_eq!(shown([ONE, 0, 0, ONE]), (vec![0, 1, 2, 3, 4, 5], Rotation::None, false));
        assert_eq!(shown([0, ONE, -ONE, 0]), (vec![3, 0, 4, 1, 5, 2], Rotation::Clockwise90, false));
        assert_eq!(shown([-ONE, 0, 0, -ONE]), (vec![5, 4, 3, 2, 1, 0], Rotation::Clockwise180, false));
        assert_eq!(shown([0, -ONE, ONE, 0]), (vec![2, 5, 1, 4, 0, 3], Rotation::Clockwise270, false));
        assert_eq!(shown([-ONE, 0, 0, ONE]), (vec![2, 1, 0, 5, 4, 3], Rotation::None, true));
        assert_eq!(shown([0, ONE, ONE, 0]).0, [0, 3, 1, 4, 2, 5]);
    }

    #[test]
    fn points_move_with_their_pixels() {
        for matrix in
            [[1, 0, 0, 1], [0, 1, -1, 0], [-1, 0, 0, -1], [0, -1, 1, 0], [0, 1, 1, 0], [1, 0, 0, -1]]
        {
            let orientation = Orientation::from_matrix(matrix.map(|v| v * ONE)).unwrap();
            let (pixels, ..) = shown(matrix.map(|v| v * ONE));
            let (width, _) = orientation.size(3, 2);
            for i in 0..6u8 {
                let (x, y) = orientation.point(f32::from(i % 3) + 0.5, f32::from(i / 3) + 0.5, 3.0, 2.0);
                assert_eq!(pixels[y as usize * width as usize + x as usize], i, "{matrix:?}");
            }
        }
    }

    #[test]
    fn a_part_is_found_where_it_is_stored() {
        for matrix in
            [[1, 0, 0, 1], [0, 1, -1, 0], [-1, 0, 0, -1], [0, -1, 1, 0], [-1, 0, 0, 1], [0, 1, 1, 0]]
        {
            let orientation = Orientation::from_matrix(matrix.map(|v| v * ONE)).unwrap();
            let (pixels, ..) = shown(matrix.map(|v| v * ONE));
            let (width, height) = orientation.size(3, 2);
            for (y, x) in (0..height).flat_map(|y| (0..width).map(move |x| (y, x))) {
                let part = orientation.stored(CropBox { x, y, width: 1, height: 1 }, 3, 2);
                assert_eq!((part.width, part.height), (1, 1));
                assert_eq!(u32::from(pixels[(y * width + x) as usize]), part.y * 3 + part.x, "{matrix:?}");
            }
            assert_eq!(orientation.stored(CropBox::whole(width, height), 3, 2), CropBox::whole(3, 2));
        }
    }

    #[test]
    fn other_angles_are_refused() {
        for matrix in [[46341, 46341, -46341, 46341], [0, 0, 0, 0], [ONE, 0, ONE, 0]] {
            assert_eq!(Orientation::from_matrix(matrix), None);
        }
    }
}
