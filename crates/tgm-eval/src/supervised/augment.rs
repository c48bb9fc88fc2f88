//! Augmentations of tubelets and of whole batches: random erasing, mixup, cutmix, label smoothing.

use rand::{Rng, RngExt};
use tgm_masking::Grid;
use tgm_random::normal;
use tgm_video::TubeletShape;

use super::Settings;

/// Where the pixels of a clip are in its tubelets.
#[derive(Clone, Copy, Debug)]
pub(super) struct Geometry {
    /// The tubelet grid.
    pub(super) grid: Grid,
    /// The size of a tubelet.
    pub(super) tubelet: TubeletShape,
}

/// A box in pixels: from row and column to before row and column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PixelBox {
    /// Rows.
    pub(super) y: (usize, usize),
    /// Columns.
    pub(super) x: (usize, usize),
}

impl PixelBox {
    fn area(self) -> usize {
        (self.y.1 - self.y.0) * (self.x.1 - self.x.0)
    }
}

impl Geometry {
    /// Height and width in pixels.
    pub(super) fn size(&self) -> (usize, usize) {
        (self.grid.rows() * self.tubelet.patch, self.grid.cols() * self.tubelet.patch)
    }

    /// Values of a clip: the channels of all pixels.
    pub(super) fn values(&self) -> usize {
        self.grid.len().saturating_mul(self.tubelet.len())
    }

    /// Calls `f` with the index of the first channel of every pixel of a box, in all frames.
    fn each(&self, area: PixelBox, mut f: impl FnMut(usize)) {
        let TubeletShape { frames, patch } = self.tubelet;
        let len = frames * patch * patch * 3;
        for slot in 0..self.grid.slots() {
            for t in 0..frames {
                for y in area.y.0..area.y.1 {
                    for x in area.x.0..area.x.1 {
                        let token = (slot * self.grid.rows() + y / patch) * self.grid.cols() + x / patch;
                        f(token * len + ((t * patch + y % patch) * patch + x % patch) * 3);
                    }
                }
            }
        }
    }

    /// Random erasing (Zhong et al. 2020) as VideoMAE does it: with `probability`, one box of 2 to 33 % of the picture and of
    /// ratio 0.3 to 3.3, the same in all frames, becomes normal noise per pixel. Normalised values.
    pub(super) fn erase(&self, tubelets: &mut [f32], probability: f64, rng: &mut impl Rng) {
        if probability == 0.0 || !rng.random_bool(probability) {
            return;
        }
        let (height, width) = self.size();
        for _ in 0..10 {
            let area = rng.random_range(0.02..1.0 / 3.0) * (height * width) as f64;
            let ratio = rng.random_range(0.3f64.ln()..(1.0 / 0.3f64).ln()).exp();
            let (h, w) = ((area * ratio).sqrt().round() as usize, (area / ratio).sqrt().round() as usize);
            if h == 0 || w == 0 || h >= height || w >= width {
                continue;
            }
            let (y, x) = (rng.random_range(0..=height - h), rng.random_range(0..=width - w));
            self.each(PixelBox { y: (y, y + h), x: (x, x + w) }, |at| {
                tubelets[at..at + 3].iter_mut().for_each(|value| *value = normal(rng) as f32);
            });
            return;
        }
    }

    /// Exchanges a box of two clips.
    pub(super) fn swap(&self, one: &mut [f32], other: &mut [f32], area: PixelBox) {
        self.each(area, |at| one[at..at + 3].swap_with_slice(&mut other[at..at + 3]));
    }
}

/// What a batch is mixed with: itself, backwards.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Mix {
    /// Nothing.
    None,
    /// Every value is this share of its own clip (Zhang et al. 2018).
    Mixup(f64),
    /// A box comes from the other clip (Yun et al. 2019).
    Cutmix(PixelBox),
}

