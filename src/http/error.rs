//! Every error that an HTTP call can answer. Messages say what to do; causes go to the log.

use std::time::Duration;

use axum::{
    Json,
    http::{
        HeaderValue, StatusCode,
        header::{RETRY_AFTER, WWW_AUTHENTICATE},
    },
    response::{IntoResponse, Response},
};
use serde_json::json;

use crate::{
    access,
    event::Violation,
    feed, ingest,
    limits::{MAX_REQUEST_BYTES, MAX_REQUEST_EVENTS, MAX_VIOLATIONS, RETRY_DELAY},
    listing,
    load::Full,
    page, store, token,
};

/// An error, on its way to the caller.
#[derive(Debug)]
pub(super) struct Error {
    status: StatusCode,
    message: String,
    violations: Vec<Violation>,
    /// When to try again.
    wait: Duration,
}

impl Error {
    fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self { status, message: message.into(), violations: Vec::new(), wait: RETRY_DELAY }
    }

    /// 422, naming the fields at fault.
    pub(super) fn invalid(violations: Vec<Violation>) -> Self {
        let mut message = match violations.first() {
            Some(violation) => violation.to_string(),
            None => "the request is invalid".to_owned(),
        };
        if violations.len() > 1 {
            message.push_str(&format!(" (and {} more)", violations.len() - 1));
        }
        Self { violations, ..Self::new(StatusCode::UNPROCESSABLE_ENTITY, message) }
    }

    /// 400.
    pub(super) fn not_json(reason: impl std::fmt::Display) -> Self {
        Self::new(StatusCode::BAD_REQUEST, format!("the body is not JSON: {reason}"))
    }

    /// 404.
    pub(super) fn not_found(message: &str) -> Self {
        Self::new(StatusCode::NOT_FOUND, message)
    }

    /// 405.
    pub(super) fn method_not_allowed() -> Self {
        Self::new(StatusCode::METHOD_NOT_ALLOWED, "use POST for /publish, and GET for the rest")
    }

    /// 413.
    pub(super) fn too_large() -> Self {
        let bounds = format!("at most {MAX_REQUEST_EVENTS} events and {MAX_REQUEST_BYTES} bytes");
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, format!("{bounds} are taken at once"))
    }

    /// 415.
    pub(super) fn not_a_json_type() -> Self {
        Self::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "send JSON with -H 'content-type: application/json', or lines of it with \
             application/x-ndjson, or CloudEvents with application/cloudevents+json",
        )
    }

    /// 503.
    pub(super) fn unavailable() -> Self {
        let message = "the store does not answer, or the service stops; send again later, with the \
                       same event ids";
        Self::new(StatusCode::SERVICE_UNAVAILABLE, message)
    }

    /// 500.
    pub(super) fn internal() -> Self {
        let message = "the service has a fault; its log says more";
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, message)
    }

    /// 408.
    pub(super) fn too_slow() -> Self {
        let message = "the body took too long to arrive; nothing of it was done; send less at once";
        Self::new(StatusCode::REQUEST_TIMEOUT, message)
    }

    /// 429 because too many large answers wait to be taken.
    pub(super) fn too_many_answers(full: Full) -> Self {
        Self::new(StatusCode::TOO_MANY_REQUESTS, full.answers())
    }

    /// 429 because too many calls are in progress.
    pub(super) fn too_many_calls(full: Full) -> Self {
        Self::new(StatusCode::TOO_MANY_REQUESTS, full.calls())
    }

    /// 429 because there are too many subscriptions to the feed.
    fn too_many_subscribers(full: Full) -> Self {
        Self::new(StatusCode::TOO_MANY_REQUESTS, full.subscriptions())
    }

    /// 504 because the time is over that any call has.
    pub(super) fn deadline_exceeded() -> Self {
        let message = "the time for this call is over; events that it sent may or may not be \
                       stored; send them again with the same event ids";
        Self::new(StatusCode::GATEWAY_TIMEOUT, message)
    }

    /// Why a caller is refused: 401, 403 or 429.
    pub(super) fn access(error: access::Error) -> Self {
        let message = error.to_string();
        match error {
            access::Error::Unauthenticated => Self::new(StatusCode::UNAUTHORIZED, message),
            access::Error::Denied { .. } | access::Error::Misaddressed => {
                Self::new(StatusCode::FORBIDDEN, message)
            }
            access::Error::TooFast { wait } => {
                Self { wait, ..Self::new(StatusCode::TOO_MANY_REQUESTS, message) }
            }
        }
    }

    /// Why a publish failed.
    pub(super) fn ingest(error: ingest::Error) -> Self {
        match error {
            ingest::Error::QueueFull(full) => {
                Self::new(StatusCode::TOO_MANY_REQUESTS, full.queue())
            }
            ingest::Error::Unavailable(_) | ingest::Error::Stopping => Self::unavailable(),
        }
    }

    /// Why there is no page of a listing: 410, 422, or as [`Self::store`].
    pub(super) fn listing(error: listing::Error) -> Self {
        match error {
            listing::Error::Token(page::Error::Token(token::Error::Restored)) => {
                Self::restored(format!("the page token {}", token::Error::Restored))
            }
            listing::Error::Token(error) => {
                Self::invalid(vec![Violation::new("page_token", error.to_string())])
            }
            listing::Error::TooManyAnswers(full) => Self::too_many_answers(full),
            listing::Error::Store(error) => Self::store(error),
        }
    }

    /// Why a cursor cannot be read: 410 or 422.
    pub(super) fn cursor(error: token::Error) -> Self {
        match error {
            token::Error::Restored => Self::feed(feed::Error::Restored),
            error => Self::invalid(vec![Violation::new("cursor", error.to_string())]),
        }
    }

    /// Why a subscription does not begin: 410, 429, or as [`Self::store`].
    pub(super) fn feed(error: feed::Error) -> Self {
        match error {
            feed::Error::Restored => Self::restored(error.to_string()),
            feed::Error::TooMany(full) => Self::too_many_subscribers(full),
            feed::Error::Store(error) => Self::store(error),
        }
    }

    /// 410: to try again with the same token is of no use.
    fn restored(message: String) -> Self {
        Self::new(StatusCode::GONE, message)
    }

    /// Why a read failed.
    pub(super) fn store(error: store::Error) -> Self {
        if !error.is_logged() {
            tracing::warn!(error = store::chain(&error), "read failed");
        }
        match error {
            store::Error::Unavailable(_)
            | store::Error::Unknown(_)
            | store::Error::Fault(_)
            | store::Error::WrongStore(_) => Self::unavailable(),
            store::Error::Timeout(_) => Self::new(
                StatusCode::GATEWAY_TIMEOUT,
                "this takes the store too long; ask for less, or narrow it by topic or by time",
            ),
            store::Error::Refused(_) | store::Error::TooMuch { .. } => Self::internal(),
        }
    }
}

impl IntoResponse for Error {
    fn into_response(self) -> Response {
        let mut body = json!({ "error": self.message });
        if !self.violations.is_empty() {
            let detail = self.violations.iter().take(MAX_VIOLATIONS).map(
                |violation| json!({ "field": violation.field, "message": violation.description }),
            );
            body["detail"] = detail.collect();
        }
        let mut response = (self.status, Json(body)).into_response();
        let again = [StatusCode::TOO_MANY_REQUESTS, StatusCode::SERVICE_UNAVAILABLE];
        if again.contains(&self.status) {
            let seconds = self.wait.as_secs() + u64::from(self.wait.subsec_nanos() > 0);
            response.headers_mut().insert(RETRY_AFTER, seconds.into());
        }
        if self.status == StatusCode::UNAUTHORIZED {
            let bearer = HeaderValue::from_static("Bearer");
            response.headers_mut().insert(WWW_AUTHENTICATE, bearer);
        }
        response
    }
}
