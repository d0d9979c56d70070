//! The seam between the service and its database: a [`Store`] keeps events exactly once and counts
//! them in the same transaction. Backends live in sibling modules, each with its own SQL and
//! migrations; what they share is how a batch is judged (`judge`).

use std::{error::Error as StdError, sync::Arc};

use async_trait::async_trait;
use uuid::Uuid;
use xxhash_rust::xxh3::xxh3_64;

use crate::{
    event::{Event, EventKey, NewEvent, Outcome, Position, Timestamp},
    limits::{FUTURE_TOLERANCE, MAX_LANES},
};

pub use mark::{LaneState, Mark, holds, numbers};

mod identity;
mod judge;
mod mark;
pub mod measured;
pub mod postgres;
pub mod sqlite;
pub mod verify;

/// A database of events. Implementations are shared by all tasks of the service.
#[async_trait]
pub trait Store: Send + Sync {
    /// Which database this is, over all its restarts and all instances of the service.
    fn id(&self) -> Uuid;

    /// Where it is, for people, without secrets.
    fn location(&self) -> &str;

    /// How many lanes it has: serial commit queues, fixed when the database was created.
    fn lanes(&self) -> u16;

    /// Stores what is new in `batch`, counts all of it, and returns one outcome per event once that
    /// is durable. All of it happens in one transaction, or none.
    ///
    /// A batch is applied once however often it is committed: after [`Error::Unavailable`] or
    /// [`Error::Unknown`], committing the *same* batch again finds out what happened.
    async fn commit(&self, batch: Arc<Batch>) -> Result<Vec<Outcome>, Error>;

    /// One page of events.
    async fn list(&self, query: ListQuery) -> Result<Page, Error>;

    /// The stored events among `keys`. Cut when the payloads exceed `max_bytes`, after one event at
    /// least.
    async fn get(&self, keys: Vec<EventKey>, max_bytes: usize) -> Result<Found, Error>;

    /// The counters, in one snapshot: of one topic or of all, with the `max_topics` largest topics.
    async fn stats(&self, topic: Option<String>, max_topics: usize) -> Result<Stats, Error>;

    /// Each lane, all in one snapshot: how far it goes, and what is stored at the numbers `at`, one for
    /// each lane. Nothing is looked for if `at` is empty.
    async fn heads(&self, at: Vec<i64>) -> Result<Vec<LaneState>, Error>;

    /// A part of the feed.
    async fn read(&self, query: FeedQuery) -> Result<Page, Error>;

    /// For each lane, the number of its last event that a listing, oldest first, has up to `place`.
    async fn positions_at(&self, place: Place) -> Result<Vec<i64>, Error>;

    /// Whether the database answers.
    async fn ping(&self) -> Result<(), Error>;

    /// Closes the database. Nothing may be called afterwards.
    async fn close(&self);
}

/// What is asked of a database that a crash may rob of what was acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// It is refused.
    Demanded,
    /// It is used, with a warning.
    Waived,
}

/// Events that are committed together. All their topics belong to one lane.
#[derive(Debug)]
pub struct Batch {
    /// Tells tries of this batch from other batches. Version 7, so that new ones lie together in an index.
    pub id: Uuid,
    /// The lane.
    pub lane: u16,
    /// When the events arrived. They count as received then, or when the latest event of the lane was
    /// if that is later: within a lane time never runs backwards, whatever clocks do.
    pub received_at: Timestamp,
    /// The events, in order of arrival.
    pub events: Vec<NewEvent>,
}

/// What to list.
#[derive(Debug, Clone)]
pub struct ListQuery {
    /// Which events.
    pub filter: Filter,
    /// Only events up to these numbers, one for each lane.
    pub heads: Vec<i64>,
    /// Only events behind this place in the listing's order.
    pub after: Option<Place>,
    /// Events at most.
    pub limit: usize,
    /// Bytes of payload at most, except that the first event is always listed.
    pub max_bytes: usize,
}

