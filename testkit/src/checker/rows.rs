//! The stored rows at the end: no acknowledged event is missing, every row was sent, and keys and
//! sequence numbers are unique.

use std::collections::BTreeMap;

use super::{
    Findings, History, Outcome, Rule,
    trails::{Trail, Trails},
};

pub(super) fn check(history: &History, trails: &Trails<'_>, findings: &mut Findings) {
    for trail in trails.iter() {
        lost_write(trail, findings);
        phantom(trail, findings);
        if trail.rows.len() > 1 {
            let times = trail.rows.len();
            findings.add(Rule::Duplicate, format_args!("{} is stored {times} times", trail.key));
        }
    }
    numbers(history, findings);
}

fn lost_write(trail: &Trail<'_>, findings: &mut Findings) {
    let key = trail.key;
    let Some(row) = trail.rows.first() else {
        if let Some(attempt) = trail.judged().next() {
            let (outcome, returned) = (attempt.outcome, attempt.returned);
            let what =
                format_args!("{key} was answered {outcome:?} at {returned:.3?} and is not stored");
            findings.add(Rule::LostWrite, what);
        }
        return;
    };
    if trail.may_be_seen() && !trail.may_hold(row.content) {
        let what = format_args!("{key} is stored with content that no attempt may have stored");
        findings.add(Rule::LostWrite, what);
        return;
    }
    let mut accepted = trail.accepted();
    if let (Some(only), None) = (accepted.next(), accepted.next())
        && only.content != row.content
    {
        let what = format_args!("{key} is stored with other content than was accepted");
        findings.add(Rule::LostWrite, what);
    }
    for attempt in trail.judged() {
        let is_same = attempt.content == row.content;
        let is_wrong = match attempt.outcome {
            Outcome::Duplicate => !is_same,
            Outcome::Conflict => is_same,
            _ => false,
        };
        if is_wrong {
            let (outcome, returned) = (attempt.outcome, attempt.returned);
            let content = if is_same { "the same content" } else { "other content" };
            let what = format_args!(
                "{key} was answered {outcome:?} at {returned:.3?}, and is stored with {content}"
            );
            findings.add(Rule::LostWrite, what);
        }
    }
}

fn phantom(trail: &Trail<'_>, findings: &mut Findings) {
    if !trail.rows.is_empty() && !trail.may_be_seen() {
        let (key, attempts) = (trail.key, trail.attempts.len());
        let what = format_args!("{key} is stored, and all of its {attempts} attempts have failed");
        findings.add(Rule::Phantom, what);
    }
}

/// Each lane has the sequence numbers from 1 to its head, each once.
fn numbers(history: &History, findings: &mut Findings) {
    let settled = &history.settled;
    let mut lanes: BTreeMap<i16, Vec<i64>> =
        settled.heads.keys().map(|&lane| (lane, Vec::new())).collect();
    for row in &settled.rows {
        lanes.entry(row.lane).or_default().push(row.seq);
    }
    for (lane, mut seqs) in lanes {
        let head = settled.heads.get(&lane).copied().unwrap_or(0);
        seqs.sort_unstable();
        let mut last = 0;
        for seq in seqs {
            if seq == last {
                findings.add(Rule::Duplicate, format_args!("lane {lane} has number {seq} twice"));
            } else if seq > last + 1 {
                let (first, end) = (last + 1, seq - 1);
                let what = format_args!("lane {lane} has no numbers from {first} to {end}");
                findings.add(Rule::Duplicate, what);
            }
            last = seq;
        }
        if last != head {
            let what = format_args!("lane {lane} ends with number {last}, and its head is {head}");
            findings.add(Rule::Duplicate, what);
        }
    }
}
