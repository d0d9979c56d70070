//! The command line interface: subcommands, output formats and exit codes.

use std::{
    io::{self, IsTerminal, Write},
    process::ExitCode,
};

use clap::{Parser, Subcommand, ValueEnum};

use self::{table::Table, terminal::Escape};

mod bearer;
mod bench;
mod client;
mod demo;
mod get;
mod health;
mod list;
mod ndjson;
mod publish;
mod replace;
mod restored;
mod serve;
mod stats;
mod table;
mod tail;
mod terminal;
mod token;
mod verify;
mod version;

/// Shown after the list of commands in `--help`.
const AFTER_HELP: &str = "\
Getting started:
  event-aggregator serve
  event-aggregator publish --simulate 20000
  event-aggregator stats

Results are written to standard output, everything else to standard error. Results are tables on a
terminal and NDJSON (one JSON object per line) in a pipe; use -o to choose. NO_COLOR=1 disables
colors. On a terminal, control characters and characters that hide or reorder text are escaped as
\\u{202e}, or as \\u202e in JSON.

Exit codes:
  0         success
  1         a local error, or a check that failed
  2         invalid usage
  130       `publish` was interrupted with Ctrl-C
  64 + N    the service returned gRPC status code N, such as 67 for INVALID_ARGUMENT";

/// Exactly-once event store: deduplicates events that producers may send more than once
#[derive(Debug, Parser)]
#[command(version, arg_required_else_help = true, after_help = AFTER_HELP)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the service
    Serve(serve::Serve),
    /// Run a self-contained demo with simulated events; needs no setup
    Demo(demo::Demo),
    /// Publish events from a file, or simulated ones
    Publish(publish::Publish),
    /// Load-test a service and measure its latency
    Bench(bench::Bench),
    /// List stored events
    List(list::List),
    /// Show one stored event
    Get(get::Get),
    /// Follow events as they are stored, from any position
    Tail(tail::Tail),
    /// Show event counters: received, unique and duplicate
    Stats(stats::ShowStats),
    /// Check the counters of a database against its events; exits with 1 on any difference
    Verify(verify::Verify),
    /// Invalidate the cursors of a database that was restored from a backup or copied
    Restored(restored::Restored),
    /// Check the health of a service: exits with 0 if it is serving and 1 if not
    Health(health::Health),
    /// Generate an access token and its access-file entry
    Token(token::Token),
    /// Show the version of the program and of its API
    Version(version::Version),
    /// Print a shell completion script
    Completions {
        /// The shell
        #[arg(value_enum)]
        shell: clap_complete::Shell,
    },
}

impl Cli {
    /// Runs the command and returns its exit code.
    pub async fn run(self) -> ExitCode {
        let done = match self.command {
            Command::Serve(serve) => serve.run().await,
            Command::Demo(demo) => demo.run().await,
            Command::Publish(publish) => publish.run().await,
            Command::Bench(bench) => bench.run().await,
            Command::List(list) => list.run().await,
            Command::Get(get) => get.run().await,
            Command::Completions { shell } => {
                let mut command = <Self as clap::CommandFactory>::command();
                // `generate` panics if it cannot write, so it writes to memory first.
                let mut script = Vec::new();
                clap_complete::generate(shell, &mut command, "event-aggregator", &mut script);
                let written = io::stdout().write_all(&script);
                written.map(|()| ExitCode::SUCCESS).map_err(Into::into)
            }
            Command::Tail(tail) => tail.run().await,
            Command::Stats(stats) => stats.run().await,
            Command::Verify(verify) => verify.run().await,
            Command::Restored(restored) => restored.run().await,
            Command::Token(token) => token.run(),
            Command::Version(version) => version.run(),
            Command::Health(health) => health.run().await,
        };
        match done {
            Ok(code) => code,
            // The reader of our output closed the pipe.
            Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
            Err(error) => {
                terminal::tell(format_args!("event-aggregator: {error:#}"));
                client::exit_code(&error)
            }
        }
    }
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}

/// Output format of results.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Output {
    /// Tables for people
    Table,
    /// One JSON document
    Json,
    /// One JSON object per line
    Ndjson,
}

impl Output {
    /// The requested format, or else tables on a terminal and NDJSON elsewhere.
    fn or_suitable(asked: Option<Self>) -> Self {
        asked.unwrap_or(match io::stdout().is_terminal() {
            true => Self::Table,
            false => Self::Ndjson,
        })
    }
}

/// Prints results for people. Returns an error if standard output is closed; `println!` would
/// panic.
fn print(text: impl std::fmt::Display) -> anyhow::Result<()> {
    print_with(Escape::Plain, &text.to_string())
}

/// Prints JSON.
fn print_json(json: impl std::fmt::Display) -> anyhow::Result<()> {
    print_with(Escape::Json, &json.to_string())
}

fn print_with(escape: Escape, text: &str) -> anyhow::Result<()> {
    Ok(writeln!(io::stdout(), "{}", terminal::shown(text, escape, &io::stdout()))?)
}

/// Parses a fraction between 0 and 1.
fn part(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(part) if (0.0..=1.0).contains(&part) => Ok(part),
        _ => Err("must be a number between 0 and 1".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn clap_definition_is_valid() {
        super::Cli::command().debug_assert();
    }
}
