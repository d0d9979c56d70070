//! Splits response bodies into chunks, so that connections buffer little. A large response holds a
//! permit, and is dropped if the client does not read it in time.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use axum::{
    body::Bytes,
    http::{Extensions, response},
};
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt;

use super::protocol::BoxError;
use crate::{
    access::CallerKey,
    admission::{Admission, BufferedResponse, Expired, Reservation, Unsent, chunk},
    api::Error,
    limits::{RESPONSE_CHUNK_BYTES, SUBSCRIPTION_CHUNK_BYTES},
};

/// Why a response body ends early.
#[derive(Debug)]
pub(super) enum BodyError {
    /// The call failed.
    Call(Error),
    /// The inner body failed.
    Body(BoxError),
}

/// A body whose large frames are split.
pub(super) struct Chunked<B> {
    rest: Rest,
    body: B,
}

/// The unsent rest of the last frame.
enum Rest {
    /// A whole frame, which was read before the response began.
    First(Frame<Bytes>),
    /// Of a frame of any other response.
    Frame(Bytes),
    /// Of a large response, which has only one frame.
    Response(BufferedResponse),
    /// Of an item of a subscription.
    Item(Unsent),
}

impl<B: Body<Data = Bytes> + Unpin> Chunked<B>
where
    B::Error: Into<BoxError>,
{
    /// Whether a response is a subscription.
    pub(super) fn is_subscription(head: &response::Parts) -> bool {
        head.extensions.get::<Unsent>().is_some()
    }

    /// The body of a streaming response. For a subscription, `head` has the buffer of its items.
    pub(super) fn stream(head: &mut response::Parts, body: B) -> Self {
        let rest = match head.extensions.remove() {
            Some(unsent) => Rest::Item(unsent),
            None => Rest::Frame(Bytes::new()),
        };
        Self { rest, body }
    }

    /// The body of any other response. Reads its first frame, and fails if the frame is large and
    /// there are too many large responses. `on_expiry` is called if the client does not read it in
    /// time.
    pub(super) async fn response(
        head: &mut response::Parts,
        mut body: B,
        admission: &Admission,
        caller: &CallerKey,
        on_expiry: impl FnOnce() + Send + 'static,
    ) -> Result<Self, Error> {
        let reserved = reserved(&mut head.extensions);
        let is_small = |size| size <= RESPONSE_CHUNK_BYTES as u64;
        if body.size_hint().exact().is_some_and(is_small) {
            return Ok(Self { rest: Rest::Frame(Bytes::new()), body });
        }
        let first = match body.frame().await {
            None => return Ok(Self { rest: Rest::Frame(Bytes::new()), body }),
            Some(first) => first.map_err(|_| Error::internal())?,
        };
        let rest = match first.into_data() {
            Ok(data) if data.len() > RESPONSE_CHUNK_BYTES => {
                let permit = admission.response(caller, data.len(), reserved);
                let permit = permit.map_err(Error::too_many_answers)?;
                Rest::Response(BufferedResponse::new(data, permit, on_expiry))
            }
            Ok(data) => Rest::First(Frame::data(data)),
            Err(trailers) => Rest::First(trailers),
        };
        Ok(Self { rest, body })
    }

    /// The next chunk of the last frame.
    fn next_chunk(&mut self) -> Option<Result<Frame<Bytes>, BodyError>> {
        let chunk = match &mut self.rest {
            Rest::First(_) => {
                let rest = std::mem::replace(&mut self.rest, Rest::Frame(Bytes::new()));
                let Rest::First(first) = rest else { return None };
                return Some(Ok(first));
            }
            Rest::Frame(data) => Ok(chunk(data)),
            Rest::Response(response) => {
                response.next().map_err(|Expired| Error::answer_not_taken())
            }
            Rest::Item(unsent) => unsent.next().map_err(|Expired| Error::subscriber_too_slow()),
        };
        chunk.map(|chunk| chunk.map(Frame::data)).map_err(BodyError::Call).transpose()
    }

    /// Stores a large frame for splitting. Returns any other frame.
    fn split(&mut self, frame: Frame<Bytes>) -> Option<Frame<Bytes>> {
        let limit = match self.rest {
            Rest::Item(_) => SUBSCRIPTION_CHUNK_BYTES,
            _ => RESPONSE_CHUNK_BYTES,
        };
        let data = match frame.into_data() {
            Ok(data) if data.len() > limit => data,
            Ok(data) => return Some(Frame::data(data)),
            Err(trailers) => return Some(trailers),
        };
        match &self.rest {
            Rest::Item(unsent) => unsent.put(data),
            _ => self.rest = Rest::Frame(data),
        }
        None
    }

    fn is_sent(&self) -> bool {
        match &self.rest {
            Rest::First(_) => false,
            Rest::Frame(data) => data.is_empty(),
            Rest::Response(response) => response.left() == 0,
            Rest::Item(unsent) => unsent.is_empty(),
        }
    }
}

impl<B: Body<Data = Bytes> + Unpin> Body for Chunked<B>
where
    B::Error: Into<BoxError>,
{
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        loop {
            if let Some(chunk) = self.next_chunk() {
                return Poll::Ready(Some(chunk));
            }
            let frame = match ready!(Pin::new(&mut self.body).poll_frame(context)) {
                None => return Poll::Ready(None),
                Some(frame) => frame.map_err(|error| BodyError::Body(error.into())),
            };
            match frame.map(|frame| self.split(frame)) {
                Ok(None) => (),
                Ok(Some(frame)) => return Poll::Ready(Some(Ok(frame))),
                Err(error) => return Poll::Ready(Some(Err(error))),
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.is_sent() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        match &self.rest {
            // Exact without more frames. gRPC-Web sends the trailers of gRPC in the body.
            Rest::Response(response) if self.body.is_end_stream() => {
                SizeHint::with_exact(response.left() as u64)
            }
            _ if self.is_sent() => self.body.size_hint(),
            _ => SizeHint::default(),
        }
    }
}

/// The memory that the handler reserved for the response.
fn reserved(extensions: &mut Extensions) -> Option<Reservation> {
    extensions.remove()
}
