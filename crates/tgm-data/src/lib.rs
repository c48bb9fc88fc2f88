//! tgm-data
#![deny(missing_docs)]
