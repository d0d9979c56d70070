//! What happened in a round, seen from outside: every attempt to publish, everything that was read,
//! every sample of the counters, and what the store holds in the end. Nothing in here judges.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use tonic::Code;

/// Time since the round began, on one monotonic clock.
pub type Moment = Duration;

/// The key of an event.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    pub topic: Arc<str>,
    pub event_id: Arc<str>,
}

/// Which of the contents of a key: a hash of source and payload.
pub type Content = u64;

/// One event, sent once.
#[derive(Debug, Clone)]
pub struct Attempt {
    /// Who sent it.
    pub producer: usize,
    /// To which instance.
    pub instance: usize,
    pub key: Key,
    pub content: Content,
    /// When the request was handed to the transport.
    pub invoked: Moment,
    /// When its outcome was known, or given up.
    pub returned: Moment,
    pub outcome: Outcome,
}

/// What became of an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It is stored, and was new.
    Accepted,
    /// It was there already, with the same content.
    Duplicate,
    /// It was there already, with other content.
    Conflict,
    /// It certainly was neither stored nor counted: rejected, or refused before anything was done.
    Failed(Code),
    /// It may have been stored, and may have been counted once.
    Unknown(Code),
}

/// An event as a reader got it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivery {
    pub key: Key,
    pub content: Content,
    pub at: Moment,
}

/// All that one subscriber got, over all its connections: each goes on behind the last cursor that
/// the one before has received. It subscribes to all topics, from the beginning.
#[derive(Debug, Clone, Default)]
pub struct Reader {
    pub deliveries: Vec<Delivery>,
    /// How often it went on behind a cursor that it had.
    pub resumed: usize,
    /// Whether it was told that it has everything, after the last event was published.
    pub caught_up: bool,
}

/// One walk through ListEvents, oldest first, from the first page on.
#[derive(Debug, Clone)]
pub struct Listing {
    pub invoked: Moment,
    pub returned: Moment,
    /// False if an error ended it early.
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

/// One answer of GetStats.
#[derive(Debug, Clone)]
pub struct Sample {
    pub invoked: Moment,
    pub returned: Moment,
    pub instance: usize,
    pub totals: Counters,
    pub topics: BTreeMap<Arc<str>, Counters>,
}

/// A row of the store after the round, asked past the service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    pub key: Key,
    pub content: Content,
    pub lane: i16,
    pub seq: i64,
}

/// A disturbance.
#[derive(Debug, Clone)]
pub struct Fault {
    /// Its kind, as the report counts them.
    pub kind: &'static str,
    pub began: Moment,
    pub ended: Moment,
}

/// What is left when all faults are healed and all producers are done.
#[derive(Debug, Clone, Default)]
pub struct Settled {
    /// When all faults were over, all instances ran, and nothing new was due.
    pub healed: Moment,
    /// All rows, in no order.
    pub rows: Vec<Row>,
    /// `lanes.head` by lane.
    pub heads: BTreeMap<i16, i64>,
    /// The last answer of GetStats.
    pub totals: Counters,
    pub topics: BTreeMap<Arc<str>, Counters>,
    /// What `event-aggregator verify` complained about.
    pub differences: Vec<String>,
    /// What did not come back to life within the time allowed: a producer without an answer, a reader
    /// that is behind, a session idle in a transaction, an instance that is not ready.
    pub stuck: Vec<String>,
    /// What nobody may ever see: panics in the log, INTERNAL answers, exits that are not clean, secrets
    /// in a log.
    pub dirt: Vec<String>,
}

/// Everything about a round.
#[derive(Debug, Clone, Default)]
pub struct History {
    pub attempts: Vec<Attempt>,
    pub readers: Vec<Reader>,
    pub listings: Vec<Listing>,
    pub samples: Vec<Sample>,
    pub faults: Vec<Fault>,
    pub settled: Settled,
}
