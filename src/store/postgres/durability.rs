//! Checks at startup that the database does not lose acknowledged events.

use tokio_postgres::Client;
use tracing::warn;

use super::{OpenError, advice::advice};
use crate::store::Durability;

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
        reason: advice(&error),
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
