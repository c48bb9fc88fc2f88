//! What every protocol promises, above all for the data that nobody hopes for.

use rand::RngExt;
use tgm_eval::linear::{adamw, logistic, sgd};
use tgm_eval::{Error, Features, Protocol, Report, bootstrap, evaluate, knn};
use tgm_random::Streams;

fn set(name: &str, dim: usize, classes: usize, rows: &[(&[f32], u32)]) -> Features {
    let data = rows.iter().flat_map(|(row, _)| *row).copied().collect();
    let labels = rows.iter().map(|(_, label)| *label).collect();
    let ids = (0..rows.len()).map(|clip| format!("{name}/{clip}")).collect();
    Features::new(dim, classes, data, labels, ids).unwrap()
}

/// Classes as clouds around different corners; `spread` decides how far they overlap.
fn clouds(name: &str, clips: usize, classes: usize, spread: f32) -> Features {
    let dim = classes + 3;
    let mut rng = Streams::new(11).stream(name, 0, 0);
    let mut data = Vec::with_capacity(clips * dim);
    for clip in 0..clips {
        for column in 0..dim {
            let centre = if column == clip % classes { 1.0 } else { 0.0 };
            data.push(centre + spread * rng.random_range(-1.0..1.0f32));
        }
    }
    let labels = (0..clips).map(|clip| (clip % classes) as u32).collect();
    let ids = (0..clips).map(|clip| format!("{name}/{clip}")).collect();
    Features::new(dim, classes, data, labels, ids).unwrap()
}

fn every_protocol() -> [Protocol; 5] {
    [
        Protocol::Knn(knn::Settings::default()),
        Protocol::Knn(knn::Settings { k: 5, vote: knn::Vote::Uniform }),
        Protocol::Logistic(logistic::Settings::default()),
        Protocol::Sgd(sgd::Settings::default()),
        Protocol::Adamw(adamw::Settings::default()),
    ]
}

fn report(protocol: &Protocol, train: &Features, test: &Features, seed: u64) -> Report {
    let interval = bootstrap::Settings { resamples: 1000, ..Default::default() };
    evaluate(protocol, train, test, interval, &Streams::new(seed)).unwrap().report
}

#[test]
fn classes_that_lie_apart_are_told_apart() {
    let (train, test) = (clouds("train", 120, 6, 0.3), clouds("test", 60, 6, 0.3));
    for protocol in every_protocol() {
        let report = report(&protocol, &train, &test, 1);
        assert_eq!(report.top1.mean, 1.0, "{protocol:?}");
        assert_eq!((report.top5, report.mean_class), (Some(1.0), 1.0));
        assert_eq!((report.chance, report.majority), (1.0 / 6.0, 1.0 / 6.0));
    }
}

#[test]
fn labels_that_the_features_do_not_know_are_guessed_at_chance() {
    let shuffled = |name, clips| {
        let clouds = clouds(name, clips, 5, 0.5);
        let mut rng = Streams::new(5).stream(name, 1, 0);
        let labels = (0..clips).map(|_| rng.random_range(0..5)).collect();
        Features::new(clouds.dim(), 5, clouds.data().to_vec(), labels, clouds.ids().to_vec()).unwrap()
    };
    let (train, test) = (shuffled("train", 300), shuffled("test", 300));
    for protocol in every_protocol() {
        let top1 = report(&protocol, &train, &test, 1).top1;
        assert!(top1.low < 0.2 + 0.05 && top1.high > 0.2 - 0.05, "{protocol:?}: {top1:?}");
    }
}

#[test]
fn the_same_seed_gives_the_same_report_on_any_number_of_threads() {
    let (train, test) = (clouds("train", 150, 4, 1.5), clouds("test", 40, 4, 1.5));
    for protocol in every_protocol() {
        let with = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| evaluate(&protocol, &train, &test, Default::default(), &Streams::new(3)).unwrap())
        };
        assert_eq!(with(1), with(4), "{protocol:?}");
    }
}

#[test]
fn another_seed_draws_other_batches() {
    let (train, test) = (clouds("train", 600, 4, 1.5), clouds("test", 40, 4, 1.5));
    let settings = sgd::Settings { epochs: 12, ..Default::default() };
    let scores = |seed| {
        let (probe, _) = sgd::fit(&train, &settings, &Streams::new(seed)).unwrap();
        probe.classify(&test).unwrap()
    };
    assert_eq!(scores(1), scores(1));
    assert_ne!(scores(1), scores(2));
}

