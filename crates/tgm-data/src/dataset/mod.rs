//! The public data sets that video representations are compared on: their official annotation files, as downloaded.
//!
//! A [`Dataset`] has a [`Spec`] (how many clips and classes there must be, how clips are sampled, how many test views, what
//! mirroring does to a label, what is measured) and a reader that turns its folder into a [`Layout`], from which a
//! [`Manifest`](crate::manifest::Manifest) comes. From there on there is no difference to any other labelled manifest.
//!
//! Numbers that are compared with published ones are worthless when the list is another one, so [`Layout::check`] counts
//! everything, and the traps that are known of each data set are errors here, not footnotes.
//!
//! | | annotation files (looked for in the folder and in `annotations/`) | videos |
//! |---|---|---|
//! | `k400` | `train.csv`, `val.csv` (or `validate.csv`): official with header, or VideoMAE's `path label` lists | `train/`, `val/`, by id or by class |
//! | `ssv2` | `labels/{train,validation,labels}.json`, or `something-something-v2-*.json` | `20bn-something-something-v2/ID.webm` (or mp4) |
//! | `ucf101` | `ucfTrainTestlist/{classInd,trainlist0N,testlist0N}.txt` | `UCF-101/CLASS/` |
//! | `hmdb51` | `testTrainMulti_7030_splits/CLASS_test_splitN.txt` | `CLASS/` |
//! | `diving48` | `Diving48_V2_{train,test}.json`, `Diving48_vocab.json` | `rgb/NAME.mp4` |
//! | `epic100` | `EPIC_100_{train,validation,verb_classes,noun_classes}.csv` | `PXX/videos/PXX_YY.MP4` |

mod diving48;
mod epic100;
mod error;
mod files;
mod flip;
mod hmdb51;
mod k400;
mod layout;
mod ssv2;
mod ucf101;

use std::path::Path;

use serde::{Deserialize, Serialize};
use tgm_video::Sampling;

pub use error::DatasetError;
pub use flip::{Flip, mirror_caption};
pub use layout::{Check, Entry, Finding, Layout};

use crate::loader::TestViews;

/// A public data set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Dataset {
    /// Kinetics-400.
    K400,
    /// Something-Something v2.
    Ssv2,
    /// UCF101.
    Ucf101,
    /// HMDB51.
    Hmdb51,
    /// Diving48 with its second version of labels.
    Diving48,
    /// EPIC-KITCHENS-100, action recognition.
    Epic100,
}

/// What is reported.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Metric {
    /// Top-1 and top-5 accuracy.
    Accuracy,
    /// The mean of the splits' accuracies.
    MeanOverSplits,
    /// Accuracy of verb and of noun, and of action: both right.
    VerbNounAction,
}

/// How many clips a part of the data set has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Count {
    /// The split, from 1.
    pub split: usize,
    /// `train`, or the part that is scored.
    pub part: &'static str,
    /// Clips.
    pub clips: usize,
}

/// What is agreed on for a data set.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Spec {
    /// Its name in print.
    pub title: &'static str,
    /// Classes; of EPIC-KITCHENS, verbs.
    pub classes: usize,
    /// EPIC-KITCHENS' nouns.
    pub nouns: Option<usize>,
    /// The part that models are trained on.
    pub train: &'static str,
    /// The part that they are scored on.
    pub test: &'static str,
    /// How many official splits there are.
    pub splits: usize,
    /// Clips of each part.
    pub counts: Vec<Count>,
    /// Whether more clips than that are fine: videos vanish from the web, and copies differ.
    pub at_least: bool,
    /// Source frames from one frame of a clip to the next; `None` where clips are spread over the whole video.
    pub stride: Option<usize>,
    /// Test views that results are published with.
    pub views: TestViews,
    /// What mirroring does.
    pub flip: Flip,
    /// What is reported.
    pub metric: Metric,
}

