//! Twelve queries at a time against all keys.

use rayon::prelude::*;

use super::{Head, against, pack_all, panel_words};
use crate::block::Sizes;
use crate::buffer::Buffer;
use crate::product::pack::strip_words;
use crate::product::tile::{COLS, Lhs, ROWS, multiply_into};
use crate::product::{Out, Scratch, with_scratch};
use crate::simd::{Elem, Factor, exp, mul_add, multiplies_pairs, multiversion};

/// Attention of all samples and heads: `[B, N, 3 D]` to `[B, tail, D]`, and the logarithm of every softmax's sum
/// `[B, heads, tail]`.
pub(in crate::block) fn forward<E: Elem>(qkv: &[E], sizes: &Sizes) -> (Buffer<E>, Vec<f32>) {
    if multiplies_pairs() { forward_of::<E, E>(qkv, sizes) } else { forward_of::<E, E::Wide>(qkv, sizes) }
}

/// [`forward`], multiplying numbers of type `W`.
pub(super) fn forward_of<E: Elem, W: Factor>(qkv: &[E], sizes: &Sizes) -> (Buffer<E>, Vec<f32>) {
    let mut out = Buffer::<E>::new(sizes.tail_rows() * sizes.dim);
    let mut log_sums = vec![0f32; sizes.heads * sizes.tail_rows()];
    let shared = Out::new(&mut out);
    log_sums.par_chunks_mut(sizes.tail).enumerate().for_each(|(index, log_sums)| {
        let head = Head::new(qkv, sizes, index);
        let start = index / sizes.heads * sizes.tail * sizes.dim + head.head * head.width;
        with_scratch(|scratch| forward_head::<E, W>(&head, scratch, start, &shared, log_sums));
    });
    (out, log_sums)
}

multiversion! {
    fn forward_head<E: Elem, W: Factor>(head: &Head<'_, E>, scratch: &mut Scratch, start: usize, out: &Out<'_, E>, log_sums: &mut [f32])
        = forward_head_body;
}

#[inline(always)]
fn forward_head_body<const FMA: bool, E: Elem, W: Factor>(
    head: &Head<'_, E>,
    scratch: &mut Scratch,
    start: usize,
    out: &Out<'_, E>,
    log_sums: &mut [f32],
) {
    let (tokens, width) = (head.tokens, head.width);
    let (deep, wide) = (width.div_ceil(W::GROUP), tokens.div_ceil(W::GROUP));
    let (keys, values) = (head.rows(1, 0, tokens), head.cols(2, 0, tokens));
    let [key_words, value_words] = [panel_words::<W>(tokens, width), panel_words::<W>(width, tokens)];
    let (spare, panels) = scratch.split(strip_words::<W>(width), key_words + value_words);
    let (key_panels, value_panels) = panels.split_at_mut(key_words);
    pack_all::<W, E>(&keys, key_panels);
    pack_all::<W, E>(&values, value_panels);
    // Rows as long as whole panels; a whole number of words for the product with the values.
    let stride = tokens.next_multiple_of(COLS);
    let mut scores = vec![0f32; ROWS * stride];
    let mut weights = vec![W::default(); ROWS * stride];
    let queries = head.rows(0, head.first(), head.tail);
    for from in (0..head.tail).step_by(ROWS) {
        let rows = ROWS.min(head.tail - from);
        let lhs = queries.strip::<W>(from, 0..width, spare);
        for (p, panel) in key_panels.chunks_exact(deep * COLS).enumerate() {
            multiply_into::<W>(deep, &lhs, panel, COLS, &mut scores[p * COLS..], stride);
        }
        let mut recip = [0f32; ROWS];
        let strips = scores.chunks_exact(stride).zip(weights.chunks_exact_mut(stride));
        for (r, (scores, weights)) in strips.enumerate().take(rows) {
            let (max, sum) = softmax_strip::<FMA, W>(&scores[..tokens], &mut weights[..tokens], head.scale());
            recip[r] = 1.0 / sum;
            log_sums[from + r] = max * head.scale() + sum.ln();
        }
        // Beyond the last token the weights stay zero, and so are the packed values.
        let lhs = Lhs::in_place(&weights, stride, wide * W::GROUP);
        against::<W>(&lhs, value_panels, wide, |col, tile| {
            let cols = COLS.min(width - col);
            for (r, (sums, recip)) in tile.0.iter().zip(recip).enumerate().take(rows) {
                // SAFETY: every head writes columns of its own in rows of its own sample.
                #[allow(unsafe_code)]
                let out = unsafe { out.part(start + (from + r) * head.dim + col, cols) };
                for (out, &s) in out.iter_mut().zip(sums) {
                    *out = E::put(s * recip);
                }
            }
        });
    }
}

/// Independent sums, so that neighbouring additions do not wait for each other.
const SUMS: usize = 32;

/// `exp(scale (s − max))` of a row, not yet divided by its sum. Returns the maximum and the sum.
#[inline(always)]
fn softmax_strip<const FMA: bool, W: Factor>(scores: &[f32], weights: &mut [W], scale: f32) -> (f32, f32) {
    let mut maxima = [f32::NEG_INFINITY; SUMS];
    let (chunks, rest) = scores.as_chunks::<SUMS>();
    for chunk in chunks {
        for (m, &s) in maxima.iter_mut().zip(chunk) {
            *m = if s > *m { s } else { *m };
        }
    }
    let max = maxima.iter().chain(rest).copied().fold(f32::NEG_INFINITY, f32::max);
    let shift = -max * scale;
    let mut sums = [0f32; SUMS];
    let (outs, rest_out) = weights.as_chunks_mut::<SUMS>();
    for (chunk, out) in chunks.iter().zip(outs) {
        for ((sum, out), &s) in sums.iter_mut().zip(out).zip(chunk) {
            let e = exp::<FMA>(mul_add::<FMA>(s, scale, shift));
            *out = W::put(e);
            *sum += e;
        }
    }
    for ((sum, out), &s) in sums.iter_mut().zip(rest_out).zip(rest) {
        let e = exp::<FMA>(mul_add::<FMA>(s, scale, shift));
        *out = W::put(e);
        *sum += e;
    }
    (max, sums.iter().sum())
}
