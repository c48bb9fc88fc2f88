//! tgm-contrastive
#![deny(missing_docs)]
