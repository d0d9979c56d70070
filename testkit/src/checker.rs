//! The rules of the first checker, which judges a round by its history alone. They are modeled on
//! Jepsen's checkers; each group of rules is in a file below.

use std::fmt;

use crate::history::{Attempt, Content, Counters, Delivery, History, Key, Moment, Outcome, Row};

mod counters;
mod liveness;
mod reading;
mod rows;
mod trails;
mod vacuity;
mod verdicts;

use trails::Trails;
pub use vacuity::Enough;

/// Maximum number of reported violations per rule. More than one, to show a pattern.
const TOLD: usize = 20;

/// The rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Rule {
    /// Every acknowledged event is stored once, as it was sent.
    LostWrite,
    /// Readers see only events that an attempt may have stored.
    Phantom,
    /// Keys, sequence numbers of a lane and events of a reader are unique, and sequence numbers
    /// have no gaps.
    Duplicate,
    /// Every producer gets the correct verdict on its event.
    Verdict,
    /// The counters are exact at every time.
    Counters,
    /// Readers miss no event and get each lane in order.
    Cursor,
    /// Everything makes progress again once the faults are healed.
    Liveness,
    /// Nothing forbidden is observed: panics, INTERNAL errors, secrets.
    Hygiene,
    /// The round was not empty.
    Vacuous,
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::LostWrite => "C1 lost write",
            Self::Phantom => "C2 phantom",
            Self::Duplicate => "C3 duplicate",
            Self::Verdict => "C4 verdict",
            Self::Counters => "C5 counters",
            Self::Cursor => "C6 cursor",
            Self::Liveness => "C7 liveness",
            Self::Hygiene => "C8 hygiene",
            Self::Vacuous => "vacuous",
        })
    }
}

/// A violation of a rule, and where it was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    pub rule: Rule,
    pub what: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.rule, self.what)
    }
}

/// All violations of a round, ordered by rule, with a maximum number per rule.
pub fn check(history: &History) -> Vec<Violation> {
    let trails = Trails::of(history);
    let mut verdict = Findings::default();
    rows::check(history, &trails, &mut verdict);
    verdicts::check(&trails, &mut verdict);
    counters::check(history, &trails, &mut verdict);
    reading::check(history, &trails, &mut verdict);
    liveness::check(history, &mut verdict);
    for what in &history.settled.dirt {
        verdict.add(Rule::Hygiene, format_args!("{what}"));
    }
    verdict.into_violations()
}

/// What a history lacks to be a meaningful test.
pub fn check_extent(history: &History, enough: Enough) -> Vec<Violation> {
    let mut verdict = Findings::default();
    vacuity::check(history, enough, &mut verdict);
    verdict.into_violations()
}

/// Time from the healing of all faults to the last response.
pub fn wait(history: &History) -> Moment {
    liveness::wait(history)
}

/// Collects violations.
#[derive(Default)]
struct Findings {
    told: Vec<Violation>,
    /// Number of violations per rule.
    found: std::collections::BTreeMap<Rule, usize>,
}

impl Findings {
    fn add(&mut self, rule: Rule, what: fmt::Arguments<'_>) {
        let found = self.found.entry(rule).or_default();
        *found += 1;
        if *found <= TOLD {
            self.told.push(Violation { rule, what: what.to_string() });
        }
    }

    fn into_violations(mut self) -> Vec<Violation> {
        for (&rule, &found) in self.found.iter().filter(|(_, found)| **found > TOLD) {
            let what = format!("and {} more", found - TOLD);
            self.told.push(Violation { rule, what });
        }
        self.told.sort_by_key(|violation| violation.rule);
        self.told
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.topic, self.event_id)
    }
}
