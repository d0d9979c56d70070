//! Request bodies. A large message, or a large body, waits for a memory permit, and fails if it
//! stalls. The message of a unary call is buffered until the client half-closes the call.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use axum::body::Bytes;
use futures_util::future::BoxFuture;
use http_body::{Body, Frame, SizeHint};
use tokio::time::{Instant, Sleep, sleep};
use tokio_util::sync::WaitForCancellationFutureOwned;

use super::{
    Audience, Edge, Protocol, Record, Route, framing::Framing, in_progress::InProgress,
    protocol::BoxError,
};
use crate::{
    access::CallerKey,
    admission::Permit,
    api::Error,
    event::Violation,
    limits::{
        MAX_MESSAGE_BYTES, MAX_REQUEST_BYTES, READING_STALL_TIMEOUT, READING_TIMEOUT,
        REFLECTION_IDLE_TIMEOUT, SMALL_REQUEST_BYTES,
    },
};

/// The body of a request.
pub(crate) struct RequestBody<P: Protocol, A> {
    /// None once it has ended.
    body: Option<A>,
    call: InProgress<P::Record>,
    framing: Framing,
    /// Whether the client may send more than one message.
    streams: bool,
    /// For memory permits of large messages. None if messages are always small.
    memory: Option<(Edge, CallerKey)>,
    /// Shutdown of the server, which ends the body.
    shutdown: Option<Pin<Box<WaitForCancellationFutureOwned>>>,
    /// Idle timeout. None if the handler has its own.
    idle: Option<Pin<Box<Sleep>>>,
    reading: Reading,
    /// The last bytes of the message of a unary call, until the client half-closes the call:
    /// decoded events take far more memory than their bytes, and a client could leave many calls
    /// open.
    held: Option<Bytes>,
}

/// State of the message, or of the body without framing, that is being read.
enum Reading {
    /// Small: needs no permit.
    Small,
    /// Large, and waiting for a permit. With its first bytes.
    Waiting(BoxFuture<'static, Option<Permit>>, Bytes),
    /// Large, with a permit, a deadline and a stall timeout.
    Large { deadline: Instant, stalled: Pin<Box<Sleep>>, _permit: Option<Permit> },
}

impl<P: Protocol, A: Body<Data = Bytes>> RequestBody<P, A> {
    pub(super) fn new(
        body: A,
        edge: &Edge,
        route: Route,
        caller: &CallerKey,
        call: &InProgress<P::Record>,
    ) -> Self {
        let mut this = Self {
            body: None,
            call: call.clone(),
            framing: Framing::default(),
            streams: route.streams_in,
            memory: None,
            shutdown: None,
            idle: None,
            reading: Reading::Small,
            held: None,
        };
        match route.audience {
            Audience::Authenticated => this.memory = Some((edge.clone(), caller.clone())),
            Audience::Public => {
                this.shutdown = Some(Box::pin(edge.0.stopping.clone().cancelled_owned()));
                this.idle = route.streams_in.then(|| Box::pin(sleep(REFLECTION_IDLE_TIMEOUT)));
            }
        }
        if !P::IS_FRAMED {
            // A body of unknown length may be as large as the limit.
            let bytes = body.size_hint().exact().map_or(MAX_REQUEST_BYTES, |bytes| {
                usize::try_from(bytes).unwrap_or(usize::MAX).min(MAX_REQUEST_BYTES)
            });
            this.reserve(bytes, Bytes::new());
        }
        this.body = Some(body);
        this
    }

    /// Starts to wait for a permit for a message of `bytes` bytes that begins with `first`. Returns
    /// `first` if the message needs no permit.
    fn reserve(&mut self, bytes: usize, first: Bytes) -> Option<Bytes> {
        match &self.memory {
            Some((edge, caller)) if bytes > SMALL_REQUEST_BYTES => {
                let (edge, caller) = (edge.clone(), caller.clone());
                let permit = async move { edge.0.admission.reading(&caller, bytes).await };
                self.reading = Reading::Waiting(Box::pin(permit), first);
                None
            }
            _ => Some(first),
        }
    }

