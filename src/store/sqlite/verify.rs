//! Verifies the counters, in one read transaction of a read-only connection.

use std::path::Path;

use rusqlite::{Connection, OpenFlags, OptionalExtension, Result, params};

use super::{OpenError, migrations, store_location};
use crate::{
    limits::{LOCK_TIMEOUT, MAX_DIFFERENCES},
    store::verify::{Difference, Failed, Report, check_schema},
};

/// See [`Report::of`].
const SUMS: &str = "
    SELECT coalesce(sum(received), 0), coalesce(sum(unique_processed), 0),
           coalesce(sum(duplicate_dropped), 0), coalesce(sum(conflicts), 0), count(*),
           (SELECT count(*) FROM processed_events)
    FROM audit_stats";

const DIFFERENCES: &str = "
    WITH stored AS (
        SELECT topic, count(*) AS events FROM processed_events GROUP BY topic
    ),
    numbered AS (
        SELECT 0 AS lane, count(*) AS events, min(seq) AS first, max(seq) AS last
        FROM processed_events
    ),
    differences (kind, subject, recorded, actual) AS (
        SELECT 'unique_processed', coalesce(a.topic, s.topic), a.unique_processed, s.events
        FROM audit_stats a FULL JOIN stored s ON s.topic = a.topic
        WHERE a.unique_processed IS NOT s.events
        UNION ALL
        SELECT 'received', topic, received, unique_processed + duplicate_dropped
        FROM audit_stats WHERE received <> unique_processed + duplicate_dropped
        UNION ALL
        SELECT 'conflicts', topic, conflicts, duplicate_dropped
        FROM audit_stats WHERE conflicts > duplicate_dropped
        UNION ALL
        SELECT 'head', coalesce(l.lane, n.lane), l.head, coalesce(n.last, 0)
        FROM lanes l FULL JOIN numbered n ON n.lane = l.lane
        WHERE l.head IS NOT coalesce(n.last, 0)
        UNION ALL
        SELECT 'seq', lane, last - first + 1, events FROM numbered
        WHERE last - first + 1 <> events
        UNION ALL
        SELECT 'first seq', lane, first, 1 FROM numbered WHERE first <> 1
    )
    SELECT kind, subject, recorded, actual, count(*) OVER () FROM differences
    ORDER BY kind, subject LIMIT ?1";

/// Compares the counters in the file at `path` with its rows. Takes no lock and changes nothing; a
/// service may be writing to the file.
pub fn verify(path: &Path) -> std::result::Result<Report, Failed> {
    let database = store_location(path);
    if !path.exists() {
        let reason = "file not found; choose another with --database-url or --data-dir";
        return Err(OpenError::Unreachable { database, reason: reason.to_owned() }.into());
    }
    let unreadable = |error: rusqlite::Error| Failed::Read {
        database: database.clone(),
        reason: advice(&error),
    };
    // An absolute path is not a URI for SQLite.
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let mut connection = connect(&absolute).map_err(unreadable)?;
    let found = schema_version(&connection).map_err(unreadable)?;
    check_schema(found, migrations::migrations::runner().get_migrations(), &database)?;
    let sound = is_sound(&connection).map_err(unreadable)?;
    if !sound {
        return Err(Failed::Read { database, reason: DAMAGED.to_owned() });
    }
    compare(&mut connection, &database).map_err(unreadable)
}

fn connect(path: &Path) -> Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(LOCK_TIMEOUT)?;
    Ok(connection)
}

/// Checks the integrity of the file. Reads all pages, which is too slow for each start.
fn is_sound(connection: &Connection) -> Result<bool> {
    connection.query_row("PRAGMA quick_check(1)", [], |row| Ok(row.get_ref(0)?.as_str()? == "ok"))
}

const DAMAGED: &str = "the file is corrupt; restore it from a backup";

pub(super) fn advice(error: &rusqlite::Error) -> String {
    match error.sqlite_error_code() {
        Some(rusqlite::ErrorCode::NotADatabase) => "not a SQLite file".to_owned(),
        Some(rusqlite::ErrorCode::CannotOpen | rusqlite::ErrorCode::ReadOnly) => {
            "SQLite cannot open it; readers need write permission on its directory".to_owned()
        }
        Some(rusqlite::ErrorCode::DatabaseCorrupt) => DAMAGED.to_owned(),
        // Other messages of SQLite may quote a statement.
        Some(code) => format!("SQLite error: {code:?}"),
        None => "SQLite error".to_owned(),
    }
}

pub(super) fn schema_version(connection: &Connection) -> Result<Option<i64>> {
    let has_history = "SELECT 1 FROM sqlite_schema WHERE name = 'refinery_schema_history'";
    if connection.query_row(has_history, [], |_| Ok(())).optional()?.is_none() {
        return Ok(None);
    }
    connection.query_row("SELECT max(version) FROM refinery_schema_history", [], |row| row.get(0))
}

fn compare(connection: &mut Connection, database: &str) -> Result<Report> {
    let snapshot = connection.transaction()?;
    let mut report = snapshot.query_row(SUMS, [], |row| {
        let mut sums = [0; 6];
        for (column, sum) in sums.iter_mut().enumerate() {
            *sum = row.get(column)?;
        }
        Ok(Report::of(database, sums))
    })?;
    let mut statement = snapshot.prepare(DIFFERENCES)?;
    let mut rows = statement.query(params![MAX_DIFFERENCES as i64])?;
    while let Some(row) = rows.next()? {
        report.difference_count = row.get(4)?;
        report.differences.push(Difference {
            check: row.get(0)?,
            of: match row.get_ref(1)? {
                rusqlite::types::ValueRef::Integer(lane) => lane.to_string(),
                topic => topic.as_str()?.to_owned(),
            },
            recorded: row.get(2)?,
            actual: row.get(3)?,
        });
    }
    Ok(report)
}
