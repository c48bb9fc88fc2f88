//! What mirroring a clip left to right does to what is said about it.

use serde::{Deserialize, Serialize};

/// Whether clips may be mirrored in training, and what happens to their labels.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Flip {
    /// Mirroring changes what is to be recognised.
    Never,
    /// Mirroring changes nothing.
    Always,
    /// Mirroring turns each of these classes into the other, and leaves the rest.
    Swap(Vec<(u32, u32)>),
}

impl Flip {
    /// The label of a clip that was mirrored.
    pub fn label(&self, label: u32) -> u32 {
        let Self::Swap(pairs) = self else { return label };
        pairs
            .iter()
            .find_map(|&(a, b)| match label {
                _ if label == a => Some(b),
                _ if label == b => Some(a),
                _ => None,
            })
            .unwrap_or(label)
    }
}

/// Words that mirroring exchanges.
const MIRRORED: [(&str, &str); 8] = [
    ("left", "right"),
    ("leftmost", "rightmost"),
    ("leftward", "rightward"),
    ("leftwards", "rightwards"),
    ("lefthand", "righthand"),
    ("lefty", "righty"),
    ("clockwise", "counterclockwise"),
    ("clockwise", "anticlockwise"),
];

/// After these, or before those, `right` and `left` are no directions.
const NOT_A_DIRECTION_AFTER: [&str; 4] = ["all", "has", "is", "be"];
const NOT_A_DIRECTION_BEFORE: [&str; 9] =
    ["out", "away", "after", "before", "now", "behind", "over", "alone", "into"];

/// A caption of the mirrored clip: left and right change places, and so do the directions of rotation.
///
/// ```
/// use tgm_data::dataset::mirror_caption;
///
/// assert_eq!(mirror_caption("Pushing a cup from left to right"), "Pushing a cup from right to left");
/// assert_eq!(mirror_caption("pulling it right out"), "pulling it right out");
/// ```
pub fn mirror_caption(caption: &str) -> String {
    let mut words: Vec<&str> = Vec::new();
    let mut rest = caption;
    while let Some(first) = rest.chars().next() {
        let letter = first.is_alphabetic();
        let end = rest.find(|c: char| c.is_alphabetic() != letter).unwrap_or(rest.len());
        words.push(&rest[..end]);
        rest = &rest[end..];
    }
    let neighbour = |at: Option<usize>| at.and_then(|at| words.get(at)).map(|word| word.to_lowercase());
    let mirrored = |(at, word): (usize, &&str)| {
        // Between two words lies what separates them.
        let (before, after) = (neighbour(at.checked_sub(2)), neighbour(Some(at + 2)));
        let among =
            |word: Option<String>, list: &[&str]| word.is_some_and(|word| list.contains(&word.as_str()));
        if among(before, &NOT_A_DIRECTION_AFTER) || among(after, &NOT_A_DIRECTION_BEFORE) {
            return (*word).to_owned();
        }
        mirror_word(word)
    };
    words.iter().enumerate().map(mirrored).collect()
}

/// The mirrored word in the case of the original.
fn mirror_word(word: &str) -> String {
    let lower = word.to_lowercase();
    let other = MIRRORED.iter().find_map(|&(a, b)| match lower.as_str() {
        l if l == a => Some(b),
        l if l == b => Some(a),
        _ => None,
    });
    let Some(other) = other else { return word.to_owned() };
    if word.chars().all(char::is_uppercase) {
        other.to_uppercase()
    } else if word.starts_with(char::is_uppercase) {
        other[..1].to_uppercase() + &other[1..]
    } else {
        other.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn swapping_twice_changes_nothing() {
        let flip = Flip::Swap(vec![(3, 5), (8, 9)]);
        for label in 0..12 {
            assert_eq!(flip.label(flip.label(label)), label);
        }
        assert_eq!([3, 5, 8, 7].map(|label| flip.label(label)), [5, 3, 9, 7]);
        assert_eq!((Flip::Always.label(3), Flip::Never.label(3)), (3, 3));
    }

    #[test]
    fn captions_swap_left_and_right_in_their_case_and_nothing_else() {
        for (from, to) in [
            ("turn left, then RIGHT", "turn right, then LEFT"),
            ("Left hand", "Right hand"),
            ("a bright upright leftover", "a bright upright leftover"),
            ("stirring clockwise", "stirring counterclockwise"),
            ("stirring anticlockwise", "stirring clockwise"),
            ("a cat", "a cat"),
            ("", ""),
            ("he pulls it right out", "he pulls it right out"),
            ("der linke Rand, left-hand", "der linke Rand, right-hand"),
        ] {
            assert_eq!(mirror_caption(from), to);
        }
    }
}
