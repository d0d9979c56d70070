//! Settings of sessions that the service relies on: set when a session is opened, and checked at
//! startup.

use std::time::Duration;

use tokio_postgres::Client;

use super::{
    OpenError,
    advice::{NO_POOLER, advice},
};
use crate::limits::{
    CLIENT_CHECK_INTERVAL, IDLE_TRANSACTION_TIMEOUT, LOCK_TIMEOUT, STATEMENT_TIMEOUT,
};

/// The settings, as the database reports them. They are set per session, so that defaults of a role
/// or database cannot weaken durability or isolation.
fn settings() -> [(&'static str, String); 7] {
    let millis = |time: Duration| time.as_millis().to_string();
    [
        ("synchronous_commit", "on".to_owned()),
        ("default_transaction_isolation", "read committed".to_owned()),
        ("statement_timeout", millis(STATEMENT_TIMEOUT)),
        ("lock_timeout", millis(LOCK_TIMEOUT)),
        ("idle_in_transaction_session_timeout", millis(IDLE_TRANSACTION_TIMEOUT)),
        ("client_connection_check_interval", millis(CLIENT_CHECK_INTERVAL)),
        ("TimeZone", "UTC".to_owned()),
    ]
}

/// A setting with a random value, which a pooler that drops settings cannot have.
pub(super) const MARK: &str = "event_aggregator.session";

/// The settings as options of a session whose [`MARK`] has the value `mark`.
pub(super) fn options(mark: &str) -> String {
    let settings =
        settings().map(|(name, value)| format!("-c {name}={}", value.replace(' ', "\\ ")));
    format!("{} -c {MARK}={mark}", settings.join(" "))
}

/// Checks that sessions have the settings they were opened with. A pooler may drop them, but
/// durability and timeouts rely on them.
pub(super) async fn check(client: &Client, mark: &str, database: &str) -> Result<(), OpenError> {
    let wanted = settings();
    let names: Vec<&str> = wanted.iter().map(|(name, _)| *name).collect();
    let sql = "SELECT name, setting FROM pg_settings WHERE name = ANY($1)";
    let refused = |reason| OpenError::Unreachable { database: database.to_owned(), reason };
    let marked = "SELECT current_setting($1, true) IS NOT DISTINCT FROM $2";
    let marked = client.query_one(marked, &[&MARK, &mark]).await;
    if !marked.map_err(|error| refused(advice(&error)))?.get::<_, bool>(0) {
        return Err(refused(format!(
            "a session opened with the required settings does not have them: {NO_POOLER}"
        )));
    }
    let rows = client.query(sql, &[&names]).await;
    let rows = rows.map_err(|error| refused(advice(&error)))?;
    for row in rows {
        let (name, found): (&str, &str) = (row.get(0), row.get(1));
        if let Some((_, wanted)) = wanted.iter().find(|(wanted, _)| *wanted == name)
            && wanted != found
        {
            return Err(refused(format!(
                "a session opened with {name}={wanted} has {name}={found}: {NO_POOLER}"
            )));
        }
    }
    Ok(())
}
