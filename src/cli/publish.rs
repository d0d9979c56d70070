//! `publish`: sends events over PublishStream and reports the outcomes.

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
    time::Instant,
};

use anyhow::Context;
use clap::Args;
use indicatif::ProgressBar;

use self::{
    simulate::Simulation,
    sink::Sink,
    source::{Events, Source},
    upload::Upload,
};
use super::{Output, client::Server, print, print_json, terminal::tell};

mod file;
mod resume;
mod simulate;
mod sink;
mod source;
mod tally;
mod upload;
mod window;

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

/// Exit code that shells use for Ctrl-C.
const INTERRUPTED: u8 = 130;

impl Publish {
    pub(super) async fn run(self) -> anyhow::Result<ExitCode> {
        let file = self.input.file.as_deref();
        let mut sink = Sink::open(file, self.resume_file.as_deref(), self.rejects.as_deref())?;
        let source = self.source(&sink).await?;
        let (expected, progress) = (source.expected(), source.progress()?);
        let begun = Instant::now();
        let sent = tokio::select! {
            sent = upload(&self.server, source, &mut sink, &progress) => Some(sent),
            _ = tokio::signal::ctrl_c() => None,
        };
        progress.finish_and_clear();
        // Also after an error, so that acknowledged events are not sent again.
        sink.save().context("cannot save the position")?;
        let is_interrupted = sent.transpose()?.is_none();

        let tally = &sink.tally;
        tally.print_lines();
        if is_interrupted {
            tell(self.how_to_go_on());
        } else if tally.total() == 0 {
            match sink.position().line {
                0 => tell("No events in the input."),
                line => tell(format_args!("No new events after line {line}.")),
            }
        }
        match Output::or_suitable(self.output) {
            Output::Table => print(tally.as_table(begun.elapsed().as_secs_f64()))?,
            Output::Json | Output::Ndjson => print_json(tally.as_json())?,
        }
        if is_interrupted {
            return Ok(ExitCode::from(INTERRUPTED));
        }
        let is_exact = expected.is_none_or(|expected| tally.is_exactly(expected));
        if !is_exact {
            tell("event-aggregator: the service's counters do not match the events sent");
        }
        Ok(match is_exact && !tally.has_rejected() {
            true => ExitCode::SUCCESS,
            false => ExitCode::FAILURE,
        })
    }

    async fn source(&self, sink: &Sink) -> anyhow::Result<Source> {
        match &self.input {
            Input { file: Some(path), .. } => {
                Source::open(path, sink.position(), sink.keeps_text()).await
            }
            Input { simulate, .. } => {
                let total = simulate.unwrap_or_default();
                Ok(Source::Simulate(Simulation::new(total, self.duplicates, self.topics)))
            }
        }
    }

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

async fn upload(
    server: &Server,
    source: Source,
    sink: &mut Sink,
    progress: &ProgressBar,
) -> anyhow::Result<()> {
    let client = server.connect().await?;
    Upload::new(client, source.start(), sink, progress).run().await
}

/// Sends simulated events at a steady rate, until an error occurs or the future is dropped.
pub(super) async fn simulate_steadily(server: &Server, rate: u32) -> anyhow::Result<()> {
    let client = server.connect().await?;
    let events = Events::steady(Simulation::new(u64::MAX, 0.3, 5), rate);
    Upload::new(client, events, &mut Sink::default(), &ProgressBar::hidden()).run().await
}
