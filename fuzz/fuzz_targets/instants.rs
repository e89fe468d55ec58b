//! See `desfmt/tests/hostile/targets.rs`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| des_fuzz::run("instants", data));
