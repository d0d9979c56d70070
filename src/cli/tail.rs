//! `tail`: prints events as they are stored, from any position.

use std::{
    io::{self, Write},
    path::PathBuf,
    process::ExitCode,
    time::{Duration, SystemTime},
};

use anyhow::Context;
use backon::{BackoffBuilder, ExponentialBuilder};
use clap::Args;
use tonic::{Code, Status};
use tonic_types::StatusExt;

use self::export::Export;
use super::{
    Output,
    client::{Client, Refused, Server, may_recover},
    list::short_payload,
    ndjson,
    terminal::{cell, tell},
};
use crate::{
    event::Timestamp,
    proto::{
        timestamp,
        v1::{
            Event, ListEventsRequest, PayloadFormat, SubscribeRequest, subscribe_response::Frame,
        },
    },
};

mod export;
mod reader;

#[derive(Debug, Args)]
#[command(after_help = "\
Prints only new events unless a start position is given. If the connection is lost, tail \
reconnects and resumes where it was.

`publish --file -` reads the ndjson output: together they copy one store into another.

  event-aggregator tail --from-start --cursor-file orders.cursor --topic orders >> orders.ndjson

can be killed at any time, even during its first run, and restarted: orders.ndjson contains each \
event once. For this the output must be a regular file; --cursor-file rejects a pipe.")]
pub(super) struct Tail {
    #[command(flatten)]
    server: Server,

    /// Only events of this topic; can be repeated
    #[arg(long, value_name = "TOPIC")]
    topic: Vec<String>,

    /// Start with the first stored event
    #[arg(long, group = "start")]
    from_start: bool,

    /// Start with events received since then: a duration, such as 10m or 2h, or a time, such as
    /// 2026-01-31T12:00:00Z
    #[arg(long, group = "start", value_name = "TIME", value_parser = since)]
    since: Option<Timestamp>,

    /// Start after this cursor, as printed with each event
    #[arg(long, group = "start", value_name = "CURSOR")]
    cursor: Option<String>,

    /// Save the cursor to FILE and resume from it. Requires a regular file as output, which is
    /// truncated to the saved position so that no event is in it twice
    #[arg(long, value_name = "FILE")]
    cursor_file: Option<PathBuf>,

    /// Stop after N events
    #[arg(short = 'n', long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    limit: Option<u64>,

    /// Output format; json is the same as ndjson [default: table on a terminal, else ndjson]
    #[arg(short, long, value_enum)]
    output: Option<Output>,
}

fn since(text: &str) -> Result<Timestamp, String> {
    if let Ok(ago) = humantime::parse_duration(text) {
        let time = SystemTime::now().checked_sub(ago).ok_or("is too far in the past")?;
        return Ok(Timestamp::from(time::OffsetDateTime::from(time)));
    }
    text.parse().map_err(|_| {
        "must be a duration, such as 10m, or an RFC 3339 time, such as 2026-01-31T12:00:00Z"
            .to_owned()
    })
}

/// Minimum and maximum delay before a reconnect.
const RECONNECT: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));

impl Tail {
    pub(super) async fn run(self) -> anyhow::Result<ExitCode> {
        tokio::select! {
            printed = self.print() => printed,
            () = reader::gone() => Ok(ExitCode::SUCCESS),
        }
    }

    async fn print(self) -> anyhow::Result<ExitCode> {
        let output = Output::or_suitable(self.output);
        let mut export = self.cursor_file.as_deref().map(Export::open).transpose()?;
        let client = self.server.connect().await?;
        let cursor = match export.as_ref().and_then(|export| export.cursor()) {
            Some(cursor) => cursor.to_owned(),
            None => self.start(client.clone()).await?,
        };
        let mut reader = Reader {
            request: SubscribeRequest {
                topics: self.topic.clone(),
                cursor,
                payload_format: PayloadFormat::Json.into(),
            },
            output,
            left: self.limit.unwrap_or(u64::MAX),
            moved: false,
        };
        let pauses = ExponentialBuilder::default()
            .with_min_delay(RECONNECT.0)
            .with_max_delay(RECONNECT.1)
            .without_max_times()
            .with_jitter();
        let mut pause = pauses.build();
        loop {
            let status = match reader.read(client.clone(), export.as_mut()).await {
                Ok(()) => return Ok(ExitCode::SUCCESS),
                Err(error) => error.downcast::<Refused>()?.0,
            };
            if is_restored(&status) {
                return Err(anyhow::Error::from(Refused(status)).context(self.begin_anew()));
            }
            if !may_recover(&status) {
                return Err(Refused(status).into());
            }
            if std::mem::take(&mut reader.moved) {
                pause = pauses.build();
                tell(format_args!("event-aggregator: {}; reconnecting", Refused(status)));
            }
            tokio::time::sleep(pause.next().unwrap_or(RECONNECT.1)).await;
        }
    }

