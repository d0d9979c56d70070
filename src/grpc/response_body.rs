//! What goes out for a call: its messages are counted, large ones go out in portions, and it ends when the
//! time of the call is over. How a call ended is said in trailers, so that only whoever watches the whole
//! answer knows it.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    task::{Context, Poll},
    time::Instant,
};

use http_body::{Frame, SizeHint};
use tokio::time::{Sleep, sleep_until};
use tonic::{
    Code, Status,
    body::Body,
    codegen::{Bytes, http::HeaderMap},
};

use super::{boundaries::Boundaries, observed::Call, status};
use crate::{
    access::CallerKey,
    limits::{SMALL_ANSWER_BYTES, SUBSCRIPTION_PORTION_BYTES},
    load::{Expired, LargeAnswer, Load, Reserved, Unsent, portion},
};

/// The body of a response.
pub(super) struct ResponseBody {
    body: Body,
    boundaries: Boundaries,
    /// None once the call has ended, and while it is kept with a large answer.
    call: Option<Call>,
    /// When it ends, whatever is still to come.
    deadline: Option<Instant>,
    /// Set when it is waited for.
    over: Option<Pin<Box<Sleep>>>,
    /// Where the permit of a call's only answer is taken, and what was reserved for it. None for a stream:
    /// how much of it waits is bounded where it is made.
    load: Option<(Load, CallerKey, Option<Reserved>)>,
    /// Where a subscription's frame waits to go out, and is dropped if the connection does not take it.
    unsent: Option<Unsent>,
    rest: Rest,
}

/// What has not gone out of the frame that came last.
enum Rest {
    OfStream(Bytes),
    OfOnlyAnswer(LargeAnswer<Option<Call>>),
}

impl ResponseBody {
    /// The body of a call that ends at a deadline.
    pub(super) fn new(
        body: Body,
        call: Call,
        deadline: Option<Instant>,
        load: Option<(Load, CallerKey, Option<Reserved>)>,
        unsent: Option<Unsent>,
    ) -> Self {
        let (boundaries, call, rest) = (Boundaries::default(), Some(call), Rest::none());
        Self { body, boundaries, call, deadline, over: None, load, unsent, rest }
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

    /// A frame, or the first portion of it.
    fn begin(&mut self, frame: Frame<Bytes>) -> Frame<Bytes> {
        // hyper asks for the first frame before it waits for the window of the call, so what an answer does
        // not need is given back although its caller takes nothing.
        let reserved = self.load.as_mut().and_then(|(.., reserved)| reserved.take());
        let most = match &self.unsent {
            Some(_) => SUBSCRIPTION_PORTION_BYTES,
            None => SMALL_ANSWER_BYTES,
        };
        let data = match frame.into_data() {
            Ok(data) if data.len() > most => data,
            Ok(data) => return Frame::data(data),
            Err(trailers) => return trailers,
        };
        if let Some(unsent) = &self.unsent {
            unsent.put(data);
            return self.go_on().unwrap_or_else(|| Frame::data(Bytes::new()));
        }
        self.rest = match &self.load {
            None => Rest::OfStream(data),
            Some((load, caller, _)) => match load.answer(caller, data.len(), reserved) {
                Ok(permit) => Rest::OfOnlyAnswer(LargeAnswer::new(data, self.call.take(), permit)),
                Err(full) => return self.end(&status::too_many_answers(full)),
            },
        };
        self.go_on().unwrap_or_else(|| Frame::data(Bytes::new()))
    }

    /// What follows of the frame that came last, if anything does.
    fn go_on(&mut self) -> Option<Frame<Bytes>> {
        if let Some(unsent) = &self.unsent {
            return match unsent.next() {
                Ok(portion) => portion.map(Frame::data),
                Err(Expired) => Some(self.end(&status::subscriber_too_slow())),
            };
        }
        let answer = match &mut self.rest {
            Rest::OfStream(rest) => return portion(rest).map(Frame::data),
            Rest::OfOnlyAnswer(answer) => answer,
        };
        match answer.next() {
            Ok(Some(portion)) => Some(Frame::data(portion)),
            Ok(None) => {
                if let Rest::OfOnlyAnswer(answer) = std::mem::replace(&mut self.rest, Rest::none())
                {
                    self.call = answer.into_kept().flatten();
                }
                None
            }
            Err(Expired) => Some(self.end(&status::not_taken())),
        }
    }

    /// Ends the call in another way than its body would.
    fn end(&mut self, status: &Status) -> Frame<Bytes> {
        self.body = Body::empty();
        self.rest = Rest::none();
        self.unsent = None;
        self.deadline = None;
        if let Some(call) = self.call.take() {
            call.end(status.code());
        }
        let mut trailers = HeaderMap::new();
        // What we say fits into a header.
        let _ = status.add_header(&mut trailers);
        Frame::trailers(trailers)
    }

    /// Whether nothing is left of the frame that came last.
    fn is_sent(&self) -> bool {
        self.rest.is_none() && self.unsent.as_ref().is_none_or(Unsent::is_empty)
    }

    /// Whether the time of the call is over.
    fn is_over(&mut self, context: &mut Context<'_>) -> bool {
        let Some(deadline) = self.deadline else { return false };
        let over = self.over.get_or_insert_with(|| Box::pin(sleep_until(deadline.into())));
        over.as_mut().poll(context).is_ready()
    }
}

impl Rest {
    fn none() -> Self {
        Self::OfStream(Bytes::new())
    }

    fn is_none(&self) -> bool {
        matches!(self, Self::OfStream(rest) if rest.is_empty())
    }
}

impl http_body::Body for ResponseBody {
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
        if let Some(frame) = this.go_on() {
            return Poll::Ready(Some(Ok(frame)));
        }
        let body = Pin::new(&mut this.body);
        let Ok(frame) = catch_unwind(AssertUnwindSafe(|| body.poll_frame(context))) else {
            return Poll::Ready(Some(Ok(this.end(&status::internal()))));
        };
        match frame {
            Poll::Ready(Some(Ok(frame))) => {
                this.see(&frame);
                Poll::Ready(Some(Ok(this.begin(frame))))
            }
            Poll::Ready(end) => Poll::Ready(end),
            Poll::Pending if this.is_over(context) => {
                Poll::Ready(Some(Ok(this.end(&status::deadline_exceeded()))))
            }
            Poll::Pending => Poll::Pending,
        }
    }

    fn is_end_stream(&self) -> bool {
        self.is_sent() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        match self.is_sent() {
            true => self.body.size_hint(),
            false => SizeHint::default(),
        }
    }
}
