//! The `event-aggregator` program.

use std::process::ExitCode;

use clap::Parser;
use event_aggregator::cli::Cli;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("event-aggregator: cannot start the async runtime: {error}");
            return ExitCode::FAILURE;
        }
    };
    let code = runtime.block_on(cli.run());
    // A thread that is blocked on reading standard input must not delay the exit.
    runtime.shutdown_background();
    code
}
