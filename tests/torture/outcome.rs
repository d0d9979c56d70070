//! The outcome of an attempt, from its response. In doubt it is unknown.

use std::{error::Error, io};

use event_aggregator::proto::v1::{PublishResult, PublishStatus};
use tonic::{Code, Status};
use tonic_types::StatusExt;

use crate::history::Outcome;

/// The outcome of events whose call failed.
pub fn of_status(status: &Status) -> Outcome {
    match status.code() {
        code @ (Code::InvalidArgument | Code::ResourceExhausted) => Outcome::Failed(code),
        code if was_refused(status) || is_stopping(status) => Outcome::Failed(code),
        code => Outcome::Unknown(code),
    }
}

/// The outcome of requests without a response when their stream ends. Requests before a failed one
/// may have been stored, unless the service reports that it accepted no more.
pub fn of_end(status: &Status) -> Outcome {
    match of_status(status) {
        Outcome::Failed(code) if !is_stopping(status) => Outcome::Unknown(code),
        outcome => outcome,
    }
}

/// Whether the service reports a shutdown: it has responded to all requests that it accepted.
fn is_stopping(status: &Status) -> bool {
    status.get_details_error_info().is_some_and(|info| info.reason == "SHUTTING_DOWN")
}

/// Whether the connection was refused, so that nothing was sent.
fn was_refused(status: &Status) -> bool {
    let mut cause = status.source();
    while let Some(error) = cause {
        if error.downcast_ref::<io::Error>().is_some_and(is_refusal) {
            return true;
        }
        cause = error.source();
    }
    false
}

pub fn is_refusal(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::ConnectionRefused
}

/// The outcome of one event, from its result.
pub fn of_result(result: &PublishResult) -> Outcome {
    match result.status() {
        PublishStatus::Accepted => Outcome::Accepted,
        PublishStatus::Duplicate => Outcome::Duplicate,
        PublishStatus::Conflict => Outcome::Conflict,
        PublishStatus::Rejected => {
            match result.error.as_ref().map_or(Code::Unknown, |error| Code::from(error.code)) {
                Code::InvalidArgument => Outcome::Failed(Code::InvalidArgument),
                code => Outcome::Unknown(code),
            }
        }
        PublishStatus::Unspecified => Outcome::Unknown(Code::Unknown),
    }
}

/// The outcome for a `status` of an HTTP response.
pub fn of_word(word: &str) -> Outcome {
    match word {
        "accepted" => Outcome::Accepted,
        "duplicate" => Outcome::Duplicate,
        "conflict" => Outcome::Conflict,
        "rejected" => Outcome::Failed(Code::InvalidArgument),
        _ => Outcome::Unknown(Code::Unknown),
    }
}

/// The outcome of all events of a request, from its HTTP status.
pub fn of_http(status: u16) -> Outcome {
    match status {
        400 | 413 | 415 | 422 => Outcome::Failed(Code::InvalidArgument),
        429 => Outcome::Failed(Code::ResourceExhausted),
        503 => Outcome::Unknown(Code::Unavailable),
        504 => Outcome::Unknown(Code::DeadlineExceeded),
        _ => Outcome::Unknown(Code::Internal),
    }
}

/// Whether the event does not have to be sent again.
pub fn is_final(outcome: Outcome, valid: bool) -> bool {
    match outcome {
        Outcome::Accepted | Outcome::Duplicate | Outcome::Conflict => true,
        Outcome::Failed(Code::InvalidArgument) => !valid,
        Outcome::Failed(_) | Outcome::Unknown(_) => false,
    }
}
