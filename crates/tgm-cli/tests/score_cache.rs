//! Scoring ahead of training chooses the masks that scoring while training chooses.

mod common;

use std::sync::Arc;

use candle_core::Device;
use common::{fixtures, world};
use tgm_cli::localise::{Tubelets, mean, share_masked};
use tgm_clip::{ClipModel, PatchFeatures, ScoreOptions};
use tgm_data::loader::{ClipConfig, EvalLoader, LoaderConfig, Sample, Subset, TestViews, TrainLoader};
use tgm_data::manifest::Manifest;
use tgm_data::synth::read_truth;
use tgm_masking::{Cues, Mask, Masking, ScoreMap, TextConfig};
use tgm_random::Streams;
use tgm_train::config::{self, Config};
use tgm_train::guidance::{load_clip, score_clip, score_frames};
use tgm_train::score_cache::{CachedScores, Rules, fill};
use tgm_video::Crop;

/// The demo with patches of as many pixels: 8 is the grid that its CLIP has itself.
fn demo_of(patch: usize) -> Config {
    config::load("demo", &[format!("clip.tubelet.patch={patch}")]).unwrap()
}

fn demo() -> Config {
    demo_of(8)
}

fn text(scores: ScoreOptions) -> config::TextConfig {
    config::TextConfig { scores, ..config::TextConfig::default() }
}

fn all_rows() -> Subset {
    let manifest = Arc::new(Manifest::load(world()).unwrap());
    let rows = (0..manifest.len() as u32).collect();
    Subset::new(manifest, rows).unwrap()
}

fn mask(sample: &Sample, scores: &ScoreMap, ratio: f64) -> Mask {
    let masking = Masking::Text(TextConfig { ratio, ..TextConfig::default() });
    let mut rng = Streams::new(0).stream("mask", sample.epoch, sample.number);
    masking.mask(&sample.grid, &Cues::from_scores(scores), &mut rng).unwrap()
}

fn online(clip: &ClipModel, sample: &Sample, options: &ScoreOptions) -> ScoreMap {
    let caption = sample.caption.as_deref().unwrap();
    let text = clip.embed_text(&[caption]).unwrap().embeddings.get(0).unwrap();
    score_clip(clip, sample, &text, options).unwrap()
}

/// The share of the tubelets that both masks hide.
fn agreement(a: &Mask, b: &Mask) -> f64 {
    let both = a.masked().iter().filter(|index| b.masked().binary_search(index).is_ok()).count();
    both as f64 / a.masked().len() as f64
}

/// Asserts that two masks differ only among tubelets whose scores an f16 cannot tell apart.
fn assert_same_but_for_ties(a: &Mask, b: &Mask, scores: &ScoreMap, cells: usize) {
    let (a, b) = (a.to_bools(), b.to_bools());
    for slot in (0..a.len()).step_by(cells) {
        let changed = (slot..slot + cells).filter(|&i| a[i] != b[i]);
        let changed: Vec<f32> = changed.map(|i| scores.values()[i]).collect();
        let (low, high) = changed.iter().fold((f32::MAX, f32::MIN), |(l, h), s| (l.min(*s), h.max(*s)));
        assert!(changed.is_empty() || high - low < 2.0 / 2048.0, "{changed:?}");
    }
}

/// On a finer grid than CLIP's, on its own, and on a coarser one.
#[test]
fn cache_and_clip_choose_the_same_tubelets_of_whole_frames_on_any_grid() {
    let clip = load_clip(&demo().text, &Device::Cpu).unwrap();
    let data = all_rows();
    for features in [PatchFeatures::Plain, PatchFeatures::Value, PatchFeatures::Surgery] {
        let options = ScoreOptions { features, ..ScoreOptions::default() };
        let dir = tempfile::tempdir().unwrap();
        let rules = Rules { every: 1, options, ..Rules::default() };
        let filled = fill(&data, &clip, &rules, dir.path()).unwrap();
        assert_eq!((filled.videos, filled.maps, filled.bad.len()), (24, 72, 0));
        let (cached, missing) = CachedScores::open(dir.path(), &clip, &text(options), &data).unwrap();
        assert_eq!(missing, 0);
        for patch in [4, 8, 16] {
            let clips = ClipConfig { crop: Crop::Center, ..demo_of(patch).clip };
            let (mut same, mut masks) = (0, 0);
            let views = TestViews { views: 2, crops: 1 };
            for sample in EvalLoader::new(&data, &clips, &LoaderConfig::default(), views)
                .unwrap()
                .flat_map(|samples| samples.unwrap())
            {
                let (cached, online) =
                    (cached.map(&sample).unwrap().unwrap(), online(&clip, &sample, &options));
                for ratio in [0.25, 0.6, 0.9] {
                    let (a, b) = (mask(&sample, &cached, ratio), mask(&sample, &online, ratio));
                    masks += 1;
                    same += usize::from(a == b);
                    assert_same_but_for_ties(&a, &b, &online, sample.grid.cells());
                }
            }
            eprintln!("{features:?}, patch {patch}: {same} of {masks} masks are the same");
            assert!(same * 10 >= masks * 9, "{features:?}, patch {patch}");
        }
    }
}

