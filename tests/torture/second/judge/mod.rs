//! The judge of the second checker: rules of its own, made of the contract and the README alone. It sees
//! a [`History`] and returns what contradicts the promises.

use std::{collections::BTreeMap, fmt};

use history::{Attempt, Content, History, Key, Outcome, Row, Sight};
use json::Value;

mod counters;
mod feed;
pub mod history;
pub mod json;
mod reading;
mod register;
mod stored;
mod verdicts;

/// A promise.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rule {
    /// A key is ACCEPTED at most once.
    Once,
    /// What was answered is stored once, with the content that was accepted.
    Stored,
    /// Answers fit some order of instants between begin and end: the first write wins.
    Order,
    /// DUPLICATE and CONFLICT tell the truth about the stored event.
    Verdict,
    /// Counters count each event once.
    Counters,
    /// Subscribers get each event once, in the order of commits.
    Feed,
    /// What is given back is what is stored.
    Reading,
    /// Nothing else is wrong: answers that the contract does not know, `verify`, dead processes.
    Answer,
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Once => "S1 once",
            Self::Stored => "S2 stored",
            Self::Order => "S3 order",
            Self::Verdict => "S4 verdict",
            Self::Counters => "S5 counters",
            Self::Feed => "S6 feed",
            Self::Reading => "S7 reading",
            Self::Answer => "S8 answer",
        })
    }
}

/// A broken promise.
#[derive(Debug, Clone)]
pub struct Violation {
    pub rule: Rule,
    pub text: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.rule, self.text)
    }
}

/// All violations of a history.
pub fn judge(history: &History) -> Vec<Violation> {
    let mut findings = Findings::default();
    for fault in &history.faults {
        findings.add(Rule::Answer, fault.clone());
    }
    let cases = cases(history, &mut findings);
    for case in &cases {
        stored::check(case, &mut findings);
        register::check(case, &mut findings);
        verdicts::check(case, &mut findings);
        reading::check_sights(case, &mut findings);
    }
    reading::check_walks(history, &cases, &mut findings);
    counters::check(history, &cases, &mut findings);
    feed::check(history, &cases, &mut findings);
    findings.0
}

#[derive(Debug, Default)]
struct Findings(Vec<Violation>);

impl Findings {
    fn add(&mut self, rule: Rule, text: impl Into<String>) {
        self.0.push(Violation { rule, text: text.into() });
    }
}

/// All about one key.
struct Case<'a> {
    key: &'a Key,
    attempts: Vec<&'a Attempt>,
    sights: Vec<&'a Sight>,
    /// The stored event, if there is exactly one.
    row: Option<&'a Row>,
    row_count: usize,
    /// How each content of the key differs from the stored event.
    differences: Vec<Vec<&'static str>>,
}

impl Case<'_> {
    fn violation(&self, text: impl fmt::Display) -> String {
        // Some ids are as long as they may be.
        let id: String = self.key.event_id.chars().take(12).collect();
        format!("{:?}/{id:?}: {text}", self.key.topic)
    }

    fn content(&self, attempt: &Attempt) -> &Content {
        &self.key.contents[attempt.content]
    }

    /// Attempts that may have stored the event: the accepted ones, or else those without an answer.
    fn firsts(&self) -> Vec<&Attempt> {
        let accepted = |attempt: &Attempt| matches!(attempt.outcome, Outcome::Accepted { .. });
        let of = |is: &dyn Fn(&Attempt) -> bool| -> Vec<&Attempt> {
            self.attempts.iter().copied().filter(|attempt| is(attempt)).collect()
        };
        match of(&accepted) {
            none if none.is_empty() => of(&|attempt| attempt.outcome.is_lost()),
            accepted => accepted,
        }
    }
}

/// Sorts what is known by key.
fn cases<'a>(history: &'a History, findings: &mut Findings) -> Vec<Case<'a>> {
    let case = |key| Case {
        key,
        attempts: Vec::new(),
        sights: Vec::new(),
        row: None,
        row_count: 0,
        differences: Vec::new(),
    };
    let mut cases: Vec<Case<'a>> = history.keys.iter().map(case).collect();
    for attempt in &history.attempts {
        cases[attempt.key].attempts.push(attempt);
    }
    for sight in &history.sights {
        cases[sight.key].sights.push(sight);
    }
    for row in &history.rows {
        let case = &mut cases[row.key];
        case.row_count += 1;
        case.row = (case.row_count == 1).then_some(row);
    }
    for case in &mut cases {
        let Some(row) = case.row else { continue };
        let Some(value) = json::parse(&row.payload) else {
            findings.add(Rule::Stored, case.violation("the stored payload is not JSON"));
            continue;
        };
        let mut known = BTreeMap::new();
        let differing = |content| differing(row, &value, content, &mut known);
        case.differences = case.key.contents.iter().map(differing).collect();
    }
    cases
}

/// Which fields of a content differ from the stored event: payloads by value, timestamps only if both
/// have one.
fn differing<'a>(
    row: &Row,
    value: &Value,
    content: &'a Content,
    known: &mut BTreeMap<&'a str, bool>,
) -> Vec<&'static str> {
    let is_same = *known
        .entry(&content.payload)
        .or_insert_with(|| json::parse(&content.payload).as_ref() == Some(value));
    let times = row.timestamp.zip(content.timestamp);
    let fields = [
        ("payload", !is_same),
        ("source", row.source != content.source),
        ("timestamp", times.is_some_and(|(stored, sent)| stored != sent)),
    ];
    fields.into_iter().filter_map(|(field, differs)| differs.then_some(field)).collect()
}
