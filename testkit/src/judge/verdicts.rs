//! The verdicts in responses are correct for the stored event.

use super::{Case, Findings, Rule, history::Outcome};

pub(super) fn check(case: &Case<'_>, findings: &mut Findings) {
    let Some(row) = case.row else { return };
    if case.differences.is_empty() {
        return;
    }
    for attempt in &case.attempts {
        let differing = &case.differences[attempt.content];
        let way = attempt.way;
        match &attempt.outcome {
            Outcome::Duplicate { .. } if !differing.is_empty() => {
                let text = format!("{way:?} was told DUPLICATE, and {differing:?} differ");
                findings.add(Rule::Verdict, case.violation(text));
            }
            Outcome::Conflict { fields, .. } => {
                let mut told: Vec<&str> = fields.iter().map(String::as_str).collect();
                told.sort_unstable();
                if told != *differing || told.is_empty() {
                    let text =
                        format!("{way:?} was told CONFLICT in {told:?}: it is {differing:?}");
                    findings.add(Rule::Verdict, case.violation(text));
                }
            }
            _ => (),
        }
        if let Some(first) = attempt.outcome.first()
            && first != row.received_at
        {
            let text = format!(
                "{way:?} was told first_received_at {first}, and the event was received at {}",
                row.received_at
            );
            findings.add(Rule::Verdict, case.violation(text));
        }
    }
}
