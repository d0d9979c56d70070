//! What is done around every HTTP call: it is bounded in time and in number, a large body is read once
//! there is room for it, and a panic is answered like any other fault.

use std::panic::AssertUnwindSafe;

use axum::{
    body::Body,
    extract::{Request, State},
    middleware::Next,
    response::{IntoResponse, Response},
};
use futures_util::FutureExt;
use http_body::Body as _;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use tokio::time::timeout;

use super::{access::Authentication, body::ResponseBody, error::Error};
use crate::{
    access::CallerKey,
    limits::{
        CALL_TIMEOUT, MAX_REQUEST_BYTES, READING_STALL_TIMEOUT, READING_TIMEOUT,
        SMALL_REQUEST_BYTES,
    },
    load::Kind,
    service::Service,
};

pub(super) async fn guarded(
    State(service): State<Service>,
    request: Request,
    next: Next,
) -> Response {
    let (mut head, body) = request.into_parts();
    let authentication = Authentication::of(&mut head, &service);
    let permit = match service.load.call(authentication.kind(), authentication.key()) {
        Ok(permit) => permit,
        Err(full) => return Error::too_many_calls(full).into_response(),
    };
    head.extensions.insert(authentication.clone());
    let request = Request::from_parts(head, body);
    let answer = AssertUnwindSafe(answer(&service, &authentication, request, next)).catch_unwind();
    let response = match timeout(CALL_TIMEOUT, answer).await {
        Ok(Ok(Ok(response))) => response,
        Ok(Ok(Err(error))) => error.into_response(),
        Ok(Err(_)) => Error::internal().into_response(),
        Err(_) => Error::deadline_exceeded().into_response(),
    };
    let (mut head, body) = response.into_parts();
    let body = match head.extensions.remove() {
        Some(unsent) => Ok(ResponseBody::feed(body, permit, unsent)),
        None => {
            let (caller, reserved) = (authentication.key(), head.extensions.remove());
            ResponseBody::answer(body, permit, &service.load, caller, reserved).await
        }
    };
    match body {
        Ok(body) => Response::from_parts(head, Body::new(body)),
        Err(error) => error.into_response(),
    }
}

async fn answer(
    service: &Service,
    authentication: &Authentication,
    request: Request,
    next: Next,
) -> Result<Response, Error> {
    // A body that does not say how large it is may be as large as any.
    let size = request.body().size_hint().exact();
    let size = size.map_or(MAX_REQUEST_BYTES, |size| usize::try_from(size).unwrap_or(usize::MAX));
    if size <= SMALL_REQUEST_BYTES {
        return Ok(next.run(request).await);
    }
    // No permit without authentication.
    authentication.check()?;
    let (head, body) = request.into_parts();
    let permit = service.load.reading(authentication.key(), size.min(MAX_REQUEST_BYTES)).await;
    let body = timeout(READING_TIMEOUT, read(body)).await.map_err(|_| Error::too_slow())??;
    // What becomes of it is not a matter of reading any more.
    drop(permit);
    Ok(next.run(Request::from_parts(head, Body::from(body))).await)
}

/// Reads a body that goes on arriving.
async fn read(body: Body) -> Result<Vec<u8>, Error> {
    let mut body = Limited::new(body, MAX_REQUEST_BYTES);
    let mut read = Vec::new();
    loop {
        let frame = timeout(READING_STALL_TIMEOUT, body.frame()).await;
        let Some(frame) = frame.map_err(|_| Error::too_slow())? else { return Ok(read) };
        let frame = frame.map_err(|error| match error.is::<LengthLimitError>() {
            true => Error::too_large(),
            false => Error::not_json("it ends too early"),
        })?;
        if let Ok(data) = frame.into_data() {
            read.extend_from_slice(&data);
        }
    }
}

/// What is done around a call that needs no credentials: it counts for its connection only.
pub(super) async fn unauthenticated(
    State(service): State<Service>,
    request: Request,
    next: Next,
) -> Response {
    let caller = CallerKey::connection(request.extensions().get());
    let permit = match service.load.call(Kind::Unauthenticated, &caller) {
        Ok(permit) => permit,
        Err(full) => return Error::too_many_calls(full).into_response(),
    };
    let (head, body) = next.run(request).await.into_parts();
    Response::from_parts(head, Body::new(ResponseBody::small(body, permit)))
}
