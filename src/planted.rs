//! Faults on purpose, one at a time, to prove that the torture test would find them: mistakes that
//! services like this one are known to make. Compiled only with the feature `planted-bugs`.
//!
//! Most of them are a [`Store`] around the real one. What cannot be done from there is a line at the
//! place where the mistake would be made, which asks [`is`].

use std::{env, sync::Arc, sync::LazyLock};

use crate::store::{OpenError, Store};

mod acknowledging;
mod retrying;
mod store;

pub(crate) use acknowledging::{in_time, seen_before};

/// Names the bug to plant.
pub const VARIABLE: &str = "EVENT_AGGREGATOR_PLANTED_BUG";

/// A mistake.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bug {
    /// Events are acknowledged, and committed a moment later.
    AckBeforeCommit,
    /// A batch whose commit got no answer is committed again as if it were another one.
    BlindRetry,
    /// The same, unless a look finds its events in the database.
    ProbeBySelect,
    /// The same, if the answer was an error: also one of a server that went down over the commit.
    PanicIsAbort,
    /// A batch whose commit got no answer counts as committed.
    UnknownIsDone,
    /// Counters are added in a transaction of their own, after that of the events. SQLite only.
    CountersApart,
    /// Counters are shown from memory, which is brought up to date every second.
    CountersFromMemory,
    /// Repetitions that this process knows are dropped without being counted.
    UncountedDuplicates,
    /// A request whose keys were all seen is answered before the originals are committed.
    EarlyDedup,
    /// A cursor's end is the last number given out, not the last one committed.
    PlainSequence,
    /// A subscriber that has caught up goes on with what is committed from then on.
    BroadcastOnly,
    /// A cursor counts what was read as delivered.
    CursorAhead,
    /// What waits when the process is told to stop is acknowledged and thrown away.
    DrainThrowsAway,
    /// A key that is twice in a batch is new both times.
    AcceptedTwice,
    /// A conflict is told as a plain duplicate.
    ConflictIsDuplicate,
    /// Every page after the first begins one event too late.
    PageBorder,
    /// Listings lag two seconds behind.
    LaggingListing,
    /// What takes long is answered as if nothing had been done.
    LateIsRefused,
    /// What waits for its commit when the process is told to stop is answered as if it had not been
    /// taken in, and committed.
    AcksDroppedOnDrain,
    /// The first lane of a process waits for ever for one of its commits.
    DeadLane,
    /// Commits go to whatever store is there. PostgreSQL only.
    IdentityUnchecked,
    /// Cursors are taken by their numbers alone.
    CursorUnmarked,
    /// The ledger forgets what is old by the database's clock, except the last entry of a lane.
    /// PostgreSQL only.
    LedgerByTheClock,
    /// A batch over which the store fails is tried again as a whole.
    DamageHoldsLane,
    /// One caller may take all of each bound.
    NoShare,
}

use Bug::*;

const BUGS: [(&str, Bug); 25] = [
    ("ack-before-commit", AckBeforeCommit),
    ("blind-retry", BlindRetry),
    ("probe-by-select", ProbeBySelect),
    ("panic-is-abort", PanicIsAbort),
    ("unknown-is-done", UnknownIsDone),
    ("counters-apart", CountersApart),
    ("counters-from-memory", CountersFromMemory),
    ("uncounted-duplicates", UncountedDuplicates),
    ("early-dedup", EarlyDedup),
    ("plain-sequence", PlainSequence),
    ("broadcast-only", BroadcastOnly),
    ("cursor-ahead", CursorAhead),
    ("drain-throws-away", DrainThrowsAway),
    ("accepted-twice", AcceptedTwice),
    ("conflict-is-duplicate", ConflictIsDuplicate),
    ("page-border", PageBorder),
    ("lagging-listing", LaggingListing),
    ("late-is-refused", LateIsRefused),
    ("acks-dropped-on-drain", AcksDroppedOnDrain),
    ("dead-lane", DeadLane),
    ("identity-unchecked", IdentityUnchecked),
    ("cursor-unmarked", CursorUnmarked),
    ("ledger-by-the-clock", LedgerByTheClock),
    ("damage-holds-lane", DamageHoldsLane),
    ("no-share", NoShare),
];

/// What the bugs are called.
pub const NAMES: [&str; BUGS.len()] = {
    let mut names = [""; BUGS.len()];
    let mut number = 0;
    while number < BUGS.len() {
        names[number] = BUGS[number].0;
        number += 1;
    }
    names
};

static PLANTED: LazyLock<Option<Bug>> = LazyLock::new(|| {
    let chosen = env::var(VARIABLE).ok()?;
    BUGS.iter().find(|(name, _)| *name == chosen).map(|(_, bug)| *bug)
});

/// Whether this is the bug that is planted.
pub(crate) fn is(bug: Bug) -> bool {
    *PLANTED == Some(bug)
}

/// The store with the bug that is asked for, or as it is if none is.
pub(crate) fn plant(store: Arc<dyn Store>) -> Result<Arc<dyn Store>, OpenError> {
    match (*PLANTED, env::var(VARIABLE)) {
        (Some(bug), _) => {
            tracing::warn!(?bug, "a bug is planted");
            Ok(store::PlantedStore::plant(bug, store))
        }
        (None, Err(_)) => Ok(store),
        (None, Ok(unknown)) => Err(OpenError::Unreachable {
            database: store.location().to_owned(),
            reason: format!("{VARIABLE} is {unknown}; bugs are {}", NAMES.join(", ")),
        }),
    }
}
