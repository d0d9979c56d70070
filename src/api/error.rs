//! The errors of requests, independent of the protocol. Messages describe what is wrong and how to
//! fix it. Causes are logged, and never sent to clients.

use std::{borrow::Cow, time::Duration};

use crate::{
    access,
    admission::Full,
    event::{Violation, Violations},
    feed, ingest,
    limits::{
        MAX_REQUEST_BYTES, MAX_REQUEST_EVENTS, RETRY_DELAY, STREAM_IDLE_TIMEOUT,
        SUBSCRIBER_STALL_TIMEOUT,
    },
    page, store, token,
};

/// Why a request failed, for programs and for people.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Error {
    /// The machine-readable reason.
    pub reason: Reason,
    /// What is wrong and how to fix it, in one sentence.
    pub message: Cow<'static, str>,
    /// The invalid fields, if there are any.
    pub violations: Vec<Violation>,
    /// Delay before a retry. None if the error is not retryable.
    pub retry_after: Option<Duration>,
}

macro_rules! reasons {
    ($($(#[$doc:meta])* $reason:ident = $name:literal,)*) => {
        /// The machine-readable reasons of errors. They are part of the contract.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Reason {
            $($(#[$doc])* $reason,)*
        }

        impl Reason {
            /// All reasons.
            pub const ALL: &[Self] = &[$(Self::$reason,)*];

            /// Its name in the contract.
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$reason => $name,)*
                }
            }
        }
    };
}

reasons! {
    /// A field is missing or invalid.
    InvalidRequest = "INVALID_REQUEST",
    /// The request has too many events or bytes.
    RequestTooLarge = "REQUEST_TOO_LARGE",
    /// The page token is invalid.
    InvalidPageToken = "INVALID_PAGE_TOKEN",
    /// The cursor is invalid.
    InvalidCursor = "INVALID_CURSOR",
    /// The cursor or page token was issued before the store was restored from a backup.
    StoreRestored = "STORE_RESTORED",
    /// The credentials are missing or invalid.
    Unauthenticated = "UNAUTHENTICATED",
    /// The access file does not grant this.
    PermissionDenied = "PERMISSION_DENIED",
    /// The host name of the request is not one of the local machine.
    Misaddressed = "MISADDRESSED",
    /// The rate limit of the identity is exceeded.
    RateExceeded = "RATE_EXCEEDED",
    /// The queue of events is full.
    QueueFull = "QUEUE_FULL",
    /// There are too many calls in progress.
    TooManyCalls = "TOO_MANY_CALLS",
    /// There are too many subscriptions.
    TooManySubscribers = "TOO_MANY_SUBSCRIBERS",
    /// Too many large responses are in progress.
    TooManyAnswers = "TOO_MANY_ANSWERS",
    /// The subscriber did not read in time.
    SubscriberTooSlow = "SUBSCRIBER_TOO_SLOW",
    /// The client did not read a large response in time.
    AnswerNotTaken = "ANSWER_NOT_TAKEN",
    /// The request did not arrive in time.
    RequestTooSlow = "REQUEST_TOO_SLOW",
    /// No request arrived on the stream for too long.
    StreamIdle = "STREAM_IDLE",
    /// The deadline of the call has passed.
    DeadlineExceeded = "DEADLINE_EXCEEDED",
    /// A query timed out.
    StoreTimeout = "STORE_TIMEOUT",
    /// The store is unavailable.
    StoreUnavailable = "STORE_UNAVAILABLE",
    /// The server is shutting down.
    ShuttingDown = "SHUTTING_DOWN",
    /// A bug in the server.
    Internal = "INTERNAL",
    /// The body is not valid JSON. HTTP only.
    InvalidJson = "INVALID_JSON",
    /// The media type of the body is not supported. HTTP only.
    UnsupportedMediaType = "UNSUPPORTED_MEDIA_TYPE",
    /// There is no such event or route. HTTP only.
    NotFound = "NOT_FOUND",
    /// The route does not have this method. HTTP only.
    MethodNotAllowed = "METHOD_NOT_ALLOWED",
}