/// Training clips of the demo: cropped at random, and some of them mirrored, which the maps must follow.
fn random_crops(data: &Subset, patch: usize) -> Vec<Sample> {
    let clips = ClipConfig { flip: 0.5, whole_frames: true, ..demo_of(patch).clip };
    let mut loader =
        TrainLoader::new(data, &clips, &LoaderConfig::default(), 72, Streams::new(5), 0).unwrap();
    let samples = loader.next_batch().unwrap().samples;
    assert!(samples.iter().any(|s| s.flipped) && samples.iter().any(|s| s.crop.width < 50));
    samples
}

/// A cache of every frame, and the training clips of a patch size that it is for.
fn cache_and_crops(clip: &ClipModel, patch: usize) -> (tempfile::TempDir, CachedScores, Vec<Sample>) {
    let (data, options, dir) = (all_rows(), ScoreOptions::default(), tempfile::tempdir().unwrap());
    fill(&data, clip, &Rules { every: 1, options, ..Rules::default() }, dir.path()).unwrap();
    let (cached, _) = CachedScores::open(dir.path(), clip, &text(options), &data).unwrap();
    (dir, cached, random_crops(&data, patch))
}

#[test]
fn of_random_crops_cache_and_clip_on_whole_frames_choose_at_least_95_percent_of_all_tubelets_alike() {
    let clip = load_clip(&demo().text, &Device::Cpu).unwrap();
    for patch in [8, 16] {
        let (_dir, cached, samples) = cache_and_crops(&clip, patch);
        for ratio in [0.25, 0.6, 0.9] {
            let same = mean(samples.iter().map(|sample| {
                let text = clip.embed_text(&[sample.caption.as_deref().unwrap()]).unwrap().embeddings;
                let online =
                    score_frames(&clip, sample, &text.get(0).unwrap(), &ScoreOptions::default()).unwrap();
                let cached = cached.map(sample).unwrap().unwrap();
                agreement(&mask(sample, &cached, ratio), &mask(sample, &online, ratio))
            }));
            eprintln!("patch {patch}, ratio {ratio}: {same:.4} of all tubelets the same");
            assert!(same >= 0.95, "patch {patch}, ratio {ratio}: {same}");
        }
    }
}

/// What CLIP says about a patch depends on all of the picture, and a crop is another picture: among patches of background,
/// which match no caption, the order is then another one. What the caption names is hidden alike.
///
/// Of all tubelets hidden, 70, 77 and 93 % are the same at ratios 0.25, 0.6 and 0.9; of the named object's, 97.9, 98.7
/// and 99.4 %. Who wants cache and CLIP to agree on all of them says `text.view = "frame"`.
#[test]
fn of_random_crops_cache_and_clip_on_the_crop_treat_95_percent_of_the_named_object_alike_but_not_of_the_background()
 {
    let clip = load_clip(&demo().text, &Device::Cpu).unwrap();
    let (_dir, cached, samples) = cache_and_crops(&clip, 8);
    let truth = read_truth(&fixtures().join("world")).unwrap();
    for (ratio, all_alike) in [(0.25, 0.65), (0.6, 0.72), (0.9, 0.9)] {
        let (mut all, mut object, mut by_cache, mut by_clip) = (vec![], vec![], vec![], vec![]);
        for sample in &samples {
            let online = online(&clip, sample, &ScoreOptions::default());
            let cached = cached.map(sample).unwrap().unwrap();
            let (cached, online) = (mask(sample, &cached, ratio), mask(sample, &online, ratio));
            all.push(agreement(&cached, &online));
            let named = Tubelets::of_object(sample, &truth[sample.row as usize].object_boxes);
            let (a, b) = (cached.to_bools(), online.to_bools());
            if named.count() > 0 {
                object.push(named.mean_of(|i| f64::from(u8::from(a[i] == b[i]))));
                by_cache.extend(share_masked(&named, &cached));
                by_clip.extend(share_masked(&named, &online));
            }
        }
        let [all, object, by_cache, by_clip] = [all, object, by_cache, by_clip].map(mean);
        eprintln!(
            "ratio {ratio}: {all:.3} of all tubelets the same, {object:.3} of the named object's; \
             hidden of it: {by_cache:.3} by the cache, {by_clip:.3} by CLIP on the crop"
        );
        assert!(object >= 0.95 && by_cache >= by_clip - 0.01 && all > all_alike, "ratio {ratio}");
    }
}
