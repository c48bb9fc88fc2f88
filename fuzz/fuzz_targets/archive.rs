//! A tar archive: listed, and taken for a data set.
#![no_main]

#[path = "../../crates/tgm-data/tests/common/survive.rs"]
mod survive;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| survive::archive(bytes));
