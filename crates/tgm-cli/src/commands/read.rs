//! Options of commands that read videos without a run's configuration.

use tgm_video::ReadOptions;

/// Which files are good enough: as `clip.allow_truncated` and `clip.allow_damaged` for a run.
#[derive(clap::Args, Clone, Copy, Debug)]
pub(super) struct ReadArgs {
    /// Use what is there of a file that ends too early; by default it is bad.
    #[arg(long)]
    allow_truncated: bool,
    /// Use frames whose damage the decoder concealed; by default the video is bad.
    #[arg(long)]
    allow_damaged: bool,
}

impl ReadArgs {
    /// All other limits are the usual ones.
    pub(super) fn options(self) -> ReadOptions {
        ReadOptions {
            allow_truncated: self.allow_truncated,
            allow_damaged: self.allow_damaged,
            ..ReadOptions::default()
        }
    }
}
