//! Sends events over PublishStream. If a call breaks, unanswered requests are sent again over the
//! next one, which is safe because the service deduplicates events.

use std::{
    io,
    ops::ControlFlow,
    time::{Duration, Instant},
};

use anyhow::Context;
use backon::{BackoffBuilder, ExponentialBuilder};
use indicatif::ProgressBar;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

use super::{
    sink::Sink,
    source::{Events, Outgoing},
    window::Window,
};
use crate::{
    cli::{
        client::{Client, Refused, may_recover},
        terminal::tell,
    },
    proto::v1::{PublishStreamRequest, PublishStreamResponse},
};

/// Events per request. Larger requests are hardly faster.
const REQUEST_EVENTS: usize = 500;

/// How long a broken connection is retried. Services retry a commit for one minute.
const PATIENCE: Duration = Duration::from_secs(90);

/// Sends all events of a source. The sink is up to date even if this is cancelled.
pub(super) struct Upload<'a> {
    client: Client,
    source: Events,
    /// Whether all events of the source were received.
    has_ended: bool,
    window: Window,
    sink: &'a mut Sink,
    progress: &'a ProgressBar,
}

/// Why a call ended early.
enum Failed {
    /// It broke, or the service rejected it.
    Call(Status),
    /// The progress cannot be saved.
    Sink(io::Error),
}

impl From<Status> for Failed {
    fn from(status: Status) -> Self {
        Self::Call(status)
    }
}

impl From<io::Error> for Failed {
    fn from(error: io::Error) -> Self {
        Self::Sink(error)
    }
}

impl<'a> Upload<'a> {
    pub(super) fn new(
        client: Client,
        source: Events,
        sink: &'a mut Sink,
        progress: &'a ProgressBar,
    ) -> Self {
        Self { client, source, has_ended: false, window: Window::default(), sink, progress }
    }

    pub(super) async fn run(mut self) -> anyhow::Result<()> {
        let backoff = ExponentialBuilder::default()
            .with_min_delay(Duration::from_millis(100))
            .with_max_delay(Duration::from_secs(2))
            .without_max_times();
        let mut pauses = backoff.build();
        let mut broken_since: Option<Instant> = None;
        loop {
            let answered = self.sink.tally.total();
            let broken = match self.send().await {
                Ok(()) => return self.source.finish().await,
                Err(Failed::Call(status)) => status,
                Err(Failed::Sink(error)) => {
                    return Err(error).context("cannot save the position or the rejected lines");
                }
            };
            if self.sink.tally.total() > answered {
                pauses = backoff.build();
                broken_since = None;
            }
            let since = *broken_since.get_or_insert_with(Instant::now);
            if !may_recover(&broken) || since.elapsed() > PATIENCE {
                return Err(Refused(broken).into());
            }
            self.progress.suspend(|| {
                tell(format_args!("connection interrupted ({}); retrying", Refused(broken)))
            });
            tokio::time::sleep(pauses.next().unwrap_or_default()).await;
            self.sink.tally.reconnects += 1;
            self.window.restart();
        }
    }

    /// Sends over one call until everything is acknowledged.
    async fn send(&mut self) -> Result<(), Failed> {
        let mut call = Call::open(&mut self.client).await?;
        let mut events = Vec::with_capacity(REQUEST_EVENTS);
        while self.step(&mut call, &mut events).await?.is_continue() {}
        call.close().await;
        Ok(())
    }

    /// Sends a request, receives a response or takes events from the source. Breaks at the end.
    async fn step(
        &mut self,
        call: &mut Call,
        events: &mut Vec<Outgoing>,
    ) -> Result<ControlFlow<()>, Failed> {
        while let Some(request) = self.window.pop_empty() {
            self.sink.record(request, PublishStreamResponse::default())?;
        }
        tokio::select! {
            // If the call is broken, `reserve` fails and the response has the error.
            Ok(slot) = call.requests.reserve(), if self.window.has_unsent() => {
                if let Some(request) = self.window.send_next() {
                    slot.send(request);
                }
            }
            received = self.source.recv_many(events, REQUEST_EVENTS),
                if !self.has_ended && self.window.has_room() =>
            {
                self.has_ended = received == 0;
                self.window.extend(events.drain(..));
            }
            response = call.responses.message(), if !self.window.is_empty() => {
                let response = response?.ok_or_else(closed_early)?;
                if let Some(request) = self.window.pop_answered() {
                    self.progress.set_position(request.progress());
                    self.sink.record(request, response)?;
                }
            }
            else => return Ok(ControlFlow::Break(())),
        }
        Ok(ControlFlow::Continue(()))
    }
}

fn closed_early() -> Status {
    Status::unavailable("the service ended the stream")
}

/// An open call of PublishStream.
struct Call {
    requests: mpsc::Sender<PublishStreamRequest>,
    responses: Streaming<PublishStreamResponse>,
}

impl Call {
    async fn open(client: &mut Client) -> Result<Self, Status> {
        let (requests, stream) = mpsc::channel(1);
        let responses = client.publish_stream(ReceiverStream::new(stream)).await?.into_inner();
        Ok(Self { requests, responses })
    }

    /// Half-closes the call and waits for its end: the service counts a dropped call as cancelled.
    async fn close(self) {
        let Self { requests, mut responses } = self;
        drop(requests);
        while let Ok(Some(_)) = responses.message().await {}
    }
}
