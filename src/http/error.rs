//! Conversion of errors to HTTP responses: the status code of each reason, and the JSON body.

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
    api::{Error, Reason},
    limits::MAX_VIOLATIONS,
};

/// The status code of a reason.
pub(super) fn status(reason: Reason) -> StatusCode {
    match reason {
        Reason::InvalidJson => StatusCode::BAD_REQUEST,
        Reason::InvalidRequest | Reason::InvalidPageToken | Reason::InvalidCursor => {
            StatusCode::UNPROCESSABLE_ENTITY
        }
        Reason::RequestTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
        Reason::UnsupportedMediaType => StatusCode::UNSUPPORTED_MEDIA_TYPE,
        Reason::Unauthenticated => StatusCode::UNAUTHORIZED,
        Reason::PermissionDenied | Reason::Misaddressed => StatusCode::FORBIDDEN,
        Reason::NotFound => StatusCode::NOT_FOUND,
        Reason::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
        Reason::StoreRestored => StatusCode::GONE,
        Reason::RateExceeded
        | Reason::QueueFull
        | Reason::TooManyCalls
        | Reason::TooManySubscribers
        | Reason::TooManyAnswers
        | Reason::SubscriberTooSlow => StatusCode::TOO_MANY_REQUESTS,
        Reason::RequestTooSlow | Reason::AnswerNotTaken | Reason::StreamIdle => {
            StatusCode::REQUEST_TIMEOUT
        }
        Reason::DeadlineExceeded | Reason::StoreTimeout => StatusCode::GATEWAY_TIMEOUT,
        Reason::StoreUnavailable | Reason::ShuttingDown => StatusCode::SERVICE_UNAVAILABLE,
        Reason::Internal => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

impl IntoResponse for Error {
    fn into_response(self) -> Response {
        let Self { reason, message, violations, retry_after } = self;
        let mut body = json!({ "error": message, "reason": reason.name() });
        if !violations.is_empty() {
            let detail = violations.iter().take(MAX_VIOLATIONS).map(
                |violation| json!({ "field": violation.field, "message": violation.description }),
            );
            body["detail"] = detail.collect();
        }
        let mut response = (status(reason), Json(body)).into_response();
        if let Some(delay) = retry_after {
            let seconds = delay.as_secs() + u64::from(delay.subsec_nanos() > 0);
            response.headers_mut().insert(RETRY_AFTER, seconds.into());
        }
        if reason == Reason::Unauthenticated {
            let bearer = HeaderValue::from_static("Bearer");
            response.headers_mut().insert(WWW_AUTHENTICATE, bearer);
        }
        response
    }
}
