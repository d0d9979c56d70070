//! See `tests/it/fuzz/targets/json.rs`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| event_aggregator_fuzz::targets::json::run(bytes));
