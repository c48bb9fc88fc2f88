//! Products of every layout at odd sizes, against f64.

use proptest::prelude::*;

use super::finish::{Accumulate, Activate, ActivateBackward, Activation, AddResidual, Store};
use super::*;
use crate::simd::{Bf16, Widened};

/// Numbers between −1 and 1 that bfloat16 holds exactly, so that only sums are rounded.
fn numbers<S: Factor>(len: usize, seed: u64) -> Vec<S> {
    let number = |i: usize| ((i as f64 + 1.0) * (seed as f64 + 0.37)).sin() as f32;
    (0..len).map(|i| S::put(Bf16::put(number(i)).get())).collect()
}

fn transposed<S: Factor>(data: &[S], rows: usize, cols: usize) -> Vec<S> {
    (0..rows * cols).map(|x| data[(x % rows) * cols + x / rows]).collect()
}

fn naive<E: Factor, S: Factor>(a: &[E], b: &[S], [m, n, k]: [usize; 3]) -> Vec<f64> {
    let term = |i: usize, j: usize, l: usize| f64::from(a[i * k + l].get()) * f64::from(b[j * k + l].get());
    (0..m * n).map(|x| (0..k).map(|l| term(x / n, x % n, l)).sum()).collect()
}

/// All four layouts of a product against f64; sums of `k` numbers below 1 are wrong by less than `k` roundings.
fn check<W: Factor, A: Elem, B: Elem>([m, n, k]: [usize; 3]) {
    let (a, b) = (numbers::<A>(m * k, 1), numbers::<B>(n * k, 2));
    let want = naive(&a, &b, [m, n, k]);
    let (at, bt) = (transposed(&a, m, k), transposed(&b, n, k));
    for a in [Matrix::rows(&a, m, k, k), Matrix::cols(&at, m, k, m)] {
        for b in [Matrix::rows(&b, n, k, k), Matrix::cols(&bt, n, k, n)] {
            let mut out = vec![0.5f32; m * (n + 3)];
            let finish = Accumulate { out: Out::new(&mut out), stride: n + 3, add: true };
            product_of::<W, _, _, _>(&a, &b, &finish);
            for (i, row) in out.chunks_exact(n + 3).enumerate() {
                for j in 0..n {
                    let (got, want) = (f64::from(row[j]) - 0.5, want[i * n + j]);
                    assert!(
                        (got - want).abs() <= 1e-6 * k as f64,
                        "{m}×{n}×{k} at {i}, {j}: {got} for {want}"
                    );
                }
                assert!(row[n..].iter().all(|&v| v == 0.5), "columns beyond the product stay untouched");
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if cfg!(miri) { 3 } else { 60 }))]

    #[test]
    fn products_of_every_layout_equal_the_naive_product(m in 1usize..40, n in 1usize..70, k in 1usize..70) {
        check::<f32, f32, f32>([m, n, k]);
        check::<Bf16, Bf16, Bf16>([m, n, k]);
        check::<Bf16, Bf16, f32>([m, n, k]);
        check::<Bf16, f32, Bf16>([m, n, k]);
        check::<Widened, Bf16, Bf16>([m, n, k]);
        check::<Widened, Bf16, f32>([m, n, k]);
        check::<Widened, f32, Bf16>([m, n, k]);
        check::<f32, f32, Bf16>([m, n, k]);
    }
}

#[test]
#[cfg_attr(miri, ignore = "slow")]
fn products_that_are_cut_into_several_tasks_and_blocks_equal_the_naive_product() {
    for sizes in [[25, 700, 33], [1100, 40, 24], [40, 70, 2100], [13, 33, 1], [1, 1, 1]] {
        check::<f32, f32, f32>(sizes);
        check::<Bf16, f32, f32>(sizes);
        check::<Widened, Bf16, f32>(sizes);
    }
}

#[test]
fn f32_numbers_are_rounded_in_a_bfloat16_product_however_they_are_multiplied() {
    fn check<W: Factor>() {
        let [m, n, k] = [25, 40, 35];
        let exact = |len: usize| (0..len).map(|i| ((i as f32 + 1.0) * 0.7).sin()).collect::<Vec<f32>>();
        let (a, b) = (exact(m * k), exact(n * k));
        let rounded = |v: &[f32]| v.iter().map(|&v| Bf16::put(v)).collect::<Vec<_>>();
        let (mut got, mut want) = (vec![0f32; m * n], vec![0f32; m * n]);
        let finish = Accumulate { out: Out::new(&mut got), stride: n, add: false };
        product_of::<W, _, _, _>(&Matrix::rows(&a, m, k, k), &Matrix::rows(&b, n, k, k), &finish);
        let (a, b) = (rounded(&a), rounded(&b));
        let finish = Accumulate { out: Out::new(&mut want), stride: n, add: false };
        product_of::<W, _, _, _>(&Matrix::rows(&a, m, k, k), &Matrix::rows(&b, n, k, k), &finish);
        assert_eq!(got, want);
    }
    check::<Bf16>();
    check::<Widened>();
}

