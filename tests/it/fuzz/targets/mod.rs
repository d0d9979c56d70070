//! Fuzz targets: one function for each parser of untrusted bytes, which panics if an invariant is
//! violated. Tests run them with generated input, `fuzz/` with input from libFuzzer.

pub mod event;
pub mod http;
pub mod json;
pub mod service;
pub mod structure;
pub mod token;
