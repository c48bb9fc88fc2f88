//! Fine-tuning and the attentive probe on real clips of the fixtures: they learn, they go on, they score.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use tgm_data::loader::{
    Batches, ClipConfig, EvalLoader, LoaderConfig, Sample, Subset, TestViews, TrainLoader,
};
use tgm_data::manifest::Manifest;
use tgm_eval::metrics::top_k_accuracy;
use tgm_eval::supervised::{Head, Learner, Length, Settings};
use tgm_eval::{Answers, Error};
use tgm_mae::Checkpoint;
use tgm_ops::Precision;
use tgm_random::Streams;
use tgm_video::{Normalization, RandAugment, Sampling, TubeletShape};

const CLASSES: usize = 3;

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures")
}

fn checkpoint() -> Checkpoint {
    Checkpoint::open(&fixtures().join("mae-plain"), None).unwrap()
}

fn data() -> Subset {
    let manifest = Arc::new(Manifest::load(fixtures().join("world/manifest.csv")).unwrap());
    Subset::split(&manifest, "train").unwrap()
}

/// Clips of the size that the fixture's encoder takes, always the same ones.
fn clips() -> ClipConfig {
    ClipConfig {
        sampling: Sampling::Dense { frames: 4, stride: 5 },
        crop: tgm_video::Crop::Center,
        size: 32,
        tubelet: TubeletShape { frames: 2, patch: 8 },
        ..ClipConfig::default()
    }
}

fn label(row: u32) -> u32 {
    row % CLASSES as u32
}

/// The defaults of a head, with a strength of fine-tuning's own settings that these few clips feel.
fn defaults(head: Head, drop_path: f64) -> Settings {
    match head {
        Head::Finetune => Settings { layer_decay: 0.9, drop_path, ..Settings::finetune() },
        Head::Attentive => Settings::attentive(3),
    }
}

/// Without anything random, so that twelve clips can be learnt by heart.
fn by_heart(head: Head) -> Settings {
    Settings {
        epochs: 200.0,
        batch: 12,
        micro_batch: 5,
        base_lr: 0.2,
        warmup_epochs: 5.0,
        label_smoothing: 0.0,
        mixup: 0.0,
        cutmix: 0.0,
        erase: 0.0,
        rand_augment: None,
        ..defaults(head, 0.0)
    }
}

/// With everything random.
fn augmented(head: Head) -> Settings {
    Settings {
        epochs: 2.0,
        warmup_epochs: 0.0,
        batch: 6,
        micro_batch: 8,
        repeats: 2,
        base_lr: 0.01,
        label_smoothing: 0.1,
        mixup: 0.8,
        cutmix: 1.0,
        ema: 0.5,
        ..defaults(head, 0.2)
    }
}

fn learner(settings: &Settings) -> Learner {
    let length = Length::of(settings, data().rows().len());
    Learner::new(&checkpoint(), false, CLASSES, length, settings, &Streams::new(5)).unwrap()
}

fn train(learner: &mut Learner, settings: &Settings, until: u64) {
    let clip = clips();
    let (batch, start) = (settings.batch * settings.repeats, learner.step());
    let loader = LoaderConfig { cache_mb: 64, ..LoaderConfig::default() };
    let batches = Batches { repeats: settings.repeats, ..Batches::of(batch).starting_at(start) };
    let mut loader = TrainLoader::with_batches(&data(), &clip, &loader, batches, Streams::new(5)).unwrap();
    while learner.step() < until {
        let samples: Vec<Sample> = loader.next_batch().unwrap().samples;
        let labels: Vec<u32> = samples.iter().map(|sample| label(sample.row)).collect();
        learner.learn(&samples, &labels).unwrap();
    }
}

fn answers(learner: &Learner, views: TestViews) -> Answers {
    let clips = EvalLoader::new(&data(), &clips(), &LoaderConfig::default(), views).unwrap();
    let of_id = |id: &str| Some(label(id.rsplit_once('#')?.1.parse().ok()?));
    learner.classify(clips, &of_id, &|_| {}).unwrap().0
}

