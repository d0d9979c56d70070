//! Everything that is tested from outside: one binary, so that it is linked once and all tests share
//! one PostgreSQL server.

// Nothing is public in a test.
#![allow(unreachable_pub)]

mod browser;
mod cli;
mod conformance;
mod contract;
mod faults;
mod harness;
mod import;
mod observability;
// Each program that has this file uses a part of it.
#[allow(dead_code)]
mod postgres_server;
mod process;
mod python;
mod tail;
mod tidy;
mod tls;
mod torture_checker;
mod trace;
