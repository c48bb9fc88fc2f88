//! What happens to the finished tiles of a product.

use super::out::Out;
use super::tile::{COLS, ROWS, Tile};
use crate::simd::{Elem, normal};

/// Where a tile lies in the product, and which of its sums are meant.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    pub(crate) row: usize,
    pub(crate) col: usize,
    /// At most [`ROWS`].
    pub(crate) rows: usize,
    /// At most [`COLS`].
    pub(crate) cols: usize,
}

/// What happens to the finished tiles.
pub(crate) trait Finish: Sync {
    /// Takes a tile. Called once for every tile, for different tiles at the same time.
    ///
    /// Implementations are `#[inline(always)]`, so that they are compiled for the instructions of the caller.
    fn finish(&self, at: &Place, tile: &Tile);
}

/// Runs the body for every row of the tile, with its index in the product and its sums.
///
/// A macro and no function with a closure: a closure need not be inlined, and would then be compiled for the portable
/// level, where `mul_add` is a library call.
macro_rules! each_row {
    ($at:expr, $tile:expr, |$row:ident, $sums:ident| $body:block) => {
        for (r, line) in $tile.0.iter().enumerate().take($at.rows.min(ROWS)) {
            let $row = $at.row + r;
            // The usual case with a constant length, so that its loops need no remainder.
            if $at.cols == COLS {
                let $sums = &line[..COLS];
                $body
            } else {
                let $sums = &line[..$at.cols];
                $body
            }
        }
    };
}

/// Writes the product, plus a bias if there is one.
pub(crate) struct Store<'a, T> {
    pub(crate) out: Out<'a, T>,
    pub(crate) stride: usize,
    pub(crate) bias: Option<&'a [f32]>,
}

impl<T: Elem> Finish for Store<'_, T> {
    #[inline(always)]
    fn finish(&self, at: &Place, tile: &Tile) {
        each_row!(at, tile, |row, sums| {
            // SAFETY: rows and columns of different tiles are different.
            let out = unsafe { self.out.part(row * self.stride + at.col, sums.len()) };
            match self.bias {
                Some(bias) => {
                    for ((out, &s), &b) in out.iter_mut().zip(sums).zip(&bias[at.col..]) {
                        *out = T::put(s + b);
                    }
                }
                None => {
                    for (out, &s) in out.iter_mut().zip(sums) {
                        *out = T::put(s);
                    }
                }
            }
        });
    }
}

/// Writes residual plus (product plus bias) times the row's share.
pub(crate) struct AddResidual<'a> {
    pub(crate) out: Out<'a, f32>,
    pub(crate) stride: usize,
    pub(crate) bias: &'a [f32],
    /// A number per row; 1 if `None`.
    pub(crate) shares: Option<&'a [f32]>,
    pub(crate) residual: &'a [f32],
}

impl Finish for AddResidual<'_> {
    #[inline(always)]
    fn finish(&self, at: &Place, tile: &Tile) {
        each_row!(at, tile, |row, sums| {
            let start = row * self.stride + at.col;
            // SAFETY: rows and columns of different tiles are different.
            let out = unsafe { self.out.part(start, sums.len()) };
            let residual = &self.residual[start..start + sums.len()];
            // A factor of 1 changes no bit.
            let share = self.shares.map_or(1.0, |shares| shares[row]);
            for (((out, &s), &b), &x) in out.iter_mut().zip(sums).zip(&self.bias[at.col..]).zip(residual) {
                *out = x + share * (s + b);
            }
        });
    }
}

/// Writes product plus bias less a target.
pub(crate) struct Subtract<'a, T> {
    pub(crate) out: Out<'a, T>,
    pub(crate) stride: usize,
    pub(crate) bias: &'a [f32],
    pub(crate) target: &'a [f32],
}

impl<T: Elem> Finish for Subtract<'_, T> {
    #[inline(always)]
    fn finish(&self, at: &Place, tile: &Tile) {
        each_row!(at, tile, |row, sums| {
            let start = row * self.stride + at.col;
            // SAFETY: rows and columns of different tiles are different.
            let out = unsafe { self.out.part(start, sums.len()) };
            let target = &self.target[start..start + sums.len()];
            for (((out, &s), &b), &t) in out.iter_mut().zip(sums).zip(&self.bias[at.col..]).zip(target) {
                *out = T::put((s + b) - t);
            }
        });
    }
}

