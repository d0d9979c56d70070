//! Redaction of server errors. Their details, and for some errors their messages, quote values,
//! which are keys and payloads.

use std::{error::Error as StdError, fmt};

use tokio_postgres::{
    Error,
    error::{DbError, SqlState},
};

use super::chain;

/// Error classes about the server, the connection or the transaction, which quote no values.
const WITHOUT_VALUES: [&str; 9] = ["08", "25", "28", "3D", "40", "53", "55", "57", "58"];

/// Errors of other classes that only name a table and tell an operator what to do.
const OF_TABLES: [&str; 2] = ["42501", "42P01"];

/// A client error as the cause of a store error. It prints its causes itself and does not expose
/// them, so that nothing can log the details of a server error.
pub(super) struct Redacted(Error);

impl Redacted {
    pub(super) fn code(&self) -> Option<&SqlState> {
        self.0.code()
    }
}

impl From<Error> for Redacted {
    fn from(error: Error) -> Self {
        Self(error)
    }
}

impl fmt::Display for Redacted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&redacted(&self.0))
    }
}

impl fmt::Debug for Redacted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl StdError for Redacted {}

/// The message of a client error and of its causes, on one line.
pub(super) fn redacted(error: &Error) -> String {
    match error.as_db_error() {
        Some(reply) => format!("{error}: {}", message(reply)),
        None => chain(error),
    }
}

/// The message of a failed migration. Its cause is a client error if a statement failed.
pub(super) fn redacted_migration(error: &refinery::Error) -> String {
    let cause = error.source().and_then(|cause| cause.downcast_ref());
    cause.map_or_else(|| chain(error), |cause| format!("{error}: {}", redacted(cause)))
}

fn message(reply: &DbError) -> String {
    let code = reply.code().code();
    let is_without_values =
        OF_TABLES.contains(&code) || WITHOUT_VALUES.iter().any(|class| code.starts_with(class));
    if is_without_values {
        return format!("{}: {}", reply.severity(), reply.message());
    }
    let places =
        [("table", reply.table()), ("column", reply.column()), ("constraint", reply.constraint())];
    let places = places.iter().filter_map(|(what, name)| Some(format!(", {what} {}", (*name)?)));
    format!("{}: SQLSTATE {code}{}", reply.severity(), places.collect::<String>())
}
