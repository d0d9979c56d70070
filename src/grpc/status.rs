//! Conversion of errors to gRPC statuses: the code of each reason, and the error details.

use std::collections::HashMap;

use prost::Message;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, FieldViolation, StatusExt};

use crate::{
    api::{Error, Reason},
    limits::MAX_VIOLATIONS,
};

/// Domain of the reasons in google.rpc.ErrorInfo.
const DOMAIN: &str = "event_aggregator.v1";

/// The status code of a reason.
pub(super) fn code(reason: Reason) -> Code {
    match reason {
        Reason::InvalidRequest
        | Reason::RequestTooLarge
        | Reason::InvalidPageToken
        | Reason::InvalidCursor
        | Reason::InvalidJson
        | Reason::UnsupportedMediaType => Code::InvalidArgument,
        Reason::StoreRestored => Code::FailedPrecondition,
        Reason::Unauthenticated => Code::Unauthenticated,
        Reason::PermissionDenied | Reason::Misaddressed => Code::PermissionDenied,
        Reason::RateExceeded
        | Reason::QueueFull
        | Reason::TooManyCalls
        | Reason::TooManySubscribers
        | Reason::TooManyAnswers
        | Reason::SubscriberTooSlow => Code::ResourceExhausted,
        Reason::AnswerNotTaken
        | Reason::RequestTooSlow
        | Reason::DeadlineExceeded
        | Reason::StoreTimeout => Code::DeadlineExceeded,
        Reason::StreamIdle | Reason::StoreUnavailable | Reason::ShuttingDown => Code::Unavailable,
        Reason::NotFound => Code::NotFound,
        Reason::MethodNotAllowed => Code::Unimplemented,
        Reason::Internal => Code::Internal,
    }
}

impl From<Error> for Status {
    fn from(error: Error) -> Self {
        let (code, details) = (code(error.reason), details(&error));
        Self::with_error_details(code, error.message, details)
    }
}

/// The error as a `google.rpc.Status` message.
pub(super) fn status_message(error: Error) -> tonic_types::Status {
    let status = Status::from(error);
    // The details of a status are an encoded google.rpc.Status.
    tonic_types::Status::decode(status.details()).unwrap_or_else(|_| tonic_types::Status {
        code: status.code().into(),
        message: status.message().to_owned(),
        details: Vec::new(),
    })
}

fn details(error: &Error) -> ErrorDetails {
    let mut details = ErrorDetails::with_error_info(error.reason.name(), DOMAIN, HashMap::new());
    if let Some(delay) = error.retry_after {
        details.set_retry_info(Some(delay));
    }
    if !error.violations.is_empty() {
        let violations = error.violations.iter().take(MAX_VIOLATIONS);
        let violations = violations
            .map(|violation| FieldViolation::new(&violation.field, &violation.description));
        details.set_bad_request(violations.collect::<Vec<_>>());
    }
    details
}
