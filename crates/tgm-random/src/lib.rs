//! tgm-random
#![deny(missing_docs)]
