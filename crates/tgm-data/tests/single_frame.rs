//! The synthetic world's label cannot be read from a single frame.

use tgm_data::synth::{Motion, Scene, Setting};
use tgm_random::Streams;

const SIZE: u32 = 32;
const TRAIN: usize = 960;
const TEST: usize = 480;
const NEIGHBOURS: usize = 5;

/// The first, middle and last frame of clips of all classes in turn.
fn frames(count: usize, purpose: &str) -> Vec<[Vec<u8>; 3]> {
    let clip = |i: usize| {
        let motion = Motion::ALL[i % Motion::ALL.len()];
        let scene = Scene::draw(motion, Setting::Static, &mut Streams::new(6).stream(purpose, 0, i as u64));
        scene.render(3, SIZE).frames.try_into().unwrap()
    };
    (0..count).map(clip).collect()
}

fn distance(a: &[u8], b: &[u8]) -> u32 {
    a.iter().zip(b).map(|(a, b)| u32::from(a.abs_diff(*b)).pow(2)).sum()
}

/// The most frequent class among the nearest clips, the nearer one of equals.
fn classify<'a>(clip: &[u8], bank: impl Iterator<Item = &'a Vec<u8>>) -> usize {
    let mut nearest: Vec<(u32, usize)> =
        bank.enumerate().map(|(i, other)| (distance(clip, other), i % Motion::ALL.len())).collect();
    nearest.select_nth_unstable(NEIGHBOURS);
    nearest.truncate(NEIGHBOURS);
    nearest.sort_unstable();
    let votes = |class| nearest.iter().filter(|(_, other)| *other == class).count();
    nearest.iter().rev().max_by_key(|(_, class)| votes(*class)).unwrap().1
}

#[test]
fn nearest_neighbours_of_single_frames_are_at_chance() {
    let (train, test) = (frames(TRAIN, "train"), frames(TEST, "test"));
    let chance = 1.0 / Motion::ALL.len() as f64;
    let spread = (chance * (1.0 - chance) / TEST as f64).sqrt();
    for (which, name) in ["first", "middle", "last"].into_iter().enumerate() {
        let right = |(i, clip): &(usize, &[Vec<u8>; 3])| {
            classify(&clip[which], train.iter().map(|clip| &clip[which])) == i % Motion::ALL.len()
        };
        let accuracy = test.iter().enumerate().filter(right).count() as f64 / TEST as f64;
        eprintln!("{name} frame: {accuracy:.3} (chance {chance:.3})");
        assert!((accuracy - chance).abs() < 3.3 * spread, "{name} frame: {accuracy}, chance {chance}");
    }
}
