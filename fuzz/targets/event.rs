//! See `tests/it/fuzz/targets/event.rs`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| event_aggregator_fuzz::targets::event::run(bytes));
