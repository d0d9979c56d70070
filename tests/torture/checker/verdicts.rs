//! What producers were told. Counters cannot show a wrong verdict that is counted as it was told, so
//! this is what catches an event that was sent once and called a duplicate.

use super::{
    Findings, Outcome, Rule,
    trails::{Trail, Trails},
};

pub(super) fn check(trails: &Trails<'_>, findings: &mut Findings) {
    for trail in trails.iter() {
        accepted_once(trail, findings);
        repetitions(trail, findings);
    }
}

fn accepted_once(trail: &Trail<'_>, findings: &mut Findings) {
    let (key, accepted) = (trail.key, trail.accepted().count());
    if accepted > 1 {
        findings.add(Rule::Verdict, format_args!("{key} was accepted {accepted} times"));
    }
}

/// A repetition repeats something.
fn repetitions(trail: &Trail<'_>, findings: &mut Findings) {
    let (key, first_sent) = (trail.key, trail.first_sent());
    for attempt in trail.judged().filter(|attempt| attempt.outcome != Outcome::Accepted) {
        // The attempt itself stored nothing, so whatever may have is another one.
        if first_sent.is_none_or(|sent| sent > attempt.returned) {
            let (outcome, returned) = (attempt.outcome, attempt.returned);
            let others = trail.attempts.len() - 1;
            let what = format_args!(
                "{key} was answered {outcome:?} at {returned:.3?}, and none of its {others} other \
                 attempts may have stored it before"
            );
            findings.add(Rule::Verdict, what);
        }
    }
}