#[test]
fn twelve_clips_are_learnt_by_heart_by_either_head() {
    for head in [Head::Finetune, Head::Attentive] {
        let settings = by_heart(head);
        let mut learner = learner(&settings);
        train(&mut learner, &settings, 200);
        let answers = answers(&learner, TestViews { views: 1, crops: 1 });
        let accuracy = top_k_accuracy(&answers.scores, &answers.labels, 1).unwrap();
        assert!(
            learner.loss() < 0.3 && accuracy > 0.9,
            "{head:?}: loss {}, accuracy {accuracy}",
            learner.loss()
        );
    }
}

#[test]
fn a_saved_learner_goes_on_to_the_same_answers_as_one_that_was_never_stopped() {
    for head in [Head::Finetune, Head::Attentive] {
        let settings = augmented(head);
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("state.safetensors");
        let mut whole = learner(&settings);
        train(&mut whole, &settings, 4);

        let mut first = learner(&settings);
        train(&mut first, &settings, 2);
        first.save(&file).unwrap();
        let mut second = learner(&settings);
        second.restore(&file).unwrap();
        assert_eq!(second.step(), 2);
        train(&mut second, &settings, 4);
        let views = TestViews { views: 2, crops: 3 };
        assert_eq!(answers(&whole, views), answers(&second, views), "{head:?}");

        let other = Settings { mixup: 0.1, ..settings };
        assert!(matches!(learner(&other).restore(&file), Err(Error::OtherFeatures { .. })));
    }
}

#[test]
fn a_saved_learner_goes_on_with_less_memory_but_not_with_another_recipe() {
    let settings = augmented(Head::Finetune);
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("state.safetensors");
    let mut first = learner(&settings);
    train(&mut first, &settings, 1);
    first.save(&file).unwrap();

    let smaller = Settings { micro_batch: 2, recompute: true, ..settings };
    let mut second = learner(&smaller);
    second.restore(&file).unwrap();
    assert_eq!(second.step(), 1);
    train(&mut second, &smaller, 2);

    let other = Settings { mixup: 0.1, ..smaller };
    assert!(matches!(learner(&other).restore(&file), Err(Error::OtherFeatures { .. })));
}

#[test]
fn a_state_of_another_encoder_or_of_other_data_is_not_gone_on_with() {
    let settings = by_heart(Head::Attentive);
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("state.safetensors");
    let length = Length::of(&settings, data().rows().len());
    let on = |checkpoint: &Checkpoint, random: bool, data: &str| {
        let learner = Learner::new(checkpoint, random, CLASSES, length, &settings, &Streams::new(5));
        learner.unwrap().on_data(data.into())
    };
    let plain = checkpoint();
    on(&plain, false, "clips").save(&file).unwrap();
    on(&plain, false, "clips").restore(&file).unwrap();

    let trained_further = dir.path().join("other");
    std::fs::create_dir(&trained_further).unwrap();
    for name in ["config.json", "model.safetensors"] {
        std::fs::copy(fixtures().join("mae-plain").join(name), trained_further.join(name)).unwrap();
    }
    let weights = trained_further.join("model.safetensors");
    let mut tensors = candle_core::safetensors::load(&weights, &candle_core::Device::Cpu).unwrap();
    for tensor in tensors.values_mut() {
        *tensor = tensor.affine(1.0, 1e-3).unwrap();
    }
    candle_core::safetensors::save(&tensors, &weights).unwrap();
    let other = Checkpoint::open(&trained_further, None).unwrap();
    for mut learner in [on(&other, false, "clips"), on(&plain, true, "clips"), on(&plain, false, "others")] {
        assert!(matches!(learner.restore(&file), Err(Error::OtherFeatures { .. })));
    }
    on(&plain, true, "clips").save(&file).unwrap();
    on(&other, true, "clips").restore(&file).unwrap();
}

/// Class probabilities after three steps with settings changed.
fn after_three_steps(head: Head, change: impl Fn(&mut Settings)) -> Vec<f64> {
    let drop_path = defaults(head, 0.3).drop_path;
    let mut settings = Settings { base_lr: 0.02, drop_path, mixup: 0.8, ..by_heart(head) };
    change(&mut settings);
    let mut learner = learner(&settings);
    train(&mut learner, &settings, 3);
    answers(&learner, TestViews { views: 1, crops: 1 }).scores.rows().flatten().copied().collect()
}

fn furthest(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max)
}

