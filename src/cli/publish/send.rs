//! Sends events over PublishStream. If a stream breaks, unanswered requests are sent again over the
//! next one, which is safe because the service deduplicates events.

use std::{
    collections::VecDeque,
    io,
    time::{Duration, Instant},
};

use anyhow::Context;
use backon::{BackoffBuilder, ExponentialBuilder};
use indicatif::ProgressBar;
use prost::Message;
use serde_json::json;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use super::{Line, Outgoing, import::Import, simulate::Expected};
use crate::{
    cli::{
        client::{Client, Refused, Server, may_recover},
        terminal::{one_line, tell},
    },
    proto::v1::{PublishStatus, PublishStreamRequest, PublishStreamResponse},
};

/// Events per request. Larger requests are hardly faster.
const REQUEST_EVENTS: usize = 500;

/// Bytes at which a request is closed: half of the service's limit, because one more event may
/// follow.
const REQUEST_BYTES: usize = 2 << 20;

/// Maximum number of unanswered requests.
const REQUESTS_IN_FLIGHT: usize = 16;

/// How long a broken connection is retried. Services retry a commit for one minute.
const PATIENCE: Duration = Duration::from_secs(90);

/// Maximum number of rejected lines that are printed.
const SHOWN_LINES: usize = 10;

/// Number of events by outcome.
#[derive(Debug, Default)]
pub(super) struct Tally {
    pub(super) accepted: u64,
    pub(super) duplicate: u64,
    pub(super) conflict: Lines,
    pub(super) reconnects: u64,
    pub(super) rejects: Lines,
}

/// Lines that were rejected or conflict.
#[derive(Debug, Default)]
pub(super) struct Lines {
    pub(super) count: u64,
    /// The first of them, each with the reason.
    first: Vec<(u64, String)>,
}

impl Lines {
    pub(super) fn add(&mut self, line: u64, reason: String) {
        self.count += 1;
        if self.first.len() < SHOWN_LINES {
            self.first.push((line, reason));
        }
    }

    pub(super) fn print(&self, what: &str) {
        for (line, reason) in &self.first {
            tell(format_args!("line {line} {what}: {}", one_line(reason)));
        }
        let more = self.count - self.first.len() as u64;
        if more > 0 {
            tell(format_args!("and {more} more"));
        }
    }
}

impl Tally {
    pub(super) fn total(&self) -> u64 {
        self.accepted + self.duplicate + self.conflict.count + self.rejects.count
    }

    /// Whether the counts match a simulation. Events that were sent again may count as duplicates.
    pub(super) fn is_exactly(&self, expected: Expected) -> bool {
        let all = self.total() == expected.new + expected.repeated;
        all && self.conflict.count == 0 && (self.reconnects > 0 || self.accepted == expected.new)
    }

    pub(super) fn as_json(&self) -> String {
        json!({
            "total": self.total(),
            "accepted": self.accepted,
            "duplicate": self.duplicate,
            "conflict": self.conflict.count,
            "rejected": self.rejects.count,
            "reconnects": self.reconnects,
        })
        .to_string()
    }

    fn add(
        &mut self,
        request: Unanswered,
        response: PublishStreamResponse,
        import: &mut Import,
    ) -> io::Result<()> {
        let mut results = response.results.into_iter();
        for (line, fault) in &request.lines {
            let reason = match fault {
                Some(fault) => fault.clone(),
                None => {
                    let result = results.next().unwrap_or_default();
                    match result.status() {
                        PublishStatus::Accepted => {
                            self.accepted += 1;
                            continue;
                        }
                        PublishStatus::Duplicate => {
                            self.duplicate += 1;
                            continue;
                        }
                        PublishStatus::Conflict => {
                            self.conflict.add(line.number, result.differing_fields.join(", "));
                            continue;
                        }
                        PublishStatus::Rejected | PublishStatus::Unspecified => {
                            reason(result.error.unwrap_or_default())
                        }
                    }
                }
            };
            import.refuse(line, &reason)?;
            self.rejects.add(line.number, reason);
        }
        request.lines.last().map_or(Ok(()), |(line, _)| import.answered(line))
    }
}

/// Why an event was rejected: all its violations.
fn reason(error: tonic_types::Status) -> String {
    let faults = error.details.iter().filter(|any| any.type_url.ends_with("google.rpc.BadRequest"));
    let faults: Vec<String> = faults
        .filter_map(|any| tonic_types::pb::BadRequest::decode(&*any.value).ok())
        .flat_map(|details| details.field_violations)
        // A line calls its JSON payload `payload`.
        .map(|fault| (fault.field.replace("payload_json", "payload"), fault.description))
        .map(|(field, description)| format!("{field} {description}"))
        .collect();
    if faults.is_empty() { error.message } else { faults.join("; ") }
}

/// A request without a response yet.
struct Unanswered {
    request: PublishStreamRequest,
    /// Lines of the request: its events, and between them invalid lines with the reason.
    lines: Vec<(Line, Option<String>)>,
}

