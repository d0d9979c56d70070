//! Mutants of the service: versions with a deliberate bug, each of a kind that services like this one
//! are known to have. The mutation test checks that the torture test finds every one.
//!
//! Most mutants are a wrong store around the real one, which this program serves itself. A bug in
//! another place is a patch, `mutants/NAME.patch`, which is applied to a copy of the source and
//! built.

use std::sync::Arc;

use event_aggregator::store;

use self::{
    commits::{AckBeforeCommit, DeadLane, DrainThrowsAway},
    reads::{CountersFromMemory, LaggingListing, PageBorder, PlainSequence},
    retries::{BlindRetry, PanicIsAbort, ProbeBySelect, UnknownIsDone},
    verdicts::{AcceptedTwice, ConflictIsDuplicate, UncountedDuplicates},
};
use crate::{Store, faults::Kind};

mod commits;
pub mod patched;
mod reads;
mod retries;
pub mod serve;
mod verdicts;

/// Wraps a store.
type Wrap = fn(Arc<dyn store::Store>) -> Arc<dyn store::Store>;

/// A mutant, and how to look for it.
#[derive(Debug, Clone, Copy)]
pub struct Mutant {
    pub name: &'static str,
    pub made: Made,
    /// The store of its rounds.
    pub store: Store,
    /// The only kind of fault in its rounds, or `None` if any of them exposes it.
    pub fault: Option<Kind>,
    /// Whether the mutant falsifies nothing, but blocks progress.
    pub blocks: bool,
}

/// How a mutant is made.
#[derive(Debug, Clone, Copy)]
pub enum Made {
    /// With a wrong store.
    Store(Wrap),
    /// With a patch of the source.
    Patch,
}

pub static MUTANTS: [Mutant; 25] = [
    by_patch("acks-dropped-on-drain").on_sqlite().with_only(Kind::StopInstance),
    by_patch("broadcast-only"),
    by_patch("counters-apart").on_sqlite(),
    by_patch("cursor-ahead"),
    by_patch("cursor-unmarked").with_only(Kind::RestoreStore),
    by_patch("damage-holds-lane").with_only(Kind::DamageRow).blocking(),
    by_patch("early-dedup").on_sqlite(),
    by_patch("identity-unchecked").with_only(Kind::SwapStore),
    by_patch("late-is-refused").on_sqlite(),
    by_patch("ledger-by-the-clock").with_only(Kind::JumpClock),
    by_patch("no-share").with_only(Kind::GreedyClient).blocking(),
    by_store("accepted-twice", |store| Arc::new(AcceptedTwice(store))).on_sqlite(),
    by_store("ack-before-commit", |store| Arc::new(AckBeforeCommit(store))),
    by_store("blind-retry", |store| Arc::new(BlindRetry::over(store))).with_only(Kind::CutCommit),
    by_store("conflict-is-duplicate", |store| Arc::new(ConflictIsDuplicate(store))).on_sqlite(),
    by_store("counters-from-memory", |store| Arc::new(CountersFromMemory::over(store))),
    by_store("dead-lane", |store| Arc::new(DeadLane::over(store))).blocking(),
    by_store("drain-throws-away", |store| Arc::new(DrainThrowsAway::over(store))).on_sqlite(),
    by_store("lagging-listing", |store| Arc::new(LaggingListing(store))),
    by_store("page-border", |store| Arc::new(PageBorder(store))).on_sqlite(),
    by_store("panic-is-abort", |store| Arc::new(PanicIsAbort::over(store)))
        .with_only(Kind::FsyncFails),
    by_store("plain-sequence", |store| Arc::new(PlainSequence::over(store))),
    by_store("probe-by-select", |store| Arc::new(ProbeBySelect::over(store)))
        .with_only(Kind::CutCommit),
    by_store("uncounted-duplicates", |store| Arc::new(UncountedDuplicates::over(store)))
        .on_sqlite(),
    by_store("unknown-is-done", |store| Arc::new(UnknownIsDone(store))).with_only(Kind::CutCommit),
];

const fn by_patch(name: &'static str) -> Mutant {
    Mutant { name, made: Made::Patch, store: Store::Postgres, fault: None, blocks: false }
}

const fn by_store(name: &'static str, wrap: Wrap) -> Mutant {
    Mutant { made: Made::Store(wrap), ..by_patch(name) }
}

impl Mutant {
    /// One instance shows it. The others need several instances, or a network.
    const fn on_sqlite(self) -> Self {
        Self { store: Store::Sqlite, ..self }
    }

    /// Only one kind of fault exposes it.
    const fn with_only(self, fault: Kind) -> Self {
        Self { fault: Some(fault), ..self }
    }

    const fn blocking(self) -> Self {
        Self { blocks: true, ..self }
    }
}

/// The mutant of a name.
pub fn find(name: &str) -> Result<&'static Mutant, String> {
    MUTANTS.iter().find(|mutant| mutant.name == name).ok_or_else(|| {
        let names: Vec<&str> = MUTANTS.iter().map(|mutant| mutant.name).collect();
        format!("the mutants are {}", names.join(", "))
    })
}

/// Builds the programs of those that are patches.
pub fn build(mutants: &[&'static Mutant]) -> anyhow::Result<()> {
    let patches = mutants.iter().filter(|mutant| matches!(mutant.made, Made::Patch));
    patched::build(&patches.map(|mutant| mutant.name).collect::<Vec<_>>())
}
