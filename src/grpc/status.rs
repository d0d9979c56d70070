//! Every error a caller can get. Messages say what to do; causes go to the log, never to a caller.

use std::collections::HashMap;

use tonic::{Code, Status};
use tonic_types::{ErrorDetails, FieldViolation, StatusExt};

use crate::{
    access,
    event::Violation,
    feed, ingest,
    limits::{MAX_VIOLATIONS, RETRY_DELAY, SUBSCRIBER_STALL_TIMEOUT},
    listing,
    load::Full,
    page, store, token,
};

/// Domain of the reasons in google.rpc.ErrorInfo.
const DOMAIN: &str = "event_aggregator.v1";

/// INVALID_ARGUMENT, naming the fields at fault.
pub(super) fn invalid(violations: &[Violation]) -> Status {
    invalid_because("INVALID_REQUEST", violations)
}

/// INVALID_ARGUMENT for a request that holds too much.
pub(super) fn too_large(violation: Violation) -> Status {
    invalid_because("REQUEST_TOO_LARGE", &[violation])
}

/// INVALID_ARGUMENT for a second message where a call has one.
pub(super) fn more_than_one() -> Status {
    invalid(&[Violation::new("message", "is followed by another; this call takes one")])
}

/// Why there is no page of a listing.
pub(super) fn listing(error: listing::Error) -> Status {
    match error {
        listing::Error::Token(page::Error::Token(token::Error::Restored)) => {
            restored(&format!("the page token {}", token::Error::Restored))
        }
        listing::Error::Token(error) => {
            let violation = Violation::new("page_token", error.to_string());
            invalid_because("INVALID_PAGE_TOKEN", &[violation])
        }
        listing::Error::TooManyAnswers(full) => too_many_answers(full),
        listing::Error::Store(error) => store(error),
    }
}

/// Why a cursor cannot be read.
pub(super) fn cursor(error: token::Error) -> Status {
    if error == token::Error::Restored {
        return feed(feed::Error::Restored);
    }
    let violation = Violation::new("cursor", error.to_string());
    invalid_because("INVALID_CURSOR", &[violation])
}

/// Why a subscription does not begin, or does not go on.
pub(super) fn feed(error: feed::Error) -> Status {
    match error {
        feed::Error::Restored => restored(&error.to_string()),
        feed::Error::TooMany(full) => too_many_subscribers(full),
        feed::Error::Store(error) => store(error),
    }
}

/// FAILED_PRECONDITION: to try again with the same token is of no use.
fn restored(message: &str) -> Status {
    Status::with_error_details(Code::FailedPrecondition, message, info("STORE_RESTORED"))
}

fn invalid_because(reason: &str, violations: &[Violation]) -> Status {
    let mut message = match violations.first() {
        Some(violation) => violation.to_string(),
        None => "the request is invalid".to_owned(),
    };
    if violations.len() > 1 {
        message.push_str(&format!(" (and {} more)", violations.len() - 1));
    }
    let mut details = info(reason);
    details.set_bad_request(
        violations
            .iter()
            .take(MAX_VIOLATIONS)
            .map(|violation| FieldViolation::new(&violation.field, &violation.description))
            .collect::<Vec<_>>(),
    );
    Status::with_error_details(Code::InvalidArgument, message, details)
}

/// UNAVAILABLE because the service stops.
pub(super) fn stopping() -> Status {
    let message =
        "the service is shutting down; connect again and send again what was not answered";
    Status::with_error_details(Code::Unavailable, message, worth_a_retry("SHUTTING_DOWN"))
}

/// UNAVAILABLE because no request came for too long.
pub(super) fn stream_idle() -> Status {
    let message =
        "no request came for 15 minutes; all that came before is answered; open a new stream";
    Status::with_error_details(Code::Unavailable, message, worth_a_retry("STREAM_IDLE"))
}

/// UNAVAILABLE for a subscriber because the service stops.
pub(super) fn feed_stopping() -> Status {
    let message = "the service is shutting down; subscribe again with the last cursor";
    Status::with_error_details(Code::Unavailable, message, worth_a_retry("SHUTTING_DOWN"))
}

/// Why a caller is refused.
pub(super) fn access(error: access::Error) -> Status {
    let message = error.to_string();
    let (code, details) = match error {
        access::Error::Unauthenticated => (Code::Unauthenticated, info("UNAUTHENTICATED")),
        access::Error::Denied { .. } => (Code::PermissionDenied, info("PERMISSION_DENIED")),
        access::Error::Misaddressed => (Code::PermissionDenied, info("MISADDRESSED")),
        access::Error::TooFast { wait } => {
            let mut details = info("RATE_EXCEEDED");
            details.set_retry_info(Some(wait));
            (Code::ResourceExhausted, details)
        }
    };
    Status::with_error_details(code, message, details)
}

