//! Integration tests, in one binary, so that it is linked once and all tests share one PostgreSQL
//! server.

// Nothing is public in a test.
#![allow(unreachable_pub)]

mod access;
mod browser;
mod cli;
mod conformance;
mod contract;
mod damaged;
mod durability;
mod failing_disk;
mod faults;
mod fuzz;
mod harness;
mod identity;
mod import;
mod lines;
mod listener;
mod model;
mod mutants;
mod observability;
mod postgres_faults;
mod postgres_tls;
mod process;
mod python;
mod replication;
mod second_checker;
mod tail;
mod terminal;
mod tidy;
mod tls;
mod tls_clients;
mod torture_checker;
mod trace;
