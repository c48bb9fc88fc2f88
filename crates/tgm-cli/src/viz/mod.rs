//! What guides the masks, to look at: frames, score maps, motion, the mask of every strategy, and what a model makes of it.
//!
//! Each is a strip with one picture for each temporal slot. [`Scene::panels`] draws them, [`write()`] puts them into PNG files
//! and one HTML page that needs nothing else.

mod canvas;
mod page;
mod reconstruct;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use tgm_clip::{ClipModel, PatchFeatures, ScoreOptions};
use tgm_data::loader::Sample;
use tgm_masking::{Cues, Mask, Masking, MotionBoxConfig, MotionWarpConfig, ScoreMap, TextConfig};
use tgm_random::Streams;
use tgm_train::config::TextView;
use tgm_train::guidance::{score_clip, score_frames};
use tgm_video::write_png;

use crate::localise::{frame_difference_energy, share_under};

pub use canvas::{Canvas, Strip};
pub use reconstruct::Model;

/// A strip with its words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Panel {
    /// Part of the file's name.
    pub name: String,
    /// The heading.
    pub title: String,
    /// What is to be known about it.
    pub note: String,
    /// The pictures.
    pub strip: Strip,
}

/// A clip and everything that is drawn of it.
#[derive(Clone, Debug)]
pub struct View {
    /// The video.
    pub title: String,
    /// Its caption.
    pub caption: Option<String>,
    /// The strips.
    pub panels: Vec<Panel>,
}

/// What is drawn of every clip.
#[derive(Debug)]
pub struct Scene<'a> {
    /// The CLIP, if clips have captions.
    pub clip: Option<&'a ClipModel>,
    /// A score map for each.
    pub scores: &'a [ScoreOptions],
    /// What CLIP looks at; for [`TextView::Frame`] the clips need their whole frames.
    pub view: TextView,
    /// The masking of the model's run: drawn as it is, first, in place of the defaults of its kind.
    pub own: Option<&'a Masking>,
    /// A ratio for all strategies instead of their own.
    pub ratio: Option<f64>,
    /// Reconstructs.
    pub model: Option<&'a Model>,
    /// The seed of the masks.
    pub seed: u64,
}

impl Scene<'_> {
    /// Draws everything there is to draw of a clip. `motion_source` says where its motion field comes from.
    ///
    /// # Errors
    /// When a model fails, or a ratio does not fit the grid.
    pub fn panels(&self, sample: &Sample, motion_source: &str) -> Result<Vec<Panel>> {
        let canvas = Canvas::of_frames(sample);
        let mut panels = vec![Panel {
            name: "frames".into(),
            title: "Frames".into(),
            note: format!("the first of each slot; {} tubelets", sample.grid),
            strip: canvas.clone().plain(),
        }];
        let scores = self.score_maps(sample)?;
        for (options, scores) in &scores {
            panels.push(score_panel(&canvas, options, scores));
        }
        if let Some(motion) = &sample.motion {
            let longest = (0..sample.grid.len()).map(|i| motion.magnitude(i)).fold(0f32, f32::max);
            panels.push(Panel {
                name: "motion".into(),
                title: "Motion".into(),
                note: format!("{motion_source}; at most {longest:.2} cells a slot, colour is direction"),
                strip: canvas.clone().arrows(motion),
            });
        }
        let energy = frame_difference_energy(sample);
        let cues = Cues { scores: scores.first().map(|(_, scores)| scores), motion: sample.motion.as_ref() };
        for masking in self.strategies(&cues) {
            let mut rng = Streams::new(self.seed).stream("mask", 0, sample.number);
            let mask = masking.mask(&sample.grid, &cues, &mut rng)?;
            let whose = self.own.filter(|own| own.is_same_kind(&masking)).map_or("", |_| "the run's; ");
            panels.push(mask_panel(&canvas, &masking, &mask, &energy, whose));
            if let Some(model) = self.model {
                panels.extend(model.panels(sample, &mask, &masking)?);
            }
        }
        Ok(panels)
    }

    fn score_maps(&self, sample: &Sample) -> Result<Vec<(ScoreOptions, ScoreMap)>> {
        let (Some(clip), Some(caption)) = (self.clip, &sample.caption) else { return Ok(Vec::new()) };
        let text = clip.embed_text(&[caption])?.embeddings.get(0)?;
        let score = |options: &ScoreOptions| -> Result<(ScoreOptions, ScoreMap)> {
            let scores = match self.view {
                TextView::Crop => score_clip(clip, sample, &text, options)?,
                TextView::Frame => score_frames(clip, sample, &text, options)?,
            };
            Ok((*options, scores))
        };
        self.scores.iter().map(score).collect()
    }

    /// Every strategy that has its cue, the run's own first.
    fn strategies(&self, cues: &Cues<'_>) -> Vec<Masking> {
        let defaults = [
            Masking::Text(TextConfig::default()),
            Masking::MotionBox(MotionBoxConfig::default()),
            Masking::MotionWarp(MotionWarpConfig::default()),
            Masking::Tube { ratio: 0.9 },
            Masking::Random { ratio: 0.9 },
        ];
        let others = defaults.into_iter().filter(|other| self.own.is_none_or(|own| !own.is_same_kind(other)));
        let all = self.own.cloned().into_iter().chain(others);
        let all = all.map(|masking| match self.ratio {
            Some(ratio) => masking.with_ratio(ratio),
            None => masking,
        });
        let has_cue = |masking: &Masking| {
            !(masking.needs_scores() && cues.scores.is_none()
                || masking.needs_motion() && cues.motion.is_none())
        };
        all.filter(has_cue).collect()
    }
}

