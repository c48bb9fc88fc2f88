//! A synthetic captioned world: real video files of which everything is known.
//!
//! Each clip shows one *named object* (a shape in a colour) that moves in one of twelve ways before a patterned
//! background. The label is the motion and cannot be read from any single frame, because pose and class are
//! independent at every instant (see [`Motion`]); the captions name the object and tell it from a
//! background that moves or a distractor that wanders, so that in some [`Setting`]s only text points to what
//! matters. The ground truth (boxes, attributes, which captions are true) comes along.
//!
//! | file | content |
//! |---|---|
//! | `manifest.csv` | `path`, `split`, `label` (the motion), `colour` and `shape` of the object, `caption`, `caption_2`, `caption_3`, `setting` |
//! | `videos/SPLIT-NUMBER.mp4` | H.264, square |
//! | `truth.jsonl` | a [`Truth`] for each row of the manifest |
//! | `world.toml` | the [`WorldConfig`] |

mod background;
mod caption;
mod config;
mod error;
mod motion;
mod scene;
mod shape;
mod world;

pub use background::{Pattern, Tone};
pub use config::{CaptionKind, Setting, Split, WorldConfig};
pub use error::WorldError;
pub use motion::Motion;
pub use scene::{Look, PixelBox, Rendered, Scene};
pub use shape::{Colour, Shape};
pub use world::{Truth, Written, read_config, read_truth, write_world};
