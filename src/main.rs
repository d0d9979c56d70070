//! The `event-aggregator` program.

use std::process::ExitCode;

use clap::Parser;
use event_aggregator::cli::Cli;

#[tokio::main]
async fn main() -> ExitCode {
    Cli::parse().run().await
}
