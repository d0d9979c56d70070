//! Reads the stored events by SQL.

use std::{path::Path, sync::Arc};

use tokio::task::spawn_blocking;

use super::{judge::history::Row, recorder::Recorder};
use crate::database::Database;

const POSTGRES: &str = "
    SELECT topic, event_id, lane::bigint, seq, source, payload::text,
           (extract(epoch FROM occurred_at) * 1000000)::bigint,
           (extract(epoch FROM received_at) * 1000000)::bigint
    FROM processed_events ORDER BY lane, seq";

const SQLITE: &str = "
    SELECT topic, event_id, 0, seq, source, payload, occurred_at, received_at
    FROM processed_events ORDER BY seq";

/// A row with its key as text.
type Raw = (String, String, i64, i64, String, String, Option<i64>, i64);

pub async fn rows(database: &Database, recorder: &Recorder) -> Result<Vec<Row>, String> {
    let raw = match database {
        Database::Sqlite(path) => {
            let path = path.clone();
            let reading = spawn_blocking(move || sqlite(&path)).await;
            reading.expect("no panic").map_err(|error| error.to_string())?
        }
        Database::Postgres { .. } => postgres(database).await?,
    };
    let row = |(topic, event_id, lane, seq, source, payload, timestamp, received_at): Raw| {
        let key = recorder.number(&topic, &event_id)?;
        let (source, payload): (Arc<str>, _) = (source.into(), recorder.text(&payload));
        Some(Row { key, lane, seq, source, timestamp, payload, received_at })
    };
    Ok(raw.into_iter().filter_map(row).collect())
}

async fn postgres(database: &Database) -> Result<Vec<Raw>, String> {
    let rows = database.administrator().await?.query(POSTGRES, &[]).await;
    let rows = rows.map_err(|error| error.to_string())?;
    let raw = |row: tokio_postgres::Row| -> Raw {
        let number = |column: usize| row.get::<_, i64>(column);
        let text = |column: usize| row.get::<_, String>(column);
        let timestamp = row.get::<_, Option<i64>>(6);
        (text(0), text(1), number(2), number(3), text(4), text(5), timestamp, number(7))
    };
    Ok(rows.into_iter().map(raw).collect())
}

fn sqlite(path: &Path) -> rusqlite::Result<Vec<Raw>> {
    let connection = rusqlite::Connection::open(path)?;
    let mut statement = connection.prepare(SQLITE)?;
    let rows = statement.query_map([], |row| {
        let text = |column: usize| row.get::<_, String>(column);
        let number = |column: usize| row.get::<_, i64>(column);
        let timestamp = row.get::<_, Option<i64>>(6)?;
        Ok((text(0)?, text(1)?, number(2)?, number(3)?, text(4)?, text(5)?, timestamp, number(7)?))
    })?;
    rows.collect()
}
