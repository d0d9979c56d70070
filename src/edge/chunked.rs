//! Response bodies in chunks, so that little of a response waits inside of a connection. A large response
//! holds a permit and is dropped if the client does not read it in time.

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
    limits::{SMALL_ANSWER_BYTES, SUBSCRIPTION_PORTION_BYTES},
};

/// Why a response body breaks off.
#[derive(Debug)]
pub(super) enum BodyError {
    /// The call failed.
    Call(Error),
    /// The body of the handler failed.
    Body(BoxError),
}

/// A body whose large frames are split.
pub(super) struct Chunked<B> {
    begun: Begun,
    body: B,
}

/// What is left of the frame that came last.
enum Begun {
    /// One that was read before the head of the response was sent.
    First(Frame<Bytes>),
    /// A part of one frame of several.
    Frame(Bytes),
    /// A part of a large response, which is its only frame.
    Response(BufferedResponse),
    /// A part of an item of a subscription.
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

    /// The body of a response that is a stream. Its head says where the items of a subscription wait.
    pub(super) fn stream(head: &mut response::Parts, body: B) -> Self {
        let begun = match head.extensions.remove() {
            Some(unsent) => Begun::Item(unsent),
            None => Begun::Frame(Bytes::new()),
        };
        Self { begun, body }
    }

    /// The body of any other response. Reads its first frame, and fails if that is large and there are too
    /// many large responses. `on_expiry` is called if the client does not read it in time.
    pub(super) async fn response(
        head: &mut response::Parts,
        mut body: B,
        admission: &Admission,
        caller: &CallerKey,
        on_expiry: impl FnOnce() + Send + 'static,
    ) -> Result<Self, Error> {
        let reserved = reserved(&mut head.extensions);
        let is_small = |size| size <= SMALL_ANSWER_BYTES as u64;
        if body.size_hint().exact().is_some_and(is_small) {
            return Ok(Self { begun: Begun::Frame(Bytes::new()), body });
        }
        let first = match body.frame().await {
            None => return Ok(Self { begun: Begun::Frame(Bytes::new()), body }),
            Some(first) => first.map_err(|_| Error::internal())?,
        };
        let begun = match first.into_data() {
            Ok(data) if data.len() > SMALL_ANSWER_BYTES => {
                let permit = admission.response(caller, data.len(), reserved);
                let permit = permit.map_err(Error::too_many_answers)?;
                Begun::Response(BufferedResponse::new(data, permit, on_expiry))
            }
            Ok(data) => Begun::First(Frame::data(data)),
            Err(trailers) => Begun::First(trailers),
        };
        Ok(Self { begun, body })
    }

    /// The next chunk of the frame that came last.
    fn next_chunk(&mut self) -> Option<Result<Frame<Bytes>, BodyError>> {
        let chunk = match &mut self.begun {
            Begun::First(_) => {
                let begun = std::mem::replace(&mut self.begun, Begun::Frame(Bytes::new()));
                let Begun::First(first) = begun else { return None };
                return Some(Ok(first));
            }
            Begun::Frame(rest) => Ok(chunk(rest)),
            Begun::Response(response) => {
                response.next().map_err(|Expired| Error::answer_not_taken())
            }
            Begun::Item(unsent) => unsent.next().map_err(|Expired| Error::subscriber_too_slow()),
        };
        chunk.map(|chunk| chunk.map(Frame::data)).map_err(BodyError::Call).transpose()
    }

    /// Splits a frame that is large. Gives back one that is not.
    fn begin(&mut self, frame: Frame<Bytes>) -> Option<Frame<Bytes>> {
        let limit = match self.begun {
            Begun::Item(_) => SUBSCRIPTION_PORTION_BYTES,
            _ => SMALL_ANSWER_BYTES,
        };
        let data = match frame.into_data() {
            Ok(data) if data.len() > limit => data,
            Ok(data) => return Some(Frame::data(data)),
            Err(trailers) => return Some(trailers),
        };
        match &self.begun {
            Begun::Item(unsent) => unsent.put(data),
            _ => self.begun = Begun::Frame(data),
        }
        None
    }

    fn is_sent(&self) -> bool {
        match &self.begun {
            Begun::First(_) => false,
            Begun::Frame(rest) => rest.is_empty(),
            Begun::Response(response) => response.left() == 0,
            Begun::Item(unsent) => unsent.is_empty(),
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
            match frame.map(|frame| self.begin(frame)) {
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
        match &self.begun {
            // Its only frame.
            Begun::Response(response) => SizeHint::with_exact(response.left() as u64),
            _ if self.is_sent() => self.body.size_hint(),
            _ => SizeHint::default(),
        }
    }
}

/// The permit that a listing reserved for its response.
fn reserved(extensions: &mut Extensions) -> Option<Reservation> {
    extensions.remove()
}
