//! The verdicts that producers got. Counters do not show a wrong verdict that is counted
//! consistently, so this rule detects an event that was sent once and reported as a duplicate.

use super::{
    Findings, Outcome, Rule,
    trails::{Trail, Trails},
};

pub(super) fn check(trails: &Trails<'_>, findings: &mut Findings) {
    for trail in trails.iter() {
        accepted_once(trail, findings);
        accepted_first(trail, findings);
        repetitions(trail, findings);
    }
}

fn accepted_once(trail: &Trail<'_>, findings: &mut Findings) {
    let (key, accepted) = (trail.key, trail.accepted().count());
    if accepted > 1 {
        findings.add(Rule::Verdict, format_args!("{key} was accepted {accepted} times"));
    }
}

/// No event is accepted that was known to be stored before it was sent.
fn accepted_first(trail: &Trail<'_>, findings: &mut Findings) {
    let (key, known) = (trail.key, trail.first_known());
    for attempt in trail.accepted() {
        if let Some(known) = known.filter(|known| *known < attempt.invoked) {
            let invoked = attempt.invoked;
            let what = format_args!(
                "{key} was accepted when it was sent at {invoked:.3?}, and was known to be stored \
                 at {known:.3?}"
            );
            findings.add(Rule::Verdict, what);
        }
    }
}

/// A duplicate needs a stored event that another attempt sent.
fn repetitions(trail: &Trail<'_>, findings: &mut Findings) {
    let (key, stored) = (trail.key, trail.rows.first().map(|row| row.content));
    // The attempt itself stored nothing, so the event must be of another attempt. That nothing is
    // stored is left to the rule of lost writes.
    let originals = trail.originals().filter(|other| stored.is_none_or(|row| row == other.content));
    let first_sent = originals.map(|original| original.invoked).min();
    for attempt in trail.judged().filter(|attempt| attempt.outcome != Outcome::Accepted) {
        if first_sent.is_none_or(|sent| sent > attempt.returned) {
            let (outcome, returned) = (attempt.outcome, attempt.returned);
            let others = trail.attempts.len() - 1;
            let what = format_args!(
                "{key} was answered {outcome:?} at {returned:.3?}, and none of its {others} other \
                 attempts may have stored before what is stored"
            );
            findings.add(Rule::Verdict, what);
        }
    }
}
