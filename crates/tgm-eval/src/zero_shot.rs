//! Classes by their names: a clip gets the class whose sentence lies nearest to it in the space of the texts.
//!
//! Each class name is put into several templates, and the mean of the unit embeddings is the class (CLIP, Radford et al.
//! 2021). No label is trained on, so what is measured is the contrastive head as it came out of pretraining.

use serde::Serialize;

use crate::scores::softmax;
use crate::{Error, Result, Scores, dense};

/// What was done, for the record.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    /// The sentences; `{}` stands for the class.
    pub templates: Vec<String>,
    /// Cosines are multiplied by this before the softmax: 1/τ.
    pub scale: f64,
    /// The text tower.
    pub text_model: String,
}

/// CLIP's templates for Kinetics: four kinds of picture, alone and with a person in six relations.
pub fn clip_templates() -> Vec<String> {
    let relations = [
        "",
        "a person ",
        "a person using ",
        "a person doing ",
        "a person during ",
        "a person performing ",
        "a person practicing ",
    ];
    let kinds = ["photo", "video", "example", "demonstration"];
    kinds.iter().flat_map(|kind| relations.map(|relation| format!("a {kind} of {relation}{{}}."))).collect()
}

/// A class name as words: `ApplyEyeMakeup` and `brush_hair` come from folder names.
///
/// ```
/// use tgm_eval::zero_shot::words;
///
/// assert_eq!(words("ApplyEyeMakeup"), "apply eye makeup");
/// assert_eq!(words("brush_hair"), "brush hair");
/// assert_eq!(words("Pulling something from left to right"), "pulling something from left to right");
/// assert_eq!(words("playing an XBox"), "playing an XBox");
/// ```
pub fn words(class: &str) -> String {
    let class = class.replace('_', " ");
    if class.contains(' ') {
        // A sentence: only its first letter is a capital that means nothing.
        let mut letters = class.chars();
        let first = letters.next().map(|first| first.to_lowercase().to_string()).unwrap_or_default();
        return first + letters.as_str();
    }
    let mut words = String::new();
    let mut before_lower = false;
    for letter in class.chars() {
        if letter.is_uppercase() && before_lower {
            words.push(' ');
        }
        before_lower = letter.is_lowercase() || letter.is_numeric();
        words.extend(letter.to_lowercase());
    }
    words
}

/// Class probabilities of clips `[clips, dim]` against class embeddings `[classes, dim]`, both of unit length.
///
/// # Errors
/// [`Error::Length`] when the buffers are not whole rows, else as [`Scores::new`].
pub fn classify(clips: &[f32], classes: &[f32], dim: usize, scale: f64) -> Result<Scores> {
    for (what, buffer) in [("clip embeddings", clips), ("class embeddings", classes)] {
        if dim == 0 || buffer.is_empty() || !buffer.len().is_multiple_of(dim) {
            return Err(Error::Length {
                what,
                expected: buffer.len().next_multiple_of(dim.max(1)),
                got: buffer.len(),
            });
        }
    }
    let count = classes.len() / dim;
    let mut scores = Vec::with_capacity(clips.len() / dim * count);
    for clip in clips.chunks_exact(dim) {
        let start = scores.len();
        scores.extend(classes.chunks_exact(dim).map(|class| scale * dense::dot(clip, class)));
        softmax(&mut scores[start..]);
    }
    Scores::new(count, scores)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_class_wins_and_the_scale_decides_how_clearly() {
        let classes = [1.0, 0.0, 0.0, 1.0];
        let clips = [0.8, 0.6, 0.0, 1.0];
        let soft = classify(&clips, &classes, 2, 1.0).unwrap();
        let sharp = classify(&clips, &classes, 2, 100.0).unwrap();
        assert_eq!((soft.predictions(), sharp.predictions()), (vec![0, 1], vec![0, 1]));
        assert!((soft.row(0)[0] - 1.0 / (1.0 + (-0.2f64).exp())).abs() < 1e-6);
        assert!(sharp.row(0)[0] > 0.999);
    }

    #[test]
    fn there_are_clips_28_templates_and_each_has_a_place_for_the_class() {
        let templates = clip_templates();
        assert_eq!(templates.len(), 28);
        assert!(templates.iter().all(|template| template.matches("{}").count() == 1));
        assert!(templates.contains(&"a video of a person doing {}.".to_owned()));
        assert!(templates.contains(&"a demonstration of {}.".to_owned()));
    }

    #[test]
    fn half_a_row_is_refused() {
        assert!(matches!(classify(&[1.0; 3], &[1.0; 4], 2, 1.0), Err(Error::Length { .. })));
    }
}
