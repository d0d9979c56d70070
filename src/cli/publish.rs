//! `publish`: sends events over PublishStream and reports what became of them.

use std::{path::PathBuf, process::ExitCode, time::Instant};

use anyhow::Context;
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use tokio::sync::mpsc;

use self::{send::Tally, simulate::Simulation};
use super::{Output, client::Server, table};
use crate::proto::v1::Event;

mod file;
mod send;
mod simulate;

#[derive(Debug, Args)]
#[command(after_help = "A line of a file looks like this (timestamp and payload may be left out):
  {\"topic\":\"orders\",\"event_id\":\"1\",\"timestamp\":\"2026-01-31T12:00:00Z\",\"source\":\"shop\",\"payload\":{\"n\":1}}

Exits with 1 if an event was rejected, or a simulation was not counted exactly.")]
pub(super) struct Publish {
    #[command(flatten)]
    server: Server,

    #[command(flatten)]
    input: Input,

    /// What part of the simulated events repeats an earlier one, from 0 to 1
    #[arg(long, default_value_t = 0.3, value_parser = super::part, value_name = "PART")]
    duplicates: f64,

    /// How many topics to simulate
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100_000),
          value_name = "N")]
    topics: u32,

    /// How to print the result
    #[arg(short, long, value_enum, default_value = "table")]
    output: Output,
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct Input {
    /// Send this many made-up events
    #[arg(long, value_name = "N")]
    simulate: Option<u64>,

    /// Send the events in this file, one JSON object a line; - reads standard input
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
}

/// An event on its way, with the line it came from.
#[derive(Debug, Clone)]
struct Outgoing {
    line: u64,
    event: Event,
}

/// Events between whoever reads or makes them and the sender. Each may have a megabyte.
const CHANNEL_EVENTS: usize = 500;

impl Publish {
    pub(super) async fn run(self) -> anyhow::Result<ExitCode> {
        let (events, outgoing) = mpsc::channel(CHANNEL_EVENTS);
        let progress = ProgressBar::no_length();
        let bar = match (&self.input.simulate, &self.input.file) {
            (Some(total), _) => {
                progress.set_length(*total);
                "{wide_bar} {pos}/{len} events  {per_sec}  {eta} left"
            }
            _ => "{spinner} {pos} events  {per_sec}",
        };
        progress.set_style(ProgressStyle::with_template(bar).context("progress bar")?);

        let begun = Instant::now();
        let (tally, expected) = match (self.input.simulate, self.input.file) {
            (Some(total), _) => {
                let simulation = Simulation::new(total, self.duplicates, self.topics);
                let expected = simulation.expected();
                let making = tokio::spawn(simulation.run(events));
                let tally = send::all(&self.server, outgoing, &progress).await?;
                making.await?;
                (tally, Some(expected))
            }
            (None, Some(path)) => {
                let lines = file::open(&path).await?;
                let reading = tokio::spawn(file::read(lines, events));
                let mut tally = send::all(&self.server, outgoing, &progress).await?;
                tally.add_unsent(reading.await?.with_context(|| path.display().to_string())?);
                (tally, None)
            }
            (None, None) => unreachable!("clap demands one of them"),
        };
        progress.finish_and_clear();

        tally.rejects.print();
        match self.output {
            Output::Table => print_table(&tally, begun.elapsed().as_secs_f64()),
            Output::Json => println!("{}", tally.as_json()),
        }
        let exact = expected.is_none_or(|expected| tally.is_exactly(expected));
        if !exact {
            eprintln!("event-aggregator: the service did not count exactly what was sent");
        }
        Ok(match exact && tally.rejects.count == 0 {
            true => ExitCode::SUCCESS,
            false => ExitCode::FAILURE,
        })
    }
}

fn print_table(tally: &Tally, seconds: f64) {
    let mut rows = table(["result", "events"]);
    for (result, events) in [
        ("accepted", tally.accepted),
        ("duplicate", tally.duplicate),
        ("conflict", tally.conflict),
        ("rejected", tally.rejects.count),
        ("sent", tally.sent()),
    ] {
        rows.add_row([result.to_owned(), events.to_string()]);
    }
    println!("{rows}");
    let rate = tally.sent() as f64 / seconds.max(f64::EPSILON);
    println!("{seconds:.1} s, {rate:.0} events/s");
    if tally.reconnects > 0 {
        println!("connected again {} times, and sent again what was unanswered", tally.reconnects);
    }
}