    /// Advice for a cursor that is no longer valid.
    fn begin_anew(&self) -> String {
        let begin = "start over with --from-start or --since TIME";
        match &self.cursor_file {
            Some(file) => format!(
                "cannot resume from {}; remove it, and {begin} into a new output file",
                file.display()
            ),
            None => format!("cannot resume; {begin}"),
        }
    }

    /// The cursor to start at.
    async fn start(&self, mut client: Client) -> anyhow::Result<String> {
        if let Some(cursor) = &self.cursor {
            return Ok(cursor.clone());
        }
        let Some(since) = self.since else {
            return match (self.from_start, &self.cursor_file) {
                (true, _) => Ok("beginning".to_owned()),
                (false, None) => Ok("end".to_owned()),
                (false, Some(_)) => self.end(client).await,
            };
        };
        // The start is the cursor after the last earlier event: of the topic if there is only one,
        // since the token may grant no other, or else of all topics.
        let topic = match &*self.topic {
            [one] => one.clone(),
            _ => String::new(),
        };
        let end_time = Some(timestamp(since));
        let request = ListEventsRequest { topic, end_time, page_size: 1, ..Default::default() };
        let listed = client.list_events(request).await.map_err(Refused)?.into_inner();
        let cursor = listed.events.into_iter().next().map(|event| event.cursor);
        Ok(cursor.unwrap_or_else(|| "beginning".to_owned()))
    }
}

impl Tail {
    /// The cursor of the current end. A saved `end` keyword would skip events when it is resumed.
    async fn end(&self, mut client: Client) -> anyhow::Result<String> {
        let topics = self.topic.clone();
        let request = SubscribeRequest { topics, cursor: "end".to_owned(), ..Default::default() };
        loop {
            let frames = client.subscribe(request.clone()).await.map_err(Refused)?;
            let frame = frames.into_inner().message().await.map_err(Refused)?;
            match frame.ok_or_else(ended)?.frame {
                Some(Frame::CaughtUp(caught_up)) => return Ok(caught_up.cursor),
                Some(Frame::Checkpoint(checkpoint)) => return Ok(checkpoint.cursor),
                // Events stored in the meantime precede the end.
                Some(Frame::Events(_)) | None => (),
            }
        }
    }
}

/// Context of errors when the cursor file cannot be saved.
const CANNOT_KEEP: &str = "cannot save the cursor file";

fn ended() -> Refused {
    Refused(Status::new(Code::Unavailable, "the service closed the feed"))
}

/// Whether the database was restored to a state before the cursor.
fn is_restored(status: &Status) -> bool {
    status.get_details_error_info().is_some_and(|info| info.reason == "STORE_RESTORED")
}

/// Reads the feed and prints its events.
struct Reader {
    /// Its cursor is the one after the last printed event.
    request: SubscribeRequest,
    output: Output,
    /// Number of events left to print.
    left: u64,
    /// Whether anything was received over this connection.
    moved: bool,
}

impl Reader {
    /// Reads until the requested number of events is printed.
    async fn read(
        &mut self,
        mut client: Client,
        mut export: Option<&mut Export>,
    ) -> anyhow::Result<()> {
        let frames = client.subscribe(self.request.clone()).await.map_err(Refused)?;
        let mut frames = frames.into_inner();
        if let Some(export) = &mut export {
            export.begin(&self.request.cursor).context(CANNOT_KEEP)?;
        }
        while self.left > 0 {
            let frame = frames.message().await.map_err(Refused)?;
            let (events, cursor) = match frame.ok_or_else(ended)?.frame {
                Some(Frame::Events(batch)) => (batch.events, batch.cursor),
                Some(Frame::Checkpoint(checkpoint)) => (Vec::new(), checkpoint.cursor),
                Some(Frame::CaughtUp(caught_up)) => (Vec::new(), caught_up.cursor),
                None => continue,
            };
            let wanted = events.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
            print(&events[..wanted], self.output)?;
            self.left -= wanted as u64;
            self.moved = true;
            self.request.cursor = match events.get(wanted.saturating_sub(1)) {
                Some(last) if wanted < events.len() => last.cursor.clone(),
                _ => cursor,
            };
            if let Some(export) = &mut export {
                export.save(&self.request.cursor).context(CANNOT_KEEP)?;
            }
        }
        Ok(())
    }
}

fn print(events: &[Event], output: Output) -> anyhow::Result<()> {
    let mut stdout = io::stdout().lock();
    for event in events {
        match output {
            // A feed has no end, so it cannot be one JSON document.
            Output::Json | Output::Ndjson => writeln!(stdout, "{}", ndjson::shown(event)?)?,
            Output::Table => writeln!(
                stdout,
                "{:<27}  {:<20}  {:<32}  {:<16}  {}",
                ndjson::time(event.received_at.as_ref()),
                cell(&event.topic),
                cell(&event.event_id),
                cell(&event.source),
                short_payload(event),
            )?,
        }
    }
    Ok(stdout.flush()?)
}
