//! Everything that is tested from outside: one binary, so that it is linked once and all tests share
//! one PostgreSQL server.

// Nothing is public in a test.
#![allow(unreachable_pub)]

mod access;
mod browser;
mod cli;
mod conformance;
mod contract;
mod door;
mod durability;
mod failing_disk;
mod faults;
mod fuzz;
mod harness;
mod import;
mod model;
mod observability;
mod postgres_faults;
// Each program that has this file uses a part of it.
#[allow(dead_code)]
mod postgres_server;
mod postgres_tls;
mod process;
mod proxy;
mod python;
mod replication;
mod second_checker;
mod tail;
mod tidy;
mod tls;
mod torture_checker;
mod trace;
