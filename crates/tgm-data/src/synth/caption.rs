//! Sentences about a scene, in varied words.

use rand::seq::SliceRandom;
use rand::{Rng, RngExt};

use super::background::{Pattern, Tone};
use super::config::CaptionKind;
use super::motion::{Motion, RADII};
use super::scene::{Look, Scene};
use super::shape::Shape;

/// Captions of a clip.
pub(crate) const PER_CLIP: usize = 3;

/// A sentence, and whether it is true.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Caption {
    pub text: String,
    pub correct: bool,
}

/// What a caption speaks of.
struct Facts {
    look: Look,
    /// `small`, `large`, or nothing to say.
    size: &'static str,
    motion: Motion,
    pattern: Pattern,
    tone: Tone,
}

/// Captions that differ in their wording. As a captioner of key frames would, they take the size from three
/// evenly spaced frames.
pub(crate) fn draw(scene: &Scene, kind: CaptionKind, noise: f64, rng: &mut impl Rng) -> [Caption; PER_CLIP] {
    let templates: &[Template] = match kind {
        CaptionKind::Frame => FRAME,
        CaptionKind::Motion => MOTION,
    };
    let mut order: Vec<usize> = (0..templates.len()).collect();
    order.shuffle(rng);
    std::array::from_fn(|i| {
        let time = (2 * i + 1) as f64 / (2 * PER_CLIP) as f64;
        let (pattern, tone) = scene.background();
        let truth = Facts {
            look: scene.object(),
            size: size_word(scene.object_radius(time)),
            motion: scene.motion(),
            pattern,
            tone,
        };
        let correct = rng.random::<f64>() >= noise;
        let facts = if correct { truth } else { other_facts(&truth, rng) };
        Caption { text: templates[order[i]](&facts, rng.random()), correct }
    })
}

/// Another object, of other shape, colour and motion, before the same background.
fn other_facts(truth: &Facts, rng: &mut impl Rng) -> Facts {
    let look = truth.look.draw_other(rng);
    let shift = rng.random_range(1..Motion::ALL.len());
    let class = Motion::ALL.iter().position(|motion| *motion == truth.motion).unwrap_or(0);
    Facts { look, motion: Motion::ALL[(class + shift) % Motion::ALL.len()], ..*truth }
}

type Template = fn(&Facts, u32) -> String;

/// No word about motion.
const FRAME: &[Template] = &[
    |f, n| format!("{} over a {} background", article(&object(f, n)), backdrop(f)),
    |f, n| format!("{} on a {} background", article(&object(f, n)), pattern(f.pattern)),
    |f, n| format!("there is {} in the picture", article(&object(f, n))),
    |f, n| format!("a picture of {}", article(&object(f, n))),
    |f, n| format!("one {} in front of a {} wall", object(f, n), backdrop(f)),
    |f, n| format!("{} against something {}", article(&object(f, n)), tone(f.tone)),
    |f, n| format!("a {} surface with {} on it", backdrop(f), article(&object(f, n))),
];

/// The same with the motion.
const MOTION: &[Template] = &[
    |f, n| format!("{} {} over a {} background", article(&object(f, n)), moves(f.motion, n), backdrop(f)),
    |f, n| format!("the {} {}", object(f, n), moves(f.motion, n)),
    |f, n| format!("a video of {} that {}", article(&object(f, n)), moves(f.motion, n)),
    |f, n| {
        format!("on a {} background {} {}", pattern(f.pattern), article(&object(f, n)), moves(f.motion, n))
    },
    |f, n| format!("one {} {} in front of a {} wall", object(f, n), moves(f.motion, n), tone(f.tone)),
];

fn object(facts: &Facts, variant: u32) -> String {
    let size = if variant.is_multiple_of(3) { "" } else { facts.size };
    let words = [size, facts.look.colour.name(), shape(facts.look.shape, variant)];
    words.into_iter().filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" ")
}

fn article(noun: &str) -> String {
    format!("{} {noun}", if noun.starts_with(['a', 'e', 'i', 'o', 'u']) { "an" } else { "a" })
}

/// The radii are spread evenly on a logarithmic scale: a third each is small, unremarkable, large.
fn size_word(radius: f64) -> &'static str {
    let [smallest, largest] = RADII;
    match (radius / smallest).ln() / (largest / smallest).ln() {
        size if size < 1.0 / 3.0 => "small",
        size if size < 2.0 / 3.0 => "",
        _ => "large",
    }
}

fn shape(shape: Shape, variant: u32) -> &'static str {
    let words = match shape {
        Shape::Circle => ["circle", "circle", "disc", "ball"],
        Shape::Square => ["square", "square", "box", "square"],
        Shape::Triangle => ["triangle"; 4],
        Shape::Star => ["star"; 4],
        Shape::Cross => ["cross", "cross", "plus sign", "cross"],
        Shape::Ring => ["ring", "ring", "hoop", "ring"],
        Shape::Heart => ["heart"; 4],
        Shape::Crescent => ["crescent", "crescent", "moon", "crescent"],
    };
    words[(variant >> 8) as usize % words.len()]
}