/// Adds the product to what is there, or overwrites it: gradients of weights.
pub(crate) struct Accumulate<'a> {
    pub(crate) out: Out<'a, f32>,
    pub(crate) stride: usize,
    /// Whether the old content counts.
    pub(crate) add: bool,
}

impl Finish for Accumulate<'_> {
    #[inline(always)]
    fn finish(&self, at: &Place, tile: &Tile) {
        each_row!(at, tile, |row, sums| {
            // SAFETY: rows and columns of different tiles are different.
            let out = unsafe { self.out.part(row * self.stride + at.col, sums.len()) };
            if self.add {
                out.iter_mut().zip(sums).for_each(|(out, &s)| *out += s);
            } else {
                out.copy_from_slice(sums);
            }
        });
    }
}

/// The nonlinearity between the two layers of an MLP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    /// `x Φ(x)`, by the error function.
    Gelu,
    /// `x σ(1.702 x)`: the original CLIP's approximation.
    QuickGelu,
}

impl Activation {
    /// Value and derivative.
    #[inline(always)]
    pub(crate) fn both<const FMA: bool>(self, x: f32) -> (f32, f32) {
        match self {
            Self::Gelu => {
                let (cdf, pdf) = normal::<FMA>(x);
                (x * cdf, cdf + x * pdf)
            }
            Self::QuickGelu => {
                let sigma = 1.0 / (1.0 + crate::simd::exp::<FMA>(-1.702 * x));
                (x * sigma, sigma + 1.702 * x * sigma * (1.0 - sigma))
            }
        }
    }
}

/// Product plus bias through the activation. `hidden` keeps what the activation was given, for the backward pass; the
/// activation sees it rounded as it is kept.
pub(crate) struct Activate<'a, E> {
    pub(crate) hidden: Option<Out<'a, E>>,
    pub(crate) activated: Out<'a, E>,
    pub(crate) stride: usize,
    pub(crate) bias: &'a [f32],
    pub(crate) activation: Activation,
}

impl<E: Elem> Finish for Activate<'_, E> {
    #[inline(always)]
    fn finish(&self, at: &Place, tile: &Tile) {
        each_row!(at, tile, |row, sums| {
            let start = row * self.stride + at.col;
            let bias = &self.bias[at.col..at.col + sums.len()];
            if let Some(hidden) = &self.hidden {
                // SAFETY: rows and columns of different tiles are different.
                let hidden = unsafe { hidden.part(start, sums.len()) };
                for ((h, &s), &b) in hidden.iter_mut().zip(sums).zip(bias) {
                    *h = E::put(s + b);
                }
            }
            // SAFETY: as above, in another output.
            let out = unsafe { self.activated.part(start, sums.len()) };
            activate::<E>(self.activation, out, sums, bias);
        });
    }
}

#[inline(always)]
fn activate<E: Elem>(activation: Activation, out: &mut [E], sums: &[f32], bias: &[f32]) {
    // One loop for each: a choice inside would keep it from being vectorised.
    match activation {
        Activation::Gelu => {
            for ((out, &s), &b) in out.iter_mut().zip(sums).zip(bias) {
                *out = E::put(Activation::Gelu.both::<true>(E::put(s + b).get()).0);
            }
        }
        Activation::QuickGelu => {
            for ((out, &s), &b) in out.iter_mut().zip(sums).zip(bias) {
                *out = E::put(Activation::QuickGelu.both::<true>(E::put(s + b).get()).0);
            }
        }
    }
}

/// The product is the gradient of the activation's output. Writes that of its input, and its output once more.
pub(crate) struct ActivateBackward<'a, E> {
    /// What the activation was given; becomes its gradient.
    pub(crate) hidden: Out<'a, E>,
    pub(crate) activated: Out<'a, E>,
    pub(crate) stride: usize,
}

impl<E: Elem> Finish for ActivateBackward<'_, E> {
    #[inline(always)]
    fn finish(&self, at: &Place, tile: &Tile) {
        each_row!(at, tile, |row, sums| {
            let start = row * self.stride + at.col;
            // SAFETY: rows and columns of different tiles are different, in two outputs.
            let (hidden, activated) =
                unsafe { (self.hidden.part(start, sums.len()), self.activated.part(start, sums.len())) };
            for ((h, out), &s) in hidden.iter_mut().zip(activated).zip(sums) {
                let (value, slope) = Activation::Gelu.both::<true>(h.get());
                *h = E::put(s * slope);
                *out = E::put(value);
            }
        });
    }
}
