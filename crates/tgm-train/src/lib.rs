//! tgm-train
#![deny(missing_docs)]
