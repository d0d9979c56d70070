//! The history of a round: attempts and responses, reads, and the stored rows at the end.

use std::{collections::BTreeMap, sync::Arc};

/// Microseconds since the start of the round.
pub type Moment = u64;

/// Microseconds since 1970, as in timestamps of the service.
pub type Time = i64;

/// A key, and all contents that are sent with it.
#[derive(Debug, Clone)]
pub struct Key {
    pub topic: Arc<str>,
    pub event_id: Arc<str>,
    pub contents: Vec<Content>,
}

/// The content of an event, without its key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Content {
    pub source: Arc<str>,
    pub timestamp: Option<Time>,
    pub payload: Arc<str>,
    /// Whether the payload is sent as a `Struct`, for which the service writes the JSON text: it is
    /// stored with the same value, but not with the same bytes.
    pub is_struct: bool,
}

/// The API through which an event was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Way {
    Unary,
    Stream,
    Http,
}

/// One event in one request.
#[derive(Debug, Clone)]
pub struct Attempt {
    /// Index in [`History::keys`].
    pub key: usize,
    /// Index in the contents of the key.
    pub content: usize,
    pub way: Way,
    pub service: usize,
    /// Immediately before it was sent.
    pub begin: Moment,
    /// Immediately after its response was read, or when it was given up.
    pub end: Moment,
    pub outcome: Outcome,
}

/// The outcome of an attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    Accepted {
        first: Time,
    },
    Duplicate {
        first: Time,
    },
    Conflict {
        first: Time,
        fields: Vec<String>,
    },
    /// The service reported that nothing was done.
    NotDone,
    /// No response, or one without a known outcome. The event may be stored, now or later, once.
    Lost(String),
    /// A response that the contract does not permit here.
    Wrong(String),
}

impl Outcome {
    /// The time of receipt of the original, if there was a verdict.
    pub fn first(&self) -> Option<Time> {
        match self {
            Self::Accepted { first } | Self::Duplicate { first } | Self::Conflict { first, .. } => {
                Some(*first)
            }
            Self::NotDone | Self::Lost(_) | Self::Wrong(_) => None,
        }
    }

    pub fn is_lost(&self) -> bool {
        matches!(self, Self::Lost(_))
    }
}

/// An event as it was returned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    pub source: Arc<str>,
    /// The event's timestamp, or the time of receipt if it has none.
    pub timestamp: Time,
    pub payload: Arc<str>,
    pub received_at: Time,
}

/// A read of one key, or of all keys.
#[derive(Debug, Clone)]
pub struct Sight {
    /// The API, for messages.
    pub by: &'static str,
    pub key: usize,
    pub begin: Moment,
    pub end: Moment,
    /// The event, if the response had one with this key.
    pub seen: Option<Seen>,
}

/// All pages of one listing, from the first to the last.
#[derive(Debug, Clone, Default)]
pub struct Walk {
    pub oldest_first: bool,
    pub begin: Moment,
    /// Keys with their times of receipt, in page order.
    pub events: Vec<(usize, Time)>,
}

/// One subscription from the beginning, over all its connections.
#[derive(Debug, Clone, Default)]
pub struct Feed {
    pub deliveries: Vec<usize>,
    /// Number of reconnects.
    pub resumed: usize,
    /// Whether it caught up after the last restart.
    pub caught_up: bool,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    pub received: i64,
    pub unique: i64,
    pub duplicate: i64,
    pub conflicts: i64,
}

/// One response of GetStats or `GET /stats`.
#[derive(Debug, Clone, Default)]
pub struct Sample {
    pub begin: Moment,
    pub end: Moment,
    pub total: Counts,
    pub topics: BTreeMap<Arc<str>, Counts>,
}

/// A stored row, read by SQL after all services have ended.
#[derive(Debug, Clone)]
pub struct Row {
    pub key: usize,
    pub lane: i64,
    pub seq: i64,
    pub source: Arc<str>,
    pub timestamp: Option<Time>,
    pub payload: Arc<str>,
    pub received_at: Time,
}

/// The input of the rules.
#[derive(Debug, Clone, Default)]
pub struct History {
    pub keys: Vec<Key>,
    pub attempts: Vec<Attempt>,
    pub sights: Vec<Sight>,
    pub walks: Vec<Walk>,
    pub feeds: Vec<Feed>,
    /// In order; each sample began after the previous one ended.
    pub samples: Vec<Sample>,
    /// The counters after the last restart, with no further events.
    pub last: Sample,
    pub rows: Vec<Row>,
    /// Responses and events that are wrong by themselves: an unknown key, inconsistent sums, a
    /// process that exited, a difference reported by `verify`.
    pub faults: Vec<String>,
}