#[test]
fn settings_are_chosen_without_the_test_set_and_the_choice_is_on_record() {
    let train = clouds("train", 100, 5, 1.2);
    let (_, report) = logistic::fit(&train, &logistic::Settings::default(), &Streams::new(2)).unwrap();
    let selection = report.selection.unwrap();
    assert_eq!((selection.fit_clips, selection.held_out_clips), (80, 20));
    assert_eq!(selection.trials.len(), report.settings.c.len());
    let top1 =
        |value: f64| selection.trials.iter().find(|t| t.value == value).unwrap().held_out.unwrap().top1;
    assert!(report.settings.c.iter().all(|&c| top1(c) <= top1(report.c)), "{selection:?}");
}

#[test]
fn one_value_needs_no_comparison_and_one_clip_a_class_allows_none() {
    let train = set("train", 1, 2, &[(&[0.0], 0), (&[1.0], 1)]);
    let streams = Streams::new(0);
    let error = logistic::fit(&train, &Default::default(), &streams).unwrap_err();
    assert!(matches!(error, Error::NoHoldout { setting: "c", candidates: 7 }), "{error}");
    let error = sgd::fit(&train, &Default::default(), &streams).unwrap_err();
    assert!(matches!(error, Error::NoHoldout { setting: "base_lr", candidates: 5 }), "{error}");

    let one = logistic::Settings { c: vec![1.0], ..Default::default() };
    let (probe, report) = logistic::fit(&train, &one, &streams).unwrap();
    assert_eq!(report.selection, None);
    assert_eq!(probe.classify(&train).unwrap().predictions(), [0, 1]);
}

#[test]
fn a_learning_rate_that_diverges_loses_and_is_on_record() {
    let train = clouds("train", 60, 3, 1.0);
    // Cross-entropy alone has bounded gradients; weight decay makes a long step explode.
    let settings = |base_lr| sgd::Settings { base_lr, weight_decay: 1e-3, ..Default::default() };
    let (_, report) = sgd::fit(&train, &settings(vec![1e10, 0.1]), &Streams::new(0)).unwrap();
    assert_eq!(report.base_lr, 0.1);
    assert_eq!(report.selection.unwrap().trials[0].held_out, None);

    for only in [vec![1e10], vec![1e10, 1e12]] {
        let error = sgd::fit(&train, &settings(only), &Streams::new(0)).unwrap_err();
        assert!(matches!(error, Error::Diverged { .. }), "{error}");
    }
}

#[test]
fn one_class_can_be_looked_up_but_not_learnt() {
    let train = set("train", 1, 3, &[(&[1.0], 2), (&[2.0], 2)]);
    let test = set("test", 1, 3, &[(&[1.5], 2), (&[1.0], 0)]);
    let [by_similarity, uniform, logistic, sgd, _] = every_protocol();
    for protocol in [by_similarity, uniform] {
        assert_eq!(report(&protocol, &train, &test, 0).top1.mean, 0.5);
    }
    for protocol in [logistic, sgd] {
        let error = evaluate(&protocol, &train, &test, Default::default(), &Streams::new(0)).unwrap_err();
        assert!(matches!(error, Error::OneClass { label: 2 }), "{error}");
    }
}

#[test]
fn a_class_without_train_clips_is_never_answered() {
    let train = set("train", 1, 4, &[(&[0.0], 1), (&[0.1], 1), (&[1.0], 3), (&[1.1], 3)]);
    let test = set("test", 1, 4, &[(&[0.5], 0), (&[0.05], 1), (&[0.4], 2), (&[2.0], 3)]);
    for protocol in every_protocol() {
        let interval = bootstrap::Settings::default();
        let scores = evaluate(&protocol, &train, &test, interval, &Streams::new(0)).unwrap().answers.scores;
        for row in scores.rows() {
            assert_eq!((row[0], row[2]), (0.0, 0.0), "{protocol:?}");
            assert!((row[1] + row[3] - 1.0).abs() < 1e-12);
        }
    }
}

