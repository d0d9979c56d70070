//! The fuzz targets. The integration tests run the same functions.

#[path = "../../tests/it/fuzz/targets/mod.rs"]
pub mod targets;
