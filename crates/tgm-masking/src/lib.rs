//! tgm-masking
#![deny(missing_docs)]
