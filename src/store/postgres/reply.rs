//! Redaction of server errors. Their details, and for some errors their messages, quote values,
//! which are keys and payloads.

use std::error::Error as StdError;

use tokio_postgres::error::DbError;

/// Error classes about the server, the connection or the transaction, which quote no values.
const WITHOUT_VALUES: [&str; 9] = ["08", "25", "28", "3D", "40", "53", "55", "57", "58"];

/// Errors of other classes that only name a table and tell an operator what to do.
const OF_TABLES: [&str; 2] = ["42501", "42P01"];

/// The redacted message of an error, if it is a server reply.
pub(in crate::store) fn told(error: &(dyn StdError + 'static)) -> Option<String> {
    let reply: &DbError = error.downcast_ref()?;
    let code = reply.code().code();
    let is_without_values =
        OF_TABLES.contains(&code) || WITHOUT_VALUES.iter().any(|class| code.starts_with(class));
    if is_without_values {
        return Some(format!("{}: {}", reply.severity(), reply.message()));
    }
    let places =
        [("table", reply.table()), ("column", reply.column()), ("constraint", reply.constraint())];
    let places = places.iter().filter_map(|(what, name)| Some(format!(", {what} {}", (*name)?)));
    Some(format!("{}: SQLSTATE {code}{}", reply.severity(), places.collect::<String>()))
}
