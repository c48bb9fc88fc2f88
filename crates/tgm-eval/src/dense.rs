//! Dense products in f64, in an order of summation that never depends on the number of threads.

/// Independent partial sums let the compiler use vector registers.
const LANES: usize = 8;

/// The inner product of `a` and `b`, accumulated in f64.
pub(crate) fn dot<A: Copy + Into<f64>, B: Copy + Into<f64>>(a: &[A], b: &[B]) -> f64 {
    debug_assert_eq!(a.len(), b.len());
    let (a_blocks, a_rest) = a.as_chunks::<LANES>();
    let (b_blocks, b_rest) = b.as_chunks::<LANES>();
    let mut lanes = [0.0; LANES];
    for (a, b) in a_blocks.iter().zip(b_blocks) {
        for lane in 0..LANES {
            lanes[lane] += a[lane].into() * b[lane].into();
        }
    }
    let rest: f64 = a_rest.iter().zip(b_rest).map(|(&a, &b)| a.into() * b.into()).sum();
    lanes.iter().sum::<f64>() + rest
}

/// `y += scale · x`.
pub(crate) fn add_scaled(y: &mut [f64], scale: f64, x: &[f64]) {
    debug_assert_eq!(y.len(), x.len());
    for (y, x) in y.iter_mut().zip(x) {
        *y += scale * x;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_element_takes_part_whatever_the_length() {
        for len in 0..40 {
            let a: Vec<f32> = (0..len).map(|i| i as f32).collect();
            let b = vec![2.0; len];
            assert_eq!(dot(&a, &b), (len * len.saturating_sub(1)) as f64);
        }
    }

    #[test]
    fn single_precision_on_both_sides_is_summed_in_double() {
        let (a, b) = ([4097.0f32; 20], [4099.0f32; 20]);
        assert_eq!(dot(&a, &b), 20.0 * 4097.0 * 4099.0, "one product alone has 25 bits");
    }
}
