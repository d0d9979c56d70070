//! The interface to the database. A [`Store`] stores each event exactly once and counts it in the
//! same transaction. The backends are submodules, each with its own SQL and migrations; they share
//! the deduplication of a batch (`judge`).

use std::{error::Error as StdError, sync::Arc};

use async_trait::async_trait;
use uuid::Uuid;
use xxhash_rust::xxh3::xxh3_64;

use crate::{
    event::{Event, EventKey, NewEvent, Outcome, Position, Timestamp},
    limits::{FUTURE_TOLERANCE, MAX_LANES},
};

pub use layer::StoreLayer;
pub use mark::{LaneState, Mark, holds, numbers};

mod identity;
mod judge;
mod layer;
mod mark;
pub mod measured;
pub mod postgres;
pub mod sqlite;
pub mod verify;

/// A database of events, shared by all tasks of the service.
#[async_trait]
pub trait Store: Send + Sync {
    /// Identity of the database, the same for all instances of the service and after a restart.
    fn id(&self) -> Uuid;

    /// Location for people, without secrets.
    fn location(&self) -> &str;

    /// Number of lanes: serial commit queues, fixed when the database is created.
    fn lanes(&self) -> u16;

    /// Stores the new events of `batch`, counts all of them, and returns one outcome per event once
    /// the transaction is durable. All or nothing is done.
    ///
    /// A batch is applied at most once, however often it is committed: after [`Error::Unavailable`]
    /// or [`Error::Unknown`], committing the *same* batch again determines its outcomes.
    async fn commit(&self, batch: Arc<Batch>) -> Result<Vec<Outcome>, Error>;

    /// One page of events.
    async fn list(&self, query: ListQuery) -> Result<Page, Error>;

    /// The stored events among `keys`, cut when their payloads exceed `max_bytes`, but with at
    /// least one event.
    async fn get(&self, keys: Vec<EventKey>, max_bytes: usize) -> Result<Found, Error>;

    /// The counters of one topic or of all, in one snapshot, with those of the `max_topics` largest
    /// topics.
    async fn stats(&self, topic: Option<String>, max_topics: usize) -> Result<Stats, Error>;

    /// The head of each lane, and the last event up to its number in `at`, in one snapshot. `at`
    /// has one number per lane, or is empty to look up no events.
    async fn heads(&self, at: Vec<i64>) -> Result<Vec<LaneState>, Error>;

    /// One page of the feed.
    async fn read(&self, query: FeedQuery) -> Result<Page, Error>;

    /// For each lane, the number of its last event that is not behind `place` in a listing, oldest
    /// first.
    async fn positions_at(&self, place: Place) -> Result<Vec<i64>, Error>;

    /// Fails if the database does not respond.
    async fn ping(&self) -> Result<(), Error>;

    /// Closes the database. It must not be used afterwards.
    async fn close(&self);
}

/// What to do with a database that can lose acknowledged events in a crash.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// Refuse it.
    Demanded,
    /// Use it, with a warning.
    Waived,
}

/// Events that are committed together. Their topics are all in one lane.
#[derive(Debug)]
pub struct Batch {
    /// Identifies all attempts to commit this batch. A UUID of version 7, so that index entries are
    /// local.
    pub id: Uuid,
    /// The lane.
    pub lane: u16,
    /// When the events arrived. They are received at this time or at that of the lane's latest
    /// event, whichever is later: time is monotonic within a lane, even if clocks are not.
    pub received_at: Timestamp,
    /// The events, in order of arrival.
    pub events: Vec<NewEvent>,
}

/// A query for one page of a listing.
#[derive(Debug, Clone)]
pub struct ListQuery {
    /// Which events, and their order.
    pub filter: Filter,
    /// Only events up to these numbers, one per lane.
    pub heads: Vec<i64>,
    /// Only events after this place in the order of the listing.
    pub after: Option<Place>,
    /// Maximum number of events.
    pub limit: usize,
    /// Maximum bytes of payload. The first event is always included.
    pub max_bytes: usize,
}

