//! A safe front to the `gemm` crate: matrices are strided views of slices, bounds are checked once per product.
#![allow(unsafe_code)]

use crate::cpu::Real;

/// A matrix view: element `(i, j)` is `data[i * row_stride + j * col_stride]`.
#[derive(Clone, Copy)]
pub(crate) struct Mat<'a, T> {
    data: &'a [T],
    rows: usize,
    cols: usize,
    row_stride: usize,
    col_stride: usize,
}

impl<'a, T> Mat<'a, T> {
    /// A row-major matrix whose rows begin `row_stride` elements apart.
    pub(crate) fn new(data: &'a [T], rows: usize, cols: usize, row_stride: usize) -> Self {
        check_bounds(data.len(), rows, cols, row_stride);
        Self { data, rows, cols, row_stride, col_stride: 1 }
    }

    /// The transposed view; nothing is copied.
    pub(crate) fn t(self) -> Self {
        Self {
            rows: self.cols,
            cols: self.rows,
            row_stride: self.col_stride,
            col_stride: self.row_stride,
            ..self
        }
    }
}

/// A row-major matrix to be written.
pub(crate) struct MatMut<'a, T> {
    data: &'a mut [T],
    rows: usize,
    cols: usize,
    row_stride: usize,
}

impl<'a, T> MatMut<'a, T> {
    /// A row-major matrix whose rows begin `row_stride` elements apart.
    pub(crate) fn new(data: &'a mut [T], rows: usize, cols: usize, row_stride: usize) -> Self {
        check_bounds(data.len(), rows, cols, row_stride);
        Self { data, rows, cols, row_stride }
    }
}

fn check_bounds(len: usize, rows: usize, cols: usize, row_stride: usize) {
    let end = if rows == 0 || cols == 0 { 0 } else { (rows - 1) * row_stride + cols };
    assert!(
        end <= len && cols <= row_stride.max(1),
        "matrix {rows}x{cols} (stride {row_stride}) outside a slice of {len}"
    );
}

/// What happens to the destination's old content.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Into {
    Overwrite,
    Add,
}

/// On how many threads a product runs.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Threads {
    One,
    All,
}

/// `dst = scale · a b`, or `dst += scale · a b`.
pub(crate) fn matmul<T: Real>(
    dst: MatMut<'_, T>,
    into: Into,
    scale: T,
    a: Mat<'_, T>,
    b: Mat<'_, T>,
    threads: Threads,
) {
    assert!(
        a.rows == dst.rows && b.cols == dst.cols && a.cols == b.rows,
        "matrix product {}x{} · {}x{} into {}x{}",
        a.rows,
        a.cols,
        b.rows,
        b.cols,
        dst.rows,
        dst.cols
    );
    let parallelism = match threads {
        Threads::One => gemm::Parallelism::None,
        Threads::All => gemm::Parallelism::Rayon(0),
    };
    // SAFETY: every index that a product of these shapes touches lies inside the slices, because the constructors
    // checked the largest one; `dst` is borrowed exclusively, so it overlaps neither operand.
    unsafe {
        gemm::gemm(
            dst.rows,
            dst.cols,
            a.cols,
            dst.data.as_mut_ptr(),
            1,
            dst.row_stride as isize,
            into == Into::Add,
            a.data.as_ptr(),
            a.col_stride as isize,
            a.row_stride as isize,
            b.data.as_ptr(),
            b.col_stride as isize,
            b.row_stride as isize,
            T::one(),
            scale,
            false,
            false,
            false,
            parallelism,
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn naive(a: &[f64], b: &[f64], m: usize, k: usize, n: usize) -> Vec<f64> {
        let at = |i: usize, j: usize| (0..k).map(|l| a[i * k + l] * b[l * n + j]).sum();
        (0..m * n).map(|x| at(x / n, x % n)).collect()
    }

    fn numbers(len: usize, seed: u64) -> Vec<f64> {
        (0..len).map(|i| ((i as f64 + 1.0) * (seed as f64 + 0.37)).sin()).collect()
    }

    fn transpose(a: &[f64], rows: usize, cols: usize) -> Vec<f64> {
        (0..rows * cols).map(|x| a[(x % rows) * cols + x / rows]).collect()
    }

    proptest! {
        #[test]
        fn products_of_strided_and_transposed_views_equal_the_naive_product(m in 1usize..20, k in 1usize..20, n in 1usize..20) {
            let (a, b) = (numbers(m * k, 1), numbers(k * n, 2));
            let want = naive(&a, &b, m, k, n);
            let (at, bt) = (transpose(&a, m, k), transpose(&b, k, n));
            for (a, b) in [
                (Mat::new(&a, m, k, k), Mat::new(&b, k, n, n)),
                (Mat::new(&at, k, m, m).t(), Mat::new(&b, k, n, n)),
                (Mat::new(&a, m, k, k), Mat::new(&bt, n, k, k).t()),
            ] {
                let mut dst = vec![1.0; m * (n + 3)];
                matmul(MatMut::new(&mut dst, m, n, n + 3), Into::Add, 2.0, a, b, Threads::One);
                for (i, row) in dst.chunks(n + 3).enumerate() {
                    for j in 0..n {
                        prop_assert!((row[j] - 1.0 - 2.0 * want[i * n + j]).abs() < 1e-12);
                    }
                    prop_assert!(row[n..].iter().all(|&v| v == 1.0), "columns beyond the view stay untouched");
                }
            }
        }
    }

    #[test]
    #[should_panic(expected = "outside a slice")]
    fn a_view_larger_than_its_slice_is_refused() {
        Mat::new(&[0f32; 5], 2, 3, 3);
    }
}
