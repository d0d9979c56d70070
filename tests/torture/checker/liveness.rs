//! Whether everything came back to life, and how soon.

use super::{Findings, History, Moment, Rule};

/// How long after everything was healed the last event may be answered. A batch that was in trouble
/// is tried again within two seconds, a connection within three, a lock is waited for five;
/// producers that lost an answer ask again after four, and longer if that did not help. The rest is
/// for machines on which what is left to send then takes its time.
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

/// How long after everything was healed the last event was answered.
pub(super) fn wait(history: &History) -> Moment {
    let attempts = history.attempts.iter().filter(|attempt| attempt.outcome.is_judged());
    let last = attempts.map(|attempt| attempt.returned).max().unwrap_or_default();
    last.saturating_sub(history.settled.healed)
}
