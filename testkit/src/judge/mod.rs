//! The judge of the second checker. Its rules are independent of the first checker and based only
//! on the contract and the documentation. It returns the violations in a [`History`].

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

/// A rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rule {
    /// A key is ACCEPTED at most once.
    Once,
    /// An acknowledged event is stored once, with the accepted content.
    Stored,
    /// Responses are linearizable: the first write wins.
    Order,
    /// DUPLICATE and CONFLICT are correct for the stored event.
    Verdict,
    /// Counters count each event once.
    Counters,
    /// Subscribers receive each event once, in commit order.
    Feed,
    /// Reads return the stored content.
    Reading,
    /// No other errors: responses that violate the contract, differences of `verify`, exited
    /// processes.
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

/// A violation of a rule.
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

/// Finds all violations in a history.
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

/// The history of one key.
struct Case<'a> {
    key: &'a Key,
    attempts: Vec<&'a Attempt>,
    sights: Vec<&'a Sight>,
    /// The stored event, if there is exactly one.
    row: Option<&'a Row>,
    row_count: usize,
    /// The differences of each content of the key from the stored event.
    differences: Vec<Vec<&'static str>>,
}

impl Case<'_> {
    fn violation(&self, text: impl fmt::Display) -> String {
        // Some ids have the maximum length.
        let id: String = self.key.event_id.chars().take(12).collect();
        format!("{:?}/{id:?}: {text}", self.key.topic)
    }

    fn content(&self, attempt: &Attempt) -> &Content {
        &self.key.contents[attempt.content]
    }

    /// Attempts that may have stored the event: the accepted ones, or else those without a
    /// response.
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

/// Groups a history by key.
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

/// The fields of a content that differ from the stored event: payloads by value, and timestamps
/// only if both have one.
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
