//! The `event-aggregator` program.

use std::process::ExitCode;

use clap::Parser;
use event_aggregator::cli::Cli;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[tokio::main]
async fn main() -> ExitCode {
    Cli::parse().run().await
}