/// A query for committed events of one lane, in its order.
#[derive(Debug, Clone)]
pub struct FeedQuery {
    /// The lane.
    pub lane: u16,
    /// The event before the first one. If the lane has another event there, the page is empty.
    pub after: Mark,
    /// Number of the last event.
    pub last: i64,
    /// Only events of these topics, or of all if it is empty.
    pub topics: Arc<[String]>,
    /// Maximum number of events.
    pub limit: usize,
    /// Maximum bytes of payload. The first event is always included.
    pub max_bytes: usize,
}

/// Which events to list, in which order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter {
    /// Only this topic.
    pub topic: Option<String>,
    /// Only this source.
    pub source: Option<String>,
    /// Only events received at this time or later.
    pub start_time: Option<Timestamp>,
    /// Only events received before this time.
    pub end_time: Option<Timestamp>,
    /// Oldest first instead of newest first.
    pub oldest_first: bool,
}

/// The place of an event in the order of a listing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// When it was received.
    pub received_at: Timestamp,
    /// Order among events received at the same time.
    pub position: Position,
}

impl From<&Event> for Place {
    fn from(event: &Event) -> Self {
        Self { received_at: event.received_at, position: event.position }
    }
}

/// One page of events.
#[derive(Debug, Default)]
pub struct Page {
    /// The events, in order.
    pub events: Vec<Event>,
    /// Whether more events follow.
    pub more: bool,
}

/// The result of a look-up by key.
#[derive(Debug, Default)]
pub struct Found {
    /// The events in the order of their keys, each with the index of its key.
    pub events: Vec<(usize, Event)>,
    /// Number of keys that were looked up before the result was cut.
    pub reached: usize,
}

/// Exact counters. `received = unique_processed + duplicate_dropped`, and `duplicate_dropped`
/// includes `conflicts`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    /// All events with an outcome.
    pub received: i64,
    /// New events.
    pub unique_processed: i64,
    /// Events that were already stored.
    pub duplicate_dropped: i64,
    /// Events that were already stored with different content.
    pub conflicts: i64,
}

/// Counters of the stored topics.
#[derive(Debug, Clone, Default)]
pub struct Stats {
    /// Totals of the selected topics.
    pub totals: Counters,
    /// Number of selected topics.
    pub topics_active: i64,
    /// The largest of them, most received first.
    pub topics: Vec<TopicStats>,
}

/// Counters of one topic.
#[derive(Debug, Clone)]
pub struct TopicStats {
    /// The topic.
    pub topic: String,
    /// Its counters.
    pub counters: Counters,
    /// When its latest event arrived, new or duplicate.
    pub last_received_at: Timestamp,
}

/// Why an operation failed. The causes are for the log: they may contain data and are never shown
/// to a caller.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nothing was done.
    #[error("database unavailable")]
    Unavailable(#[source] Box<dyn StdError + Send + Sync>),
    /// It is unknown whether it was done: the connection was lost.
    #[error("commit outcome unknown")]
    Unknown(#[source] Box<dyn StdError + Send + Sync>),
    /// The time limit was exceeded. Nothing was changed.
    #[error("statement timed out after {} s", crate::limits::STATEMENT_TIMEOUT.as_secs())]
    Timeout(#[source] Box<dyn StdError + Send + Sync>),
    /// Nothing was done, and a retry will fail again: the database rejects this data.
    #[error("the database rejected the data")]
    Refused(#[source] Box<dyn StdError + Send + Sync>),
    /// Nothing was done, for a reason that is not transient. One event may be at fault, for example
    /// because the row of its key is corrupt.
    #[error("database error")]
    Fault(#[source] Box<dyn StdError + Send + Sync>),
    /// Nothing was done, because the tables are missing or belong to another store. The store logs
    /// this itself, once.
    #[error("the database is not the one opened at startup")]
    WrongStore(#[source] Box<dyn StdError + Send + Sync>),
    /// Nothing was done, because comparing more than [`crate::limits::MAX_COMPARED_BYTES`] would
    /// block the lane. Parts of the batch can be committed.
    #[error("too many payload bytes to compare in one batch")]
    TooMuch {
        /// Bytes to compare by event index, for the events that were examined.
        excess: Vec<(usize, usize)>,
    },
}

/// Why a store cannot be opened. Each message is one line, with the cure.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The database cannot be reached, or denies access.
    #[error("cannot open the database {database}: {reason}")]
    Unreachable {
        /// The database, without secrets.
        database: String,
        /// The reason.
        reason: String,
    },
    /// The database can lose acknowledged events in a crash.
    #[error(
        "the database {database} can lose acknowledged events in a crash: {reason}; pass \
         --allow-data-loss to accept that"
    )]
    NotDurable {
        /// The database, without secrets.
        database: String,
        /// The reason.
        reason: String,
    },
    /// The database was migrated by a later version of the program.
    #[error(
        "the database has schema version {found}, but this version supports at most {known}: \
         upgrade event-aggregator"
    )]
    SchemaTooNew {
        /// Schema version of the database.
        found: i64,
        /// Latest schema version of this program.
        known: i64,
    },
    /// The database cannot be migrated to the schema of this program.
    #[error("cannot migrate the database {database}: {reason}")]
    Migration {
        /// The database, without secrets.
        database: String,
        /// The reason.
        reason: String,
    },
}