impl Error {
    /// An error that is not retryable.
    pub fn new(reason: Reason, message: impl Into<Cow<'static, str>>) -> Self {
        Self { reason, message: message.into(), violations: Vec::new(), retry_after: None }
    }

    fn retryable(reason: Reason, message: impl Into<Cow<'static, str>>) -> Self {
        Self { retry_after: Some(RETRY_DELAY), ..Self::new(reason, message) }
    }

    fn with_violations(reason: Reason, violations: Vec<Violation>) -> Self {
        let mut message = match violations.first() {
            Some(violation) => violation.to_string(),
            None => "the request is invalid".to_owned(),
        };
        if violations.len() > 1 {
            message.push_str(&format!(" (and {} more)", violations.len() - 1));
        }
        Self { violations, ..Self::new(reason, message) }
    }

    /// Fields are invalid.
    pub fn invalid(violations: Vec<Violation>) -> Self {
        Self::with_violations(Reason::InvalidRequest, violations)
    }

    /// Fails if there are violations.
    pub fn check(violations: Violations) -> Result<(), Self> {
        match violations.is_empty() {
            true => Ok(()),
            false => Err(Self::invalid(violations.into_vec())),
        }
    }

    /// The request is too large.
    pub fn too_large(violation: Violation) -> Self {
        Self::with_violations(Reason::RequestTooLarge, vec![violation])
    }

    /// The body of a request exceeds the limit.
    pub fn body_too_large() -> Self {
        let message = format!(
            "the limit is {MAX_REQUEST_EVENTS} events and {MAX_REQUEST_BYTES} bytes per request; \
             send smaller requests"
        );
        Self::new(Reason::RequestTooLarge, message)
    }

    /// A page token is invalid, or was issued before the store was restored.
    pub fn page_token(error: page::Error) -> Self {
        match error {
            page::Error::Token(token::Error::Restored) => {
                Self::restored(format!("the page token {}", token::Error::Restored))
            }
            error => {
                let violation = Violation::new("page_token", error.to_string());
                Self::with_violations(Reason::InvalidPageToken, vec![violation])
            }
        }
    }

    /// A cursor is invalid, or was issued before the store was restored.
    pub fn cursor(error: token::Error) -> Self {
        match error {
            token::Error::Restored => feed::Error::Restored.into(),
            error => {
                let violation = Violation::new("cursor", error.to_string());
                Self::with_violations(Reason::InvalidCursor, vec![violation])
            }
        }
    }

    fn restored(message: String) -> Self {
        Self::new(Reason::StoreRestored, message)
    }

    /// The server is shutting down.
    pub fn shutting_down() -> Self {
        Self::retryable(
            Reason::ShuttingDown,
            "the server is shutting down; reconnect, and resend the requests without a response",
        )
    }

    /// A subscription ended because the server is shutting down.
    pub fn subscription_ended() -> Self {
        Self::retryable(
            Reason::ShuttingDown,
            "the server is shutting down; subscribe again with the last cursor",
        )
    }

    /// No request arrived on a stream for [`STREAM_IDLE_TIMEOUT`].
    pub fn stream_idle() -> Self {
        let message = format!(
            "no request arrived for {} minutes; all earlier requests have a response; open a new \
             stream",
            STREAM_IDLE_TIMEOUT.as_secs() / 60
        );
        Self::retryable(Reason::StreamIdle, message)
    }

    /// There are too many calls in progress.
    pub fn too_many_calls(full: Full) -> Self {
        Self::retryable(Reason::TooManyCalls, calls(full))
    }

    /// There are too many subscriptions.
    pub fn too_many_subscribers(full: Full) -> Self {
        Self::retryable(Reason::TooManySubscribers, subscriptions(full))
    }

    /// Too many large responses are in progress.
    pub fn too_many_answers(full: Full) -> Self {
        Self::retryable(Reason::TooManyAnswers, responses(full))
    }

    /// A subscriber did not read in time.
    pub fn subscriber_too_slow() -> Self {
        let message = format!(
            "the subscriber did not read an event within {} s; read faster or subscribe to fewer \
             topics, and subscribe again with the last cursor",
            SUBSCRIBER_STALL_TIMEOUT.as_secs()
        );
        Self::retryable(Reason::SubscriberTooSlow, message)
    }

