//! tgm-video
#![deny(missing_docs)]