/// Why a publish failed.
pub(super) fn ingest(error: ingest::Error) -> Status {
    match error {
        ingest::Error::QueueFull(full) => Status::with_error_details(
            Code::ResourceExhausted,
            full.queue(),
            worth_a_retry("QUEUE_FULL"),
        ),
        ingest::Error::Unavailable(_) => unavailable(
            "the store does not answer; the events may or may not be stored; send them again with \
             the same event ids",
        ),
        ingest::Error::Stopping => stopping(),
    }
}

/// Why a read failed.
pub(super) fn store(error: store::Error) -> Status {
    if !error.is_logged() {
        tracing::warn!(error = store::chain(&error), "read failed");
    }
    match error {
        store::Error::Unavailable(_)
        | store::Error::Unknown(_)
        | store::Error::Fault(_)
        | store::Error::WrongStore(_) => unavailable("the store does not answer; try again later"),
        store::Error::Timeout(_) => Status::with_error_details(
            Code::DeadlineExceeded,
            "this takes the store too long; ask for less, or narrow it by topic or by time",
            info("STORE_TIMEOUT"),
        ),
        store::Error::Refused(_) | store::Error::TooMuch { .. } => internal(),
    }
}

/// RESOURCE_EXHAUSTED because too many calls are in progress.
pub(super) fn too_many_calls(full: Full) -> Status {
    exhausted("TOO_MANY_CALLS", full.calls())
}

/// RESOURCE_EXHAUSTED because there are too many subscriptions to the feed.
fn too_many_subscribers(full: Full) -> Status {
    exhausted("TOO_MANY_SUBSCRIBERS", full.subscriptions())
}

/// RESOURCE_EXHAUSTED because a subscriber did not take what it was sent.
pub(super) fn subscriber_too_slow() -> Status {
    let message = format!(
        "the subscriber did not take events within {} s; read faster, or ask for fewer topics; subscribe \
         again with the last cursor",
        SUBSCRIBER_STALL_TIMEOUT.as_secs()
    );
    let details = worth_a_retry("SUBSCRIBER_TOO_SLOW");
    Status::with_error_details(Code::ResourceExhausted, message, details)
}

/// RESOURCE_EXHAUSTED because too many large answers wait to be taken.
pub(super) fn too_many_answers(full: Full) -> Status {
    exhausted("TOO_MANY_ANSWERS", full.answers())
}

fn exhausted(reason: &str, message: &str) -> Status {
    Status::with_error_details(Code::ResourceExhausted, message, worth_a_retry(reason))
}

/// DEADLINE_EXCEEDED because a caller did not take a large answer.
pub(super) fn not_taken() -> Status {
    let message = "the answer was not taken in time; ask for smaller pages";
    Status::with_error_details(Code::DeadlineExceeded, message, info("ANSWER_NOT_TAKEN"))
}

/// DEADLINE_EXCEEDED because the time is over that the caller gave, or that any call has.
pub(super) fn deadline_exceeded() -> Status {
    let message = "the time for this call is over; events that it sent may or may not be stored; \
                   send them again with the same event ids";
    Status::with_error_details(Code::DeadlineExceeded, message, info("DEADLINE_EXCEEDED"))
}

/// DEADLINE_EXCEEDED because a message takes too long on its way in.
pub(super) fn too_slow() -> Status {
    let message = "the message took too long to arrive; nothing of it was done; send less at once";
    Status::with_error_details(Code::DeadlineExceeded, message, info("REQUEST_TOO_SLOW"))
}

fn unavailable(message: &str) -> Status {
    Status::with_error_details(Code::Unavailable, message, worth_a_retry("STORE_UNAVAILABLE"))
}

/// INTERNAL.
pub(super) fn internal() -> Status {
    let message = "the service has a fault; its log says more";
    Status::with_error_details(Code::Internal, message, info("INTERNAL"))
}

fn info(reason: &str) -> ErrorDetails {
    ErrorDetails::with_error_info(reason, DOMAIN, HashMap::new())
}

fn worth_a_retry(reason: &str) -> ErrorDetails {
    let mut details = info(reason);
    details.set_retry_info(Some(RETRY_DELAY));
    details
}