impl Error {
    /// Whether a retry may succeed.
    pub fn is_retryable(&self) -> bool {
        !matches!(self, Self::Refused(_) | Self::TooMuch { .. })
    }

    /// Whether the store has logged the error.
    pub fn is_logged(&self) -> bool {
        matches!(self, Self::WrongStore(_))
    }
}

/// The message of an error and of its causes, on one line. Causes of an [`Error`] quote no values:
/// the backends redact them.
pub(crate) fn chain(error: &dyn StdError) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let message = error.to_string();
        if !text.ends_with(&message) {
            text = format!("{text}: {message}");
        }
        cause = error.source();
    }
    text
}

/// The lane of a topic in a database with this many lanes. Must never change: it is part of the
/// data.
pub fn lane_of(topic: &str, lanes: u16) -> u16 {
    (xxh3_64(topic.as_bytes()) % u64::from(lanes)) as u16
}

/// Checks the numbers of all lanes, in order, and returns how many there are.
fn check_lanes(numbers: impl Iterator<Item = i64>) -> Result<u16, String> {
    let numbers: Vec<i64> = numbers.collect();
    match numbers.len() {
        lanes if lanes > MAX_LANES => {
            Err(format!("it has {lanes} lanes; the limit is {MAX_LANES}"))
        }
        lanes if lanes > 0 && numbers.iter().copied().eq(0..lanes as i64) => Ok(lanes as u16),
        _ => Err("table lanes is missing rows; restore the database from a backup".to_owned()),
    }
}

/// Warns if the latest event was received in the future. All events get its time until that is
/// reached, because time is monotonic within a lane.
fn warn_of_future(latest: Timestamp) {
    if latest.as_micros() > Timestamp::now().as_micros() + FUTURE_TOLERANCE.as_micros() as i64 {
        tracing::warn!(
            %latest,
            "the latest event has a receive time in the future, which all later events will get \
             too: compare the clocks of all instances; docs/operations.md explains how to repair \
             the times"
        );
    }
}

/// Converts the error of a failed migration. `reason` is its message, without values.
fn migration_failed(
    error: &refinery::Error,
    known: &[refinery::Migration],
    database: String,
    reason: String,
) -> OpenError {
    let known = known.iter().map(|migration| migration.version()).max().unwrap_or(0).into();
    match error.kind() {
        refinery::error::Kind::MissingVersion(migration)
            if i64::from(migration.version()) > known =>
        {
            OpenError::SchemaTooNew { found: migration.version().into(), known }
        }
        _ => OpenError::Migration { database, reason },
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn lane_of_a_topic_is_stable() {
        let lanes = ["orders", "payments", "clicks", "ü"].map(|topic| super::lane_of(topic, 4));
        assert_eq!(lanes, [3, 1, 3, 2]);
    }
}
