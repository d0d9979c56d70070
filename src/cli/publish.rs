//! `publish`: sends events over PublishStream and reports the outcomes.

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
    time::{Duration, Instant},
};

use anyhow::Context;
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use tokio::sync::mpsc;

use self::{import::Import, send::Tally, simulate::Simulation};
use super::{Output, Table, client::Server, print, print_json, terminal::tell};
use crate::proto::v1::Event;

mod file;
mod import;
mod send;
mod simulate;

#[derive(Debug, Args)]
#[command(after_help = "Input format, one event per line (timestamp and payload are optional):
  {\"topic\":\"orders\",\"event_id\":\"1\",\"timestamp\":\"2026-01-31T12:00:00Z\",\"source\":\"shop\",\"payload\":{\"n\":1}}

Importing a file again is safe: events that are stored already are counted as duplicates. To make a
long import resumable after Ctrl-C or a kill:

  event-aggregator publish --file all.ndjson --resume-file all.resume --rejects bad.ndjson

Each line of bad.ndjson has the number of a rejected line, the reasons, and its text as `event`. Fix
the text and send it again: jq -r .event bad.ndjson > fixed.ndjson

Exits with 130 after Ctrl-C, and with 1 if an event was rejected or a simulation was not counted
exactly.")]
pub(super) struct Publish {
    #[command(flatten)]
    server: Server,

    #[command(flatten)]
    input: Input,

    /// Write rejected lines and their reasons to FILE, which is overwritten unless --resume-file
    /// resumes
    #[arg(long, value_name = "FILE", conflicts_with = "simulate")]
    rejects: Option<PathBuf>,

    /// Save the position to FILE and resume from it
    #[arg(long, value_name = "FILE", conflicts_with = "simulate")]
    resume_file: Option<PathBuf>,

    /// Fraction of simulated events that are duplicates, from 0 to 1
    #[arg(long, default_value_t = 0.3, value_parser = super::part, value_name = "PART")]
    duplicates: f64,

    /// Number of simulated topics
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100_000),
          value_name = "N")]
    topics: u32,

    /// Output format [default: table on a terminal, else ndjson]
    #[arg(short, long, value_enum)]
    output: Option<Output>,
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct Input {
    /// Send this many simulated events
    #[arg(long, value_name = "N")]
    simulate: Option<u64>,

    /// Read events from FILE, one JSON object per line; - reads standard input
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
}

/// A line with its event, or with the reason why it is invalid.
#[derive(Debug)]
struct Outgoing {
    line: Line,
    event: Result<Event, String>,
}

/// A line of the input.
#[derive(Debug)]
struct Line {
    number: u64,
    /// End of the line: a byte offset in the file, or the number of a simulated event.
    end: u64,
    /// Whether the line ended with a line break.
    ended: bool,
    /// Text of the line, if rejected lines are saved.
    text: Option<Vec<u8>>,
}

impl Line {
    fn made(number: u64) -> Self {
        Self { number, end: number, ended: true, text: None }
    }
}

/// Exit code that shells use for Ctrl-C.
const INTERRUPTED: u8 = 130;

/// Events between the reader or simulator and the sender. Each may have up to 1 MiB.
const CHANNEL_EVENTS: usize = 500;

