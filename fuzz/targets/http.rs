//! See `tests/it/fuzz/targets/http.rs`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| event_aggregator_fuzz::targets::http::run(bytes));
