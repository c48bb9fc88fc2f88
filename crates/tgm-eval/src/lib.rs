//! tgm-eval
#![deny(missing_docs)]