/// Why a stream ended early.
enum Broken {
    /// The stream broke, or the service rejected it.
    Stream(Status),
    /// The progress cannot be saved.
    Import(io::Error),
}

impl From<Status> for Broken {
    fn from(status: Status) -> Self {
        Self::Stream(status)
    }
}

impl From<io::Error> for Broken {
    fn from(error: io::Error) -> Self {
        Self::Import(error)
    }
}

/// Sends all events from `outgoing`. The tally is up to date even if this is cancelled.
pub(super) async fn all(
    server: &Server,
    mut outgoing: mpsc::Receiver<Outgoing>,
    progress: &ProgressBar,
    tally: &mut Tally,
    import: &mut Import,
) -> anyhow::Result<()> {
    let mut unanswered = VecDeque::new();
    let mut client = server.connect().await?;
    let backoff = ExponentialBuilder::default()
        .with_min_delay(Duration::from_millis(100))
        .with_max_delay(Duration::from_secs(2))
        .without_max_times();
    let mut pauses = backoff.build();
    let mut broken_since: Option<Instant> = None;
    loop {
        let answered = tally.total();
        let broken =
            match one_stream(&mut client, &mut outgoing, &mut unanswered, tally, import, progress)
                .await
            {
                Ok(()) => return Ok(()),
                Err(Broken::Stream(status)) => status,
                Err(Broken::Import(error)) => {
                    return Err(error).context("cannot save the position or the rejected lines");
                }
            };
        if tally.total() > answered {
            pauses = backoff.build();
            broken_since = None;
        }
        let since = *broken_since.get_or_insert_with(Instant::now);
        if !may_recover(&broken) || since.elapsed() > PATIENCE {
            return Err(Refused(broken).into());
        }
        progress.suspend(|| {
            tell(format_args!("connection interrupted ({}); retrying", Refused(broken)))
        });
        tokio::time::sleep(pauses.next().unwrap_or_default()).await;
        tally.reconnects += 1;
    }
}

/// Sends over one stream until everything is acknowledged or the stream breaks. Starts with the
/// requests that the previous stream left unanswered.
async fn one_stream(
    client: &mut Client,
    outgoing: &mut mpsc::Receiver<Outgoing>,
    unanswered: &mut VecDeque<Unanswered>,
    tally: &mut Tally,
    import: &mut Import,
    progress: &ProgressBar,
) -> Result<(), Broken> {
    let (requests, stream) = mpsc::channel(1);
    let mut responses = client.publish_stream(ReceiverStream::new(stream)).await?.into_inner();
    let mut sent: usize = 0;
    let mut ended = false;
    let mut events = Vec::with_capacity(REQUEST_EVENTS);
    loop {
        // Requests without a valid event are not sent.
        while let Some(request) = unanswered.pop_front_if(|first| first.request.events.is_empty()) {
            sent = sent.saturating_sub(1);
            tally.add(request, PublishStreamResponse::default(), import)?;
        }
        while unanswered.get(sent).is_some_and(|next| next.request.events.is_empty()) {
            sent += 1;
        }
        tokio::select! {
            // If the stream is broken, `reserve` fails and the response has the error.
            Ok(slot) = requests.reserve(), if sent < unanswered.len() => {
                slot.send(unanswered[sent].request.clone());
                sent += 1;
            }
            received = outgoing.recv_many(&mut events, REQUEST_EVENTS),
                if !ended && unanswered.len() < REQUESTS_IN_FLIGHT =>
            {
                ended = received == 0;
                unanswered.extend(into_requests(events.drain(..)));
            }
            response = responses.message(), if !unanswered.is_empty() => {
                let response = response?.ok_or_else(closed_early)?;
                if let Some(request) = unanswered.pop_front() {
                    sent -= 1;
                    progress.set_position(request.lines.last().map_or(0, |(line, _)| line.end));
                    tally.add(request, response, import)?;
                }
            }
            else => break,
        }
    }
    // Half-close and wait for the end: the service counts a dropped call as cancelled.
    drop(requests);
    while let Ok(Some(_)) = responses.message().await {}
    Ok(())
}

fn closed_early() -> Status {
    Status::unavailable("the service ended the stream")
}

/// Groups events into requests within the size limit.
fn into_requests(events: impl Iterator<Item = Outgoing>) -> Vec<Unanswered> {
    let mut requests = Vec::new();
    let mut bytes = usize::MAX;
    for Outgoing { line, event } in events {
        let size = event.as_ref().map_or(0, Message::encoded_len);
        bytes = bytes.saturating_add(size);
        if bytes > REQUEST_BYTES {
            bytes = size;
            requests
                .push(Unanswered { request: PublishStreamRequest::default(), lines: Vec::new() });
        }
        if let Some(Unanswered { request, lines }) = requests.last_mut() {
            match event {
                Ok(event) => {
                    request.events.push(event);
                    lines.push((line, None));
                }
                Err(fault) => lines.push((line, Some(fault))),
            }
        }
    }
    requests
}
