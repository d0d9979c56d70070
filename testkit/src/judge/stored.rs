//! A key is accepted at most once, and the accepted content is stored byte for byte.

use super::{
    Case, Findings, Rule,
    history::{Attempt, Outcome, Row},
};

pub(super) fn check(case: &Case<'_>, findings: &mut Findings) {
    let accepted = |attempt: &&&Attempt| matches!(attempt.outcome, Outcome::Accepted { .. });
    let accepted = case.attempts.iter().filter(accepted).count();
    if accepted > 1 {
        findings.add(Rule::Once, case.violation(format!("accepted {accepted} times")));
    }
    for attempt in &case.attempts {
        if let Outcome::Wrong(answer) = &attempt.outcome {
            let (way, service) = (attempt.way, attempt.service);
            let text = format!("{way:?} to service {service} was answered {answer}");
            findings.add(Rule::Answer, case.violation(text));
        }
    }
    let is_answered = case.attempts.iter().any(|attempt| attempt.outcome.first().is_some());
    match (case.row_count, case.row) {
        (0, _) if is_answered => {
            findings.add(Rule::Stored, case.violation("answered, and nothing is stored"));
        }
        (0, _) => (),
        (1, Some(row)) => check_row(case, row, findings),
        (count, _) => findings.add(Rule::Stored, case.violation(format!("stored {count} times"))),
    }
}

fn check_row(case: &Case<'_>, row: &Row, findings: &mut Findings) {
    let firsts = case.firsts();
    if firsts.is_empty() {
        let text = "stored, and no attempt was accepted or left without an answer";
        return findings.add(Rule::Stored, case.violation(text));
    }
    if !firsts.iter().any(|attempt| is_stored(case, attempt, row)) {
        let count = firsts.len();
        let text = format!("stored is not what any of {count} possible first attempts sent");
        findings.add(Rule::Stored, case.violation(text));
    }
}

/// Whether the row has the content of this attempt.
pub(super) fn is_stored(case: &Case<'_>, attempt: &Attempt, row: &Row) -> bool {
    let content = case.content(attempt);
    let same_payload = match content.is_struct {
        true => case.differences.get(attempt.content).is_some_and(|it| !it.contains(&"payload")),
        false => row.payload == content.payload,
    };
    same_payload && row.source == content.source && row.timestamp == content.timestamp
}