/// Every level whose instructions this processor has.
fn levels() -> impl Iterator<Item = Level> {
    [Level::Portable, Level::Avx2, Level::Avx512, Level::Avx512Bf16].into_iter().filter(|&l| l <= level())
}

#[test]
fn the_instructions_of_every_level_agree_with_their_emulation() {
    for groups in [1, 37, 128, 300] {
        let (left, right) = (numbers::<f32>(groups * ROWS, 3), numbers::<f32>(groups * COLS, 4));
        let bits = |v: &[f32]| v.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
        // The lower halves of these words are zeros ...
        let (left, right) = (bits(&left), bits(&right));
        // ... and with other such numbers in them every product is still exact.
        let pairs = |words: &[u32]| {
            words.iter().zip(words.iter().rev()).map(|(w, v)| w | v >> 16).collect::<Vec<_>>()
        };
        let (left_pairs, right_pairs) = (pairs(&left), pairs(&right));
        for level in levels() {
            // Rows of a tile, and rows that are longer, of which the rest stays as it is.
            for width in [COLS, COLS + 5] {
                let (mut got, mut want) = (vec![7.0; ROWS * width], vec![7.0; ROWS * width]);
                let lhs = Lhs::lanes(&left, ROWS);
                // SAFETY: `levels` are those of this processor.
                unsafe { tile::multiply_at::<f32>(level, groups, &lhs, &right, COLS, &mut got, width) };
                tile::emulated::<f32>(groups, &lhs, &right, COLS, &mut want, width);
                assert_eq!(got, want, "{level:?}, {groups} words");
                let lhs = Lhs::lanes(&left_pairs, ROWS);
                // SAFETY: `levels` are those of this processor.
                unsafe {
                    tile::multiply_at::<Bf16>(level, groups, &lhs, &right_pairs, COLS, &mut got, width)
                };
                tile::emulated::<Bf16>(groups, &lhs, &right_pairs, COLS, &mut want, width);
                for (got, want) in got.iter().zip(&want) {
                    let scale = want.abs().max(1.0);
                    assert!(
                        (got - want).abs() < 1e-5 * scale,
                        "{level:?}, {groups} words: {got}, emulated {want}"
                    );
                }
            }
        }
    }
}

#[test]
#[cfg(target_arch = "x86_64")]
fn squares_of_every_level_are_transposed_and_rounded_alike() {
    fn check<E: Factor, S: Elem>(rows: usize, kept: usize) {
        let len = pack::SQUARE * E::GROUP;
        let mut data: Vec<S> = (0..rows * len)
            .map(|i| S::put(((i as f32 + 1.0) * 0.7).sin() * 2f32.powi(i as i32 % 60 - 30)))
            .collect();
        data[len / 2] = S::put(f32::NAN);
        let stride = pack::SQUARE + 3;
        for level in levels().filter(|&level| square::available::<E>(level)) {
            let mut out = vec![7u32; pack::SQUARE * stride];
            // SAFETY: the processor has the level, and rows are a square long.
            unsafe { square::pack::<E, S>(level, data.chunks_exact(len), &mut out, stride, kept) };
            for (at, &got) in out.iter().enumerate() {
                let (group, lane) = (at / stride, at % stride);
                let number = |k: usize| E::put(data[lane * len + group * E::GROUP + k].get());
                let want = match lane {
                    lane if lane >= kept => 7,
                    lane if lane >= rows => 0,
                    _ => E::word(number(0), number(E::GROUP - 1)),
                };
                assert_eq!(got, want, "{level:?}, {rows} rows, {kept} kept: word {group} of lane {lane}");
            }
        }
    }
    for (rows, kept) in [(16, 16), (12, 12), (5, 12), (9, 16), (1, 1), (8, 8)] {
        check::<f32, f32>(rows, kept);
        check::<f32, Bf16>(rows, kept);
        check::<Widened, f32>(rows, kept);
        check::<Widened, Bf16>(rows, kept);
        check::<Bf16, f32>(rows, kept);
        check::<Bf16, Bf16>(rows, kept);
    }
}

#[test]
fn packing_rounds_as_every_other_conversion_does() {
    let number = |i: usize| ((i as f32 + 1.0) * 0.7).sin() * 10f32.powi(i as i32 % 60 - 30);
    let data: Vec<f32> = (0..COLS * 70).map(number).collect();
    let mut words = vec![0; 35 * COLS];
    pack::<Bf16, f32>(&Matrix::rows(&data, COLS, 70, 70), 0..COLS, 0..70, COLS, &mut words);
    for (at, word) in words.into_iter().enumerate() {
        let (group, lane) = (at / COLS, at % COLS);
        let [first, second] = [0, 1].map(|k| Bf16::put(data[lane * 70 + 2 * group + k]));
        assert_eq!(word, Bf16::word(first, second), "group {group} of lane {lane}");
    }
}

