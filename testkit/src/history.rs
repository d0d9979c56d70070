//! The history of a round, observed from outside: all attempts to publish, all reads, all samples
//! of the counters, and the contents of the store at the end. This module does not judge.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use tonic::Code;

/// Time since the start of the round, on one monotonic clock.
pub type Moment = Duration;

/// The key of an event.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    pub topic: Arc<str>,
    pub event_id: Arc<str>,
}

/// Identifies one of the contents of a key: a hash of source and payload.
pub type Content = u64;

/// One event in one request.
#[derive(Debug, Clone)]
pub struct Attempt {
    /// The producer.
    pub producer: usize,
    /// The instance that it was sent to.
    pub instance: usize,
    pub key: Key,
    pub content: Content,
    /// When the request was handed to the transport.
    pub invoked: Moment,
    /// When its outcome was known, or the producer gave up.
    pub returned: Moment,
    pub outcome: Outcome,
}

/// The outcome of an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// New, and stored.
    Accepted,
    /// Already stored with the same content.
    Duplicate,
    /// Already stored with different content.
    Conflict,
    /// Neither stored nor counted for certain: rejected, or refused before anything was done.
    Failed(Code),
    /// It may have been stored and counted, once.
    Unknown(Code),
}

/// An event as a reader received it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivery {
    pub key: Key,
    pub content: Content,
    pub at: Moment,
}

/// All events of one subscriber, over all its connections: each resumes from the last cursor of the
/// previous one. It subscribes to all topics, from the beginning.
#[derive(Debug, Clone, Default)]
pub struct Reader {
    pub deliveries: Vec<Delivery>,
    /// Number of times it resumed from a cursor.
    pub resumed: usize,
    /// Whether it received CaughtUp after the last event was published.
    pub caught_up: bool,
}

/// One complete ListEvents listing, oldest first.
#[derive(Debug, Clone)]
pub struct Listing {
    pub invoked: Moment,
    pub returned: Moment,
    /// False if it ended early with an error.
    pub complete: bool,
    pub events: Vec<Delivery>,
}

/// Exact counters, of one topic or of all.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    pub received: i64,
    pub unique_processed: i64,
    pub duplicate_dropped: i64,
    pub conflicts: i64,
}

/// One response of GetStats.
#[derive(Debug, Clone)]
pub struct Sample {
    pub invoked: Moment,
    pub returned: Moment,
    pub instance: usize,
    pub totals: Counters,
    pub topics: BTreeMap<Arc<str>, Counters>,
}

/// A stored row after the round, read directly.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    pub key: Key,
    pub content: Content,
    pub lane: i16,
    pub seq: i64,
}

/// A fault.
#[derive(Debug, Clone)]
pub struct Fault {
    /// Its kind, as in the report.
    pub kind: &'static str,
    pub began: Moment,
    pub ended: Moment,
}

/// The final state, after all faults are healed and all producers have finished.
#[derive(Debug, Clone, Default)]
pub struct Settled {
    /// When all faults were healed, all instances ran, and no new events were due.
    pub healed: Moment,
    /// All rows, unordered.
    pub rows: Vec<Row>,
    /// `lanes.head` by lane.
    pub heads: BTreeMap<i16, i64>,
    /// The last response of GetStats.
    pub totals: Counters,
    pub topics: BTreeMap<Arc<str>, Counters>,
    /// The differences that `event-aggregator verify` reported.
    pub differences: Vec<String>,
    /// What did not recover in time: a producer without a response, a reader that is behind, a
    /// session idle in a transaction, an instance that is not ready.
    pub stuck: Vec<String>,
    /// What must never occur: panics in the log, INTERNAL errors, failed exits, secrets in a log.
    pub dirt: Vec<String>,
}

/// The complete history of a round.
#[derive(Debug, Clone, Default)]
pub struct History {
    pub attempts: Vec<Attempt>,
    pub readers: Vec<Reader>,
    pub listings: Vec<Listing>,
    pub samples: Vec<Sample>,
    pub faults: Vec<Fault>,
    pub settled: Settled,
}
