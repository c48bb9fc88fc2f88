//! Cached maps seen through the crops of training.

mod common;

use tempfile::TempDir;
use tgm_clip::cache::{CacheKey, CacheSpec, Maps, Region, ScoreCache};
use tgm_clip::tgm_masking::{Grid, ScoreMap};
use tgm_clip::{Frames, PatchFeatures, ScoreOptions};

const GRID: (usize, usize) = (14, 14);
const CELLS: usize = GRID.0 * GRID.1;

#[test]
fn the_whole_frame_at_cached_times_is_the_stored_map_to_the_bit() {
    for frames in 1..4 {
        let scores: Vec<f32> = (0..frames * CELLS).map(|i| i as f32 / 4096.0 - 0.5).collect();
        let times = (0..frames).map(|i| i as f64 / 30.0).collect();
        let maps = Maps::new(times, GRID, &scores).unwrap();
        assert_eq!(maps.to_f32(), scores);
        assert_eq!(maps.crop(&Region::WHOLE, false, GRID, maps.times()).unwrap(), scores);
        let mirrored = maps.crop(&Region::WHOLE, true, GRID, maps.times()).unwrap();
        let rows: Vec<f32> = maps
            .to_f32()
            .chunks(GRID.1)
            .flat_map(|row| row.iter().rev().copied().collect::<Vec<_>>())
            .collect();
        assert_eq!(mirrored, rows);
    }
}

#[test]
fn between_cached_frames_scores_are_mixed_and_beyond_them_they_stay() {
    let maps = Maps::new(vec![1.0, 3.0], (1, 2), &[0.0, 1.0, 0.5, 0.0]).unwrap();
    let found = maps.crop(&Region::WHOLE, false, (1, 2), &[-5.0, 1.5, 9.0]).unwrap();
    assert_eq!(found, [0.0, 1.0, 0.125, 0.75, 0.5, 0.0]);
}

#[test]
fn a_crop_of_whole_cells_is_these_cells() {
    let scores: Vec<f32> = (0..36).map(|i| i as f32).collect();
    let maps = Maps::new(vec![0.0], (6, 6), &scores).unwrap();
    let region = Region { left: 2.0 / 6.0, top: 0.5, width: 3.0 / 6.0, height: 2.0 / 6.0 };
    let found = maps.crop(&region, false, (2, 3), &[0.0]).unwrap();
    for (found, expected) in found.iter().zip([20.0, 21.0, 22.0, 26.0, 27.0, 28.0]) {
        assert!((found - expected).abs() < 1e-4, "{found} {expected}");
    }
}

/// Indices of the `k` largest, as the masking chooses them.
fn chosen(scores: &[f32], k: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..scores.len()).collect();
    order.sort_by(|&a, &b| scores[b].total_cmp(&scores[a]).then(a.cmp(&b)));
    order.truncate(k);
    order.sort_unstable();
    order
}

#[test]
fn cache_and_online_scoring_choose_the_same_tubelets_for_the_whole_frame() {
    let clip = common::load("clip-quick-gelu");
    let golden = common::golden("clip-quick-gelu");
    let (bytes, height, width) = common::frames(&golden["square.frames"]);
    let frames = Frames::new(&bytes[..2 * height * width * 3], height, width).unwrap();
    let text = clip.embed_text(&["a blue square moves"]).unwrap().embeddings.get(0).unwrap();
    let grid = (8, 8);
    let key = CacheKey { video: "video.mp4".into(), caption: "a blue square moves".into() };
    for features in [PatchFeatures::Plain, PatchFeatures::Value, PatchFeatures::Surgery] {
        let options = ScoreOptions { features, ..ScoreOptions::default() };
        let online = clip.score(frames, &text, grid, &options).unwrap();
        let dir = TempDir::new().unwrap();
        let spec = CacheSpec::new(clip.identity(), options, grid, "both");
        let mut cache = ScoreCache::open_or_create(dir.path(), &spec).unwrap();
        cache.insert(key.clone(), Maps::new(vec![0.0, 0.04], grid, &online).unwrap()).unwrap();
        cache.finish().unwrap();
        let maps = ScoreCache::open(dir.path(), &spec).unwrap().get(&key).unwrap().unwrap();
        let cached = maps.crop(&Region::WHOLE, false, grid, &[0.0, 0.04]).unwrap();
        let tubelets = |scores: &[f32]| {
            ScoreMap::from_frames(Grid::new(1, grid.0, grid.1).unwrap(), 2, scores).unwrap().into_values()
        };
        let (cached, online) = (tubelets(&cached), tubelets(&online));
        for k in [16, 38, 58] {
            assert_eq!(chosen(&cached, k), chosen(&online, k), "{features:?}, {k} tubelets");
        }
    }
}

/// A smooth picture of scores: a few blobs on a slope.
struct Scene(Vec<[f64; 4]>);

impl Scene {
    fn new(next: &mut impl FnMut() -> f64) -> Self {
        Self((0..3).map(|_| [next(), next(), 0.1 + 0.15 * next(), 0.3 + next()]).collect())
    }

    fn at(&self, x: f64, y: f64) -> f64 {
        let blob = |&[cx, cy, size, height]: &[f64; 4]| {
            height * (-((x - cx).powi(2) + (y - cy).powi(2)) / (2.0 * size * size)).exp()
        };
        self.0.iter().map(blob).sum::<f64>() + 0.05 * x + 0.03 * y
    }

    /// What a perfect scorer says about the cropped picture: the mean over each of its 14×14 patches.
    fn scores(&self, region: &Region) -> Vec<f32> {
        const FINE: usize = 4;
        let mean = |row: usize, col: usize| {
            let points = (0..FINE * FINE).map(|i| {
                let offset = |i: usize| (i as f64 + 0.5) / FINE as f64;
                let x = region.left + region.width * (col as f64 + offset(i % FINE)) / 14.0;
                let y = region.top + region.height * (row as f64 + offset(i / FINE)) / 14.0;
                self.at(x, y)
            });
            (points.sum::<f64>() / (FINE * FINE) as f64) as f32
        };
        (0..14).flat_map(|row| (0..14).map(move |col| mean(row, col))).collect()
    }
}

#[test]
fn for_random_crops_of_smooth_maps_at_least_95_percent_of_the_tubelets_are_the_same() {
    let mut state = 7u64;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 11) as f64 / (1u64 << 53) as f64
    };
    const CROPS: usize = 200;
    for k in [49, 118, 147] {
        let (mut same, mut worst) = (0, k);
        for _ in 0..CROPS {
            let scene = Scene::new(&mut next);
            let maps = Maps::new(vec![0.0], (14, 14), &scene.scores(&Region::WHOLE)).unwrap();
            // Sides of 1/2 to 1, as random resized crops of at least a quarter of the area.
            let (width, height) = (0.5 + 0.5 * next(), 0.5 + 0.5 * next());
            let (left, top) = ((1.0 - width) * next(), (1.0 - height) * next());
            let region = Region { left, top, width, height };
            let cached = chosen(&maps.crop(&region, false, (14, 14), &[0.0]).unwrap(), k);
            let online = chosen(&scene.scores(&region), k);
            let agreed = cached.iter().filter(|i| online.binary_search(i).is_ok()).count();
            same += agreed;
            worst = worst.min(agreed);
        }
        let share = same as f64 / (CROPS * k) as f64;
        eprintln!(
            "k = {k}: {:.1} % the same, {:.1} % at worst",
            100.0 * share,
            100.0 * worst as f64 / k as f64
        );
        assert!(share >= 0.95, "k = {k}: {share}");
    }
}
