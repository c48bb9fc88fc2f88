//! What is compared: worlds, and ways to train on them.

use serde::{Deserialize, Serialize};
use tgm_data::synth::{CaptionKind, Setting, WorldConfig};

/// A synthetic world with the captions that its clips have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct World {
    /// What moves besides the named object.
    pub scene: Scene,
    /// Whether captions name the motion, which is the label and therefore supervision.
    pub motion_named: bool,
    /// Percent of captions that describe another object.
    pub noise: u8,
    /// Captions per clip, 1 or 3.
    pub captions: u8,
}

/// The three settings of the tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Scene {
    /// All motion is the object's.
    Static,
    /// A background that moves: motion misleads.
    Moving,
    /// A larger, faster second object: motion and saliency mislead.
    Distractor,
}

impl Scene {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Static, Self::Moving, Self::Distractor];

    /// As in tables and folders.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Static => "static",
            Self::Moving => "moving",
            Self::Distractor => "distractor",
        }
    }

    const fn setting(self) -> Setting {
        match self {
            Self::Static => Setting::Static,
            Self::Moving => Setting::Moving,
            Self::Distractor => Setting::Distractor,
        }
    }
}

impl World {
    /// Three true captions a clip, like those of a captioner of frames.
    pub const fn plain(scene: Scene) -> Self {
        Self { scene, motion_named: false, noise: 0, captions: 3 }
    }

    /// The folder of the rendered world: worlds that differ in the number of captions alone share one.
    pub fn folder(&self) -> String {
        let captions = if self.motion_named { "motion" } else { "frame" };
        let noise = if self.noise == 0 { String::new() } else { format!("-noise{}", self.noise) };
        format!("{}-{captions}{noise}", self.scene.name())
    }

    /// The name in folders of runs.
    pub fn name(&self) -> String {
        let one = if self.captions == 1 { "-one" } else { "" };
        self.folder() + one
    }

    /// How the world is rendered.
    pub fn config(&self, clips: Clips) -> WorldConfig {
        WorldConfig {
            train: clips.train,
            val: 0,
            test: clips.test,
            settings: vec![self.scene.setting()],
            captions: if self.motion_named { CaptionKind::Motion } else { CaptionKind::Frame },
            caption_noise: f64::from(self.noise) / 100.0,
            ..WorldConfig::default()
        }
    }
}

/// How many clips each world has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Clips {
    /// To train on, and to fit probes on.
    pub train: u32,
    /// To score.
    pub test: u32,
}

/// One way to train on one world.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Arm {
    /// The data.
    pub world: World,
    /// The name in tables and folders; it says all that the settings change.
    pub name: String,
    /// What differs from the configuration `reproduce`, as for `--set`.
    pub settings: Vec<String>,
}

impl Arm {
    /// An arm of the grid masking × objective: `masking` is an inline table of TOML.
    pub fn new(world: World, name: &str, masking: &str, joint: bool) -> Self {
        let objective = if joint { "joint" } else { "mae" };
        let motion = if masking.contains("motion") { "auto" } else { "none" };
        let settings = vec![
            format!("masking={masking}"),
            format!("contrastive.enabled={joint}"),
            format!("clip.motion={motion}"),
        ];
        Self { world, name: format!("{name}-{objective}"), settings }
    }

    /// The same with more settings, which the name must tell.
    #[must_use]
    pub fn with(mut self, name: &str, settings: &[&str]) -> Self {
        self.name = format!("{}-{name}", self.name);
        self.settings.extend(settings.iter().map(|&setting| setting.to_owned()));
        self
    }

    /// The encoder as it is drawn: one step that changes nothing.
    pub fn untrained(world: World) -> Self {
        let settings =
            ["schedule.length=1", "schedule.warmup=0", "schedule.base_lr=0.0", "schedule.min_lr=0.0"];
        Self::new(world, "untrained", "{ kind = 'tube', ratio = 0.75 }", false).with("0", &settings)
    }

    /// Whether it is [`Self::untrained`].
    pub fn is_untrained(&self) -> bool {
        self.name.starts_with("untrained")
    }

    /// Whether CLIP's score maps are needed, and with which patch features.
    pub fn score_features(&self) -> Option<&str> {
        let text = self.settings.iter().any(|s| s.starts_with("masking=") && s.contains("'text'"));
        let features = self.settings.iter().find_map(|s| s.strip_prefix("text.scores.features="));
        text.then(|| features.unwrap_or("plain"))
    }

    /// The folder of a run below `runs/`.
    pub fn folder(&self, seed: u64) -> String {
        format!("{}/{}-s{seed}", self.world.name(), self.name)
    }
}
