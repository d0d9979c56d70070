//! What is fuzzed: the functions that the tests drive, too.

#[path = "../../tests/it/fuzz/targets/mod.rs"]
pub mod targets;
