//! A manifest's text: read, written, and read again.
#![no_main]

#[path = "../../crates/tgm-data/tests/common/survive.rs"]
mod survive;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| survive::manifest(bytes));
