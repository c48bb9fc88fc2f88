//! The ways to choose tubelets that are compared with each other.

use tgm_clip::PatchFeatures;
use tgm_masking::{Masking, MotionBoxConfig, MotionWarpConfig, Select, TextConfig};

/// What a method looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cue {
    /// Nothing.
    Nothing,
    /// Scores of the caption with these features of CLIP.
    Text(PatchFeatures),
    /// The codec's motion vectors.
    Codec,
    /// Block matching.
    Blocks,
}

/// The strategy that a method puts on its cue.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Strategy {
    /// Tubelets drawn at random.
    Random,
    /// The best-scored tubelets.
    TopK,
    /// The worst-scored tubelets.
    BottomK,
    /// Tubelets drawn by softmax(score / temperature).
    Sample {
        /// The temperature.
        temperature: f64,
    },
    /// A rectangle that follows the motion; with `local`, the motion that is left without the camera's.
    Box {
        /// Leaves out the camera's motion.
        local: bool,
    },
    /// A random map that the motion carries along.
    Warp,
}

/// A cue and what is made of it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Method {
    /// The name in tables and files.
    pub name: &'static str,
    /// The cue.
    pub cue: Cue,
    /// The strategy.
    pub strategy: Strategy,
}

const PLAIN: Cue = Cue::Text(PatchFeatures::Plain);

impl Method {
    /// All methods that need motion or nothing.
    pub const WITHOUT_TEXT: [Self; 7] = [
        Self::new("motion-box/codec", Cue::Codec, Strategy::Box { local: false }),
        Self::new("motion-box-local/codec", Cue::Codec, Strategy::Box { local: true }),
        Self::new("motion-warp/codec", Cue::Codec, Strategy::Warp),
        Self::new("motion-box/blocks", Cue::Blocks, Strategy::Box { local: false }),
        Self::new("motion-box-local/blocks", Cue::Blocks, Strategy::Box { local: true }),
        Self::new("motion-warp/blocks", Cue::Blocks, Strategy::Warp),
        Self::new("random", Cue::Nothing, Strategy::Random),
    ];

    /// The methods that look at the caption.
    pub const TEXT: [Self; 7] = [
        Self::new("text/plain", PLAIN, Strategy::TopK),
        Self::new("text/value", Cue::Text(PatchFeatures::Value), Strategy::TopK),
        Self::new("text/surgery", Cue::Text(PatchFeatures::Surgery), Strategy::TopK),
        Self::new("text/plain/sample-0.1", PLAIN, Strategy::Sample { temperature: 0.1 }),
        Self::new("text/plain/sample-0.3", PLAIN, Strategy::Sample { temperature: 0.3 }),
        Self::new("text/plain/sample-1", PLAIN, Strategy::Sample { temperature: 1.0 }),
        Self::new("text/plain/bottom-k", PLAIN, Strategy::BottomK),
    ];

    const fn new(name: &'static str, cue: Cue, strategy: Strategy) -> Self {
        Self { name, cue, strategy }
    }

    /// Whether it hides what the caption fits best: the paper's selection.
    pub fn is_best_match(&self) -> bool {
        matches!(self.cue, Cue::Text(_)) && self.strategy == Strategy::TopK
    }

    /// Whether it hides where the cue is strong: a warped map follows the motion, but begins anywhere.
    pub fn follows_cue(&self) -> bool {
        matches!(self.strategy, Strategy::TopK | Strategy::Box { .. })
    }

    /// Whether the camera's motion is left out.
    pub fn without_camera(&self) -> bool {
        matches!(self.strategy, Strategy::Box { local: true })
    }

    /// The strategy at a ratio.
    pub fn masking(&self, ratio: f64) -> Masking {
        let text = TextConfig { ratio, ..TextConfig::default() };
        match self.strategy {
            Strategy::Random => Masking::Random { ratio },
            Strategy::TopK => Masking::Text(text),
            Strategy::BottomK => Masking::Text(TextConfig { select: Select::BottomK, ..text }),
            Strategy::Sample { temperature } => {
                Masking::Text(TextConfig { select: Select::Sample, temperature, ..text })
            }
            Strategy::Box { local } => Masking::MotionBox(MotionBoxConfig {
                ratio,
                remove_global_motion: local,
                ..MotionBoxConfig::default()
            }),
            Strategy::Warp => Masking::MotionWarp(MotionWarpConfig { ratio, ..MotionWarpConfig::default() }),
        }
    }
}
