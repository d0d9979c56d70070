//! The bodies of calls: their messages are counted, large ones are read when there is room for them, the
//! only one of a call once the call has been sent to its end, and an answer ends when its time is over. How a call ended is said in trailers, so that only whoever
//! watches the whole answer knows it.

use std::{
    convert::Infallible,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Instant,
};

use http_body::{Body as _, Frame, SizeHint};
use tokio::time::{Sleep, sleep, sleep_until};
use tonic::{
    Code, Status,
    body::Body,
    codegen::{BoxFuture, Bytes, http::HeaderMap},
};

use super::{boundaries::Boundaries, observed::Call, status};
use crate::{
    limits::{MAX_MESSAGE_BYTES, READING_TIMEOUT, SMALL_REQUEST_BYTES},
    load::{Load, Room},
    metrics::Method,
};

/// What comes in.
pub(super) struct Asked {
    body: Body,
    method: Arc<Method>,
    /// Whether more messages follow the first.
    is_fed: bool,
    load: Load,
    boundaries: Boundaries,
    reading: Reading,
    /// With what the only message of a call ends, until nothing more comes: events take far more memory
    /// than their bytes, and a caller could let them wait.
    held: Option<Bytes>,
}

/// What is known of the message that is being read.
enum Reading {
    /// It is small.
    Small,
    /// It is large, and there is no room yet for more than this, with which it begins.
    Waiting(BoxFuture<Room, Infallible>, Bytes),
    /// It is large, has room until the next one is asked for, and must not take too long.
    Large { too_slow: Pin<Box<Sleep>>, _room: Room },
}

impl Asked {
    pub(super) fn new(body: Body, method: Arc<Method>, is_fed: bool, load: Load) -> Self {
        let (boundaries, reading) = (Boundaries::default(), Reading::Small);
        Self { body, method, is_fed, load, boundaries, reading, held: None }
    }

    /// Passes data on, unless the call must end first, or it begins a message that there must be room for
    /// first.
    fn pass(&mut self, data: Bytes) -> Option<Bytes> {
        let begun = self.boundaries.pass(&data);
        self.method.received.inc_by(begun);
        if !self.is_fed && self.boundaries.has_passed_one() && !self.body.is_end_stream() {
            self.held = Some(data);
            return None;
        }
        if begun == 0 {
            return Some(data);
        }
        let left = self.boundaries.left();
        // One that is larger still is refused as soon as its length is seen.
        if (SMALL_REQUEST_BYTES..=MAX_MESSAGE_BYTES).contains(&left) {
            let load = self.load.clone();
            let room = Box::pin(async move { Ok(load.reading(left).await) });
            self.reading = Reading::Waiting(room, data);
            return None;
        }
        Some(data)
    }
}

impl http_body::Body for Asked {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = &mut *self;
        loop {
            match &mut this.reading {
                Reading::Small => (),
                Reading::Waiting(room, data) => {
                    let Ok(room) = ready!(room.as_mut().poll(context));
                    let data = std::mem::take(data);
                    let too_slow = Box::pin(sleep(READING_TIMEOUT));
                    this.reading = Reading::Large { too_slow, _room: room };
                    return Poll::Ready(Some(Ok(Frame::data(data))));
                }
                // The only message of a call stays in memory until the whole call is read.
                Reading::Large { too_slow, .. } if !this.is_fed || this.boundaries.left() > 0 => {
                    if too_slow.as_mut().poll(context).is_ready() {
                        return Poll::Ready(Some(Err(status::too_slow())));
                    }
                }
                Reading::Large { .. } => this.reading = Reading::Small,
            }
            let frame = match ready!(Pin::new(&mut this.body).poll_frame(context)) {
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

/// What goes out.
pub(super) struct Answer {
    body: Body,
    boundaries: Boundaries,
    /// None once the call has ended.
    call: Option<Call>,
    /// When it ends, whatever is still to come.
    deadline: Option<Instant>,
    /// Set when it is waited for.
    over: Option<Pin<Box<Sleep>>>,
}

impl Answer {
    pub(super) fn new(body: Body, call: Call, deadline: Option<Instant>) -> Self {
        let (boundaries, call) = (Boundaries::default(), Some(call));
        Self { body, boundaries, call, deadline, over: None }
    }

    fn see(&mut self, frame: &Frame<Bytes>) {
        if let (Some(data), Some(call)) = (frame.data_ref(), &self.call) {
            call.method.sent.inc_by(self.boundaries.pass(data));
        }
        if let Some(trailers) = frame.trailers_ref() {
            let status = Status::from_header_map(trailers);
            if let Some(call) = self.call.take() {
                call.end(status.map_or(Code::Unknown, |status| status.code()));
            }
        }
    }

    /// Ends the call in another way than its body would.
    fn end(&mut self, status: &Status) -> Frame<Bytes> {
        self.body = Body::empty();
        self.deadline = None;
        if let Some(call) = self.call.take() {
            call.end(status.code());
        }
        let mut trailers = HeaderMap::new();
        // What we say fits into a header.
        let _ = status.add_header(&mut trailers);
        Frame::trailers(trailers)
    }

    /// Whether the time of the call is over.
    fn is_over(&mut self, context: &mut Context<'_>) -> bool {
        let Some(deadline) = self.deadline else { return false };
        let over = self.over.get_or_insert_with(|| Box::pin(sleep_until(deadline.into())));
        over.as_mut().poll(context).is_ready()
    }
}

impl http_body::Body for Answer {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = &mut *self;
        // Otherwise a body that always has something to give would never end.
        if this.deadline.is_some_and(|deadline| deadline <= Instant::now()) {
            return Poll::Ready(Some(Ok(this.end(&status::deadline_exceeded()))));
        }
        let body = Pin::new(&mut this.body);
        let Ok(frame) = catch_unwind(AssertUnwindSafe(|| body.poll_frame(context))) else {
            return Poll::Ready(Some(Ok(this.end(&status::internal()))));
        };
        match frame {
            Poll::Ready(frame) => {
                if let Some(Ok(frame)) = &frame {
                    this.see(frame);
                }
                Poll::Ready(frame)
            }
            Poll::Pending if this.is_over(context) => {
                Poll::Ready(Some(Ok(this.end(&status::deadline_exceeded()))))
            }
            Poll::Pending => Poll::Pending,
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
