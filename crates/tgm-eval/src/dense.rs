//! Dense products in f64, in an order of summation that never depends on the number of threads.

/// Independent partial sums let the compiler use vector registers.
const LANES: usize = 8;

/// The inner product of `a` and `b`, accumulated in f64.
pub(crate) fn dot<A: Copy + Into<f64>>(a: &[A], b: &[f64]) -> f64 {
    debug_assert_eq!(a.len(), b.len());
    let (a_blocks, a_rest) = a.as_chunks::<LANES>();
    let (b_blocks, b_rest) = b.as_chunks::<LANES>();
    let mut lanes = [0.0; LANES];
    for (a, b) in a_blocks.iter().zip(b_blocks) {
        for lane in 0..LANES {
            lanes[lane] += a[lane].into() * b[lane];
        }
    }
    let rest: f64 = a_rest.iter().zip(b_rest).map(|(&a, &b)| a.into() * b).sum();
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
}