impl Spec {
    /// How a clip of `frames` frames is sampled for training, and for testing. VideoMAE's fine-tuning code.
    pub fn sampling(&self, frames: usize) -> Sampling {
        match self.stride {
            Some(stride) => Sampling::DenseWindow { frames, stride },
            None => Sampling::Uniform { frames },
        }
    }
}

impl Dataset {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::K400, Self::Ssv2, Self::Ucf101, Self::Hmdb51, Self::Diving48, Self::Epic100];

    /// Its name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::K400 => "k400",
            Self::Ssv2 => "ssv2",
            Self::Ucf101 => "ucf101",
            Self::Hmdb51 => "hmdb51",
            Self::Diving48 => "diving48",
            Self::Epic100 => "epic100",
        }
    }

    /// What is agreed on for it.
    pub fn spec(self) -> Spec {
        let parts = |train, test, splits: &[(usize, usize)]| {
            let both = |(index, &(fit, score)): (usize, &(usize, usize))| {
                let split = index + 1;
                [Count { split, part: train, clips: fit }, Count { split, part: test, clips: score }]
            };
            splits.iter().enumerate().flat_map(both).collect::<Vec<_>>()
        };
        let views = |views, crops| TestViews { views, crops };
        let base = Spec {
            title: "",
            classes: 0,
            nouns: None,
            train: "train",
            test: "test",
            splits: 1,
            counts: Vec::new(),
            at_least: false,
            stride: Some(4),
            views: views(5, 3),
            flip: Flip::Always,
            metric: Metric::Accuracy,
        };
        match self {
            // Counts of the copy that VideoMAE V2 documents; the official lists name more videos than can be had.
            Self::K400 => Spec {
                title: "Kinetics-400",
                classes: 400,
                test: "val",
                counts: parts("train", "val", &[(240_436, 19_796)]),
                at_least: true,
                ..base
            },
            Self::Ssv2 => Spec {
                title: "Something-Something v2",
                classes: 174,
                test: "validation",
                counts: parts("train", "validation", &[(168_913, 24_777)]),
                stride: None,
                views: views(2, 3),
                flip: Flip::Swap(ssv2::MIRRORED.to_vec()),
                ..base
            },
            Self::Ucf101 => Spec {
                title: "UCF101",
                classes: 101,
                splits: 3,
                counts: parts("train", "test", &[(9_537, 3_783), (9_586, 3_734), (9_624, 3_696)]),
                metric: Metric::MeanOverSplits,
                ..base
            },
            Self::Hmdb51 => Spec {
                title: "HMDB51",
                classes: 51,
                splits: 3,
                counts: parts("train", "test", &[(3_570, 1_530); 3]),
                metric: Metric::MeanOverSplits,
                ..base
            },
            Self::Diving48 => Spec {
                title: "Diving48 V2",
                classes: 48,
                counts: parts("train", "test", &[(15_027, 1_970)]),
                ..base
            },
            Self::Epic100 => Spec {
                title: "EPIC-KITCHENS-100",
                classes: 97,
                nouns: Some(300),
                test: "validation",
                counts: parts("train", "validation", &[(67_217, 9_668)]),
                stride: None,
                views: views(2, 3),
                flip: Flip::Never,
                metric: Metric::VerbNounAction,
                ..base
            },
        }
    }

    /// Reads the annotation files in `folder`. `split` counts from 1.
    ///
    /// # Errors
    /// [`DatasetError`] for files that are missing, unreadable, of another version, or contradict each other.
    pub fn read(self, folder: &Path, split: usize) -> Result<Layout, DatasetError> {
        let splits = self.spec().splits;
        if !(1..=splits).contains(&split) {
            return Err(DatasetError::NoSplit { dataset: self.name(), split, splits });
        }
        let layout = match self {
            Self::K400 => k400::read(folder),
            Self::Ssv2 => ssv2::read(folder),
            Self::Ucf101 => ucf101::read(folder, split),
            Self::Hmdb51 => hmdb51::read(folder, split),
            Self::Diving48 => diving48::read(folder),
            Self::Epic100 => epic100::read(folder),
        }?;
        layout.validated(split)
    }
}
