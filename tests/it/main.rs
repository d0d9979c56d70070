//! Everything that is tested from outside: one binary, so that it is linked once and all tests share
//! one PostgreSQL server.

// Nothing is public in a test.
#![allow(unreachable_pub)]

mod browser;
mod cli;
mod conformance;
mod contract;
mod durability;
mod failing_disk;
mod faults;
mod harness;
mod import;
mod observability;
mod postgres_faults;
mod postgres_server;
mod postgres_tls;
mod process;
mod proxy;
mod python;
mod replication;
mod tail;
mod tidy;
mod tls;
mod trace;
