//! The interface between the edge and a protocol.

use std::{error::Error as StdError, time::Duration};

use axum::{
    body::Bytes,
    http::{HeaderMap, Response, response},
};
use http_body::Body;

use crate::api::Error;

/// A protocol, such as gRPC or HTTP.
pub(crate) trait Protocol: Send + 'static {
    /// The type of response bodies.
    type Body;
    /// The record of a call.
    type Record: Record;

    /// Whether bodies are sequences of length-prefixed messages.
    const IS_FRAMED: bool;

    /// Converts a response body.
    fn body<B>(body: B) -> Self::Body
    where
        B: Body<Data = Bytes, Error = BoxError> + Send + 'static;

    /// The response to a call that fails before its response begins.
    fn refuse(error: Error) -> Response<Self::Body>;

    /// The trailers that end a response body with an error. None if the body must be aborted.
    fn trailers(error: &Error) -> Option<HeaderMap>;

    /// Converts an error of a request body to the type that the protocol's handlers expect.
    fn body_error(error: Error) -> BoxError;

    /// The timeout that the client requests.
    fn timeout(headers: &HeaderMap) -> Option<Duration>;
}

/// Any error.
pub(crate) type BoxError = Box<dyn StdError + Send + Sync>;

/// The record of a call, for metrics and traces. Dropping it completes it.
pub(crate) trait Record: Send + 'static {
    /// Counts messages that have begun to arrive.
    fn received(&mut self, messages: u64);

    /// Counts messages that have begun to be sent.
    fn sent(&mut self, messages: u64);

    /// Records the head of the response.
    fn head(&mut self, head: &response::Parts);

    /// Records the trailers of the response.
    fn trailers(&mut self, trailers: &HeaderMap);

    /// Records an error of the call.
    fn error(&mut self, error: &Error);
}
