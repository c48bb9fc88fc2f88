//! How fast the parts are: criterion benches, a file per part.
//!
//! ```text
//! cargo bench -p tgm-benches                     all
//! cargo bench -p tgm-benches --bench ops         one part
//! ```
