//! See `file_names` in `fuzz/src/lib.rs`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| des_fuzz::run("file_names", data));