/// Which part of the feed to read: committed events of one lane, in its order.
#[derive(Debug, Clone)]
pub struct FeedQuery {
    /// The lane.
    pub lane: u16,
    /// The event before the first one. If the lane has another event there, nothing is read.
    pub after: Mark,
    /// The number of the last one.
    pub last: i64,
    /// Only events of these topics; of all if there are none.
    pub topics: Arc<[String]>,
    /// Events at most.
    pub limit: usize,
    /// Bytes of payload at most, except that the first event is always given.
    pub max_bytes: usize,
}

/// Which events to list, in which order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter {
    /// Only this topic.
    pub topic: Option<String>,
    /// Only this source.
    pub source: Option<String>,
    /// Only received at this time or later.
    pub start_time: Option<Timestamp>,
    /// Only received before this time.
    pub end_time: Option<Timestamp>,
    /// Oldest first instead of newest first.
    pub oldest_first: bool,
}

/// The place of an event in a listing, which is ordered by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// When it was received.
    pub received_at: Timestamp,
    /// Where it stands among events received at the same time.
    pub position: Position,
}

impl From<&Event> for Place {
    fn from(event: &Event) -> Self {
        Self { received_at: event.received_at, position: event.position }
    }
}

/// One page of a listing.
#[derive(Debug, Default)]
pub struct Page {
    /// Its events, in order.
    pub events: Vec<Event>,
    /// Whether more events follow.
    pub more: bool,
}

/// The answer to a look-up by key.
#[derive(Debug, Default)]
pub struct Found {
    /// The events, each with the index of its key, in the order of the keys.
    pub events: Vec<(usize, Event)>,
    /// How many keys were looked up before the answer was cut.
    pub reached: usize,
}

/// Exact counters: `received = unique_processed + duplicate_dropped`, and `conflicts` is a part of
/// `duplicate_dropped`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    /// Events that were judged.
    pub received: i64,
    /// Events that were new.
    pub unique_processed: i64,
    /// Events that were repeated.
    pub duplicate_dropped: i64,
    /// Repeated events that differed from the stored one.
    pub conflicts: i64,
}

/// What a store has counted.
#[derive(Debug, Clone, Default)]
pub struct Stats {
    /// Over all topics asked for.
    pub totals: Counters,
    /// How many topics those are.
    pub topics_active: i64,
    /// The largest of them, most received first.
    pub topics: Vec<TopicStats>,
}

/// What a store has counted for one topic.
#[derive(Debug, Clone)]
pub struct TopicStats {
    /// The topic.
    pub topic: String,
    /// Its counters.
    pub counters: Counters,
    /// When its latest event arrived, new or repeated.
    pub last_received_at: Timestamp,
}

