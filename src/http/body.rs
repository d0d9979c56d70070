//! Reads the whole body of a request.

use axum::body::{Body, Bytes};
use http_body_util::{BodyExt, LengthLimitError, Limited};

use crate::{
    api::{Error, Reason},
    limits::MAX_REQUEST_BYTES,
};

/// Reads a body.
pub(super) async fn read(body: Body) -> Result<Bytes, Error> {
    let read = Limited::new(body, MAX_REQUEST_BYTES).collect().await;
    read.map(|body| body.to_bytes()).map_err(|error| {
        if error.is::<LengthLimitError>() {
            return Error::body_too_large();
        }
        // An error of the edge, for example a timeout.
        let inner = error.downcast::<axum::Error>().ok().map(|error| error.into_inner());
        match inner.and_then(|error| error.downcast::<Error>().ok()) {
            Some(error) => *error,
            None => Error::new(Reason::InvalidJson, "the body is incomplete"),
        }
    })
}
