//! Counters: each event with a verdict counts once, and one without a response at most once. If all
//! outcomes are known, the bounds are equal and the counters must be exact.

use std::{collections::BTreeMap, sync::Arc};

use super::{
    Case, Findings, Rule,
    history::{Counts, History, Moment, Outcome, Sample},
};

pub(super) fn check(history: &History, cases: &[Case<'_>], findings: &mut Findings) {
    let mut before = Sample::default();
    let last = Sample { begin: Moment::MAX, end: Moment::MAX, ..history.last.clone() };
    for sample in history.samples.iter().chain([&last]) {
        check_sums(sample, findings);
        check_growth(&before, sample, findings);
        check_bounds(sample, cases, findings);
        before = sample.clone();
    }
    check_rows(&last, cases, findings);
}

fn each(sample: &Sample) -> impl Iterator<Item = (&str, Counts)> {
    let topics = sample.topics.iter().map(|(topic, counts)| (&**topic, *counts));
    topics.chain([("all topics", sample.total)])
}

/// One response is a snapshot of one instant.
fn check_sums(sample: &Sample, findings: &mut Findings) {
    for (topic, Counts { received, unique, duplicate, conflicts }) in each(sample) {
        if received != unique + duplicate || conflicts > duplicate {
            let text = format!("{topic:?}: {received} is not {unique} + {duplicate} ({conflicts})");
            findings.add(Rule::Counters, text);
        }
    }
    let sum = |field: fn(&Counts) -> i64| sample.topics.values().map(field).sum::<i64>();
    let sums = Counts {
        received: sum(|counts| counts.received),
        unique: sum(|counts| counts.unique),
        duplicate: sum(|counts| counts.duplicate),
        conflicts: sum(|counts| counts.conflicts),
    };
    if sums != sample.total {
        let total = sample.total;
        findings.add(Rule::Counters, format!("the topics make {sums:?}, the total is {total:?}"));
    }
}

fn check_growth(before: &Sample, sample: &Sample, findings: &mut Findings) {
    for (topic, Counts { received, unique, duplicate, conflicts }) in each(before) {
        let now = match topic {
            "all topics" => sample.total,
            _ => sample.topics.get(topic).copied().unwrap_or_default(),
        };
        let falls = now.received < received
            || now.unique < unique
            || now.duplicate < duplicate
            || now.conflicts < conflicts;
        if falls {
            findings.add(Rule::Counters, format!("{topic:?} fell to {now:?}"));
        }
    }
}

/// Lower and upper bound.
#[derive(Debug, Default)]
struct Bounds {
    received: (i64, i64),
    unique: (i64, i64),
    equal: (i64, i64),
    conflicts: (i64, i64),
}

fn widen(bound: &mut (i64, i64), surely: bool, maybe: bool) {
    bound.0 += i64::from(surely);
    bound.1 += i64::from(maybe);
}

/// The bounds of a topic's counters in a sample.
fn bounds<'a>(sample: &Sample, cases: &'a [Case<'_>]) -> BTreeMap<&'a Arc<str>, Bounds> {
    let mut all: BTreeMap<&Arc<str>, Bounds> = BTreeMap::new();
    for case in cases {
        let bounds = all.entry(&case.key.topic).or_default();
        // At the end all rows are counted, including those without a response.
        let mut is_stored = sample.begin == Moment::MAX && case.row.is_some();
        let mut may_be_stored = false;
        let mut accepted = false;
        let mut has_lost = false;
        for attempt in &case.attempts {
            let judged = attempt.outcome.first().is_some();
            let lost = attempt.outcome.is_lost();
            let surely = judged && attempt.end < sample.begin;
            let maybe = (judged || lost) && attempt.begin <= sample.end;
            widen(&mut bounds.received, surely, maybe);
            is_stored |= surely;
            may_be_stored |= maybe;
            let differs = case.differences.get(attempt.content).is_some_and(|it| !it.is_empty());
            match attempt.outcome {
                Outcome::Conflict { .. } => widen(&mut bounds.conflicts, surely, maybe),
                Outcome::Duplicate { .. } => widen(&mut bounds.equal, surely, maybe),
                Outcome::Lost(_) if differs => widen(&mut bounds.conflicts, false, maybe),
                Outcome::Lost(_) => widen(&mut bounds.equal, false, maybe),
                _ => (),
            }
            accepted |= matches!(attempt.outcome, Outcome::Accepted { .. });
            has_lost |= lost && maybe && !differs;
        }
        // An attempt without a response stored it: it was counted, and is not a duplicate.
        if is_stored && !accepted && has_lost {
            bounds.received.0 += 1;
        }
        if case.row.is_some() && !accepted && has_lost {
            bounds.equal.1 -= 1;
        }
        widen(&mut bounds.unique, is_stored, may_be_stored && case.row.is_some());
    }
    all
}

fn check_bounds(sample: &Sample, cases: &[Case<'_>], findings: &mut Findings) {
    let nothing = Counts::default();
    let bounds = bounds(sample, cases);
    for topic in sample.topics.keys().filter(|topic| !bounds.contains_key(*topic)) {
        findings.add(Rule::Counters, format!("nothing was sent to {topic:?}, which has counters"));
    }
    for (topic, bounds) in bounds {
        let counts = sample.topics.get(topic).unwrap_or(&nothing);
        let equal = counts.duplicate - counts.conflicts;
        let fields = [
            ("received", counts.received, bounds.received),
            ("unique", counts.unique, bounds.unique),
            ("equal repeats", equal, bounds.equal),
            ("conflicts", counts.conflicts, bounds.conflicts),
        ];
        for (field, count, (from, to)) in fields {
            if !(from..=to).contains(&count) {
                let at = match sample.begin {
                    Moment::MAX => "in the end".to_owned(),
                    begin => format!("at {begin} µs"),
                };
                let text = format!("{topic:?}: {count} {field} {at}, of {from} to {to}");
                findings.add(Rule::Counters, text);
            }
        }
    }
}

/// At the end, unique is the number of rows.
fn check_rows(last: &Sample, cases: &[Case<'_>], findings: &mut Findings) {
    let mut rows: BTreeMap<&Arc<str>, i64> = BTreeMap::new();
    for case in cases {
        *rows.entry(&case.key.topic).or_default() += case.row_count as i64;
    }
    for (topic, rows) in rows {
        let unique = last.topics.get(topic).map_or(0, |counts| counts.unique);
        if unique != rows {
            let text = format!("{topic:?}: {unique} unique, and {rows} rows");
            findings.add(Rule::Counters, text);
        }
    }
}
