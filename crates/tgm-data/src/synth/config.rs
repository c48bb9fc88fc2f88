//! What world to make.

use serde::{Deserialize, Serialize};

use super::WorldError;
use super::motion::Motion;

/// A synthetic captioned world. The file `world.toml` of a rendered world holds these keys.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct WorldConfig {
    /// The seed of every draw. A clip depends on the seed and its own number only, so a larger world of the
    /// same seed begins with the same clips.
    pub seed: u64,
    /// Clips in the split `train`.
    pub train: u32,
    /// Clips in the split `val`.
    pub val: u32,
    /// Clips in the split `test`.
    pub test: u32,
    /// Width and height in pixels: even, 32 to 512.
    pub size: u32,
    /// Frames of a clip. The default leaves a 16-frame sampler some room for its offset.
    pub frames: u32,
    /// Frames per second, which only scales the time stamps.
    pub fps: u32,
    /// The settings, dealt out evenly: after as many rounds through the motion classes as there are settings,
    /// each class has had each of them.
    pub settings: Vec<Setting>,
    /// What the captions tell.
    pub captions: CaptionKind,
    /// Share of captions that describe another object (and another motion), 0 to 1.
    pub caption_noise: f64,
}

impl Default for WorldConfig {
    fn default() -> Self {
        Self {
            seed: 0,
            train: 480,
            val: 0,
            test: 120,
            size: 64,
            frames: 20,
            fps: 10,
            settings: vec![Setting::Static, Setting::Moving, Setting::Distractor],
            captions: CaptionKind::Frame,
            caption_noise: 0.0,
        }
    }
}

/// What besides the named object moves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Setting {
    /// A background at rest: all motion is the object's.
    Static,
    /// A textured background that pans under the object, as before a moving camera: motion misleads.
    Moving,
    /// A background at rest and a second, larger object of another shape and colour that wanders about faster:
    /// motion and saliency mislead, only the caption tells which object is meant.
    Distractor,
    /// Both.
    MovingDistractor,
}

impl Setting {
    /// The name, as in the configuration and the manifest.
    pub fn name(self) -> &'static str {
        match self {
            Self::Static => "static",
            Self::Moving => "moving",
            Self::Distractor => "distractor",
            Self::MovingDistractor => "moving-distractor",
        }
    }

    /// Whether the background moves.
    pub fn background_moves(self) -> bool {
        matches!(self, Self::Moving | Self::MovingDistractor)
    }

    /// Whether there is a second object.
    pub fn has_distractor(self) -> bool {
        matches!(self, Self::Distractor | Self::MovingDistractor)
    }
}

/// What captions tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CaptionKind {
    /// As a captioner of single frames does: the object, its look, the scene. No word about the motion.
    Frame,
    /// As a person does who saw the clip: the motion too, which is the label and therefore supervision.
    Motion,
}

/// A part of the world.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Split {
    /// To train on.
    Train,
    /// To choose settings with.
    Val,
    /// To report.
    Test,
}

impl Split {
    /// All splits, in the order of the manifest.
    pub const ALL: [Self; 3] = [Self::Train, Self::Val, Self::Test];

    /// The name in the manifest.
    pub fn name(self) -> &'static str {
        match self {
            Self::Train => "train",
            Self::Val => "val",
            Self::Test => "test",
        }
    }
}

impl WorldConfig {
    /// Clips of a split.
    pub fn count(&self, split: Split) -> u32 {
        match split {
            Split::Train => self.train,
            Split::Val => self.val,
            Split::Test => self.test,
        }
    }

    /// The class and the setting of a clip: both spread evenly over any run of clips.
    pub(crate) fn cell(&self, clip: u32) -> (Motion, Setting) {
        let (class, round) = (clip as usize % Motion::ALL.len(), clip as usize / Motion::ALL.len());
        (Motion::ALL[class], self.settings[(class + round) % self.settings.len()])
    }

    /// Fails on a value that makes no world.
    ///
    /// # Errors
    /// [`WorldError::BadConfig`], naming key and value.
    pub fn validate(&self) -> Result<(), WorldError> {
        let bad = |key: &'static str, value: String, allowed: &'static str| {
            Err(WorldError::BadConfig { key, value, allowed })
        };
        if !(32..=512).contains(&self.size) || !self.size.is_multiple_of(2) {
            return bad("size", self.size.to_string(), "an even number from 32 to 512");
        }
        if !(2..=1000).contains(&self.frames) {
            return bad("frames", self.frames.to_string(), "2 to 1000");
        }
        if !(1..=240).contains(&self.fps) {
            return bad("fps", self.fps.to_string(), "1 to 240");
        }
        if self.settings.is_empty() {
            return bad("settings", "[]".to_owned(), "at least one setting");
        }
        if !(0.0..=1.0).contains(&self.caption_noise) {
            return bad("caption_noise", self.caption_noise.to_string(), "0 to 1");
        }
        if Split::ALL.iter().map(|&split| u64::from(self.count(split))).sum::<u64>() == 0 {
            return bad("train", "0".to_owned(), "at least one clip in train, val or test");
        }
        Ok(())
    }
}