#[test]
fn finishes_compute_what_they_say() {
    let [m, n, k] = [14, 35, 6];
    let (a, b) = (numbers::<f32>(m * k, 1), numbers::<f32>(n * k, 2));
    let (bias, residual) = (numbers::<f32>(n, 3), numbers::<f32>(m * n, 4));
    let plain: Vec<f32> = naive(&a, &b, [m, n, k]).into_iter().map(|v| v as f32).collect();
    let run = |f: &dyn Fn(Matrix<'_, f32>, Matrix<'_, f32>)| {
        f(Matrix::rows(&a, m, k, k), Matrix::rows(&b, n, k, k));
    };
    let zeros = || vec![0f32; m * n];
    let close = |got: &[f32], want: &dyn Fn(usize) -> f32| {
        for (i, &got) in got.iter().enumerate() {
            assert!((got - want(i)).abs() < 1e-5, "{i}: {got}, expected {}", want(i));
        }
    };
    let biased = |i: usize| plain[i] + bias[i % n];

    let mut out = zeros();
    run(&|a, b| {
        product::<f32, _, _, _>(a, b, &Store { out: Out::new(&mut out.clone()), stride: n, bias: None })
    });
    {
        let finish = Store { out: Out::new(&mut out), stride: n, bias: Some(&bias) };
        run(&|a, b| product::<f32, _, _, _>(a, b, &finish));
    }
    close(&out, &biased);

    let shares: Vec<f32> = (0..m).map(|row| [0.0, 1.25, 1.0][row % 3]).collect();
    for shares in [None, Some(&shares[..])] {
        let mut out = zeros();
        {
            let (out, residual) = (Out::new(&mut out), &residual);
            let finish = AddResidual { out, stride: n, bias: &bias, shares, residual };
            run(&|a, b| product::<f32, _, _, _>(a, b, &finish));
        }
        close(&out, &|i| biased(i) * shares.map_or(1.0, |s| s[i / n]) + residual[i]);
    }

    let (gelu, quick) =
        (|x: f32| x * 0.5 * libm::erfcf(-x / 2f32.sqrt()), |x: f32| x / (1.0 + (-1.702 * x).exp()));
    for (activation, value) in
        [(Activation::Gelu, &gelu as &dyn Fn(f32) -> f32), (Activation::QuickGelu, &quick)]
    {
        let (mut hidden, mut activated) = (zeros(), zeros());
        {
            let (hidden, activated) = (Some(Out::new(&mut hidden)), Out::new(&mut activated));
            let finish = Activate { hidden, activated, stride: n, bias: &bias, activation };
            run(&|a, b| product::<f32, _, _, _>(a, b, &finish));
        }
        close(&hidden, &biased);
        close(&activated, &|i| value(biased(i)));
    }

    let (mut dhidden, mut activated) = (residual.clone(), zeros());
    {
        let (hidden, activated) = (Out::new(&mut dhidden), Out::new(&mut activated));
        let finish = ActivateBackward { hidden, activated, stride: n };
        run(&|a, b| product::<f32, _, _, _>(a, b, &finish));
    }
    let slope = |x: f32| (gelu(x + 1e-2) - gelu(x - 1e-2)) / 2e-2;
    close(&activated, &|i| gelu(residual[i]));
    for (i, &got) in dhidden.iter().enumerate() {
        assert!((got - plain[i] * slope(residual[i])).abs() < 1e-3, "{i}: {got}");
    }
}

#[test]
#[should_panic(expected = "rows of")]
fn a_matrix_larger_than_its_slice_is_refused() {
    Matrix::rows(&[0f32; 5], 2, 3, 3);
}

/// `cargo test --release -p tgm-ops -- --ignored --nocapture product_speed`
#[test]
#[ignore = "a measurement"]
fn product_speed() {
    fn rate<E: Elem, S: Elem>(name: &str, a: Matrix<'_, E>, b: Matrix<'_, S>) {
        let (m, n, k) = (a.lanes(), b.lanes(), a.depth());
        let mut out = vec![0f32; m * n];
        let mut best = f64::MAX;
        for _ in 0..12 {
            let start = std::time::Instant::now();
            product::<E, _, _, _>(a, b, &Accumulate { out: Out::new(&mut out), stride: n, add: false });
            best = best.min(start.elapsed().as_secs_f64());
        }
        eprintln!("{name} {m}x{n}x{k}: {:.0} GFLOP/s", 2e-9 * (m * n * k) as f64 / best);
    }
    fn all<E: Elem>(name: &str) {
        for [t, o, i] in [
            [640, 768, 768],
            [640, 3072, 768],
            [640, 768, 3072],
            [6272, 1152, 384],
            [6272, 384, 1536],
            [640, 384, 384],
        ] {
            let (x, w, dy) = (numbers::<E>(t * i, 1), numbers::<f32>(o * i, 2), numbers::<E>(t * o, 3));
            rate(&format!("{name} x w^T"), Matrix::rows(&x, t, i, i), Matrix::rows(&w, o, i, i));
            rate(&format!("{name} dy w "), Matrix::rows(&dy, t, o, o), Matrix::cols(&w, i, o, i));
            rate(&format!("{name} dy^T x"), Matrix::cols(&dy, o, t, o), Matrix::cols(&x, i, t, i));
        }
    }
    all::<Bf16>("bf16");
    all::<f32>("f32");
}
