//! The CLIP that the project trained for its demo (`fixtures/tiny-clip`) finds what a caption names.

mod common;

use candle_core::{DType, IndexOp, Tensor};
use common::{assert_close, captions, folder, frames, load};
use tgm_clip::{ClipModel, Frames, ScoreOptions};

/// Patches along a side.
const GRID: usize = 8;
const PATCH: u32 = 8;

/// A frame of a scene that the model was not trained on, and what is in it.
struct Scene {
    frame: Vec<u8>,
    size: usize,
    /// Left, top, right, bottom of the two objects, in the order of the captions.
    boxes: Vec<Vec<i64>>,
    /// What PyTorch computes: `[2, 64]`.
    scores: Tensor,
}

fn scene() -> Scene {
    let path = folder("tiny-clip").join("scene.safetensors");
    let tensors = candle_core::safetensors::load(path, &candle_core::Device::Cpu).unwrap();
    let (frame, height, width) = frames(&tensors["frame"]);
    assert_eq!(height, width);
    let boxes = tensors["boxes"].to_vec2().unwrap();
    Scene { frame, size: height, boxes, scores: tensors["scores"].to_dtype(DType::F32).unwrap() }
}

/// The score maps of the scene's two captions.
fn score(clip: &ClipModel, scene: &Scene) -> Vec<Vec<f32>> {
    let captions = captions("tiny-clip");
    let captions: Vec<&str> = captions.iter().map(String::as_str).collect();
    let texts = clip.embed_text(&captions).unwrap().embeddings;
    let frames = Frames::new(&scene.frame, scene.size, scene.size).unwrap();
    let map = |i| clip.score(frames, &texts.i(i).unwrap(), (GRID, GRID), &ScoreOptions::default()).unwrap();
    (0..captions.len()).map(map).collect()
}

/// The cells of which the box fills half or more.
fn cells(extent: &[i64]) -> Vec<usize> {
    let overlap = |cell: usize, low: i64, high: i64| {
        let start = cell as i64 * i64::from(PATCH);
        (high.min(start + i64::from(PATCH)) - low.max(start)).max(0)
    };
    let filled = |cell: &usize| {
        let (row, column) = (cell / GRID, cell % GRID);
        overlap(row, extent[1], extent[3]) * overlap(column, extent[0], extent[2])
            >= i64::from(PATCH * PATCH / 2)
    };
    (0..GRID * GRID).filter(filled).collect()
}

fn mean(scores: &[f32], cells: &[usize]) -> f32 {
    cells.iter().map(|&cell| scores[cell]).sum::<f32>() / cells.len() as f32
}

#[test]
fn each_caption_lights_up_the_object_that_it_names() {
    let (clip, scene) = (load("tiny-clip"), scene());
    let objects: Vec<Vec<usize>> = scene.boxes.iter().map(|extent| cells(extent)).collect();
    for (named, scores) in score(&clip, &scene).iter().enumerate() {
        let (object, other) = (&objects[named], &objects[1 - named]);
        let mut order: Vec<usize> = (0..scores.len()).collect();
        order.sort_by(|&a, &b| scores[b].total_cmp(&scores[a]));
        assert!(object.contains(&order[0]), "caption {named}: the best cell is {}", order[0]);
        let quarter = &order[..order.len() / 4];
        let found = object.iter().filter(|cell| quarter.contains(cell)).count();
        // Chance is a quarter. Not all of them: the corners of an object's box are background.
        assert!(found * 4 >= object.len() * 3, "caption {named}: {found} of {} cells", object.len());
        let rest: Vec<usize> = (0..scores.len()).filter(|cell| !object.contains(cell)).collect();
        assert!(mean(scores, object) > mean(scores, &rest) + 0.2, "caption {named}: {scores:?}");
        assert!(mean(scores, object) > mean(scores, other) + 0.2, "caption {named}: {scores:?}");
    }
}

#[test]
fn its_scores_are_those_of_pytorch() {
    let (clip, scene) = (load("tiny-clip"), scene());
    let found = Tensor::new(score(&clip, &scene), &candle_core::Device::Cpu).unwrap();
    assert_close(&found, &scene.scores, 1e-4, "scores");
}

#[test]
fn words_of_its_world_are_one_token_and_others_several() {
    let clip = load("tiny-clip");
    let tokens = |caption| clip.tokenize(caption).unwrap().ids.len() - 2;
    assert_eq!(tokens("a small purple crescent over a dark checkered background"), 9);
    assert!(tokens("zebra") > 1);
    assert!(tokens("größer 星 🚀") > 3);
}

#[test]
fn it_is_small_enough_to_be_embedded() {
    let bytes: u64 = std::fs::read_dir(folder("tiny-clip"))
        .unwrap()
        .map(|entry| entry.unwrap().metadata().unwrap().len())
        .sum();
    assert!(bytes < 2_500_000, "{bytes} bytes");
}
