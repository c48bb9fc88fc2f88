//! tgm-clip
#![deny(missing_docs)]
