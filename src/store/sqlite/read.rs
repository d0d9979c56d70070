//! Reads, on separate connections in blocking tasks.

use std::{panic::resume_unwind, sync::Arc, time::Instant};

use parking_lot::Mutex;
use rusqlite::{Connection, OpenFlags, OptionalExtension, Result, Row, Rows, ToSql, params};
use tokio::{
    sync::{AcquireError, Semaphore, SemaphorePermit},
    task::JoinError,
};

use super::{Error, FeedQuery, Found, ListQuery, Page, Source, Stats, write::Micros};
use crate::{
    event::{Event, EventKey, Name, Payload, Position, Timestamp},
    limits::{READ_CONNECTION_WAIT, STATEMENT_TIMEOUT},
    store::{Counters, LaneState, Mark, TopicStats},
};

/// Number of instructions of SQLite's virtual machine after which the deadline of a read is checked:
/// often enough for seconds, and too rarely to slow it down.
const DEADLINE_CHECK_INSTRUCTIONS: i32 = 10_000;

/// Read-only connections.
#[derive(Debug)]
pub(super) struct Readers {
    source: Arc<Source>,
    idle: Mutex<Vec<Connection>>,
    /// Maximum number of connections.
    connections: usize,
    permits: Arc<Semaphore>,
}

impl Readers {
    pub(super) fn new(source: &Arc<Source>, connections: usize) -> Self {
        Self {
            source: Arc::clone(source),
            idle: Mutex::new(Vec::new()),
            connections,
            permits: Arc::new(Semaphore::new(connections)),
        }
    }

    /// Runs `read` on a connection, for at most [`STATEMENT_TIMEOUT`].
    pub(super) async fn run<T: Send + 'static, E: Into<Error> + Send + 'static>(
        self: &Arc<Self>,
        read: impl FnOnce(&mut Connection) -> Result<T, E> + Send + 'static,
    ) -> Result<T, Error> {
        let permit =
            tokio::time::timeout(READ_CONNECTION_WAIT, self.permits.clone().acquire_owned())
                .await
                .map_err(|_| Error::Unavailable("all read connections are busy".into()))?
                .map_err(|closed| Error::Unavailable(closed.into()))?;
        let readers = Arc::clone(self);
        let task = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            readers.source.check()?;
            let idle = readers.idle.lock().pop();
            let mut connection = match idle {
                Some(connection) => connection,
                None => readers.connect()?,
            };
            let deadline = Instant::now() + STATEMENT_TIMEOUT;
            connection.progress_handler(
                DEADLINE_CHECK_INSTRUCTIONS,
                Some(move || Instant::now() > deadline),
            )?;
            let result = read(&mut connection).map_err(Into::into);
            readers.idle.lock().push(connection);
            result
        });
        match task.await.map_err(JoinError::try_into_panic) {
            Ok(result) => self.source.identity.logged(result),
            // A panic is not an outage.
            Err(Ok(panic)) => resume_unwind(panic),
            Err(Err(cancelled)) => Err(Error::Unavailable(cancelled.into())),
        }
    }

    /// Waits for all reads to end and closes the connections. No read starts until the guard is
    /// dropped.
    pub(super) async fn suspend(&self) -> Result<SemaphorePermit<'_>, AcquireError> {
        let guard = self.permits.acquire_many(self.connections as u32).await?;
        self.close();
        Ok(guard)
    }

    pub(super) fn close(&self) {
        self.idle.lock().clear();
    }

    fn connect(&self) -> Result<Connection, Error> {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(self.source.file.path(), flags)?;
        connection.busy_timeout(crate::limits::LOCK_TIMEOUT)?;
        self.source.check_store(&connection)?;
        Ok(connection)
    }
}

/// Topics with fewer events are looked up by key and sorted; larger ones are filtered from all
/// events in order of time. SQLite would always do the former, and sort millions of events.
const SMALL_TOPIC_EVENTS: i64 = 10_000;

const EVENT_COLUMNS: &str = "seq, topic, event_id, occurred_at, source, payload, received_at";

