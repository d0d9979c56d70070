//! What can be done with any bytes: one function for each place where bytes of others come in. Each
//! panics if a promise is broken. The tests drive them with what they make up, and `fuzz/` with what
//! libFuzzer finds.

pub mod event;
pub mod http;
pub mod json;
pub mod service;
pub mod structure;
pub mod token;