    /// A client did not read a large response in time.
    pub fn answer_not_taken() -> Self {
        let message = "the response was not read in time; request smaller pages";
        Self::new(Reason::AnswerNotTaken, message)
    }

    /// The deadline of the client, or the timeout of all calls, has passed.
    pub fn deadline_exceeded() -> Self {
        Self::new(
            Reason::DeadlineExceeded,
            "deadline exceeded; the events may or may not be stored; retry with the same event ids",
        )
    }

    /// A request did not arrive in time.
    pub fn request_too_slow() -> Self {
        Self::new(
            Reason::RequestTooSlow,
            "timed out receiving the request; nothing was stored; send smaller requests",
        )
    }

    /// A bug in the server.
    pub fn internal() -> Self {
        Self::new(Reason::Internal, "internal error; see the server log")
    }

    /// The store is unavailable, or the server is not ready.
    pub fn unavailable() -> Self {
        Self::retryable(Reason::StoreUnavailable, "the store is unavailable; retry later")
    }
}

impl From<access::Error> for Error {
    fn from(error: access::Error) -> Self {
        let message = error.to_string();
        let (reason, retry_after) = match error {
            access::Error::Unauthenticated => (Reason::Unauthenticated, None),
            access::Error::Denied { .. } => (Reason::PermissionDenied, None),
            access::Error::Misaddressed => (Reason::Misaddressed, None),
            access::Error::TooFast { wait } => (Reason::RateExceeded, Some(wait)),
        };
        Self { retry_after, ..Self::new(reason, message) }
    }
}

impl From<ingest::Error> for Error {
    fn from(error: ingest::Error) -> Self {
        match error {
            ingest::Error::QueueFull(full) => Self::retryable(Reason::QueueFull, queue(full)),
            ingest::Error::Unavailable(_) => Self::retryable(
                Reason::StoreUnavailable,
                "the store is unavailable; the events may or may not be stored; retry with the \
                 same event ids",
            ),
            ingest::Error::Stopping => Self::shutting_down(),
        }
    }
}

impl From<store::Error> for Error {
    fn from(error: store::Error) -> Self {
        if !error.is_logged() {
            tracing::warn!(error = store::chain(&error), "read failed");
        }
        match error {
            store::Error::Unavailable(_)
            | store::Error::Unknown(_)
            | store::Error::Fault(_)
            | store::Error::WrongStore(_) => Self::unavailable(),
            store::Error::Timeout(_) => Self::new(
                Reason::StoreTimeout,
                "the query timed out; filter by topic or time, or request a smaller page",
            ),
            store::Error::Refused(_) | store::Error::TooMuch { .. } => Self::internal(),
        }
    }
}

impl From<feed::Error> for Error {
    fn from(error: feed::Error) -> Self {
        match error {
            feed::Error::Restored => Self::restored(error.to_string()),
            feed::Error::TooMany(full) => Self::too_many_subscribers(full),
            feed::Error::Store(error) => error.into(),
        }
    }
}

fn calls(full: Full) -> &'static str {
    match full {
        Full::Share => {
            "call limit per caller reached (half of all calls); the call was not executed; end \
             other calls, or retry later"
        }
        Full::All => "call limit reached; the call was not executed; retry later",
    }
}

fn queue(full: Full) -> &'static str {
    match full {
        Full::Share => {
            "queue limit per caller reached (half of the queue); nothing was stored; retry later, \
             or use PublishStream, which waits"
        }
        Full::All => {
            "the event queue is full; nothing was stored; retry later, or use PublishStream, which \
             waits"
        }
    }
}

fn subscriptions(full: Full) -> &'static str {
    match full {
        Full::Share => {
            "subscriber limit per caller reached (half of all subscriptions); end other \
             subscriptions, or retry later"
        }
        Full::All => "subscriber limit reached; retry later, or use another instance",
    }
}

fn responses(full: Full) -> &'static str {
    match full {
        Full::Share => {
            "response memory limit per caller reached (half of the memory for responses); read the \
             pending responses, or retry later"
        }
        Full::All => {
            "the memory for responses is full: clients are not reading fast enough; retry later"
        }
    }
}