fn pattern(pattern: Pattern) -> &'static str {
    match pattern {
        Pattern::Plain => "plain",
        Pattern::Striped => "striped",
        Pattern::Checkered => "checkered",
        Pattern::Dotted => "dotted",
        Pattern::Speckled => "speckled",
    }
}

fn tone(tone: Tone) -> &'static str {
    match tone {
        Tone::Dark => "dark",
        Tone::Grey => "grey",
        Tone::Pale => "pale",
    }
}

fn backdrop(facts: &Facts) -> String {
    format!("{} {}", tone(facts.tone), pattern(facts.pattern))
}

fn moves(motion: Motion, variant: u32) -> &'static str {
    let phrases = match motion {
        Motion::Left => ["moves to the left", "slides left", "drifts leftwards"],
        Motion::Right => ["moves to the right", "slides right", "drifts rightwards"],
        Motion::Up => ["moves up", "rises", "drifts upwards"],
        Motion::Down => ["moves down", "falls", "drifts downwards"],
        Motion::Diagonal => ["moves diagonally", "crosses diagonally", "drifts along a diagonal"],
        Motion::Clockwise => ["moves in a circle clockwise", "orbits clockwise", "circles clockwise"],
        Motion::CounterClockwise => {
            ["moves in a circle counter-clockwise", "orbits anticlockwise", "circles counter-clockwise"]
        }
        Motion::Zigzag => ["moves in a zigzag", "zigzags along", "goes up and down in a zigzag"],
        Motion::BackAndForth => ["moves back and forth", "swings from side to side", "goes to and fro"],
        Motion::Grow => ["grows", "gets bigger", "becomes larger and larger"],
        Motion::Shrink => ["shrinks", "gets smaller", "becomes smaller and smaller"],
        Motion::Spin => ["spins on the spot", "rotates in place", "turns around itself"],
    };
    phrases[(variant >> 16) as usize % phrases.len()]
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::super::config::Setting;
    use super::*;
    use tgm_random::Streams;

    fn captions(kind: CaptionKind, noise: f64) -> impl Iterator<Item = (Scene, [Caption; PER_CLIP])> {
        (0..600_u64).map(move |i| {
            let motion = Motion::ALL[i as usize % Motion::ALL.len()];
            let scene = Scene::draw(motion, Setting::Static, &mut Streams::new(8).stream("scene", 0, i));
            let drawn = draw(&scene, kind, noise, &mut Streams::new(8).stream("caption", 0, i));
            (scene, drawn)
        })
    }

    fn has_word(text: &str, word: &str) -> bool {
        text.split(' ').any(|part| part == word)
    }

    fn names_shape(text: &str, look: Look) -> bool {
        (0..4).any(|variant| text.contains(shape(look.shape, variant << 8)))
    }

    #[test]
    fn every_true_caption_names_the_object_in_words_of_its_own() {
        for kind in [CaptionKind::Frame, CaptionKind::Motion] {
            for (scene, drawn) in captions(kind, 0.0) {
                assert_eq!(drawn.iter().map(|caption| &caption.text).collect::<HashSet<_>>().len(), PER_CLIP);
                for Caption { text, correct } in &drawn {
                    assert!(correct);
                    assert!(has_word(text, scene.object().colour.name()), "{text}: {:?}", scene.object());
                    assert!(names_shape(text, scene.object()), "{text}: {:?}", scene.object());
                }
            }
        }
    }

    #[test]
    fn only_captions_of_the_motion_kind_tell_the_motion() {
        let phrases = |motion| (0..3).map(move |variant| moves(motion, variant << 16));
        let told =
            |text: &str| Motion::ALL.into_iter().filter(|m| phrases(*m).any(|p| text.contains(p))).collect();
        for (_, drawn) in captions(CaptionKind::Frame, 0.5) {
            assert!(drawn.iter().all(|caption| Vec::<Motion>::is_empty(&told(&caption.text))), "{drawn:?}");
        }
        for (scene, drawn) in captions(CaptionKind::Motion, 0.0) {
            let motions: Vec<Motion> = told(&drawn[0].text);
            assert!(motions.contains(&scene.motion()), "{drawn:?}");
        }
    }

    #[test]
    fn noise_is_the_share_of_captions_about_another_object() {
        let drawn: Vec<_> = captions(CaptionKind::Frame, 0.3).collect();
        let all = drawn.iter().flat_map(|(scene, drawn)| drawn.iter().map(move |caption| (scene, caption)));
        let wrong: Vec<_> = all.filter(|(_, caption)| !caption.correct).collect();
        assert!((wrong.len() as f64 / (600 * PER_CLIP) as f64 - 0.3).abs() < 0.04, "{}", wrong.len());
        for (scene, caption) in wrong {
            assert!(!has_word(&caption.text, scene.object().colour.name()), "{}", caption.text);
        }
    }

    #[test]
    fn articles_fit() {
        assert_eq!(article("orange star"), "an orange star");
        assert_eq!(article("small orange star"), "a small orange star");
    }
}
