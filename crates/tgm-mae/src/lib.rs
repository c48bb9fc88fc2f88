//! tgm-mae
#![deny(missing_docs)]
