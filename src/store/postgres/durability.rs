//! Checks at startup that the database does not lose acknowledged events.

use tokio_postgres::Client;
use tracing::warn;

use super::{
    OpenError,
    session::{self, Target},
};
use crate::store::Durability;

/// Advice if a connection pooler is in use.
pub(super) const NO_POOLER: &str =
    "connect to the database server directly, not through a connection pooler";

/// Checks that sessions have the settings they were opened with. A pooler may drop them, but
/// durability and timeouts rely on them.
pub(super) async fn check_session(client: &Client, target: &Target) -> Result<(), OpenError> {
    let database = target.describe();
    let wanted = session::settings();
    let names: Vec<&str> = wanted.iter().map(|(name, _)| *name).collect();
    let sql = "SELECT name, setting FROM pg_settings WHERE name = ANY($1)";
    let refused = |reason| OpenError::Unreachable { database: database.clone(), reason };
    let marked = "SELECT current_setting($1, true) IS NOT DISTINCT FROM $2";
    let marked = client.query_one(marked, &[&session::MARK, &target.mark]).await;
    if !marked.map_err(|error| refused(session::advice(&error)))?.get::<_, bool>(0) {
        return Err(refused(format!(
            "a session opened with the required settings does not have them: {NO_POOLER}"
        )));
    }
    let rows = client.query(sql, &[&names]).await;
    let rows = rows.map_err(|error| refused(session::advice(&error)))?;
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

/// Refuses a database that can lose acknowledged events in a crash, or only warns about it.
pub(super) async fn check(
    client: &Client,
    database: &str,
    durability: Durability,
) -> Result<(), OpenError> {
    let sql = "
        SELECT current_setting('fsync')::bool, current_setting('full_page_writes')::bool,
               (SELECT min(relname)::text FROM pg_class
                WHERE relpersistence = 'u' AND relkind = 'r' AND pg_table_is_visible(oid)
                AND relname IN ('processed_events', 'audit_stats', 'lanes', 'batch_ledger',
                                'store_identity'))";
    let row = client.query_one(sql, &[]).await.map_err(|error| OpenError::Unreachable {
        database: database.to_owned(),
        reason: session::advice(&error),
    })?;
    if !row.get::<_, bool>(1) {
        // Safe on a file system with atomic page writes, which cannot be detected here.
        warn!(
            database,
            "full_page_writes is off: a power failure may corrupt the database, unless its file \
             system writes pages atomically"
        );
    }
    let unlogged: Option<&str> = row.get(2);
    let weakness = match unlogged {
        _ if !row.get::<_, bool>(0) => {
            "fsync is off; set it to on in postgresql.conf and reload".to_owned()
        }
        Some(table) => {
            format!("the table {table} is unlogged; run: ALTER TABLE {table} SET LOGGED")
        }
        None => return Ok(()),
    };
    let refused = OpenError::NotDurable { database: database.to_owned(), reason: weakness };
    match durability {
        Durability::Demanded => Err(refused),
        Durability::Waived => {
            warn!("{refused}");
            Ok(())
        }
    }
}