/// Why a store did not do what it was asked. The causes are for the log; they may hold data and are
/// never shown to a caller.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It certainly was not done.
    #[error("database unavailable")]
    Unavailable(#[source] Box<dyn StdError + Send + Sync>),
    /// It may have been done: the connection was lost on the way.
    #[error("commit outcome unknown")]
    Unknown(#[source] Box<dyn StdError + Send + Sync>),
    /// It would have taken too long. Nothing was changed.
    #[error("statement timed out after {} s", crate::limits::STATEMENT_TIMEOUT.as_secs())]
    Timeout(#[source] Box<dyn StdError + Send + Sync>),
    /// It was not done, and never will be: the database refuses this very data.
    #[error("the database rejected the data")]
    Refused(#[source] Box<dyn StdError + Send + Sync>),
    /// It was not done, and not for a reason that passes by itself: it may be the fault of one event, as when
    /// what is stored under its key is damaged.
    #[error("database error")]
    Fault(#[source] Box<dyn StdError + Send + Sync>),
    /// It was not done, and nothing can be until the right database is back: the tables at the configured
    /// place are gone, or belong to another store. The store logs this itself, once.
    #[error("the database is not the one opened at startup")]
    WrongStore(#[source] Box<dyn StdError + Send + Sync>),
    /// It was not done: comparing more than [`crate::limits::MAX_COMPARED_BYTES`] would keep the lane
    /// waiting. Parts of the batch can be committed.
    #[error("too many payload bytes to compare in one batch")]
    TooMuch {
        /// Bytes by event, as its index in the batch, of those looked at.
        excess: Vec<(usize, usize)>,
    },
}

/// Why a store could not be opened. Each reads as one line that says what to do.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The database cannot be reached, or does not let us in.
    #[error("cannot open the database {database}: {reason}")]
    Unreachable {
        /// The database, without secrets.
        database: String,
        /// Why.
        reason: String,
    },
    /// A crash may rob it of what was acknowledged.
    #[error(
        "the database {database} can lose acknowledged events in a crash: {reason}; pass \
         --allow-data-loss to accept that"
    )]
    NotDurable {
        /// The database, without secrets.
        database: String,
        /// Why.
        reason: String,
    },
    /// A later version of the program has migrated the database.
    #[error(
        "the database has schema version {found}, but this version supports at most {known}: upgrade \
         event-aggregator"
    )]
    SchemaTooNew {
        /// What the database has.
        found: i64,
        /// What this program knows.
        known: i64,
    },
    /// The database cannot be brought to the schema that this program needs.
    #[error("cannot migrate the database {database}: {reason}")]
    Migration {
        /// The database, without secrets.
        database: String,
        /// Why.
        reason: String,
    },
}

impl Error {
    /// Whether doing the same again may succeed.
    pub fn is_retryable(&self) -> bool {
        !matches!(self, Self::Refused(_) | Self::TooMuch { .. })
    }

    /// Whether the store has logged it, so that callers need not.
    pub fn is_logged(&self) -> bool {
        matches!(self, Self::WrongStore(_))
    }
}

/// The message of an error with those of its causes, on one line, without the values that a database
/// quotes.
pub(crate) fn chain(error: &dyn StdError) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let message = postgres::told(error).unwrap_or_else(|| error.to_string());
        if !text.ends_with(&message) {
            text = format!("{text}: {message}");
        }
        cause = error.source();
    }
    text
}

/// The lane of a topic, in a database with so many. Part of what a database means: it must give the
/// same answer in all versions of the program.
pub fn lane_of(topic: &str, lanes: u16) -> u16 {
    (xxh3_64(topic.as_bytes()) % u64::from(lanes)) as u16
}

/// How many lanes a database has, by their numbers in order. The error says what is wrong with them.
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

/// Warns of a latest event that was received in the future: all events to come get its time until that
/// has come, because time never runs backwards within a lane.
fn warn_of_future(latest: Timestamp) {
    if latest.as_micros() > Timestamp::now().as_micros() + FUTURE_TOLERANCE.as_micros() as i64 {
        tracing::warn!(
            %latest,
            "the latest event has a receive time in the future, which all later events will get too: \
             compare the clocks of all instances; docs/operations.md explains how to repair the times"
        );
    }
}

/// Makes an [`OpenError`] of a migration that failed.
fn migration_failed(
    error: &refinery::Error,
    known: &[refinery::Migration],
    database: String,
) -> OpenError {
    let known = known.iter().map(|migration| migration.version()).max().unwrap_or(0).into();
    match error.kind() {
        refinery::error::Kind::MissingVersion(migration)
            if i64::from(migration.version()) > known =>
        {
            OpenError::SchemaTooNew { found: migration.version().into(), known }
        }
        _ => OpenError::Migration { database, reason: chain(error) },
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_lane_of_a_topic_never_changes() {
        let lanes = ["orders", "payments", "clicks", "ü"].map(|topic| super::lane_of(topic, 4));
        assert_eq!(lanes, [3, 1, 3, 2]);
    }
}
