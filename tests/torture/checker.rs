//! What must be true of every round, whatever disturbed it, judged from its history alone. The rules
//! are those that Jepsen's checkers look for, each group of them in a file below; how a history comes
//! about is no matter of this.

use std::fmt;

use super::history::{Attempt, Content, Counters, Delivery, History, Key, Moment, Outcome, Row};

// Paths, because this is compiled from more than one place.
#[path = "checker/counters.rs"]
mod counters;
#[path = "checker/liveness.rs"]
mod liveness;
#[path = "checker/reading.rs"]
mod reading;
#[path = "checker/rows.rs"]
mod rows;
#[path = "checker/trails.rs"]
mod trails;
#[path = "checker/vacuity.rs"]
mod vacuity;
#[path = "checker/verdicts.rs"]
mod verdicts;

use trails::Trails;
pub use vacuity::Enough;

/// Violations of one rule that are told. One would do; some show the pattern.
const TOLD: usize = 20;

/// What must hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Rule {
    /// What was acknowledged is stored, once, as it was sent.
    LostWrite,
    /// What nobody may have stored is seen by nobody.
    Phantom,
    /// A key, a number of a lane and an event of a reader are there once, and numbers have no gaps.
    Duplicate,
    /// Each producer is told the truth about its event.
    Verdict,
    /// The counters are exact, at every moment that anybody can see.
    Counters,
    /// Readers miss nothing and get each lane in order.
    Cursor,
    /// Everything comes back to life once faults are healed.
    Liveness,
    /// Nothing is seen that nobody may ever see.
    Hygiene,
    /// There was something to judge.
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

/// A rule that did not hold, and where.
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

/// All that is wrong with a round, by rule, and no more than some of each.
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

/// What a history lacks that is to be more than empty words.
pub fn check_extent(history: &History, enough: Enough) -> Vec<Violation> {
    let mut verdict = Findings::default();
    vacuity::check(history, enough, &mut verdict);
    verdict.into_violations()
}

/// How long after everything was healed the last event was answered.
pub fn wait(history: &History) -> Moment {
    liveness::wait(history)
}

/// Violations while they are found.
#[derive(Default)]
struct Findings {
    told: Vec<Violation>,
    /// By rule, how many there were.
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
