//! What the integration tests, the torture test and the benchmarks share: servers, clients and checkers that
//! know nothing of the service's code. The path of the program under test is passed in, because cargo tells it
//! to tests and benchmarks only.

// Names say enough here; nothing of this is published.
#![allow(missing_docs)]

pub mod bench;
pub mod checker;
pub mod history;
pub mod http;
pub mod http2;
pub mod judge;
pub mod postgres;
pub mod process;
pub mod proxy;
mod wait;

pub use wait::{wait_until, wait_until_async};