impl Publish {
    pub(super) async fn run(self) -> anyhow::Result<ExitCode> {
        let (events, outgoing) = mpsc::channel(CHANNEL_EVENTS);
        let progress = ProgressBar::no_length();
        let file = self.input.file.as_deref();
        let mut import = Import::open(file, self.resume_file.as_deref(), self.rejects.as_deref())?;
        let (making, expected, bar) = match (self.input.simulate, file) {
            (Some(total), _) => {
                progress.set_length(total);
                let simulation = Simulation::new(total, self.duplicates, self.topics);
                let expected = simulation.expected();
                let making = tokio::spawn(async {
                    simulation.run(events).await;
                    Ok(())
                });
                let bar = "{wide_bar} {human_pos} of {human_len} events, {eta} left";
                (making, Some(expected), bar)
            }
            (None, Some(path)) => {
                let begin = import.start();
                let (lines, length) = file::open(path, begin.1).await?;
                let bar = match length {
                    Some(length) => {
                        progress.set_length(length);
                        "{wide_bar} {bytes} of {total_bytes}, {eta} left"
                    }
                    None => "{spinner} {bytes} in {elapsed}",
                };
                let keep_text = import.keeps_rejects();
                (tokio::spawn(file::read(lines, begin, keep_text, events)), None, bar)
            }
            (None, None) => unreachable!("clap requires one of them"),
        };
        progress.set_style(ProgressStyle::with_template(bar).context("progress bar")?);

        let begun = Instant::now();
        let mut tally = Tally::default();
        let sent = tokio::select! {
            sent = send::all(&self.server, outgoing, &progress, &mut tally, &mut import) => Some(sent),
            _ = tokio::signal::ctrl_c() => None,
        };
        progress.finish_and_clear();
        // Also after an error, so that acknowledged events are not sent again.
        import.save().context("cannot save the position")?;
        let interrupted = match sent {
            Some(sent) => {
                sent?;
                making
                    .await?
                    .with_context(|| file.unwrap_or(Path::new("")).display().to_string())?;
                false
            }
            None => true,
        };

        tally.rejects.print("was rejected");
        tally.conflict.print("conflicts with the stored event in");
        if interrupted {
            tell(self.how_to_go_on());
        } else if tally.total() == 0 {
            match import.start() {
                (0, _) => tell("No events in the input."),
                (line, _) => tell(format_args!("No new events after line {line}.")),
            }
        }
        match Output::or_suitable(self.output) {
            Output::Table => print(as_table(&tally, begun.elapsed().as_secs_f64()))?,
            Output::Json | Output::Ndjson => print_json(tally.as_json())?,
        }
        if interrupted {
            return Ok(ExitCode::from(INTERRUPTED));
        }
        let exact = expected.is_none_or(|expected| tally.is_exactly(expected));
        if !exact {
            tell("event-aggregator: the service's counters do not match the events sent");
        }
        Ok(match exact && tally.rejects.count == 0 {
            true => ExitCode::SUCCESS,
            false => ExitCode::FAILURE,
        })
    }
}

impl Publish {
    /// Advice after Ctrl-C.
    fn how_to_go_on(&self) -> &'static str {
        match (&self.input.file, &self.resume_file) {
            (Some(_), Some(_)) => "Interrupted. Run the same command to resume.",
            (Some(path), None) if path.as_path() != Path::new("-") => {
                "Interrupted. The same command starts over, and stored events count as \
                 duplicates; use --resume-file to make an import resumable."
            }
            _ => "Interrupted. Acknowledged events are stored.",
        }
    }
}

/// Sends simulated events at a steady rate, until an error occurs or the future is dropped.
pub(super) async fn simulate_steadily(server: &Server, rate: u32) -> anyhow::Result<()> {
    let (events, mut made) = mpsc::channel(1);
    let (paced, outgoing) = mpsc::channel(CHANNEL_EVENTS);
    tokio::spawn(Simulation::new(u64::MAX, 0.3, 5).run(events));
    tokio::spawn(async move {
        let mut ticks = tokio::time::interval(Duration::from_secs(1) / rate);
        while let Some(event) = made.recv().await {
            ticks.tick().await;
            if paced.send(event).await.is_err() {
                return;
            }
        }
    });
    let (mut tally, mut import) = (Tally::default(), Import::default());
    send::all(server, outgoing, &ProgressBar::hidden(), &mut tally, &mut import).await
}

fn as_table(tally: &Tally, seconds: f64) -> String {
    let mut rows = Table::new(["result", "events"]);
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
        text.push_str(&format!("\nreconnected {times} times and resent unanswered requests"));
    }
    text
}