#[test]
fn micro_batches_change_no_result_beyond_rounding() {
    for head in [Head::Finetune, Head::Attentive] {
        let [whole, parts] = [12, 5].map(|size| after_three_steps(head, |s| s.micro_batch = size));
        assert!(furthest(&whole, &parts) < 1e-3, "{head:?}: {whole:?} {parts:?}");
    }
}

#[test]
fn recomputation_changes_no_bit() {
    let [kept, again] = [false, true].map(|on| after_three_steps(Head::Finetune, |s| s.recompute = on));
    assert_eq!(kept, again);
}

#[test]
fn bfloat16_changes_results_by_its_rounding_where_the_processor_has_it() {
    for head in [Head::Finetune, Head::Attentive] {
        let [single, half] = Precision::ALL.map(|p| after_three_steps(head, |s| s.precision = p));
        let change = furthest(&single, &half);
        assert_eq!(change > 0.0, Precision::Bf16.is_native(), "{head:?}");
        assert!(change < 0.02, "{head:?}: {change}");
    }
}

#[test]
fn every_view_is_scored_under_the_identity_of_its_clip() {
    let settings = by_heart(Head::Finetune);
    let answers = answers(&learner(&settings), TestViews { views: 5, crops: 3 });
    assert_eq!(answers.ids.len(), 12 * 15);
    assert_eq!(answers.merged().unwrap().ids.len(), 12);
    assert_eq!(answers.per_view().unwrap().len(), 15);
}

/// Two clips, and a learner that knows three classes.
fn two_clips() -> (Learner, Vec<Sample>) {
    let mut loader =
        TrainLoader::new(&data(), &clips(), &LoaderConfig::default(), 2, Streams::new(1), 0).unwrap();
    (learner(&by_heart(Head::Attentive)), loader.next_batch().unwrap().samples)
}

#[test]
fn a_class_beyond_the_head_is_refused_with_its_clip() {
    let (mut learner, samples) = two_clips();
    let error = learner.learn(&samples, &[0, 9]).unwrap_err();
    assert!(matches!(error, Error::Label { label: 9, classes: 3, .. }), "{error}");
}

/// Clips without a label were dropped and counted in the loss; a class beyond the head behind the clips panicked.
#[test]
fn a_batch_has_a_label_for_each_clip_and_clips_of_one_size() {
    let (mut learner, mut samples) = two_clips();
    for labels in [&[0][..], &[0, 1, 9], &[]] {
        let error = learner.learn(&samples, labels).unwrap_err();
        let got = labels.len();
        assert!(matches!(error, Error::Length { what: "labels", expected: 2, got: found } if found == got));
    }
    let small = ClipConfig { size: 16, ..clips() };
    let mut loader =
        TrainLoader::new(&data(), &small, &LoaderConfig::default(), 2, Streams::new(1), 0).unwrap();
    samples[1] = loader.next_batch().unwrap().samples.remove(0);
    let error = learner.learn(&samples, &[0, 1]).unwrap_err();
    assert!(matches!(error, Error::Length { what: "a clip of the batch", .. }), "{error}");
    assert_eq!(learner.step(), 0);
}

/// RandAugment took another normalisation than clips without it, and than test clips.
#[test]
fn clips_are_normalised_as_they_say_with_rand_augment_and_without() {
    let after = |rand_augment: Option<RandAugment>, normalization: Normalization| {
        let settings = Settings { rand_augment, ..by_heart(Head::Attentive) };
        let (mut learner, mut samples) = (learner(&settings), two_clips().1);
        samples.iter_mut().for_each(|sample| sample.normalization = normalization);
        learner.learn(&samples, &[0, 1]).unwrap();
        learner.loss()
    };
    for rand_augment in [None, Some(RandAugment::default())] {
        let [plain, other] = [clips().normalization, Normalization::NONE].map(|how| after(rand_augment, how));
        assert_ne!(plain, other, "{rand_augment:?}");
    }
}

#[test]
fn a_learner_says_whether_its_encoder_began_at_random() {
    let settings = by_heart(Head::Attentive);
    let length = Length::of(&settings, 12);
    for random in [false, true] {
        let learner = Learner::new(&checkpoint(), random, CLASSES, length, &settings, &Streams::new(5));
        assert_eq!(learner.unwrap().report(0.5).random_encoder, random);
    }
}