#[test]
fn a_bank_smaller_than_k_is_used_whole() {
    let train = set("train", 2, 2, &[(&[1.0, 0.0], 0), (&[0.0, 1.0], 1), (&[0.1, 1.0], 1)]);
    let (scores, report) = knn::classify(&train, &train, &knn::Settings::default()).unwrap();
    assert_eq!(report.k_used, 3);
    assert_eq!(scores.predictions(), [0, 1, 1], "the nearest count more");
    let settings = knn::Settings { k: 200, vote: knn::Vote::Uniform };
    let (scores, _) = knn::classify(&train, &train, &settings).unwrap();
    assert_eq!(scores.predictions(), [1, 1, 1], "everyone is asked");
}

#[test]
fn equally_near_neighbours_are_taken_in_the_order_of_the_bank() {
    let copies = [(&[1.0f32, 2.0][..], 1), (&[2.0, 4.0], 0), (&[1.0, 2.0], 1), (&[-1.0, 0.0], 0)];
    let bank = set("train", 2, 2, &copies);
    let query = set("test", 2, 2, &[(&[0.5, 1.0], 0)]);
    let near = knn::neighbours(&bank, &query, 3).unwrap();
    assert_eq!(near[0].iter().map(|n| n.row).collect::<Vec<_>>(), [0, 1, 2]);
    let predict = |k| {
        let settings = knn::Settings { k, vote: knn::Vote::Uniform };
        knn::classify(&bank, &query, &settings).unwrap().0.predictions()[0]
    };
    assert_eq!(predict(1), 1, "the first copy");
    assert_eq!(predict(2), 0, "one vote each: the lower class");
}

#[test]
fn a_vector_of_zeros_resembles_nothing() {
    let bank = set("train", 2, 2, &[(&[-1.0, 0.0], 0), (&[0.0, 0.0], 1), (&[1.0, 0.0], 0)]);
    let query = set("test", 2, 2, &[(&[1.0, 0.0], 0), (&[0.0, 0.0], 0)]);
    let near = knn::neighbours(&bank, &query, 3).unwrap();
    let cosines = |query: usize| near[query].iter().map(|n| n.cosine).collect::<Vec<_>>();
    assert_eq!(cosines(0), [1.0, 0.0, -1.0]);
    assert_eq!(cosines(1), [0.0, 0.0, 0.0]);
}

#[test]
fn constant_features_leave_only_the_frequency_of_the_classes() {
    let rows: Vec<(&[f32], u32)> =
        (0..20).map(|clip| (&[0.1f32, -3.3][..], u32::from(clip % 4 == 0))).collect();
    let (train, test) = (set("train", 2, 2, &rows), set("test", 2, 2, &rows[..3]));
    let whole = knn::Settings { k: 20, vote: knn::Vote::Similarity { temperature: 0.07 } };
    let logistic = logistic::Settings::default();
    let sgd = sgd::Settings { base_lr: vec![1.0], ..Default::default() };
    for (protocol, tolerance) in
        [(Protocol::Knn(whole), 1e-12), (Protocol::Logistic(logistic), 1e-5), (Protocol::Sgd(sgd), 0.1)]
    {
        let interval = bootstrap::Settings::default();
        let scores = evaluate(&protocol, &train, &test, interval, &Streams::new(0)).unwrap().answers.scores;
        assert!(scores.rows().all(|row| (row[0] - 0.75).abs() < tolerance), "{protocol:?}: {scores:?}");
    }
}

#[test]
fn duplicate_clips_change_nothing_in_a_linear_probe_when_all_are_duplicated() {
    let train = clouds("train", 60, 3, 1.5);
    let twice = |values: &[f32]| [values, values].concat();
    let ids = (0..120).map(|clip| format!("twice/{clip}")).collect();
    let labels = [train.labels(), train.labels()].concat();
    let doubled = Features::new(train.dim(), 3, twice(train.data()), labels, ids).unwrap();
    let fit = |features: &Features, c| {
        let settings = logistic::Settings { c: vec![c], tolerance: 1e-10, ..Default::default() };
        logistic::fit(features, &settings, &Streams::new(0)).unwrap().0
    };
    let (once, double) = (fit(&train, 0.1), fit(&doubled, 0.05));
    for (a, b) in once.coefficients().iter().zip(double.coefficients()) {
        assert!((a - b).abs() < 1e-7, "C weighs the sum over clips: {a} {b}");
    }
}

