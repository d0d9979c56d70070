//! What happened in a round: what was sent and answered, what was read, and what was stored in the end.

use std::{collections::BTreeMap, sync::Arc};

/// Microseconds since the round began.
pub type Moment = u64;

/// Microseconds since 1970, as the service tells times.
pub type Time = i64;

/// One key, and all contents that are sent under it.
#[derive(Debug, Clone)]
pub struct Key {
    pub topic: Arc<str>,
    pub event_id: Arc<str>,
    pub contents: Vec<Content>,
}

/// What an event says beside its key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Content {
    pub source: Arc<str>,
    pub timestamp: Option<Time>,
    pub payload: Arc<str>,
    /// Whether the payload goes out as a `Struct`, of which the service writes the JSON text itself:
    /// it is stored with the same value, not with the same bytes.
    pub is_struct: bool,
}

/// Over which call an event went out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Way {
    Unary,
    Stream,
    Http,
}

/// One event sent once.
#[derive(Debug, Clone)]
pub struct Attempt {
    /// Index in [`History::keys`].
    pub key: usize,
    /// Index in the key's contents.
    pub content: usize,
    pub way: Way,
    pub service: usize,
    /// Just before it was sent.
    pub begin: Moment,
    /// Just after its answer was read, or when it was given up.
    pub end: Moment,
    pub outcome: Outcome,
}

/// What became of an attempt.
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
    /// The service said that nothing was done.
    NotDone,
    /// No answer, or one that leaves it open. It may be stored, now or later, once.
    Lost(String),
    /// An answer that the contract does not allow here.
    Wrong(String),
}

impl Outcome {
    /// The time of the original, if the event was judged.
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

/// An event as it was given back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    pub source: Arc<str>,
    /// The event's timestamp, or the time of receipt if it has none.
    pub timestamp: Time,
    pub payload: Arc<str>,
    pub received_at: Time,
}

/// A read of one key, or of everything.
#[derive(Debug, Clone)]
pub struct Sight {
    /// How it was read, for messages.
    pub by: &'static str,
    pub key: usize,
    pub begin: Moment,
    pub end: Moment,
    /// The event, if the answer had one under this key.
    pub seen: Option<Seen>,
}

/// All pages of one listing, from the first to the last.
#[derive(Debug, Clone, Default)]
pub struct Walk {
    pub oldest_first: bool,
    pub begin: Moment,
    /// Keys with their times of receipt, in the order of the pages.
    pub events: Vec<(usize, Time)>,
}

/// One subscription from the beginning, over all its connections.
#[derive(Debug, Clone, Default)]
pub struct Feed {
    pub deliveries: Vec<usize>,
    /// Connections after the first.
    pub resumed: usize,
    /// Whether it was told in the end, after the last restart, that it has everything.
    pub caught_up: bool,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    pub received: i64,
    pub unique: i64,
    pub duplicate: i64,
    pub conflicts: i64,
}

/// One answer of GetStats or of `GET /stats`.
#[derive(Debug, Clone, Default)]
pub struct Sample {
    pub begin: Moment,
    pub end: Moment,
    pub total: Counts,
    pub topics: BTreeMap<Arc<str>, Counts>,
}

/// A stored row, read by SQL after all services ended.
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

/// Everything that the rules judge.
#[derive(Debug, Clone, Default)]
pub struct History {
    pub keys: Vec<Key>,
    pub attempts: Vec<Attempt>,
    pub sights: Vec<Sight>,
    pub walks: Vec<Walk>,
    pub feeds: Vec<Feed>,
    /// In the order in which they were taken, each begun after the one before ended.
    pub samples: Vec<Sample>,
    /// The counters after the last restart, when nothing was sent any more.
    pub last: Sample,
    pub rows: Vec<Row>,
    /// Answers and events that are wrong by themselves: an unknown key, sums that do not add up, a
    /// process that ended, a `verify` that disagrees.
    pub faults: Vec<String>,
}
