//! `list`: lists stored events.

use std::{
    io::{self, Write},
    process::ExitCode,
};

use anyhow::bail;
use clap::Args;

use super::{
    Output, Table,
    client::{Refused, Server},
    ndjson,
    terminal::{self, Escape},
};
use crate::event::Timestamp;
use crate::proto::{
    timestamp,
    v1::{Event, ListEventsRequest, ListOrder, PayloadFormat, event::Content},
};

#[derive(Debug, Args)]
#[command(after_help = "\
  event-aggregator list --topic orders --since 2026-01-31T12:00:00Z
  event-aggregator list -n 0 -o ndjson > all.ndjson
  event-aggregator list -n 0 -o json | jq length

`publish --file` reads the ndjson output; json is a single array.")]
pub(super) struct List {
    #[command(flatten)]
    server: Server,

    /// Only events of this topic
    #[arg(long)]
    topic: Option<String>,

    /// Only events of this source
    #[arg(long)]
    source: Option<String>,

    /// Only events received at or after this time, such as 2026-01-31T12:00:00Z
    #[arg(long, value_name = "TIME")]
    since: Option<Timestamp>,

    /// Only events received before this time
    #[arg(long, value_name = "TIME")]
    until: Option<Timestamp>,

    /// List the oldest events first instead of the newest
    #[arg(long)]
    oldest_first: bool,

    /// Maximum number of events; 0 lists all
    #[arg(short = 'n', long, default_value_t = 10, value_name = "N")]
    limit: u64,

    /// Output format [default: table on a terminal, else ndjson]
    #[arg(short, long, value_enum)]
    output: Option<Output>,
}

impl List {
    pub(super) async fn run(self) -> anyhow::Result<ExitCode> {
        if let (Some(since), Some(until)) = (self.since, self.until)
            && since > until
        {
            bail!("--until must not be earlier than --since");
        }
        let mut client = self.server.connect().await?;
        let output = Output::or_suitable(self.output);
        let order = match self.oldest_first {
            true => ListOrder::OldestFirst,
            false => ListOrder::NewestFirst,
        };
        let names = self.topic.is_some() || self.source.is_some();
        let hint = match names || self.since.is_some() || self.until.is_some() {
            true => "No events match.",
            false => "No events yet. Try: event-aggregator publish --simulate 20000",
        };
        let mut request = ListEventsRequest {
            topic: self.topic.unwrap_or_default(),
            source: self.source.unwrap_or_default(),
            start_time: self.since.map(timestamp),
            end_time: self.until.map(timestamp),
            page_size: 0,
            page_token: String::new(),
            order: order.into(),
            payload_format: PayloadFormat::Json.into(),
        };

        let mut left = if self.limit == 0 { u64::MAX } else { self.limit };
        let mut printer = Printer { output, events: 0 };
        loop {
            request.page_size = left.min(1_000) as i32;
            let page = client.list_events(request.clone()).await.map_err(Refused)?.into_inner();
            left -= page.events.len() as u64;
            printer.page(&page.events)?;
            if page.next_page_token.is_empty() || left == 0 {
                break;
            }
            request.page_token = page.next_page_token;
        }
        printer.end()?;
        if printer.events == 0 {
            terminal::tell(hint);
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// Prints pages as they arrive.
struct Printer {
    output: Output,
    /// Number of events printed.
    events: u64,
}

impl Printer {
    fn page(&mut self, events: &[Event]) -> anyhow::Result<()> {
        let mut stdout = io::stdout().lock();
        match self.output {
            Output::Ndjson => {
                for event in events {
                    writeln!(stdout, "{}", ndjson::shown(event)?)?;
                }
            }
            Output::Json => {
                for (place, event) in (self.events..).zip(events) {
                    let before = if place == 0 { "[\n" } else { ",\n" };
                    write!(stdout, "{before}{}", ndjson::shown(event)?)?;
                }
            }
            Output::Table if events.is_empty() => (),
            Output::Table => {
                writeln!(stdout, "{}", rows(events))?;
            }
        }
        self.events += events.len() as u64;
        Ok(())
    }

    /// Prints the end of the output.
    fn end(&self) -> anyhow::Result<()> {
        match (self.output, self.events) {
            (Output::Json, 0) => super::print("[]"),
            (Output::Json, _) => super::print("\n]"),
            _ => Ok(()),
        }
    }
}

/// A table of events.
pub(super) fn rows(events: &[Event]) -> Table {
    let mut rows = Table::new(["received", "topic", "event id", "source", "payload"]);
    for event in events {
        rows.add_row([
            ndjson::time(event.received_at.as_ref()),
            event.topic.clone(),
            event.event_id.clone(),
            event.source.clone(),
            short_payload(event),
        ]);
    }
    rows
}

/// The start of a payload, on one line.
pub(super) fn short_payload(event: &Event) -> String {
    const CHARACTERS: usize = 40;
    let Some(Content::PayloadJson(text)) = &event.content else { return String::new() };
    let (beginning, more) = match text.char_indices().nth(CHARACTERS) {
        Some((end, _)) => (&text[..end], "…"),
        None => (&**text, ""),
    };
    let line = ndjson::one_line(beginning);
    terminal::shown(&line, Escape::Json, &io::stdout()).into_owned() + more
}
