//! See `entry` in `harness/tests/hostile/targets.rs`.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| conform_fuzz::give("entry", input));
