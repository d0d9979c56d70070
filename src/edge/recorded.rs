//! Records the messages in response bodies, and how calls end.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    task::{Context, Poll},
};

use axum::body::Bytes;
use http_body::{Body, Frame, SizeHint};

use super::{
    Protocol, Record, chunked::BodyError, framing::Framing, in_progress::InProgress,
    protocol::BoxError,
};
use crate::api::Error;

/// A response body. If it fails or panics, it ends with an error of the protocol.
pub(super) struct Recorded<P: Protocol, B> {
    /// None once it has ended.
    body: Option<B>,
    framing: Framing,
    call: InProgress<P::Record>,
}

impl<P: Protocol, B> Recorded<P, B> {
    pub(super) fn new(body: B, call: InProgress<P::Record>) -> Self {
        Self { body: Some(body), framing: Framing::default(), call }
    }

    /// Records a frame.
    fn record(&mut self, frame: &Frame<Bytes>) {
        if let Some(data) = frame.data_ref()
            && P::IS_FRAMED
        {
            let sent = self.framing.scan(data);
            if sent > 0 {
                self.call.record(|record| record.sent(sent));
            }
        }
        if let Some(trailers) = frame.trailers_ref() {
            self.call.record(|record| record.trailers(trailers));
            self.call.end();
        }
    }

    /// Ends the body and the call with an error.
    fn fail(&mut self, error: Error) -> Result<Frame<Bytes>, BoxError> {
        self.body = None;
        self.call.fail(&error);
        match P::trailers(&error) {
            Some(trailers) => Ok(Frame::trailers(trailers)),
            None => Err(error.into()),
        }
    }
}

impl<P: Protocol, B> Unpin for Recorded<P, B> {}

impl<P: Protocol, B: Body<Data = Bytes, Error = BodyError> + Unpin> Body for Recorded<P, B> {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let Some(body) = &mut self.body else { return Poll::Ready(None) };
        let polled = catch_unwind(AssertUnwindSafe(|| Pin::new(body).poll_frame(context)));
        let Ok(polled) = polled else { return Poll::Ready(Some(self.fail(Error::internal()))) };
        polled.map(|frame| match frame? {
            Ok(frame) => {
                self.record(&frame);
                Some(Ok(frame))
            }
            Err(BodyError::Call(error)) => Some(self.fail(error)),
            Err(BodyError::Body(error)) => Some(Err(error)),
        })
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map_or(SizeHint::with_exact(0), Body::size_hint)
    }
}