fn score_panel(canvas: &Canvas, options: &ScoreOptions, scores: &ScoreMap) -> Panel {
    let name = options.features.name();
    let what = match options.features {
        PatchFeatures::Plain => "last block, projected",
        PatchFeatures::Value => "value path (MaskCLIP)",
        PatchFeatures::Surgery => "CLIP Surgery",
    };
    let (low, high) = scores.values().iter().fold((f32::MAX, f32::MIN), |(l, h), v| (l.min(*v), h.max(*v)));
    Panel {
        name: format!("score-{name}"),
        title: format!("Match with the caption: {name}"),
        note: format!("{what}; dark {low:.3} to bright {high:.3}"),
        strip: canvas.clone().heat(scores),
    }
}

fn mask_panel(canvas: &Canvas, masking: &Masking, mask: &Mask, energy: &[f64], whose: &str) -> Panel {
    let covered = share_under(energy, mask).map_or_else(
        || "nothing changes in this clip".into(),
        |share| format!("{:.0} % of the frame-difference energy under it", 100.0 * share),
    );
    Panel {
        name: format!("mask-{}", masking.name()),
        title: format!("Mask: {}", strategy(masking)),
        note: format!("{whose}{:.0} % hidden, {covered}", 100.0 * mask.ratio()),
        strip: canvas.clone().masked(mask),
    }
}

/// A strategy in words.
fn strategy(masking: &Masking) -> &'static str {
    match masking {
        Masking::Random { .. } => "random",
        Masking::Tube { .. } => "tube (VideoMAE)",
        Masking::MotionBox(_) => "motion rectangle (MGM)",
        Masking::MotionWarp(_) => "motion-warped map (MGMAE)",
        Masking::Text(_) => "text-guided (TGM)",
    }
}

/// Writes a PNG file for each strip and the page `index.html`; returns the page.
///
/// # Errors
/// When a file cannot be written.
pub fn write(folder: &Path, views: &[View]) -> Result<PathBuf> {
    std::fs::create_dir_all(folder)
        .with_context(|| format!("cannot make the folder {}", folder.display()))?;
    let mut pictures = Vec::with_capacity(views.len());
    for (number, view) in views.iter().enumerate() {
        let mut files = Vec::with_capacity(view.panels.len());
        for Panel { name, strip, .. } in &view.panels {
            let path = folder.join(format!("clip-{number:02}-{name}.png"));
            write_png(&path, &strip.rgb, strip.width as u32, strip.height as u32)?;
            files.push(std::fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?);
        }
        pictures.push(files);
    }
    let page = folder.join("index.html");
    tgm_train::run_dir::write_atomically(&page, page::html(views, &pictures).as_bytes())?;
    Ok(page)
}
