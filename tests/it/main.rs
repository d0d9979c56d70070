//! Everything that is tested from outside: one binary, so that it is linked once and all tests share
//! one PostgreSQL server.

// Nothing is public in a test.
#![allow(unreachable_pub)]

mod browser;
mod cli;
mod conformance;
mod contract;
mod faults;
mod fuzz;
mod harness;
mod import;
mod model;
mod observability;
mod postgres_server;
mod process;
mod python;
mod tail;
mod tidy;
mod tls;
mod trace;
