//! Direct measurement of SQLite, without the service.

use std::time::Instant;

use event_aggregator::{store::sqlite::SQLITE_CACHE_KIB, testing::limits::SQLITE_WAL_PAGES};
use rusqlite::{Connection, params};
use uuid::Uuid;

const SCHEMA: [&str; 2] = [
    include_str!("../../src/store/sqlite/migrations/V1__events.sql"),
    include_str!("../../src/store/sqlite/migrations/V2__time_in_commit_order.sql"),
];
const BATCH: usize = 4_096;

/// Runs one prepared INSERT in transactions of the service's batch size, with its schema and
/// settings.
pub fn direct(events: usize) -> f64 {
    let folder = tempfile::tempdir().expect("temporary folder");
    let mut connection = Connection::open(folder.path().join("events.db")).expect("open");
    connection.pragma_update(None, "journal_mode", "WAL").expect("WAL");
    connection.pragma_update(None, "synchronous", "FULL").expect("FULL");
    connection.pragma_update(None, "wal_autocheckpoint", SQLITE_WAL_PAGES).expect("log");
    connection.pragma_update(None, "cache_size", -SQLITE_CACHE_KIB).expect("cache");
    SCHEMA.iter().for_each(|sql| connection.execute_batch(sql).expect("schema"));
    let payload = format!(r#"{{"data":"{}"}}"#, "x".repeat(150 - r#"{"data":""}"#.len()));
    let keys: Vec<(String, String)> = (0..events)
        .map(|n| (format!("bench-{}", n % 16), Uuid::new_v4().simple().to_string()))
        .collect();

    let begun = Instant::now();
    let mut seq = 0_i64;
    for batch in keys.chunks(BATCH) {
        let transaction = connection.transaction().expect("begin");
        let mut insert = transaction
            .prepare_cached(
                "INSERT INTO processed_events
                     (seq, topic, event_id, occurred_at, source, payload, received_at)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)
                 ON CONFLICT (topic, event_id) DO NOTHING",
            )
            .expect("prepare");
        for (topic, id) in batch {
            seq += 1;
            let row =
                params![seq, topic, id, None::<i64>, "bench", payload, 1_700_000_000_000_000_i64];
            insert.execute(row).expect("insert");
        }
        drop(insert);
        transaction.commit().expect("commit");
    }
    events as f64 / begun.elapsed().as_secs_f64()
}