pub(super) fn list(connection: &mut Connection, query: &ListQuery) -> Result<Page> {
    let filter = &query.filter;
    let snapshot = connection.transaction()?;
    let mut sql = format!("SELECT {EVENT_COLUMNS} FROM processed_events WHERE true");
    let mut values: Vec<Box<dyn ToSql>> = Vec::new();
    let mut narrow = |condition: &str, value: Box<dyn ToSql>| {
        sql.push_str(" AND ");
        sql.push_str(condition);
        values.push(value);
    };
    if let Some(topic) = &filter.topic {
        let small = topic_events(&snapshot, topic)? < SMALL_TOPIC_EVENTS;
        // The plus sign keeps SQLite from using the key index.
        narrow(if small { "topic = ?" } else { "+topic = ?" }, Box::new(topic.clone()));
    }
    if let Some(source) = &filter.source {
        narrow("source = ?", Box::new(source.clone()));
    }
    if let Some(start) = filter.start_time {
        narrow("seq >= ?", Box::new(first_seq_at(&snapshot, start)?));
    }
    if let Some(end) = filter.end_time {
        narrow("seq < ?", Box::new(first_seq_at(&snapshot, end)?));
    }
    if let Some(head) = query.heads.first() {
        narrow("seq <= ?", Box::new(*head));
    }
    if let Some(place) = query.after {
        let behind = if filter.oldest_first { "seq > ?" } else { "seq < ?" };
        narrow(behind, Box::new(place.position.seq));
    }
    sql.push_str(match filter.oldest_first {
        true => " ORDER BY seq LIMIT ?",
        false => " ORDER BY seq DESC LIMIT ?",
    });
    values.push(Box::new(query.limit as i64 + 1));

    let mut statement = snapshot.prepare_cached(&sql)?;
    let rows = statement.query(rusqlite::params_from_iter(values))?;
    page(rows, query.limit, query.max_bytes)
}

/// A page of some rows. If more follow, there is one row more than the limit.
fn page(mut rows: Rows<'_>, limit: usize, max_bytes: usize) -> Result<Page> {
    let mut page = Page::default();
    let mut bytes = 0;
    while let Some(row) = rows.next()? {
        let event = event(row)?;
        bytes += event.payload.as_str().len();
        let full = bytes > max_bytes && !page.events.is_empty();
        if full || page.events.len() == limit {
            page.more = true;
            break;
        }
        page.events.push(event);
    }
    Ok(page)
}

/// See [`super::Store::heads`]. Times are those of the events, not of the lane row.
pub(super) fn heads(connection: &Connection, at: &[i64]) -> Result<Vec<LaneState>> {
    let mut heads = connection.prepare_cached(
        "SELECT l.head, last.received_at, found.seq, found.received_at
         FROM lanes l
         LEFT JOIN processed_events last
             ON last.seq = (SELECT max(seq) FROM processed_events WHERE seq <= l.head)
         LEFT JOIN processed_events found
             ON found.seq = (SELECT max(seq) FROM processed_events WHERE seq <= ?1)
         ORDER BY l.lane",
    )?;
    let mark =
        |seq, received_at: Option<Micros>| Mark { seq, received_at: received_at.map(|at| at.0) };
    let lane = |row: &Row<'_>| {
        let head = mark(row.get(0)?, row.get(1)?);
        let (found, received_at) = (row.get::<_, Option<i64>>(2)?, row.get(3)?);
        Ok(LaneState { head, found: found.map(|seq| mark(seq, received_at)) })
    };
    heads.query_map(params![at.first()], lane)?.collect()
}

/// Reads a page of the feed. There is only one lane.
pub(super) fn read(connection: &Connection, query: &FeedQuery) -> Result<Page> {
    let topics = serde_json::to_string(&query.topics[..]).unwrap_or_default();
    // The plus sign keeps SQLite from using the key index.
    let among = match query.topics.is_empty() {
        true => "?3 = '[]'",
        false => "+topic IN (SELECT value FROM json_each(?3))",
    };
    let mut statement = connection.prepare_cached(&format!(
        "SELECT {EVENT_COLUMNS} FROM processed_events
         WHERE seq > ?1 AND seq <= ?2 AND {among} AND coalesce(
             (SELECT at.received_at = ?5 FROM processed_events at WHERE at.seq = ?1), true)
         ORDER BY seq LIMIT ?4"
    ))?;
    let (after, at) = (query.after.seq, query.after.received_at.map(Micros));
    let rows = statement.query(params![after, query.last, topics, query.limit as i64 + 1, at])?;
    page(rows, query.limit, query.max_bytes)
}