impl Mix {
    /// Draws for one batch (timm's mode `batch`, as in VideoMAE).
    pub(super) fn draw(settings: &Settings, (height, width): (usize, usize), rng: &mut impl Rng) -> Self {
        let cut = match (settings.mixup > 0.0, settings.cutmix > 0.0) {
            (false, false) => return Self::None,
            (true, true) => rng.random_bool(settings.cutmix_share),
            (_, cutmix) => cutmix,
        };
        if !cut {
            return Self::Mixup(beta(settings.mixup, rng));
        }
        let side = (1.0 - beta(settings.cutmix, rng)).sqrt();
        let span = |size: usize, rng: &mut dyn FnMut(usize) -> usize| {
            let (half, centre) = ((size as f64 * side) as usize / 2, rng(size));
            (centre.saturating_sub(half), (centre + half).min(size))
        };
        let mut draw = |size: usize| rng.random_range(0..size);
        let y = span(height, &mut draw);
        Self::Cutmix(PixelBox { y, x: span(width, &mut draw) })
    }

    /// The share of its own clip that each mixed clip keeps.
    pub(super) fn kept(self, (height, width): (usize, usize)) -> f64 {
        match self {
            Self::None => 1.0,
            Self::Mixup(share) => share,
            Self::Cutmix(area) => 1.0 - area.area() as f64 / (height * width) as f64,
        }
    }

    /// Mixes every clip with the one at its place from the end: in place, for a batch of clips is large.
    pub(super) fn apply(self, clips: &mut [Vec<f32>], geometry: &Geometry) {
        let odd = clips.len() % 2 == 1;
        let (front, back) = clips.split_at_mut(clips.len() / 2);
        for (clip, other) in front.iter_mut().zip(back.iter_mut().rev()) {
            self.pair(clip, other, geometry);
        }
        if let Some(middle) = back.first_mut().filter(|_| odd) {
            self.alone(middle);
        }
    }

    /// Mixes two clips with each other.
    fn pair(self, one: &mut [f32], other: &mut [f32], geometry: &Geometry) {
        match self {
            Self::None => {}
            Self::Mixup(share) => {
                let (own, rest) = (share as f32, (1.0 - share) as f32);
                for (a, b) in one.iter_mut().zip(other) {
                    (*a, *b) = (own * *a + rest * *b, own * *b + rest * *a);
                }
            }
            Self::Cutmix(area) => geometry.swap(one, other, area),
        }
    }

    /// Mixes a clip with itself, which leaves it as it is but for rounding.
    fn alone(self, clip: &mut [f32]) {
        if let Self::Mixup(share) = self {
            let (own, rest) = (share as f32, (1.0 - share) as f32);
            clip.iter_mut().for_each(|value| *value = own * *value + rest * *value);
        }
    }
}

/// Targets `[B, classes]`: the classes of each clip and of the one it is mixed with, smoothed (timm's `mixup_target`).
pub(super) fn targets(labels: &[u32], classes: usize, kept: f64, smoothing: f64) -> Vec<f32> {
    let off = smoothing / classes as f64;
    let on = 1.0 - smoothing;
    let mut targets = vec![off as f32; labels.len() * classes];
    for (index, row) in targets.chunks_exact_mut(classes).enumerate() {
        let other = labels[labels.len() - 1 - index];
        row[labels[index] as usize] += (on * kept) as f32;
        row[other as usize] += (on * (1.0 - kept)) as f32;
    }
    targets
}

/// Beta(a, a). Up to 1 by Jöhnk's method, which hardly ever ends for much larger ones.
fn beta(a: f64, rng: &mut impl Rng) -> f64 {
    if a > 1.0 {
        return beta_above_one(a, rng);
    }
    loop {
        let (x, y) = (rng.random::<f64>().powf(1.0 / a), rng.random::<f64>().powf(1.0 / a));
        if x + y <= 1.0 && x + y > 0.0 {
            return x / (x + y);
        }
    }
}

