//! What the answer to an attempt says about it. In doubt it says nothing.

use std::{error::Error, io};

use event_aggregator::proto::v1::{PublishResult, PublishStatus};
use tonic::{Code, Status};
use tonic_types::StatusExt;

use crate::history::Outcome;

/// What a call that failed says about its events.
pub fn of_status(status: &Status) -> Outcome {
    match status.code() {
        code @ (Code::InvalidArgument | Code::ResourceExhausted) => Outcome::Failed(code),
        code if was_refused(status) || is_stopping(status) => Outcome::Failed(code),
        code => Outcome::Unknown(code),
    }
}

/// What the end of a stream says about requests that were not answered on it. Whatever it is about,
/// requests before that may have been stored, unless the service says that it took no more in.
pub fn of_end(status: &Status) -> Outcome {
    match of_status(status) {
        Outcome::Failed(code) if !is_stopping(status) => Outcome::Unknown(code),
        outcome => outcome,
    }
}

/// Whether the service says that it stops: it has answered what it took in, and took in nothing
/// else.
fn is_stopping(status: &Status) -> bool {
    status.get_details_error_info().is_some_and(|info| info.reason == "SHUTTING_DOWN")
}

/// Whether nobody listened, so that nothing was sent.
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

/// What the result of one event says.
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

/// What the word in an HTTP answer says.
pub fn of_word(word: &str) -> Outcome {
    match word {
        "accepted" => Outcome::Accepted,
        "duplicate" => Outcome::Duplicate,
        "conflict" => Outcome::Conflict,
        "rejected" => Outcome::Failed(Code::InvalidArgument),
        _ => Outcome::Unknown(Code::Unknown),
    }
}

/// What an HTTP status says about all events of a request.
pub fn of_http(status: u16) -> Outcome {
    match status {
        400 | 413 | 415 | 422 => Outcome::Failed(Code::InvalidArgument),
        429 => Outcome::Failed(Code::ResourceExhausted),
        503 => Outcome::Unknown(Code::Unavailable),
        504 => Outcome::Unknown(Code::DeadlineExceeded),
        _ => Outcome::Unknown(Code::Internal),
    }
}

/// Whether the event need not be sent again.
pub fn is_final(outcome: Outcome, valid: bool) -> bool {
    match outcome {
        Outcome::Accepted | Outcome::Duplicate | Outcome::Conflict => true,
        Outcome::Failed(Code::InvalidArgument) => !valid,
        Outcome::Failed(_) | Outcome::Unknown(_) => false,
    }
}