/// The number of the first event received at `time` or later, or of the next event if there is
/// none. Time is monotonic, so this is a binary search.
fn first_seq_at(connection: &Connection, time: Timestamp) -> Result<i64> {
    let mut probe = connection.prepare_cached(
        "SELECT seq, received_at FROM processed_events WHERE seq >= ?1 AND seq < ?2
         ORDER BY seq LIMIT 1",
    )?;
    // Events up to `earlier` are before the time, those from `later` on are not.
    let mut earlier = 0;
    let mut later: i64 = connection.query_row(
        "SELECT coalesce(max(seq), 0) + 1 FROM processed_events",
        [],
        |row| row.get(0),
    )?;
    while later - earlier > 1 {
        let middle = earlier + (later - earlier) / 2;
        let found = probe
            .query_row([middle, later], |row| Ok((row.get(0)?, row.get::<_, Micros>(1)?.0)))
            .optional()?;
        match found {
            Some((seq, received_at)) if received_at < time => earlier = seq,
            _ => later = middle,
        }
    }
    Ok(later)
}

fn topic_events(connection: &Connection, topic: &str) -> Result<i64> {
    let events = connection
        .prepare_cached("SELECT unique_processed FROM audit_stats WHERE topic = ?1")?
        .query_row([topic], |row| row.get(0))
        .optional()?;
    Ok(events.unwrap_or(0))
}

pub(super) fn get(
    connection: &mut Connection,
    keys: &[EventKey],
    max_bytes: usize,
) -> Result<Found> {
    let snapshot = connection.transaction()?;
    let mut statement = snapshot.prepare_cached(&format!(
        "SELECT {EVENT_COLUMNS} FROM processed_events WHERE topic = ?1 AND event_id = ?2"
    ))?;
    let mut found = Found::default();
    let mut bytes = 0;
    for (index, key) in keys.iter().enumerate() {
        let stored = statement.query_row([&*key.topic, &*key.event_id], event).optional()?;
        if let Some(event) = stored {
            bytes += event.payload.as_str().len();
            if bytes > max_bytes && !found.events.is_empty() {
                break;
            }
            found.events.push((index, event));
        }
        found.reached = index + 1;
    }
    Ok(found)
}

fn event(row: &Row<'_>) -> Result<Event> {
    let received_at = row.get::<_, Micros>(6)?.0;
    Ok(Event {
        key: EventKey { topic: Name::stored(row.get(1)?), event_id: Name::stored(row.get(2)?) },
        timestamp: row.get::<_, Option<Micros>>(3)?.map_or(received_at, |at| at.0),
        source: Name::stored(row.get(4)?),
        payload: Payload::trusted(row.get::<_, String>(5)?),
        received_at,
        position: Position { lane: 0, seq: row.get(0)? },
    })
}

pub(super) fn stats(
    connection: &mut Connection,
    topic: Option<String>,
    max_topics: usize,
) -> Result<Stats> {
    let snapshot = connection.transaction()?;
    let mut stats = snapshot
        .prepare_cached(
            "SELECT coalesce(sum(received), 0), coalesce(sum(unique_processed), 0),
                    coalesce(sum(duplicate_dropped), 0), coalesce(sum(conflicts), 0), count(*)
             FROM audit_stats WHERE ?1 IS NULL OR topic = ?1",
        )?
        .query_row(params![topic], |row| {
            Ok(Stats { totals: counters(row, 0)?, topics_active: row.get(4)?, topics: Vec::new() })
        })?;
    stats.topics = snapshot
        .prepare_cached(
            "SELECT topic, received, unique_processed, duplicate_dropped, conflicts,
                    last_received_at
             FROM audit_stats WHERE ?1 IS NULL OR topic = ?1
             ORDER BY received DESC, topic LIMIT ?2",
        )?
        .query_map(params![topic, i64::try_from(max_topics).unwrap_or(i64::MAX)], |row| {
            Ok(TopicStats {
                topic: row.get(0)?,
                counters: counters(row, 1)?,
                last_received_at: row.get::<_, Micros>(5)?.0,
            })
        })?
        .collect::<Result<_>>()?;
    Ok(stats)
}

/// Four counters from four columns, starting at `first`.
fn counters(row: &Row<'_>, first: usize) -> Result<Counters> {
    Ok(Counters {
        received: row.get(first)?,
        unique_processed: row.get(first + 1)?,
        duplicate_dropped: row.get(first + 2)?,
        conflicts: row.get(first + 3)?,
    })
}
