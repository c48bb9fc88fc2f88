//! A video file: probed, opened, and clips read from it.
#![no_main]

#[path = "../../crates/tgm-data/tests/common/survive.rs"]
mod survive;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| survive::clip(bytes));