    /// Processes received data. Returns the data, unless it must wait.
    fn process(&mut self, data: Bytes) -> Option<Bytes> {
        if !P::IS_FRAMED {
            return Some(data);
        }
        let begun = self.framing.scan(&data);
        if begun > 0 {
            self.call.record(|record| record.received(begun));
        }
        let has_ended = self.body.as_ref().is_none_or(Body::is_end_stream);
        if !self.streams && self.framing.is_first_complete() && !has_ended {
            self.held = Some(data);
            return None;
        }
        let left = self.framing.left();
        if self.streams && (begun > 0 || left == 0) {
            // The previous message has been read.
            self.reading = Reading::Small;
        }
        // The decoder rejects a message above the limit as soon as it has the length.
        match begun > 0 && left <= MAX_MESSAGE_BYTES {
            true => self.reserve(left, data),
            false => Some(data),
        }
    }

    /// Polls the stall timeout and the idle timeout.
    fn poll_timeouts(&mut self, context: &mut Context<'_>) -> Poll<()> {
        if let Reading::Large { stalled, .. } = &mut self.reading
            && stalled.as_mut().poll(context).is_ready()
        {
            return Poll::Ready(());
        }
        match &mut self.idle {
            Some(idle) => idle.as_mut().poll(context),
            None => Poll::Pending,
        }
    }

    /// Resets the timeouts after data has arrived.
    fn reset_timers(&mut self) {
        let now = Instant::now();
        if let Reading::Large { deadline, stalled, .. } = &mut self.reading {
            stalled.as_mut().reset((*deadline).min(now + READING_STALL_TIMEOUT));
        }
        if let Some(idle) = &mut self.idle {
            idle.as_mut().reset(now + REFLECTION_IDLE_TIMEOUT);
        }
    }
}

impl<P: Protocol, A> Unpin for RequestBody<P, A> {}

impl<P, A> Body for RequestBody<P, A>
where
    P: Protocol,
    A: Body<Data = Bytes> + Unpin,
    A::Error: Into<BoxError>,
{
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = &mut *self;
        let fail = |error| Poll::Ready(Some(Err(P::body_error(error))));
        if let Some(shutdown) = &mut this.shutdown
            && shutdown.as_mut().poll(context).is_ready()
        {
            this.shutdown = None;
            this.body = None;
        }
        loop {
            match &mut this.reading {
                Reading::Waiting(permit, first) => {
                    let permit = ready!(permit.as_mut().poll(context));
                    let first = std::mem::take(first);
                    let deadline = Instant::now() + READING_TIMEOUT;
                    let stalled = Box::pin(sleep(READING_STALL_TIMEOUT));
                    this.reading = Reading::Large { deadline, stalled, _permit: permit };
                    if !first.is_empty() {
                        return Poll::Ready(Some(Ok(Frame::data(first))));
                    }
                }
                Reading::Large { deadline, .. } if *deadline <= Instant::now() => {
                    return fail(Error::request_too_slow());
                }
                Reading::Small | Reading::Large { .. } => (),
            }
            let frame = match &mut this.body {
                Some(body) => Pin::new(body).poll_frame(context),
                None => Poll::Ready(None),
            };
            let Poll::Ready(frame) = frame else {
                ready!(this.poll_timeouts(context));
                return fail(Error::request_too_slow());
            };
            this.reset_timers();
            let frame = match frame {
                Some(Ok(frame)) => frame,
                Some(Err(error)) => return Poll::Ready(Some(Err(error.into()))),
                None => {
                    (this.body, this.reading) = (None, Reading::Small);
                    return Poll::Ready(this.held.take().map(|data| Ok(Frame::data(data))));
                }
            };
            // Ignore trailers.
            let Ok(data) = frame.into_data() else { continue };
            if this.held.is_some() {
                if data.is_empty() {
                    continue;
                }
                let fault = "must be the only message of a unary call";
                return fail(Error::invalid(vec![Violation::new("message", fault)]));
            }
            if let Some(data) = this.process(data) {
                return Poll::Ready(Some(Ok(Frame::data(data))));
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        let is_waiting = self.held.is_some() || matches!(self.reading, Reading::Waiting(..));
        !is_waiting && self.body.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map_or(SizeHint::with_exact(0), Body::size_hint)
    }
}
