//! What a user is told about a failed connection or a failed check at startup.

use tokio_postgres::error::SqlState;

use super::{chain, tls};

/// Advice if a connection pooler is in use.
pub(super) const NO_POOLER: &str =
    "connect to the database server directly, not through a connection pooler";

/// The reason of an error at startup, with the cure for common ones.
pub(super) fn advice(error: &tokio_postgres::Error) -> String {
    if let Some(refusal) = tls::refusal(error) {
        return refusal;
    }
    let Some(reply) = error.as_db_error() else {
        let text = chain(error);
        return match text.contains("database does not allow writes") {
            true => format!("{text}: it is a standby or read-only; connect to the primary"),
            false => text,
        };
    };
    let text = reply.message();
    match *reply.code() {
        SqlState::INVALID_CATALOG_NAME => format!("{text}; create it with: createdb"),
        SqlState::PROTOCOL_VIOLATION if text.contains("startup parameter") => {
            format!("{text}: {NO_POOLER}")
        }
        _ => text.to_owned(),
    }
}