#[test]
fn a_clip_in_both_sets_and_sets_of_different_kinds_are_refused_by_every_protocol() {
    let (train, wide) = (clouds("train", 20, 4, 0.5), clouds("test", 20, 5, 0.5));
    for protocol in every_protocol() {
        let evaluate =
            |test| evaluate(&protocol, &train, test, Default::default(), &Streams::new(0)).unwrap_err();
        assert!(matches!(evaluate(&train), Error::Leak { .. }));
        assert!(matches!(evaluate(&wide), Error::Mismatch { .. }));
    }
    assert!(matches!(knn::neighbours(&train, &wide, 1), Err(Error::Mismatch { .. })));
    let one = logistic::Settings { c: vec![1.0], ..Default::default() };
    let (probe, _) = logistic::fit(&train, &one, &Streams::new(0)).unwrap();
    assert!(matches!(probe.classify(&wide), Err(Error::Mismatch { .. })));
}

#[test]
fn settings_out_of_range_are_named() {
    let train = clouds("train", 20, 4, 0.5);
    let refused = |protocol: &str| {
        let protocol: Protocol = toml::from_str(protocol).unwrap();
        let test = clouds("test", 20, 4, 0.5);
        match evaluate(&protocol, &train, &test, Default::default(), &Streams::new(0)) {
            Err(Error::Setting { name, .. }) => name,
            other => panic!("{protocol:?}: {other:?}"),
        }
    };
    assert_eq!(refused("protocol = 'knn'\nk = 0"), "k");
    assert_eq!(refused("protocol = 'knn'\nvote = { similarity = { temperature = 0.0 } }"), "temperature");
    assert_eq!(refused("protocol = 'logistic'\nc = []"), "c");
    assert_eq!(refused("protocol = 'logistic'\nc = [1.0, -1.0]"), "c");
    assert_eq!(refused("protocol = 'logistic'\nheld_out = 1.0"), "held_out");
    assert_eq!(refused("protocol = 'logistic'\ntolerance = -1.0"), "tolerance");
    assert_eq!(refused("protocol = 'logistic'\nmax_iterations = 0"), "max_iterations");
    assert_eq!(refused("protocol = 'sgd'\nbase_lr = [nan]"), "base_lr");
    assert_eq!(refused("protocol = 'sgd'\nbatch = 1"), "batch");
    assert_eq!(refused("protocol = 'sgd'\nepochs = 0"), "epochs");
    assert_eq!(refused("protocol = 'sgd'\nepochs = 5\nwarmup_epochs = 5"), "warmup_epochs");
    assert_eq!(refused("protocol = 'sgd'\nmomentum = 1.0"), "momentum");
    assert_eq!(refused("protocol = 'sgd'\nweight_decay = -0.1"), "weight_decay");
    assert_eq!(refused("protocol = 'sgd'\ninit_std = inf"), "init_std");
    assert_eq!(refused("protocol = 'sgd'\nnorm_eps = 0.0"), "norm_eps");
    assert_eq!(refused("protocol = 'sgd'\nnorm_momentum = 0.0"), "norm_momentum");
}

#[test]
fn a_misspelt_setting_is_an_error() {
    let error = toml::from_str::<Protocol>("protocol = 'sgd'\nepoch = 3").unwrap_err();
    assert!(error.to_string().contains("epoch"), "{error}");
}

#[test]
fn the_report_holds_every_setting_and_what_to_compare_with() {
    let (train, test) = (clouds("train", 60, 6, 1.0), clouds("test", 30, 6, 1.0));
    for protocol in every_protocol() {
        let report = report(&protocol, &train, &test, 7);
        let written = serde_json::to_value(&report).unwrap();
        let asked = serde_json::to_value(&protocol).unwrap();
        assert_eq!(written["protocol"], asked["protocol"]);
        for (name, value) in asked.as_object().unwrap().iter().filter(|(name, _)| *name != "protocol") {
            assert_eq!(&written["settings"][name], value, "{name}");
        }
        assert_eq!(written["seed"], 7);
        for name in ["top1", "top5", "mean_class", "chance", "majority", "per_class", "confusion", "interval"]
        {
            assert!(!written[name].is_null(), "{name} is missing from {written}");
        }
    }
}
