//! `publish`: sends events over PublishStream and reports what became of them.

use std::{path::PathBuf, process::ExitCode, time::Instant};

use anyhow::Context;
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use tokio::sync::mpsc;

use self::{send::Tally, simulate::Simulation};
use super::{Output, client::Server, print, table};
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

    /// How to print the result [default: table on a terminal, else ndjson]
    #[arg(short, long, value_enum)]
    output: Option<Output>,
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
                "{wide_bar} {human_pos} of {human_len} events, {eta} left"
            }
            _ => "{spinner} {human_pos} events in {elapsed}",
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

        tally.rejects.print("was rejected");
        tally.conflict.print("conflicts with the stored event, which stays, in");
        if tally.total() == 0 {
            eprintln!("There were no events.");
        }
        match Output::or_suitable(self.output) {
            Output::Table => print(as_table(&tally, begun.elapsed().as_secs_f64()))?,
            Output::Json | Output::Ndjson => print(tally.as_json())?,
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

fn as_table(tally: &Tally, seconds: f64) -> String {
    let mut rows = table(["result", "events"]);
    for (result, events) in [
        ("accepted", tally.accepted),
        ("duplicate", tally.duplicate),
        ("conflict", tally.conflict.count),
        ("rejected", tally.rejects.count),
        ("total", tally.total()),
    ] {
        rows.add_row([result.to_owned(), events.to_string()]);
    }
    let rate = tally.total() as f64 / seconds.max(f64::EPSILON);
    let mut text = format!("{rows}\n{seconds:.1} s, {rate:.0} events/s");
    if tally.reconnects > 0 {
        let times = tally.reconnects;
        text.push_str(&format!(
            "\nconnected again {times} times, and sent again what was unanswered"
        ));
    }
    text
}
