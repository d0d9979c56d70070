//! What comes in with a call: its messages are counted, a large one is read once there is room for it, and
//! the only message of a call is kept back until the call has been sent to its end.

use std::{
    convert::Infallible,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use http_body::{Body as _, Frame, SizeHint};
use tokio::time::{Instant, Sleep, sleep};
use tokio_util::sync::WaitForCancellationFutureOwned;
use tonic::{
    Status,
    body::Body,
    codegen::{BoxFuture, Bytes},
};

use super::{boundaries::Boundaries, observed::Known, status};
use crate::{
    access::CallerKey,
    limits::{
        MAX_MESSAGE_BYTES, READING_STALL_TIMEOUT, READING_TIMEOUT, REFLECTION_IDLE_TIMEOUT,
        SMALL_REQUEST_BYTES,
    },
    load::{Load, Permit},
    metrics::Method,
};

/// The body of a request.
pub(super) struct RequestBody {
    body: Body,
    method: Arc<Method>,
    /// Whether more messages follow the first.
    streams: bool,
    /// Where room for large messages is taken. None for calls that have none: they are refused as too
    /// large without being waited for.
    load: Option<(Load, CallerKey)>,
    /// Where it ends although its caller does not end it.
    until: Option<Pin<Box<WaitForCancellationFutureOwned>>>,
    /// Ends it when nothing comes for so long. None for calls of the contract, where each has bounds of
    /// its own.
    idle: Option<Pin<Box<Sleep>>>,
    boundaries: Boundaries,
    reading: Reading,
    /// The last bytes of the only message of a call, until nothing more comes: events take far more memory
    /// than their bytes, and a caller could let them wait.
    held: Option<Bytes>,
}

/// What is known of the message that is being read.
enum Reading {
    /// It is small.
    Small,
    /// It is large, and there is no room yet for more than this, with which it begins.
    Waiting(BoxFuture<Option<Permit>, Infallible>, Bytes),
    /// It is large, has its permit, must go on arriving, and must have arrived at an instant.
    Large { until: Instant, too_slow: Pin<Box<Sleep>>, _permit: Option<Permit> },
}

impl RequestBody {
    /// The body of a call to a method.
    pub(super) fn new(body: Body, method: &Known, load: &Load, caller: &CallerKey) -> Self {
        Self {
            body,
            method: Arc::clone(&method.counted),
            streams: method.streams_in,
            load: Some((load.clone(), caller.clone())),
            until: None,
            idle: None,
            boundaries: Boundaries::default(),
            reading: Reading::Small,
            held: None,
        }
    }

    /// The same for a call that anybody may make: it has small messages only, and no more of them once
    /// the service stops.
    pub(super) fn small(self, stopping: WaitForCancellationFutureOwned) -> Self {
        let idle = self.streams.then(|| Box::pin(sleep(REFLECTION_IDLE_TIMEOUT)));
        Self { load: None, until: Some(Box::pin(stopping)), idle, ..self }
    }

    /// Passes data on, unless the call must end first, or it begins a message that there must be room for
    /// first.
    fn pass(&mut self, data: Bytes) -> Option<Bytes> {
        let begun = self.boundaries.pass(&data);
        self.method.received.inc_by(begun);
        if !self.streams && self.boundaries.has_passed_one() && !self.body.is_end_stream() {
            self.held = Some(data);
            return None;
        }
        let left = self.boundaries.left();
        if self.streams && (begun > 0 || left == 0) {
            // The one before has passed. What becomes of it is not a matter of reading any more.
            self.reading = Reading::Small;
        }
        if begun == 0 {
            return Some(data);
        }
        // One that is larger still is refused as soon as its length is seen.
        if let Some((load, caller)) = &self.load
            && (SMALL_REQUEST_BYTES..=MAX_MESSAGE_BYTES).contains(&left)
        {
            let (load, caller) = (load.clone(), caller.clone());
            let permit = Box::pin(async move { Ok(load.reading(&caller, left).await) });
            self.reading = Reading::Waiting(permit, data);
            return None;
        }
        Some(data)
    }
}

impl RequestBody {
    /// Waits until nothing has come for too long.
    fn poll_stalled(&mut self, context: &mut Context<'_>) -> Poll<()> {
        if let Reading::Large { too_slow, .. } = &mut self.reading
            && too_slow.as_mut().poll(context).is_ready()
        {
            return Poll::Ready(());
        }
        match &mut self.idle {
            Some(idle) => idle.as_mut().poll(context),
            None => Poll::Pending,
        }
    }

    /// Waits for as long again, since something came.
    fn moved(&mut self) {
        let now = Instant::now();
        if let Reading::Large { until, too_slow, .. } = &mut self.reading {
            too_slow.as_mut().reset((*until).min(now + READING_STALL_TIMEOUT));
        }
        if let Some(idle) = &mut self.idle {
            idle.as_mut().reset(now + REFLECTION_IDLE_TIMEOUT);
        }
    }
}

impl http_body::Body for RequestBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = &mut *self;
        if let Some(until) = &mut this.until
            && until.as_mut().poll(context).is_ready()
        {
            this.until = None;
            this.body = Body::empty();
        }
        loop {
            match &mut this.reading {
                Reading::Small => (),
                Reading::Waiting(permit, data) => {
                    let Ok(permit) = ready!(permit.as_mut().poll(context));
                    let data = std::mem::take(data);
                    let until = Instant::now() + READING_TIMEOUT;
                    let too_slow = Box::pin(sleep(READING_STALL_TIMEOUT));
                    this.reading = Reading::Large { until, too_slow, _permit: permit };
                    return Poll::Ready(Some(Ok(Frame::data(data))));
                }
                Reading::Large { until, .. } if *until <= Instant::now() => {
                    return Poll::Ready(Some(Err(status::too_slow())));
                }
                Reading::Large { .. } => (),
            }
            let Poll::Ready(frame) = Pin::new(&mut this.body).poll_frame(context) else {
                ready!(this.poll_stalled(context));
                return Poll::Ready(Some(Err(status::too_slow())));
            };
            this.moved();
            let frame = match frame {
                Some(Ok(frame)) => frame,
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                None => {
                    this.body = Body::empty();
                    return Poll::Ready(this.held.take().map(|data| Ok(Frame::data(data))));
                }
            };
            // Requests have no trailers.
            let Ok(data) = frame.into_data() else { continue };
            if this.held.is_some() {
                if data.is_empty() {
                    continue;
                }
                return Poll::Ready(Some(Err(status::more_than_one())));
            }
            if let Some(data) = this.pass(data) {
                return Poll::Ready(Some(Ok(Frame::data(data))));
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        let is_kept = self.held.is_some() || matches!(self.reading, Reading::Waiting(..));
        !is_kept && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
