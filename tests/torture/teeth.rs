//! Whether the test has teeth: each bug that can be planted in the service must be found, and soon.

use std::{collections::BTreeSet, fmt::Write};

use crate::{
    Store,
    checker::{Rule, Violation},
};

/// Rounds within which a bug must be found.
const ROUNDS: u64 = 20;

/// Bugs that one instance on SQLite shows as well, or only it. The others need a network, or the
/// company of other instances.
const ON_SQLITE: [&str; 8] = [
    "counters-apart",
    "uncounted-duplicates",
    "early-dedup",
    "drain-throws-away",
    "accepted-twice",
    "conflict-is-duplicate",
    "page-border",
    "late-is-refused",
];

/// The search for one bug.
#[derive(Debug)]
pub struct Hunt {
    pub bug: &'static str,
    pub store: Store,
    rounds: u64,
    /// The rules that it broke.
    broken: BTreeSet<Rule>,
}

/// One for each bug, if the program has them.
pub fn hunts() -> Vec<Hunt> {
    let hunt = |&bug: &&'static str| {
        let store = if ON_SQLITE.contains(&bug) { Store::Sqlite } else { Store::Postgres };
        Hunt { bug, store, rounds: 0, broken: BTreeSet::new() }
    };
    bugs().iter().map(hunt).collect()
}

#[cfg(feature = "planted-bugs")]
fn bugs() -> &'static [&'static str] {
    &event_aggregator::planted::NAMES
}

#[cfg(not(feature = "planted-bugs"))]
fn bugs() -> &'static [&'static str] {
    &[]
}

impl Hunt {
    /// The number of the next round, until the bug is found or rounds run out.
    pub fn next_round(&mut self) -> Option<u64> {
        let goes_on = self.broken.is_empty() && self.rounds < ROUNDS;
        goes_on.then(|| {
            self.rounds += 1;
            self.rounds - 1
        })
    }

    /// Takes note of what a round found. All bugs falsify data or what is said about it; whatever merely
    /// stands still may be something else.
    pub fn note(&mut self, violations: &[Violation]) {
        let rules = violations.iter().map(|violation| violation.rule);
        self.broken.extend(rules.filter(|rule| *rule < Rule::Liveness));
    }

    pub fn is_found(&self) -> bool {
        !self.broken.is_empty()
    }
}

/// What came of it, as Markdown.
pub fn table(hunts: &[Hunt]) -> String {
    let mut text = "| bug | store | found by | rounds |\n|---|---|---|---:|\n".to_owned();
    for Hunt { bug, store, rounds, broken } in hunts {
        let rules: Vec<String> = broken.iter().map(ToString::to_string).collect();
        let rules = if rules.is_empty() { "**not found**".to_owned() } else { rules.join(", ") };
        let _ = writeln!(text, "| {bug} | {store} | {rules} | {rounds} |");
    }
    text
}
