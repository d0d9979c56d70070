//! The program as a process.

use std::process::{Command, Output};
use testkit::process::{self, Service};

pub const PROGRAM: &str = env!("CARGO_BIN_EXE_event-aggregator");

/// The program, without settings from the environment.
pub fn program() -> Command {
    wrapper(PROGRAM)
}

/// A program that runs ours, also without them.
pub fn wrapper(path: &str) -> Command {
    let mut command = process::program(path);
    // The shared PostgreSQL server runs with fsync=off, for speed.
    command.env("EVENT_AGGREGATOR_ALLOW_DATA_LOSS", "true");
    command
}

/// Starts a service process on a free port.
pub fn serve(database_url: &str) -> Service {
    serve_at("127.0.0.1:0", database_url)
}

pub fn serve_at(address: &str, database_url: &str) -> Service {
    Service::run(process::serve(&mut program(), address, database_url))
}

/// Runs a command that fails, and checks its one-line error.
pub fn fails(arguments: &[&str], code: i32, expected: &[&str]) {
    fails_as(program().args(arguments), code, expected);
}

/// The same for a prepared command.
pub fn fails_as(command: &mut Command, code: i32, expected: &[&str]) {
    let output: Output = command.output().expect("run");
    let stderr = String::from_utf8_lossy(&output.stderr);
    let error: Vec<&str> =
        stderr.lines().filter(|line| !line.contains(" INFO ") && !line.is_empty()).collect();
    assert_eq!(output.status.code(), Some(code), "{stderr}");
    for text in expected {
        assert!(stderr.contains(text), "{text}: {stderr}");
    }
    assert!(!stderr.contains("s3cret"), "{stderr}");
    assert!(!stderr.contains("backtrace") && !stderr.contains("panicked"), "{stderr}");
    assert!(code == 2 || error.len() == 1, "more than one line: {stderr}");
}