/// Beta(a, a) for a above 1 by Cheng's method BB (1978), which is short for equal parameters: the log-odds are drawn from the
/// logistic distribution that is as flat at its top. One draw in nine is refused however large `a` is.
fn beta_above_one(a: f64, rng: &mut impl Rng) -> f64 {
    loop {
        let (u, v) = (rng.random::<f64>(), rng.random::<f64>());
        let log_odds = (u / (1.0 - u)).ln() / a.sqrt();
        // cosh(log_odds / 2) to the power −2a, to the last digit for large a, too.
        let bound = (-a * (log_odds / 2.0).sinh().powi(2).ln_1p()).exp();
        if v * 4.0 * u * (1.0 - u) < bound {
            return 1.0 / (1.0 + (-log_odds).exp());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tgm_random::{Stream, Streams};
    use tgm_video::{Clip, Normalization, patchify};

    fn geometry() -> Geometry {
        Geometry { grid: Grid::new(2, 3, 4).unwrap(), tubelet: TubeletShape { frames: 2, patch: 8 } }
    }

    fn rng(seed: u64) -> Stream {
        Streams::new(seed).stream("augment", 0, 0)
    }

    /// The tubelets of a clip of 4 × 24 × 32 whose pixel (t, y, x) is given.
    fn tubelets(pixel: impl Fn(usize, usize, usize) -> u8) -> Vec<f32> {
        let data = (0..4 * 24 * 32).flat_map(|i| [pixel(i / (24 * 32), i / 32 % 24, i % 32); 3]).collect();
        let clip = Clip::new(data, 24, 32, vec![0.0; 4]).unwrap();
        patchify(&clip, geometry().tubelet, &Normalization::NONE).unwrap()
    }

    #[test]
    fn a_swapped_box_is_the_box_of_the_pixels_in_both_clips() {
        let area = PixelBox { y: (5, 17), x: (3, 30) };
        let (mut dark, mut bright) = (tubelets(|_, _, _| 0), tubelets(|_, _, _| 255));
        geometry().swap(&mut dark, &mut bright, area);
        let inside = |y: usize, x: usize| (5..17).contains(&y) && (3..30).contains(&x);
        assert_eq!(dark, tubelets(|_, y, x| if inside(y, x) { 255 } else { 0 }));
        assert_eq!(bright, tubelets(|_, y, x| if inside(y, x) { 0 } else { 255 }));
    }

    /// What mixing is: with a copy of the batch.
    fn mixed_with_a_copy(mix: Mix, clips: &[Vec<f32>]) -> Vec<Vec<f32>> {
        let mix_two = |own: &Vec<f32>, other: &Vec<f32>| {
            let mut mixed = own.clone();
            match mix {
                Mix::None => {}
                Mix::Mixup(share) => {
                    let (kept, rest) = (share as f32, (1.0 - share) as f32);
                    mixed
                        .iter_mut()
                        .zip(other)
                        .for_each(|(value, other)| *value = kept * *value + rest * other);
                }
                Mix::Cutmix(area) => {
                    geometry().each(area, |at| mixed[at..at + 3].copy_from_slice(&other[at..at + 3]));
                }
            }
            mixed
        };
        clips.iter().zip(clips.iter().rev()).map(|(own, other)| mix_two(own, other)).collect()
    }

    #[test]
    fn mixing_in_place_gives_the_bits_of_mixing_with_a_copy_for_even_and_odd_batches() {
        let mixes = [Mix::None, Mix::Mixup(0.37), Mix::Cutmix(PixelBox { y: (5, 17), x: (3, 30) })];
        let noise = |seed: u64| {
            let mut rng = rng(seed);
            (0..4 * 24 * 32 * 3).map(|_| normal(&mut rng) as f32).collect::<Vec<f32>>()
        };
        for count in 0..6 {
            let clips: Vec<Vec<f32>> = (0..count).map(noise).collect();
            for mix in mixes {
                let mut mixed = clips.clone();
                mix.apply(&mut mixed, &geometry());
                assert_eq!(mixed, mixed_with_a_copy(mix, &clips), "{mix:?} of {count}");
            }
        }
    }

    #[test]
    fn erasing_changes_one_box_in_all_frames_and_nothing_else() {
        let before = tubelets(|_, _, _| 100);
        for seed in 0..20 {
            let mut after = before.clone();
            geometry().erase(&mut after, 1.0, &mut rng(seed));
            let mut changed = Vec::new();
            geometry().each(PixelBox { y: (0, 24), x: (0, 32) }, |at| changed.push(after[at] != before[at]));
            let per_frame: Vec<&[bool]> = changed.chunks(24 * 32).collect();
            assert!(per_frame.windows(2).all(|w| w[0] == w[1]), "the same box in every frame");
            let share = per_frame[0].iter().filter(|c| **c).count() as f64 / (24.0 * 32.0);
            assert!((0.01..0.36).contains(&share), "{share}");
        }
        let mut never = before.clone();
        geometry().erase(&mut never, 0.0, &mut rng(0));
        assert_eq!(never, before);
    }

    #[test]
    fn mixup_is_a_weighted_mean_and_its_targets_have_the_same_weights() {
        let mut clips = vec![vec![0.0; 8], vec![10.0; 8]];
        Mix::Mixup(0.7).apply(&mut clips, &geometry());
        assert!(
            clips[0].iter().all(|v| (v - 3.0).abs() < 1e-5)
                && clips[1].iter().all(|v| (v - 7.0).abs() < 1e-5)
        );
        let targets = targets(&[0, 2], 3, 0.7, 0.0);
        let expected = [0.7, 0.0, 0.3, 0.3, 0.0, 0.7];
        assert!(targets.iter().zip(expected).all(|(t, e)| (t - e).abs() < 1e-6), "{targets:?}");
    }

    #[test]
    fn cutmix_targets_are_the_share_of_pixels_that_stayed() {
        let settings = Settings { mixup: 0.0, ..Settings::finetune() };
        for seed in 0..50 {
            let mix = Mix::draw(&settings, (24, 32), &mut rng(seed));
            let mut clips = vec![tubelets(|_, _, _| 0), tubelets(|_, _, _| 255)];
            mix.apply(&mut clips, &geometry());
            let own = clips[0].iter().filter(|v| **v == 0.0).count() as f64 / clips[0].len() as f64;
            assert!((own - mix.kept((24, 32))).abs() < 1e-9, "{mix:?}");
        }
    }

    #[test]
    fn targets_sum_to_one_whatever_is_mixed_and_smoothed() {
        for (kept, smoothing) in [(1.0, 0.0), (1.0, 0.1), (0.3, 0.1)] {
            for row in targets(&[0, 4, 2], 5, kept, smoothing).chunks(5) {
                assert!((row.iter().sum::<f32>() - 1.0).abs() < 1e-6);
            }
        }
        assert!((targets(&[1], 4, 1.0, 0.1)[1] - 0.925).abs() < 1e-6, "0.9 and a quarter of 0.1");
    }

    #[test]
    fn mixup_and_cutmix_take_turns_and_none_is_none() {
        let draw = |settings: &Settings, seed| Mix::draw(settings, (24, 32), &mut rng(seed));
        let both = Settings::finetune();
        let cuts = (0..400).filter(|&seed| matches!(draw(&both, seed), Mix::Cutmix(_))).count();
        assert!((150..250).contains(&cuts), "{cuts} of 400");
        let none = Settings { mixup: 0.0, cutmix: 0.0, ..both };
        assert_eq!(draw(&none, 1), Mix::None);
    }

    #[test]
    fn beta_has_its_mean_and_variance() {
        for a in [0.2, 0.4, 0.8, 1.0, 1.1, 2.0, 8.0, 100.0] {
            let mut rng = rng(7);
            let draws: Vec<f64> = (0..20_000).map(|_| beta(a, &mut rng)).collect();
            let mean = draws.iter().sum::<f64>() / 20_000.0;
            let variance = draws.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / 20_000.0;
            let expected = 1.0 / (4.0 * (2.0 * a + 1.0));
            let error = (expected / 20_000.0).sqrt();
            assert!((mean - 0.5).abs() < 4.0 * error && (variance / expected - 1.0).abs() < 0.04, "{a}");
        }
    }

    #[test]
    fn beta_of_a_large_parameter_does_not_draw_for_ever() {
        for a in [20.0, 1e3, 1e9, 1e300, f64::MAX] {
            let mut rng = rng(3);
            let largest = (0..1000).map(|_| (beta(a, &mut rng) - 0.5).abs()).fold(0.0, f64::max);
            assert!(largest < 3.0 / a.sqrt(), "{a}: {largest}");
        }
    }

    #[test]
    fn beta_up_to_one_draws_what_saved_runs_have_drawn() {
        let mut rng = rng(7);
        let draws = [0.2, 0.8, 1.0].map(|a| beta(a, &mut rng));
        let expected = [0.16554108439932727, 0.865758058046488, 0.25486052743024035];
        assert!(draws.iter().zip(expected).all(|(x, e): (&f64, f64)| (x - e).abs() < 1e-12), "{draws:?}");
        assert_eq!(rng.random::<u64>(), 7_831_842_194_445_247_336, "as many numbers are taken");
    }
}
