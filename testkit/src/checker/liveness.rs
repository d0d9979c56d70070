//! Recovery after faults, and how long it took.

use super::{Findings, History, Moment, Rule};

/// Maximum time from the healing of all faults to the last response. A failed batch is retried
/// within two seconds, a connection within three, and a lock times out after five; producers
/// without a response retry after four seconds, and later after more. The rest is for slow
/// machines, on which the remaining events take time.
pub(super) const BOUND: Moment = Moment::from_secs(60);

pub(super) fn check(history: &History, findings: &mut Findings) {
    let wait = wait(history);
    if wait > BOUND {
        let what = format_args!("the last event was answered {wait:.1?} after all was healed");
        findings.add(Rule::Liveness, what);
    }
    for what in &history.settled.stuck {
        findings.add(Rule::Liveness, format_args!("{what}"));
    }
}

/// Time from the healing of all faults to the last response.
pub(super) fn wait(history: &History) -> Moment {
    let attempts = history.attempts.iter().filter(|attempt| attempt.outcome.is_judged());
    let last = attempts.map(|attempt| attempt.returned).max().unwrap_or_default();
    last.saturating_sub(history.settled.healed)
}
