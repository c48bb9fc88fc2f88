//! Runs that begin with the weights of another model.

mod common;

use common::{fails, learnt, ok, text, tiny, unlabelled};

/// A rate of 0 moves nothing: what a run ends with is what it began with.
const STILL: [&str; 6] = ["--steps", "1", "--set", "schedule.base_lr=0", "--set", "schedule.min_lr=0"];

#[test]
fn a_run_begins_with_the_weights_it_is_given() {
    let dir = tempfile::tempdir().unwrap();
    let (manifest, first, second) = (unlabelled(dir.path()), dir.path().join("a"), dir.path().join("b"));
    let manifest = text(&manifest);
    ok(&tiny(manifest, &first, &["--masking", "tube", "--contrastive", "off", "--steps", "3"]));
    let options =
        [&["--masking", "random", "--contrastive", "off", "--init", text(&first)][..], &STILL].concat();
    ok(&tiny(manifest, &second, &options));
    let (ours, theirs) = (learnt(&second), learnt(&first));
    assert_eq!(ours["model.safetensors"], theirs["model.safetensors"]);
    // Its checkpoint counts from then on, and the first one may be gone.
    std::fs::remove_dir_all(&first).unwrap();
    ok(&["pretrain", "--out", text(&second), "--resume", "--steps", "2"]);
}

#[test]
fn a_decoder_of_another_size_is_drawn_and_an_encoder_of_another_size_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (manifest, first) = (unlabelled(dir.path()), dir.path().join("a"));
    let manifest = text(&manifest);
    ok(&tiny(manifest, &first, &["--masking", "tube", "--contrastive", "off", "--steps", "1"]));
    let begin = |name: &str, model: &str| {
        let out = dir.path().join(name);
        let options = ["--masking", "tube", "--contrastive", "off", "--init", text(&first), "--set", model];
        let arguments = tiny(manifest, &out, &[&options[..], &STILL].concat());
        arguments.into_iter().map(str::to_owned).collect::<Vec<_>>()
    };
    let run = begin("b", "model.decoder={dim=24,depth=1,heads=2,mlp=48}");
    ok(&run.iter().map(String::as_str).collect::<Vec<_>>());
    let run = begin("c", "model.encoder={dim=48,depth=1,heads=2,mlp=64}");
    let error = fails(1, &run.iter().map(String::as_str).collect::<Vec<_>>());
    assert!(
        error.contains("its encoder is not of this model's size") && error.contains("there and"),
        "{error}"
    );
    assert!(!dir.path().join("c").exists(), "no folder of a run that cannot begin");
    let error = fails(
        1,
        &tiny(
            manifest,
            &dir.path().join("d"),
            &["--masking", "tube", "--contrastive", "off", "--init", "nowhere"],
        ),
    );
    assert!(error.contains("nowhere"), "{error}");
}
