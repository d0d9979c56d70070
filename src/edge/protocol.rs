//! What the edge must know of a protocol.

use std::{error::Error as StdError, time::Duration};

use axum::{
    body::Bytes,
    http::{HeaderMap, Response, response},
};
use http_body::Body;

use crate::api::Error;

/// A protocol of calls.
pub trait Protocol: Send + 'static {
    /// The body of its responses.
    type Body;
    /// What is recorded about its calls.
    type Record: Record;

    /// Whether a request body is a sequence of length-prefixed messages. Otherwise it is one whole.
    const IS_FRAMED: bool;

    /// A response body.
    fn body<B>(body: B) -> Self::Body
    where
        B: Body<Data = Bytes, Error = BoxError> + Send + 'static;

    /// The response to a call that fails before there is another one.
    fn refuse(error: Error) -> Response<Self::Body>;

    /// The trailers that end a response body with an error. None breaks it off.
    fn trailers(error: &Error) -> Option<HeaderMap>;

    /// The error of a request body, as the handlers of the protocol expect it.
    fn body_error(error: Error) -> BoxError;

    /// The timeout that a client asks for.
    fn timeout(headers: &HeaderMap) -> Option<Duration>;
}

/// Any error.
pub type BoxError = Box<dyn StdError + Send + Sync>;

/// The record of a call, for metrics and traces. It is complete when it is dropped.
pub trait Record: Send + 'static {
    /// Messages have begun to arrive.
    fn received(&mut self, messages: u64);

    /// Messages have begun to be sent.
    fn sent(&mut self, messages: u64);

    /// The head of the response.
    fn head(&mut self, head: &response::Parts);

    /// The trailers of the response.
    fn trailers(&mut self, trailers: &HeaderMap);

    /// The response ends with an error.
    fn error(&mut self, error: &Error);
}
