//! tgm-ops
#![deny(missing_docs)]
